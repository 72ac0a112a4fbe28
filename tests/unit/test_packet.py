"""Packets in the notation become the bytes that outsiders read as valid packets."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from pathlib import Path

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import packets
from tests.packets import TCP, UDP, VXLAN, Ether, IPv4, PadTo, Raw, Truncate

from penstock.errors import PacketNotationError
from penstock.model.layers.checksum import crc32c, internet_checksum
from penstock.model.layers.table import LAYERS
from penstock.model.packet import (
    LayerSpec,
    build_packet,
    format_packet,
    parse_hex,
    parse_packet,
    parse_packet_at,
    read_packet,
)
from penstock.observe.pcap import frames_of, write_pcap

# What the table's layers make when they are put together; every one is valid.
VALID = """
IPv4(src="198.51.100.7")/UDP(dport=53555)/Raw("hello")
Ether/IPv4(options=8)/TCP(flags="SA", options=4)/Raw("odd")
IPv6/TCP(seq=1)/Raw("odd")
IPv6/UDP/Raw(len=3)
IPv4/ICMP(type=echo-request, id=7, seq=9)/Raw("pingpingping")
IPv6/ICMPv6(type=echo-request)/Raw("pingpingping")
IPv6(dst="ff02::1:ff00:2", hlim=255)/ICMPv6(type=neighbor-solicitation, target="2001:db8::2")
IPv4(ttl=1, dst=224.0.0.1)/IGMP(type=query)
IPv4/SCTP/Raw(hex="0e000004")
IPv6/HopByHop/DestOpt(options=12)/UDP/Raw("x")
IPv6/Routing/TCP(seq=2)
IPv6/Fragment(m=0, offset=0)/UDP/Raw("x")
IPv6/AH/TCP(seq=3)
IPv6/Mobility
Dot1Q(vlan=5, prio=3)/IPv4/UDP
Dot1AD(id=7)/Dot1Q(id=8)/IPv6/UDP
ARP(op=request, pdst=10.0.0.1)
RARP
SNAP/IPv4/UDP
MPLS(label=100)/MPLS(label=200)/IPv4/UDP
PPPoED/Raw(hex="01010000")
PPPoES(sessionid=17)/IPv6/TCP(seq=4)
IPv4/GRE(key=7, seq=3)/IPv6/TCP(seq=5)
IPv4/GRE/Ether/IPv4/UDP
IPv4/IPv6/ICMPv6
IPv4/ESP(spi=0x1234)/Raw(len=32)
IPv4/UDP/VXLAN(vni=42)/IPv4/TCP(seq=6)
IPv4/UDP/Geneve(vni=42, options=132)/IPv4/UDP
IPv4/UDP/GTPU(teid=5, seq=9)/IPv4/UDP
IPv4(flags=DF, dscp=46)/UDP/PadTo(60)
""".strip().splitlines()

PROTOCOLS = {
    "Ether/Dot1Q/IPv4/UDP": "eth:ethertype:vlan:ethertype:ip:udp",
    "Dot1AD/Dot1Q/IPv6/ICMPv6": "eth:ethertype:ieee8021ad:ethertype:vlan:ethertype:ipv6:icmpv6",
    "SNAP/IPv4/UDP": "eth:llc:ip:udp",
    "MPLS/MPLS/IPv6/UDP": "eth:ethertype:mpls:ipv6:udp",
    "PPPoES/IPv4/UDP": "eth:ethertype:pppoes:ppp:ip:udp",
    "IPv6/HopByHop/Routing/DestOpt/Fragment/AH/UDP": "eth:ethertype:ipv6:ipv6.hopopts:ipv6.routing:"
    "ipv6.dstopts:ipv6.fraghdr:ah:udp",
    "IPv4/GRE/Ether/ARP": "eth:ethertype:ip:gre:eth:ethertype:arp",
    "IPv4/UDP/VXLAN/IPv4/UDP": "eth:ethertype:ip:udp:vxlan:eth:ethertype:ip:udp",
    "IPv6/UDP/Geneve/Ether/IPv4/UDP": "eth:ethertype:ipv6:udp:geneve:eth:ethertype:ip:udp",
    "IPv4/UDP/GTPU/IPv4/UDP": "eth:ethertype:ip:udp:gtp:ip:udp",
    "IPv4/SCTP": "eth:ethertype:ip:sctp",
    "IPv4/IGMP": "eth:ethertype:ip:igmp:igmp",
}

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


# ── bytes ────────────────────────────────────────────────────────────────────


def test_a_datagram_byte_by_byte() -> None:
    frame = read_packet(
        'IPv4(src="198.51.100.7", dst="192.0.2.53", id=0)/UDP(sport=1024, dport=53)/Raw("hi")'
    )
    assert frame.hex(" ", 2) == (
        "0200 0000 0002 0200 0000 0001 0800 "
        "4500 001e 0000 0000 4011 8e5f c633 6407 c000 0235 "
        "0400 0035 000a a6cb 6869"
    )


@pytest.mark.parametrize(
    ("text", "at", "expected"),
    [
        ("IPv4(ihl=3)", 14, "43"),
        ("IPv4(version=7)", 14, "75"),
        ("IPv4(len=5)", 16, "0005"),
        ("IPv4(flags=MF, frag=185)", 20, "20b9"),
        ('IPv4(flags="DF+MF")', 20, "6000"),
        ("IPv4(dscp=46, ecn=1)", 15, "b9"),
        ("IPv4(proto=200)/UDP", 23, "c8"),
        ("IPv4(chksum=0xbeef)", 24, "beef"),
        ("IPv4/Raw", 23, "fd"),
        ("IPv6(tc=0xff, fl=0x12345)", 14, "6ff12345"),
        ("IPv6", 20, "3b"),
        ("IPv6/Fragment(offset=185, m=1, id=7, reserved=255)/UDP", 54, "11ff05c900000007"),
        ("IPv6/HopByHop/UDP", 54, "1100010400000000"),
        ("IPv6/HopByHop(options=22)/UDP", 54, "1102"),
        ("IPv6/DestOpt(len=255)/UDP", 54, "11ff"),
        ("IPv6/AH/UDP", 54, "1104"),
        ("IPv4/TCP(flags=SA)", 46, "5012"),
        ("IPv4/TCP(flags=FSRPAUECN)", 46, "51ff"),
        ("IPv4/TCP(dataofs=15, flags=0)", 46, "f000"),
        ("IPv4/TCP(options=5)", 46, "7002"),
        ("IPv4/UDP(len=3)", 38, "0003"),
        ("IPv4/ICMP(type=time-exceeded, code=1)", 34, "0b01"),
        ("Dot1Q(id=100, pcp=5, dei=1)/ARP", 12, "8100b0640806"),
        ("Dot1AD(vlan=1)/Dot1Q/IPv6", 12, "88a8000181000001 86dd"),
        ("Ether(type=0x9100)/Dot1Q/IPv4", 12, "910000010800"),
        ("LLC(dsap=0x42, ssap=0x43)/Raw(len=4)", 12, "0007 42430300000000"),
        ("LLC(dsap=0xf0, ssap=0xf1, ctrl=0x7f01)", 14, "f0f1017f"),
        ("SNAP/IPv4", 14, "aaaa03 000000 0800"),
        ("MPLS(label=5, tc=3, ttl=9)/MPLS(label=6)/IPv4", 14, "00005609 00006140"),
        ("PPPoES(sessionid=17)/IPv4", 12, "8864 1100 0011 0016 0021"),
        ("PPPoED(code=0x65)", 12, "8863 1165 0000 0000"),
        ("IPv4/GRE(key=7)/Ether", 34, "2000 6558 00000007"),
        ("IPv4/UDP/VXLAN(vni=0x010203)/IPv4", 42, "08000000 01020300"),
        ("IPv4/UDP/Geneve(vni=5, options=8)/IPv6", 42, "0200 86dd 00000500 ffff0101"),
        ("IPv4/UDP/GTPU(teid=5)/IPv4", 42, "30ff 0014 00000005"),
        ("ARP(op=reply, psrc=10.0.0.1)", 20, "0002 020000000001 0a000001 000000000000 c0000202"),
        ("IPv4/ESP(spi=1, seq=2)", 34, "00000001 00000002"),
    ],
)
def test_fields_stand_where_they_belong(text: str, at: int, expected: str) -> None:
    wanted = bytes.fromhex(expected)
    assert read_packet(text)[at : at + len(wanted)].hex() == wanted.hex()


def test_tunnels_go_to_their_own_ports() -> None:
    ports = [
        struct.unpack_from("!H", read_packet(f"IPv4/UDP/{name}/IPv4"), 36)[0]
        for name in ("VXLAN", "Geneve", "GTPU")
    ]
    assert ports == [4789, 6081, 2152]


def test_an_ethernet_header_is_put_in_front_only_when_it_is_missing() -> None:
    assert read_packet("IPv4/UDP") == read_packet("Ether/IPv4/UDP")
    assert read_packet("IPv4/UDP/VXLAN/IPv4") == read_packet("IPv4/UDP/VXLAN/Ether/IPv4")
    assert read_packet("IPv4/UDP/VXLAN/Raw") == read_packet("IPv4/UDP/VXLAN")


def test_the_frame_is_cut_and_padded_whole() -> None:
    frame = read_packet("IPv4/UDP")
    assert read_packet("IPv4/UDP/PadTo(60)") == frame + bytes(60 - len(frame))
    assert [read_packet(f"IPv4/UDP/Truncate({n})") for n in range(50)] == [frame[:n] for n in range(50)]
    assert len(read_packet("IPv4/UDP/PadTo/Truncate(50)")) == 50


def test_payloads() -> None:
    assert read_packet('IPv4/Raw("é\\n\\\\")').endswith("é\n\\".encode())
    assert read_packet("IPv4/Payload('it\\'s \"')").endswith(b"it's \"")
    assert read_packet('IPv4/Raw(hex="de:ad be ef")').endswith(b"\xde\xad\xbe\xef")
    assert read_packet('IPv4/Raw("ab", len=4)').endswith(b"ab\0\0")
    assert len(read_packet("IPv4/Raw(len=100)")) == 134


# ── checksums ────────────────────────────────────────────────────────────────


def test_checksums_of_the_standards() -> None:
    # RFC 1071 section 3's example, and RFC 3720 appendix B.4's.
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert (internet_checksum(bytes(20)), internet_checksum(b"\xff\xff")) == (0xFFFF, 0)


@given(st.binary(max_size=200))
def test_the_internet_checksum_is_the_sum_of_its_words(data: bytes) -> None:
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    assert internet_checksum(data) == 0xFFFF - total


@given(
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFFFF),
    st.binary(max_size=64),
    st.sampled_from(["TCP", "UDP"]),
)
def test_dpkt_computes_the_same_checksums(address: int, port: int, payload: bytes, name: str) -> None:
    layers = [
        LayerSpec("IPv4", (("src", address),)),
        LayerSpec(name, (("dport", port),)),
        LayerSpec("Raw", (("data", payload),)),
    ]
    frame = build_packet(layers)
    theirs = dpkt.ethernet.Ethernet(frame)
    theirs.ip.sum = theirs.ip.data.sum = 0
    assert bytes(theirs) == frame


def test_a_udp_checksum_of_zero_is_sent_as_ones() -> None:
    (without,) = struct.unpack_from("!H", read_packet('IPv4/UDP/Raw(hex="0000")'), 40)
    frame = read_packet(f'IPv4/UDP/Raw(hex="{without:04x}")')
    assert frame[40:42] == b"\xff\xff"


def test_the_mobility_header_has_its_own_checksum() -> None:
    frame = read_packet("IPv6/Mobility")
    header = frame[54:62]
    # RFC 6275 section 6.1.1: the pseudo-header has protocol 135.
    covered = frame[22:54] + struct.pack("!II", len(header), 135) + header
    assert sum(struct.unpack(f"!{len(covered) // 2}H", covered)) % 0xFFFF == 0


@needs_tshark
def test_tshark_finds_nothing_wrong(tmp_path: Path) -> None:
    path = tmp_path / "packets.pcap"
    write_pcap(path, frames_of(read_packet(text) for text in VALID))
    options = [f"{name}.check_checksum:TRUE" for name in ("ip", "tcp", "udp")] + ["sctp.checksum:CRC 32c"]
    fields = [
        "_ws.malformed",
        "ip.checksum.status",
        "tcp.checksum.status",
        "udp.checksum.status",
        "icmp.checksum.status",
    ]
    fields += [
        "icmpv6.checksum.status",
        "igmp.checksum.status",
        "sctp.checksum.status",
    ]
    command = ["tshark", "-r", str(path), "-T", "fields", *(part for one in options for part in ("-o", one))]
    command += [part for field in fields for part in ("-e", field)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    rows = done.stdout.split("\n")[: len(VALID)]
    assert len(rows) == len(VALID)
    statuses = {}
    for text, row in zip(VALID, rows, strict=True):
        malformed, *status = row.split("\t")
        assert malformed == "", text
        # Wireshark's PROTO_CHECKSUM_E_: 0 is bad, 1 good.
        values = {value for column in status for value in column.split(",") if value}
        assert values <= {"1"}, (text, row)
        statuses.update({field: True for field, value in zip(fields[1:], status, strict=True) if value})
    assert set(statuses) == set(fields[1:])


@needs_tshark
def test_tshark_sees_the_layers_that_were_written(tmp_path: Path) -> None:
    path = tmp_path / "packets.pcap"
    write_pcap(path, frames_of(read_packet(text) for text in PROTOCOLS))
    command = ["tshark", "-r", str(path), "-T", "fields", "-e", "frame.protocols"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert dict(zip(PROTOCOLS, done.stdout.splitlines(), strict=True)) == PROTOCOLS


# ── notation ─────────────────────────────────────────────────────────────────


def test_values_are_numbers_words_and_strings() -> None:
    text = "IPv4 ( src = 10.0.0.1 , dst='10.0.0.2', ttl=0x10 ) / \n TCP(flags=S)"
    with pytest.raises(PacketNotationError, match="needs its name"):
        parse_packet("TCP(,)")
    assert parse_packet(text) == (
        LayerSpec("IPv4", (("src", "10.0.0.1"), ("dst", "10.0.0.2"), ("ttl", 16))),
        LayerSpec("TCP", (("flags", "S"),)),
    )
    assert parse_packet("Ether(dst=ff:ff:ff:ff:ff:ff)/IPv6(src=2001:db8::1)/Truncate(9)")[2] == LayerSpec(
        "Truncate", (("len", 9),)
    )


def test_a_packet_within_a_longer_text_ends_where_it_ends() -> None:
    text = "packet IPv4(ttl=3)/UDP  -> drop"
    layers, end = parse_packet_at(text, 7)
    assert ([layer.name for layer in layers], text[end:]) == (["IPv4", "UDP"], "  -> drop")
    assert layers[0].offset == 7
    with pytest.raises(PacketNotationError) as caught:
        parse_packet_at("packet IPv4(tll=3)", 7)
    assert (caught.value.offset, caught.value.end) == (12, 15)


@pytest.mark.parametrize("text", VALID)
def test_the_canonical_notation_reads_back_the_same(text: str) -> None:
    layers = parse_packet(text)
    written = format_packet(layers)
    assert parse_packet(written) == layers
    assert format_packet(parse_packet(written)) == written


@given(st.text(max_size=40))
def test_any_text_survives_as_a_payload(text: str) -> None:
    layers = (LayerSpec("Raw", (("data", text),)),)
    assert parse_packet(format_packet(layers)) == layers
    assert build_packet(layers).endswith(text.encode())


@pytest.mark.parametrize(
    ("text", "fault", "message", "hint"),
    [
        ("", "", "name of a layer is missing", "IPv4/UDP"),
        ("IPv4/", "", "name of a layer is missing", "IPv4/UDP"),
        ("IPv5/UDP", "IPv5", "no layer `IPv5`", "`IPv"),
        ("ipv4", "ipv4", "no layer `ipv4`", "`IPv4`"),
        ("Zebra", "Zebra", "no layer `Zebra`", "there are: AH, ARP"),
        ("UDP(dprt=53)", "dprt", "UDP has no argument `dprt`", "`dport`"),
        ("UDP(53)", "5", "an argument of UDP needs its name", "sport"),
        ("UDP(dport=)", ")", "a value is missing", "number"),
        ("UDP(dport=65536)", "65536", "16 bits wide: 0 to 65535", ""),
        ("UDP(dport=http)", "http", "`http` is not a number", ""),
        ("UDP(dport=1 sport=2)", "s", "go on with `,`", ""),
        ("UDP(dport=1, dport=2)", "dport=2", "`dport` twice", ""),
        ("Dot1Q(id=1, vlan=2)", "vlan=2", "twice", ""),
        ("UDP(dport=1", "(", "never closed", ""),
        ('Raw("abc)', '"', "no closing quote", ""),
        ("Raw(100)", "100", "bare number", "Raw(len=100)"),
        ("Raw(hex=12)", "12", "needs quotes", '"12"'),
        ('Raw(hex="123")', '"123"', "whole number of bytes", ""),
        ("Raw(len=262145)", "262145", "not a length", ""),
        ("IPv4(src=1.2.3)", "1.2.3", "not an IPv4 address", ""),
        ("IPv4(src=::1)", "::1", "not an IPv4 address", "IPv6"),
        ('IPv6(src="fe80::1%eth0")', '"fe80::1%eth0"', "zone", ""),
        ("Ether(dst=1:2)", "1:2", "not an Ethernet address", ""),
        ("TCP(flags=SX)", "SX", "not made of the flags", ""),
        ("IPv4(flags=XF)", "XF", "not a flag", ""),
        ("IPv4(options=41)", "41", "at most 40 bytes", ""),
        ("IPv4(tos=1, ecn=1)", "IPv4", "same bits", "one of them"),
        ("ICMP(type=echo-reqest)", "echo-reqest", "not a value it has", "`echo-request`"),
        ("Geneve(options=6)", "6", "multiple of 4", ""),
        ("IPv4 UDP", "U", "goes on with `/`", ""),
        ("Truncate(3)/UDP", "Truncate", "must be the last layer", ""),
        ("IPv4/Raw(len=65516)", "IPv4", "cannot hold 65536", "len="),
        ("IPv6/Raw(len=65536)", "IPv6", "cannot hold 65536", "plen="),
        ("Raw(len=262144)/Raw(len=1)", "Raw", "at most 262144 bytes", ""),
        ("/".join(["MPLS"] * 65), "M", "at most 64 layers", ""),
        (f"UDP(dport={'9' * 5000})", "9" * 5000, "is not a number", ""),
        ("abcg", "abcg", "no layer", ""),
    ],
)
def test_faults_have_their_place_and_a_hint(text: str, fault: str, message: str, hint: str) -> None:
    with pytest.raises(PacketNotationError) as caught:
        read_packet(text)
    assert message in str(caught.value)
    assert text[caught.value.offset : caught.value.end] == fault
    assert hint in (caught.value.hint or "")


@given(st.text(max_size=60) | st.text(alphabet="IPv46/UDP()=,\"' \\.:rawEthx0192", max_size=60))
def test_any_text_is_a_packet_or_a_fault_within_it(text: str) -> None:
    try:
        frame = read_packet(text)
    except PacketNotationError as raised:
        fault = raised
    else:
        assert isinstance(frame, bytes)
        return
    assert 0 <= fault.offset <= len(text)


NAMES = sorted(LAYERS)
VALUES = (
    st.integers(-1, 1 << 40)
    | st.text(max_size=12)
    | st.sampled_from(["10.0.0.1", "::1", "ff:ff:ff:ff:ff:ff", "SA"])
)


@given(st.data())
def test_any_layers_are_built_or_refused(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(NAMES), max_size=5))
    layers = []
    for name in names:
        chosen = data.draw(st.lists(st.sampled_from(sorted(LAYERS[name].arguments)), max_size=2, unique=True))
        layers.append(LayerSpec(name, tuple((argument, data.draw(VALUES)) for argument in chosen)))
    try:
        frame = build_packet(layers)
    except PacketNotationError:
        return
    assert len(frame) <= 262_144


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_has_defaults_and_follows_ethernet(name: str) -> None:
    assert build_packet(parse_packet(name)) == build_packet(parse_packet(f"{name}()"))
    assert getattr(packets, name, None) or name in {"IP", "Payload"}


# ── hexadecimal, and the constructors for tests ──────────────────────────────


def test_hexadecimal_is_read_with_its_spaces_and_colons() -> None:
    assert parse_hex("de:ad be\nef") == b"\xde\xad\xbe\xef"
    assert read_packet("0200 0000") == bytes.fromhex("02000000")
    with pytest.raises(PacketNotationError, match="not a hexadecimal digit") as caught:
        parse_hex("abxy")
    assert caught.value.offset == 2
    with pytest.raises(PacketNotationError, match="only one") as caught:
        parse_hex("ab c ")
    assert caught.value.offset == 3


def test_constructors_build_what_the_notation_builds() -> None:
    packet = Ether() / IPv4(dst="192.0.2.9") / TCP(dport=22) / Raw("x") / Truncate(50)
    assert str(packet) == 'Ether/IPv4(dst="192.0.2.9")/TCP(dport=22)/Raw("x")/Truncate(50)'
    assert bytes(packet) == read_packet(str(packet))
    assert bytes(IPv4() / UDP() / VXLAN(vni=3) / IPv4() / Raw(b"\x00\xff") / PadTo(120))[-1] == 0
    assert str(Raw(b"\x00\xff")) == 'Raw(hex="00ff")'
    assert bytes(IPv4(dst=socket.inet_aton("192.0.2.9"))) == bytes(IPv4(dst="192.0.2.9"))
