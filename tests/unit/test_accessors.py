"""An accessor of exactly a field's bytes is that field: the same number, there in the same packets, cut anywhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.frames import FRAMES, frame_bytes, truncations

from penstock.compiler.ir.accessors import ACCESSED, MASKED
from penstock.compiler.ir.dump import dump_predicate
from penstock.compiler.ir.evaluate import Packet, arithmetic, holds
from penstock.compiler.ir.lower import lower_expression
from penstock.compiler.ir.lower_arithmetic import NETWORK_ACCESSORS, comparison
from penstock.compiler.ir.ops import (
    Base,
    Binary,
    Compare,
    FieldRef,
    FieldTerm,
    Literal32,
    Predicate,
    Read,
    Term,
)
from penstock.compiler.lang.parser import parse_expression
from penstock.compiler.lang.source import Source

PACKETS = [Packet(cut) for kind in FRAMES.values() for text in kind for cut in truncations(frame_bytes(text))]


def packets(protocol: str) -> Iterator[Packet]:
    """Those that are of the accessor's protocol, as an accessor asks first."""
    needed = lowered(protocol)
    return (packet for packet in PACKETS if holds(needed, packet))


def lowered(text: str) -> Predicate:
    source = Source("<expression>", text)
    return lower_expression(parse_expression(source), source)


def read(protocol: str, offset: int, size: int) -> Read:
    base = Base.NETWORK if protocol in NETWORK_ACCESSORS else Base.TRANSPORT
    return Read(base, Literal32(offset), size)


def same(one: Term, other: Term, packet: Packet) -> bool:
    there = [holds(Compare(">=", term, Literal32(0)), packet) for term in (one, other)]
    return there == [False, False] or holds(Compare("==", one, other), packet)


@pytest.mark.parametrize(("key", "field"), ACCESSED.items(), ids=str)
def test_bytes(key: tuple[str, int, int], field: str) -> None:
    asked = list(packets(key[0]))
    term = FieldTerm(FieldRef(field))
    assert any(holds(Compare(">=", term, Literal32(0)), packet) for packet in asked)
    assert any(not holds(Compare(">=", term, Literal32(0)), packet) for packet in asked)
    assert [packet for packet in asked if not same(read(*key), term, packet)] == []


@pytest.mark.parametrize(("key", "part"), MASKED.items(), ids=str)
def test_masked_bytes(key: tuple[str, int, int, int], part: tuple[str, str, int]) -> None:
    protocol, offset, size, mask = key
    field, operator, operand = part
    masked = Binary("&", read(protocol, offset, size), Literal32(mask))
    term = Binary(operator, FieldTerm(FieldRef(field)), Literal32(operand))  # type: ignore[arg-type]
    asked = list(packets(protocol))
    assert any(holds(Compare("!=", term, Literal32(0)), packet) for packet in asked)
    assert [packet for packet in asked if not same(masked, term, packet)] == []


@pytest.mark.parametrize("operator", ["<", "<=", ">", ">=", "==", "!="])
@pytest.mark.parametrize("value", [0, 1, 7, 8191, 8192, 1 << 31])
def test_a_shifted_field_is_an_interval_test(operator: str, value: int) -> None:
    shifted = Binary(">>", FieldTerm(FieldRef("frag.offset")), Literal32(3))
    written = Compare(operator, shifted, Literal32(value))  # type: ignore[arg-type]
    simpler = comparison(operator, shifted, Literal32(value))  # type: ignore[arg-type]
    assert not isinstance(simpler, Compare)
    assert [packet for packet in PACKETS if holds(written, packet) != holds(simpler, packet)] == []


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("ip[8] < 5", "all(eth.type in {0x0800}, ttl in {0-4})"),
        ("ip6[7] = 1", "all(eth.type in {0x86dd}, ttl in {1})"),
        ("ip[2:2] > 576", "all(eth.type in {0x0800}, ip.len in {577-65535})"),
        ("ip[12:4] = ip[16:4]", "all(eth.type in {0x0800}, ip.src == ip.dst)"),
        ("ip[6:2] & 0x1fff != 0", "all(eth.type in {0x0800}, frag.offset in {8-65535})"),
        ("ip[6:2] & 0x4000 != 0", "all(eth.type in {0x0800}, (ip.df << 14) != 0)"),
        ("icmp[icmptype] = icmp-echo", "all(eth.type in {0x0800}, ip.proto in {1}, icmp.type in {8})"),
        ("tcp[tcpflags] = tcp-syn", "all(proto in {6}, tcp.flags in {0x0002})"),
        ("tcp[13:2] = 5", "all(proto in {6}, transport[13:2] == 5)"),
        ("ip6[6:2] & 0x1fff = 0", "all(eth.type in {0x86dd}, (network[6:2] & 8191) == 0)"),
        ("ip[9 - 1] < 5", "all(eth.type in {0x0800}, ttl in {0-4})"),
    ],
)
def test_meaning(text: str, meaning: str) -> None:
    assert dump_predicate(lowered(text)) == meaning


def test_arithmetic_of_parts() -> None:
    """What MASKED says of every 16-bit word, not only of those in the frames above."""
    for word in range(1 << 16):
        assert word & 0x1FFF == arithmetic(">>", (word & 0x1FFF) * 8, 3)
        assert word & 0x4000 == arithmetic("<<", word >> 14 & 1, 14)
