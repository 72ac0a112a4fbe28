"""Classes of packets: an example is in its class, and the expression for a class holds of just its packets."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from tests.property.rulesets import Frames

from penstock.compiler.analysis.example import Example, example, examples, is_in, text_of
from penstock.compiler.analysis.expression import expression, simplified
from penstock.compiler.ir.evaluate import holds
from penstock.compiler.ir.headers import Packet
from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.ir.ops import FieldRef, Predicate
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source
from penstock.model.field import FIELDS
from penstock.model.net import IntervalSet
from penstock.model.packet import build_packet, parse_packet

REFS = [FieldRef(name, (), at) for name in FIELDS for at in ((0, 1, 2) if name.startswith("vlan.") else (0,))]
#: Tested by no expression as a number.
UNTOLD = {"ip6.headers", "chain.proto"}


def meaning(text: str) -> Predicate:
    """What an expression means at a socket, where packets have a mark and an interface beside them."""
    policy = parse_policy(
        Source("a.policy", f"filter a at socket {{\n    count{f' if {text}' if text else ''}\n}}\n")
    )
    return lower_filter(policy, policy.filters[0]).rules[0].condition


def around(draw: random.Random, packet: Packet, ref: FieldRef) -> IntervalSet:
    """Values of which the packet's may be one."""
    bits = ref.field.bits
    found = packet.value(ref)
    value = draw.getrandbits(bits) if found is None else found
    host = draw.choice((0, 0, 0, 8, bits // 2)) % bits
    low = value >> host << host
    held = IntervalSet.of((low, min(low + (1 << host) - 1 + draw.choice((0, 0, 3)), (1 << bits) - 1)))
    if draw.random() < 0.3:
        other = draw.getrandbits(bits)
        held |= IntervalSet.of((other, other))
    if draw.random() < 0.3:
        held = held.complement(bits)
    absent = IntervalSet.single(1 << bits)
    if draw.random() < 0.1:
        return absent
    return IntervalSet.of(*held, *absent) if found is None or draw.random() < 0.3 or not held else held


def some_class(
    draw: random.Random, packet: Packet, names: set[str] | None = None
) -> dict[FieldRef, IntervalSet]:
    common = [
        FieldRef(name) for name in ("proto", "dport", "sport", "addr.src", "eth.type", "ip6.src", "frag")
    ]
    pool = [ref for ref in (REFS if draw.random() < 0.5 else common) if ref.name not in (names or ())]
    return {ref: around(draw, packet, ref) for ref in draw.sample(pool, draw.randrange(1, 5))}


def test_the_expression_of_a_class_holds_of_its_packets_and_no_others() -> None:
    draw, frames = random.Random(1), Frames(1)
    packets = [Packet(frames.frame()) for _ in range(300)]
    inside = 0
    for packet in packets * 2:
        fields = some_class(draw, packet, UNTOLD)
        text = expression(fields)
        predicate = meaning(text)
        for other in (packet, *draw.sample(packets, 25)):
            assert holds(predicate, other) == is_in(other, fields), f"{text}: {fields} {other.frame.hex()}"
        inside += is_in(packet, fields)
    assert inside > 100


def test_what_is_simplified_has_the_same_packets() -> None:
    draw, frames = random.Random(2), Frames(2)
    packets = [Packet(frames.frame()) for _ in range(300)]
    simpler = 0
    for packet in packets:
        fields = some_class(draw, packet)
        less = simplified(fields)
        simpler += len(less) < len(fields)
        assert all(is_in(other, fields) == is_in(other, less) for other in packets)
    assert simpler > 10


def test_examples_are_in_their_class_and_are_what_their_text_says() -> None:
    draw, frames = random.Random(3), Frames(3)
    for _ in range(150):
        fields = some_class(draw, Packet(frames.frame()))
        for found, _ in zip(examples(fields), range(5), strict=False):
            assert is_in(Packet(found.frame), fields)
            assert build_packet(parse_packet(found.text)) == found.frame
            assert build_packet(parse_packet(text_of(found.frame))) == found.frame


def of_witness(witness: Mapping[FieldRef, int | None]) -> dict[FieldRef, IntervalSet]:
    """The class of packets with exactly these values."""
    absent = {ref: 1 << ref.field.bits for ref in witness}
    return {
        ref: IntervalSet.single(absent[ref] if value is None else value) for ref, value in witness.items()
    }


def test_there_is_an_example_of_nearly_every_class_that_has_a_packet() -> None:
    draw, frames = random.Random(4), Frames(4)
    missed = []
    for _ in range(200):
        packet = Packet(frames.frame())
        fields = of_witness({ref: packet.value(ref) for ref in draw.sample(REFS, draw.randrange(1, 5))})
        if example(fields) is None:
            missed.append(fields)
    assert len(missed) <= 4, missed


def test_a_class_that_no_packet_is_in_has_no_example() -> None:
    tcp_over_arp = {
        FieldRef("eth.type"): IntervalSet.single(0x0806),
        FieldRef("proto"): IntervalSet.single(6),
    }
    assert example(tcp_over_arp) is None


def test_a_class_of_no_packets_is_given_up_after_looking_at_few_cut_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A frame of 50,000 bytes was cut at each of them, in each of a hundred shapes: 80 seconds."""
    looked: list[int] = []

    class Counted(Packet):
        def __init__(self, frame: bytes) -> None:
            looked.append(len(frame))
            super().__init__(frame)

    monkeypatch.setattr("penstock.compiler.analysis.example.Packet", Counted)
    neither = {
        FieldRef("eth.type"): IntervalSet.single(0x0800, 0x0806),
        FieldRef("ip6.flow"): IntervalSet.of((0, 0xFFFFF)),
        FieldRef("len"): IntervalSet.of((50_000, 60_000)),
        FieldRef("ttl"): IntervalSet.single(1 << 8),
    }
    assert example(neither) is None
    assert 0 < len(looked) < 2_000


def test_a_packet_may_have_to_end_within_a_header() -> None:
    port = {FieldRef("proto"): IntervalSet.single(6), FieldRef("dport"): IntervalSet.single(1 << 16)}
    found = example({**port, FieldRef("len"): IntervalSet.of((0, 35))})
    assert found is not None
    assert (found.text, len(found.frame)) == ("IPv4/TCP/Truncate(35)", 35)


def test_the_plainest_example_comes_first() -> None:
    port = {FieldRef("proto"): IntervalSet.single(6), FieldRef("dport"): IntervalSet.single(22)}
    source = IntervalSet.of((0x0A000000, 0x0AFFFFFF))
    found = example({**port, FieldRef("addr.src"): source})
    assert found == Example('IPv4(src="10.0.0.1")/TCP(dport=22)', found.frame if found else b"")
    longer = example(port, lambda frame: len(frame) > 60)
    assert longer is not None
    assert longer.text == "IPv6/TCP(dport=22)"


def test_expressions_read_well() -> None:
    def held(name: str, *ends: tuple[int, int]) -> dict[FieldRef, IntervalSet]:
        return {FieldRef(name): IntervalSet.of(*ends)}

    tcp, udp = held("proto", (6, 6)), held("proto", (17, 17))
    ten = held("addr.src", (0x0A000000, 0x0AFFFFFF))
    cases = {
        "": {},
        "tcp dst port 22": tcp | held("dport", (22, 22)),
        "src net 10.0.0.0/8 and (tcp dst portrange 22 or 8000-8100)": ten
        | tcp
        | held("dport", (22, 22), (8000, 8100)),
        "udp and not dst port 53": udp | held("dport", (0, 52), (54, 1 << 16)),
        "not src host 10.0.0.1": held("addr.src", (0, 0x0A000000), (0x0A000002, 1 << 32)),
        "tcp and dst host 192.0.2.1": tcp | held("addr.dst", (0xC0000201, 0xC0000201)),
        "icmp.type == 8": held("eth.type", (0x0800, 0x0800))
        | held("proto", (1, 1))
        | held("icmp.type", (8, 8)),
        "tcp.flags == 0x2": tcp
        | held("eth.type", (0x0800, 0x0800), (0x86DD, 0x86DD))
        | held("tcp.flags", (2, 2)),
        "src net 2001:db8::/32": held("eth.type", (0x86DD, 0x86DD))
        | held("ip6.src", (0x20010DB8 << 96, (0x20010DB9 << 96) - 1))
        | held("addr.src", (1 << 32, 1 << 32)),
        "tcp and frag.later": tcp | held("frag", (2, 2)) | held("dport", (1 << 16, 1 << 16)),
        "icmp": held("eth.type", (0x0800, 0x0800)) | held("proto", (1, 1)),
        "tcp and vlan": tcp | held("vlan.tpid", (0x8100, 0x8100), (0x88A8, 0x88A8), (0x9100, 0x9100)),
        "vlan.id == 5": held("vlan.id", (5, 5)),
    }
    for text, fields in cases.items():
        assert expression(fields) == text
