"""What `reject` answers, byte for byte, and whom it does not answer: by test runs at XDP and at TC ingress."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.model.hook import Hook
from penstock.model.layers.checksum import internet_checksum
from penstock.model.packet import build_packet, parse_packet
from penstock.model.spec import PROGRAM, REFUSALS_MAP
from penstock.pipeline.policy import load_policy
from penstock.pipeline.refusals import Refusals, read_refusals

pytestmark = pytest.mark.privileged

SENT_BACK = {Hook.XDP: 3, Hook.TC_INGRESS: 7}
DROPPED = {Hook.XDP: 1, Hook.TC_INGRESS: 2}
CLIENT4, SERVER4 = "192.0.2.1", "198.51.100.2"
CLIENT6, SERVER6 = "2001:db8::1", "2001:db8:1::2"
IP4 = f'IPv4(src="{CLIENT4}", dst="{SERVER4}")'
IP6 = f'IPv6(src="{CLIENT6}", dst="{SERVER6}")'
TAGS = ["", "Dot1Q(vlan=5)/", "Dot1Q(vlan=5, type=0x88a8)/Dot1Q(vlan=6)/"]
TPIDS = (b"\x81\x00", b"\x88\xa8")
JUMBO = 8000


@dataclass(frozen=True)
class Rejecting:
    """A program that rejects everything, at one hook."""

    hook: Hook
    loaded: BpfObject

    def answer(self, frame: bytes) -> bytes | None:
        """What is sent back for a frame, None if it is dropped without a word.

        At TC the outermost tag was pushed, and so lies beside the bytes: its
        place in the test's frame is where it is shown here.
        """
        ran = self.loaded.programs[PROGRAM].test_run(frame)
        if ran.retval == SENT_BACK[self.hook]:
            beside = frame[12:16] if self.hook.is_tc and frame[12:14] in TPIDS else b""
            return ran.data_out[:12] + beside + ran.data_out[12:]
        assert ran.retval == DROPPED[self.hook]
        assert ran.data_out == frame
        return None

    def told(self) -> Refusals:
        """How many packets were answered, and how many were not."""
        return read_refusals(self.loaded.maps[REFUSALS_MAP])


def rejecting(hook: Hook, interval_ns: int = 1, burst: int = 1 << 40) -> Rejecting:
    text = f"filter edge at {hook.value} {{\n reject\n}}\n"
    limits = {"ps_reject_interval": interval_ns, "ps_reject_burst": burst}
    return Rejecting(hook, load_object(load_policy(text, hook.value).elf, "edge", rodata=limits))


@pytest.fixture(scope="module", params=[Hook.XDP, Hook.TC_INGRESS], ids=["xdp", "tc"])
def plane(request: pytest.FixtureRequest) -> Iterator[Rejecting]:
    made = rejecting(request.param)
    with made.loaded:
        yield made


def built(text: str) -> bytes:
    return build_packet(parse_packet(text))


def behind_link(frame: bytes, tags: str) -> bytes:
    return frame[14 + 4 * tags.count("Dot1Q") :]


def checked4(packet: bytes, proto: int) -> bytes:
    """What an IPv4 packet of ours carries, its header looked at."""
    assert packet[0] == 0x45
    assert (packet[8], packet[9]) == (64, proto)
    assert packet[12:20] == ip_address(SERVER4).packed + ip_address(CLIENT4).packed
    assert internet_checksum(packet[:20]) == 0
    return packet[20 : int.from_bytes(packet[2:4], "big")]


def checked6(packet: bytes, proto: int) -> bytes:
    assert (packet[0] >> 4, packet[6], packet[7]) == (6, proto, 64)
    assert packet[8:40] == ip_address(SERVER6).packed + ip_address(CLIENT6).packed
    return packet[40 : 40 + int.from_bytes(packet[4:6], "big")]


def sum_over(addresses: bytes, proto: int, carried: bytes) -> int:
    """0 if the checksum over pseudo header and payload is right."""
    return internet_checksum(addresses + struct.pack("!II", len(carried), proto) + carried)


# ── resets ───────────────────────────────────────────────────────────────────

SEGMENTS = [
    ('flags="S", seq=7', 0, (0, 8, 0x14)),
    ('flags="S", seq=0xffffffff', 10, (0, 10, 0x14)),
    ('flags="A", seq=7, ack=99', 3, (99, 0, 0x04)),
    ('flags="FA", seq=7, ack=0xfffffffe', 0, (0xFFFFFFFE, 0, 0x04)),
    ('flags="F", seq=1', 5, (0, 7, 0x14)),
]


@pytest.mark.parametrize("tags", TAGS, ids=["plain", "tag", "tags"])
@pytest.mark.parametrize(("header", "size", "wanted"), SEGMENTS)
@pytest.mark.parametrize("network", [IP4, IP6], ids=["IPv4", "IPv6"])
def test_a_segment_gets_the_reset_of_rfc_9293(
    plane: Rejecting, network: str, header: str, size: int, wanted: tuple[int, int, int], tags: str
) -> None:
    frame = built(f"Ether/{tags}{network}/TCP(sport=1000, dport=80, {header})/Raw(len={size})")
    answer = plane.answer(frame)
    assert answer is not None
    assert answer[:12] == frame[6:12] + frame[:6]
    assert answer[12 : 14 + 4 * tags.count("Dot1Q")] == frame[12 : 14 + 4 * tags.count("Dot1Q")]
    packet = behind_link(answer, tags)
    if network is IP4:
        tcp, addresses = checked4(packet, 6), packet[12:20]
    else:
        tcp, addresses = checked6(packet, 6), packet[8:40]
    assert len(tcp) == 20
    assert sum_over(addresses, 6, tcp) == 0
    assert struct.unpack_from("!HHIIBB", tcp) == (80, 1000, *wanted[:2], 0x50, wanted[2])


def test_options_are_not_sent_back(plane: Rejecting) -> None:
    answer = plane.answer(
        built(f'Ether/IPv4(src="{CLIENT4}", dst="{SERVER4}", options="01010101")/TCP(flags="S")')
    )
    assert answer is not None
    assert len(checked4(answer[14:], 6)) == 20


# ── unreachable ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tags", TAGS, ids=["plain", "tag", "tags"])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 64, 520, 521, 1400, JUMBO])
def test_a_datagram_gets_port_unreachable_and_as_much_of_itself_as_fits(
    plane: Rejecting, size: int, tags: str
) -> None:
    if size == JUMBO and plane.hook.is_tc:
        return  # A test run at TC takes no more than a page.
    frame = built(f"Ether/{tags}{IP4}/UDP(sport=5, dport=53)/Raw(len={size})")
    answer = plane.answer(frame)
    assert answer is not None
    packet = behind_link(answer, tags)
    icmp = checked4(packet, 1)
    assert icmp[:2] == bytes((3, 3))
    assert icmp[4:8] == bytes(4)
    assert internet_checksum(icmp) == 0
    assert icmp[8:] == behind_link(frame, tags)[: 576 - 28]
    assert packet[1] == 0xC0


@pytest.mark.parametrize("tags", TAGS, ids=["plain", "tag", "tags"])
@pytest.mark.parametrize("size", [0, 1, 7, 1184, 1185, 1400, JUMBO])
def test_so_it_does_over_ipv6(plane: Rejecting, size: int, tags: str) -> None:
    if size == JUMBO and plane.hook.is_tc:
        return
    frame = built(f"Ether/{tags}{IP6}/UDP(sport=5, dport=53)/Raw(len={size})")
    answer = plane.answer(frame)
    assert answer is not None
    packet = behind_link(answer, tags)
    icmp = checked6(packet, 58)
    assert icmp[:2] == bytes((1, 4))
    assert sum_over(packet[8:40], 58, icmp) == 0
    quoted = behind_link(frame, tags)[: 1280 - 48]
    # The headers of a frame in pieces lie in the first one, its data perhaps not.
    assert icmp[8:] == quoted if size < JUMBO else quoted.startswith(icmp[8:]) and len(icmp) > 8 + 1000


@pytest.mark.parametrize(
    "carried",
    ["HopByHop()/UDP()", "DestOpt()/Routing()/UDP()", "ICMPv6(type=128)", "SCTP()", "Raw(len=40)", "ESP()"],
)
def test_other_protocols_get_unreachable_too(plane: Rejecting, carried: str) -> None:
    answer = plane.answer(built(f"Ether/{IP6}/{carried}"))
    assert answer is not None
    assert checked6(answer[14:], 58)[:2] == bytes((1, 4))


# ── who gets nothing ─────────────────────────────────────────────────────────

UNANSWERED = {
    "a reset": f'{IP4}/TCP(flags="R")',
    "a reset with ACK, IPv6": f'{IP6}/TCP(flags="RA")',
    "unreachable": f"{IP4}/ICMP(type=3, code=3)/Raw(len=28)",
    "redirect": f"{IP4}/ICMP(type=5)/Raw(len=28)",
    "time exceeded": f"{IP4}/ICMP(type=11)/Raw(len=28)",
    "an unknown type": f"{IP4}/ICMP(type=200)/Raw(len=28)",
    "ICMPv6 unreachable": f"{IP6}/ICMPv6(type=1)/Raw(len=48)",
    "ICMPv6 redirect": f"{IP6}/ICMPv6(type=137)/Raw(len=48)",
    "a first fragment": f'IPv4(src="{CLIENT4}", dst="{SERVER4}", flags="MF")/UDP()',
    "a later fragment": f'IPv4(src="{CLIENT4}", dst="{SERVER4}", frag=9, proto=17)/Raw(len=40)',
    "a fragment, IPv6": f"{IP6}/Fragment(offset=0, m=1)/UDP()",
    "from nobody": f'IPv4(src="0.0.0.0", dst="{SERVER4}")/UDP()',
    "from loopback": f'IPv4(src="127.0.0.1", dst="{SERVER4}")/UDP()',
    "from a multicast address": f'IPv4(src="224.0.0.1", dst="{SERVER4}")/UDP()',
    "from broadcast": f'IPv4(src="255.255.255.255", dst="{SERVER4}")/UDP()',
    "to multicast": f'IPv4(src="{CLIENT4}", dst="239.1.1.1")/UDP()',
    "to broadcast": f'IPv4(src="{CLIENT4}", dst="255.255.255.255")/UDP()',
    "to a group's MAC": f'Ether(dst="ff:ff:ff:ff:ff:ff")/{IP4}/UDP()',
    "from a group's MAC": f'Ether(src="01:00:5e:00:00:01")/{IP4}/UDP()',
    "from ::": f'IPv6(src="::", dst="{SERVER6}")/UDP()',
    "from ::1": f'IPv6(src="::1", dst="{SERVER6}")/UDP()',
    "to ff02::1": f'IPv6(src="{CLIENT6}", dst="ff02::1")/UDP()',
    "from ff02::1": f'IPv6(src="ff02::1", dst="{SERVER6}")/UDP()',
    "ARP": "ARP()",
    "a wrong header checksum": f'IPv4(src="{CLIENT4}", dst="{SERVER4}", chksum=1)/UDP()',
    "an impossible header length": f'IPv4(src="{CLIENT4}", dst="{SERVER4}", ihl=4)/UDP()',
    "a length beyond the frame": f'IPv4(src="{CLIENT4}", dst="{SERVER4}", len=500)/UDP()',
    "a payload beyond the frame": f'IPv6(src="{CLIENT6}", dst="{SERVER6}", plen=500)/UDP()',
    "half a TCP header": f"{IP4}/TCP()/Truncate(len=44)",
    "a TCP header of four words": f'{IP4}/TCP(flags="S", dataofs=4)',
    "a UDP length beyond the packet": f"{IP4}/UDP(len=90)",
}


@pytest.mark.parametrize("text", UNANSWERED.values(), ids=UNANSWERED.keys())
def test_nobody_hears_of_it(plane: Rejecting, text: str) -> None:
    before = plane.told()
    frame = built(text if text.startswith("Ether") else f"Ether/{text}")
    assert plane.answer(frame) is None
    assert plane.told() == Refusals(before.answered, before.suppressed + 1)


def test_what_is_cut_short_is_not_answered_and_nothing_is_read_beyond_it(plane: Rejecting) -> None:
    for text in (f'Ether/{IP4}/TCP(flags="S")', f"Ether/Dot1Q(vlan=5)/{IP6}/HopByHop()/UDP()/Raw(len=9)"):
        whole = built(text)
        assert plane.answer(whole) is not None
        for size in range(14, len(whole)):
            if plane.loaded.programs[PROGRAM].takes(whole[:size]):
                assert plane.answer(whole[:size]) is None


# ── how often ────────────────────────────────────────────────────────────────


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """The test runs on one processor: each has a limit of its own."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize("hook", [Hook.XDP, Hook.TC_INGRESS], ids=["xdp", "tc"])
def test_a_burst_is_answered_and_then_nobody(hook: Hook, one_cpu: None) -> None:
    frame = built(f'Ether/{IP4}/TCP(flags="S")')
    made = rejecting(hook, interval_ns=10**10, burst=3)
    with made.loaded:
        answers = [made.answer(frame) is not None for _ in range(6)]
        assert answers == [True] * 3 + [False] * 3
        assert made.told() == Refusals(3, 3)


def test_the_limit_is_that_of_the_kernel_for_icmp() -> None:
    """As the manual says: 1000 a second and 50 at once, for each processor."""
    with load_object(load_policy("filter edge at xdp {\n reject\n}\n").elf, "edge") as loaded:
        assert int.from_bytes(loaded.variable("ps_reject_interval"), "little") == 1_000_000
        assert int.from_bytes(loaded.variable("ps_reject_burst"), "little") == 50
