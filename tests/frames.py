"""Frames to hold filters against: every protocol that the language names, and every way to break them.

`FRAMES` has valid frames by kind, in the notation of policies' tests;
`frame_bytes` gives their bytes, `broken` a hypothesis strategy that cuts, flips
and extends them.  Addresses, ports and labels come from small pools that
`expressions.py` draws from too, so that tests match often enough to mean something.
"""

from __future__ import annotations

from functools import cache

from hypothesis import strategies as st

from penstock.model.packet import build_packet, parse_packet

MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:05")
IPV4 = ("10.0.0.1", "10.0.0.2", "10.1.255.255", "192.0.2.1", "192.168.1.5", "224.0.0.5", "255.255.255.255")
IPV6 = ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::7", "fe80::1", "ff02::1")
PORTS = (0, 22, 53, 80, 443, 1024, 8080, 65535)
VLANS = (0, 5, 6, 100)
LABELS = (16, 100, 1024)
SESSIONS = (0, 1, 7)
VNIS = (1, 5)

FRAMES: dict[str, tuple[str, ...]] = {
    "ipv4": (
        'IPv4(src="10.0.0.1", dst="10.0.0.2")/TCP(sport=1024, dport=22, flags="S")',
        'IPv4(src="10.0.0.2", dst="192.0.2.1")/TCP(sport=80, dport=1024, flags="SA")/Raw("hello")',
        'IPv4(src="192.168.1.5", dst="10.0.0.1", ttl=1)/TCP(sport=443, dport=443, flags="RA")/PadTo(60)',
        'IPv4(src="10.0.0.1", dst="10.0.0.1", dscp=46)/UDP(sport=53, dport=53)/Raw("abcdefgh")',
        'IPv4(src="10.1.255.255", dst="255.255.255.255", proto=17)/UDP(sport=1024, dport=53)',
        'IPv4(src="192.0.2.1", dst="224.0.0.5", ttl=3)/UDP(sport=8080, dport=65535)',
        'Ether(dst="ff:ff:ff:ff:ff:ff")/IPv4(src="10.0.0.1", dst="10.1.255.255")/UDP(dport=80)',
        'Ether(dst="01:00:5e:00:00:05")/IPv4(dst="224.0.0.5", proto=89)/Raw(len=24)',
        'IPv4(src="10.0.0.2", dst="10.0.0.1")/SCTP(sport=80, dport=443)/Raw(len=16)',
        'IPv4(src="10.0.0.1")/ICMP(type=8)/Raw(len=8)',
        'IPv4(src="10.0.0.1")/ICMP(type=3, code=1)/Raw(len=28)',
        'IPv4(dst="224.0.0.5")/IGMP()',
        'IPv4()/GRE()/IPv4(src="10.0.0.1")/UDP(dport=53)',
        'IPv4()/IPv4(src="10.0.0.1")/TCP(dport=80)',
        "IPv4()/ESP()/Raw(len=20)",
        "IPv4()/AH()/TCP(dport=80)",
        "IPv4()/AH()/AH(icv=20)/UDP(dport=53)",
        "IPv4(proto=103)/Raw(len=8)",
        "IPv4(proto=112)/Raw(len=8)",
        "IPv4(proto=9)/Raw(len=8)",
        "IPv4(proto=0)/Raw(len=8)",
        "IPv4(proto=255)/Raw(len=8)",
    ),
    "ipv4 options": (
        'IPv4(src="10.0.0.1", options=4)/TCP(sport=1024, dport=22, flags="S")',
        'IPv4(src="10.0.0.1", options=40)/UDP(sport=53, dport=53)/Raw("x")',
        'IPv4(options=12, dst="10.0.0.2")/SCTP(dport=443)',
        "IPv4(options=8)/ICMP(type=0)",
    ),
    "ipv4 fragments": (
        'IPv4(src="10.0.0.1", flags="MF")/UDP(dport=53)/Raw(len=64)',
        'IPv4(src="10.0.0.1", frag=8, proto=17)/Raw(hex="0035003500100000 0035003500100000")',
        'IPv4(flags="MF", frag=185, proto=6)/Raw(hex="04000016 00000000 00000000 50020000 00000000")',
        'IPv4(flags="DF")/TCP(dport=80)',
        "IPv4(frag=8191, proto=1)/Raw(len=8)",
        "IPv4(frag=1, options=8, proto=17)/Raw(hex=\"0035003500100000\")",
    ),
    "ipv6": (
        'IPv6(src="2001:db8::1", dst="2001:db8::2")/TCP(sport=1024, dport=22, flags="S")',
        'IPv6(src="2001:db8::2", dst="fe80::1", hlim=1)/TCP(sport=80, dport=1024, flags="SA")/Raw("hello")',
        'IPv6(src="2001:db8:0:1::7", dst="2001:db8::1")/UDP(sport=53, dport=53)/Raw("abcdefgh")',
        'IPv6(src="fe80::1", dst="ff02::1")/UDP(sport=8080, dport=65535)',
        'IPv6(src="2001:db8::1", dst="2001:db8::2", fl=5)/SCTP(sport=80, dport=443)/Raw(len=16)',
        'IPv6(dst="ff02::1", hlim=255)/ICMPv6(type=135)',
        "IPv6()/ICMPv6(type=128)/Raw(len=8)",
        "IPv6()/ESP()/Raw(len=20)",
        "IPv6(nh=59)",
        "IPv6(nh=103)/Raw(len=8)",
        "IPv6(nh=1)/Raw(len=8)",
        'IPv6()/IPv6()/UDP(dport=53)',
        "IPv6()/GRE()/IPv4()/UDP(dport=53)",
    ),
    "ipv6 extensions": (
        'IPv6(src="2001:db8::1")/HopByHop()/TCP(dport=22, flags="S")',
        "IPv6()/HopByHop()/Routing()/DestOpt()/UDP(dport=53)",
        "IPv6()/Fragment(offset=0, m=1)/UDP(dport=53)/Raw(len=32)",
        "IPv6()/Fragment(offset=0, m=0)/TCP(dport=80)",
        "IPv6()/Fragment(offset=185, m=0, nh=17)/Raw(hex=\"0035003500100000\")",
        "IPv6()/Fragment(offset=1, m=1, nh=60)/Raw(len=16)",
        "IPv6()/Fragment(offset=0, m=1, reserved=255)/UDP(dport=53)/Raw(len=32)",
        "IPv6()/AH()/TCP(dport=80)",
        "IPv6()/AH(icv=20)/ICMPv6(type=128)",
        "IPv6()/Mobility()/Raw(len=8)",
        "IPv6()/DestOpt(options=30)/SCTP(dport=443)",
        "IPv6()" + "/DestOpt()" * 8 + "/UDP(dport=53)",
        "IPv6()" + "/DestOpt()" * 9 + "/UDP(dport=53)",
    ),
    "link": (
        'ARP(op=1, psrc="10.0.0.1", pdst="10.0.0.2")/PadTo(60)',
        'Ether(dst="ff:ff:ff:ff:ff:ff")/ARP(op=1, psrc="192.168.1.5", pdst="192.0.2.1")',
        'RARP(psrc="10.0.0.2", pdst="10.0.0.1")/PadTo(60)',
        'LLC(dsap=0x42, ssap=0x42)/Raw(len=35)/PadTo(60)',
        "LLC(dsap=0xe0, ssap=0xe0)/Raw(len=30)",
        "LLC(dsap=0xff, ssap=0xff)/Raw(len=30)",
        "LLC(dsap=0xf0, ssap=0xf0, ctrl=0x7f)/Raw(len=10)",
        "LLC(dsap=0xf0, ssap=0xf0, ctrl=0x0001)/Raw(len=10)",
        "LLC(dsap=0x04, ssap=0x04, ctrl=0x0000)/Raw(len=10)",
        'LLC(dsap=0xfe, ssap=0xfe)/Raw(hex="831b0100120100000000")',
        'LLC(dsap=0xfe, ssap=0xfe)/Raw(hex="831b01000f0100000000")',
        'LLC(dsap=0xfe, ssap=0xfe)/Raw(hex="831b01001b0100000000")',
        'LLC(dsap=0xfe, ssap=0xfe)/Raw(hex="82150100")',
        'LLC(dsap=0xfe, ssap=0xfe)/Raw(hex="81150100")',
        "LLC(dsap=0x06, ssap=0x06)/Raw(len=20)",
        "SNAP(oui=0, code=0x8137)/Raw(len=30)",
        "SNAP(oui=0x080007, code=0x809b)/Raw(len=30)",
        "SNAP(oui=0, code=0x80f3)/Raw(len=30)",
        "SNAP(oui=0, code=0x0800)/Raw(len=30)",
        "Ether(type=0x809b)/Raw(len=20)",
        "Ether(type=0x80f3)/Raw(len=28)",
        "Ether(type=0x8137)/Raw(len=30)",
        'Ether(type=0x6003)/Raw(hex="0e00 0281 0204 0108 00000000")',
        'Ether(type=0x6003)/Raw(hex="0e00 02 0204 0108 0000000000")',
        'Ether(type=0x6003)/Raw(hex="2000 8106 0000aa000400 0204 0000 aa000400 0108 00000000")',
        "Ether(type=0x6001)/Raw(len=20)",
        "Ether(type=0x6002)/Raw(len=20)",
        "Ether(type=0x6004)/Raw(len=20)",
        "Ether(type=0x6007)/Raw(len=20)",
        "Ether(type=0x9000)/Raw(len=46)",
        "Ether(type=0x88cc)/Raw(len=46)",
        "Ether(type=1500)/Raw(len=46)",
        "Ether(type=1501)/Raw(len=46)",
        "PPPoED(code=9)/Raw(len=8)",
    ),
    "one tag": (
        'Dot1Q(vlan=5, prio=3)/IPv4(src="10.0.0.1")/TCP(dport=22, flags="S")',
        'Dot1Q(vlan=100)/IPv6(src="2001:db8::1")/UDP(dport=53)',
        'Dot1AD(vlan=6)/ARP(psrc="10.0.0.1")',
        "Dot1Q(vlan=0, dei=1)/LLC(dsap=0x42, ssap=0x42)/Raw(len=30)",
        'Ether(type=0x9100)/Raw(hex="00050806 0001080006040001")',
        'Dot1Q(vlan=5)/MPLS(label=16)/IPv4(src="10.0.0.1")/UDP(dport=53)',
        'Dot1Q(vlan=6)/PPPoES(sessionid=7)/IPv4(src="10.0.0.1")/UDP(dport=53)',
    ),
    "two tags": (
        'Dot1AD(vlan=5)/Dot1Q(vlan=6)/IPv4(src="10.0.0.1", options=8)/UDP(dport=53)',
        'Dot1Q(vlan=100)/Dot1Q(vlan=5)/IPv6(dst="2001:db8::2")/TCP(dport=443)',
        "Dot1AD(vlan=6)/Dot1Q(vlan=0)/RARP()",
    ),
    "three tags": ('Dot1AD(vlan=5)/Dot1Q(vlan=6)/Dot1Q(vlan=100)/IPv4(src="10.0.0.1")/UDP(dport=53)',),
    "mpls": (
        'MPLS(label=16)/IPv4(src="10.0.0.1")/TCP(dport=22)',
        'MPLS(label=100)/IPv6(src="2001:db8::1")/UDP(dport=53)',
        'MPLS(label=100)/MPLS(label=16)/IPv4(src="10.0.0.2", options=8)/UDP(dport=80)',
        "MPLS(label=1024)/MPLS(label=100)/MPLS(label=16)/IPv6()/TCP(dport=443)",
        "MPLS(label=16)/Raw(len=30)",
        "MPLS(label=16, s=0)/Raw(hex=\"450000\")",
    ),
    "pppoe": (
        'PPPoES(sessionid=1)/IPv4(src="10.0.0.1")/TCP(dport=22)',
        'PPPoES(sessionid=7)/IPv6(src="2001:db8::1")/UDP(dport=53)',
        "PPPoES(sessionid=1)/PPP(proto=0xc021)/Raw(len=10)",
        "PPPoES(sessionid=0)/PPP(proto=0x0027)/Raw(hex=\"0e00 02 0204 0108 0000000000\")",
        "PPPoES(sessionid=0)/PPP(proto=0x0023)/Raw(hex=\"831b0100120100000000\")",
        "PPPoES(sessionid=1)/PPP(proto=0x0281)/MPLS(label=16)/IPv4()/UDP(dport=53)",
        "PPPoES(sessionid=1)/PPP(proto=0x0031)/Raw(len=10)",
        "PPPoES(sessionid=1)/PPP(proto=0x002b)/Raw(len=10)",
    ),
    "geneve": (
        'IPv4(src="192.0.2.1")/UDP(dport=6081)/Geneve(vni=5)/Ether(src="02:00:00:00:00:02")/IPv4(src="10.0.0.1")/TCP(dport=22)',
        'IPv4(options=8)/UDP(dport=6081)/Geneve(vni=1, options=8)/Ether()/IPv6(src="2001:db8::1")/UDP(dport=53)',
        'IPv6()/UDP(dport=6081)/Geneve(vni=5, options=4)/IPv4(src="10.0.0.1")/UDP(dport=53)',
        "IPv4()/UDP(dport=6081)/Geneve(vni=1)/IPv6()/TCP(dport=443)",
        "IPv4()/UDP(dport=6081)/Geneve(vni=1)/Ether()/Dot1Q(vlan=5)/IPv4()/UDP(dport=53)",
        "IPv4()/UDP(dport=6081)/Geneve(vni=1)/Ether()/ARP()",
        "IPv4()/UDP(dport=6081)/Geneve(vni=1, version=1)/Ether()/IPv4()/UDP()",
        "IPv4()/UDP(dport=4789)/VXLAN(vni=5)/Ether()/IPv4()/UDP()",
    ),
    "odd": (
        "Ether(type=0x0800)",
        "Ether(type=0x86dd)",
        "Ether(type=0x8100)",
        "Truncate(0)",
        "Truncate(5)",
        "Truncate(12)",
        "Truncate(13)",
        "IPv4(ihl=4)/UDP(dport=53)",
        "IPv4(ihl=0)/UDP(dport=53)",
        "IPv4(ihl=15)/UDP(dport=53)",
        "IPv4(version=6)/UDP(dport=53)",
        "IPv6(version=4)/UDP(dport=53)",
        "IPv4(len=10)/UDP(dport=53)",
        "IPv4(len=2000)/UDP(dport=53)",
        "IPv4()/UDP(dport=53, len=3)",
        "IPv4()/TCP(dport=80, dataofs=3)",
        "IPv4(proto=17)/Raw(hex=\"00\")",
        "IPv4(proto=17)/Raw(hex=\"000000\")",
        'Raw(hex="00")',
        "Ether()/Raw(len=1400)",
    ),
}  # fmt: skip
ALL = tuple(text for texts in FRAMES.values() for text in texts)


@cache
def frame_bytes(text: str) -> bytes:
    """The frame of a packet in policies' notation."""
    return build_packet(parse_packet(text))


def frames(*kinds: str) -> list[bytes]:
    """The valid frames of these kinds, or all of them."""
    return [frame_bytes(text) for kind in kinds or FRAMES for text in FRAMES[kind]]


def truncations(frame: bytes) -> list[bytes]:
    """The frame cut at every byte."""
    return [frame[:end] for end in range(len(frame) + 1)]


@st.composite
def broken(draw: st.DrawFn, *kinds: str) -> bytes:
    """A frame that is cut, flipped, lengthened, or noise behind an Ethernet header."""
    frame = draw(st.sampled_from(frames(*kinds)))
    match draw(st.sampled_from(("cut", "cut", "flip", "noise", "extend"))):
        case "cut":
            return frame[: draw(st.integers(0, max(len(frame) - 1, 0)))]
        case "flip":
            return _flipped(frame, draw(st.lists(st.integers(0, 8 * 80), min_size=1, max_size=3)))
        case "noise":
            return frame[:14] + draw(st.binary(max_size=60))
        case _:
            return frame + draw(st.binary(max_size=8))


def _flipped(frame: bytes, bits: list[int]) -> bytes:
    changed = bytearray(frame)
    for bit in bits:
        if bit // 8 < len(changed):
            changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
