"""What a predicate found in sets and buckets, in words.

reasons(rule.condition, packet, stores)   ->  ("198.51.100.7 is in @threats, by 198.51.100.0/24",)

Told is what made the predicate true, or false, as it is of the packet: of a
conjunction that holds every operand, of a disjunction the first that holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.compiler.ir.buckets import SPENT, key_of
from penstock.compiler.ir.dump import dump_value
from penstock.compiler.ir.evaluate import holds
from penstock.compiler.ir.evaluate import key_of as set_key_of
from penstock.compiler.ir.ops import All, Any, FieldRef, Member, Negation, Over, Predicate, Sample
from penstock.model.set_text import PROTOCOL_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.compiler.ir.headers import Packet
    from penstock.compiler.ir.stores import Covering, Stores

PROTOCOL_WORDS = {
    1: "ICMP",
    2: "IGMP",
    6: "TCP",
    17: "UDP",
    47: "GRE",
    50: "ESP",
    51: "AH",
    58: "ICMPv6",
    132: "SCTP",
}
_TYPES = {0x0800: "IPv4", 0x86DD: "IPv6", 0x0806: "ARP", 0x8035: "RARP", 0x8847: "MPLS", 0x8864: "PPPoE"}


def reasons(predicate: Predicate, packet: Packet, stores: Stores) -> tuple[str, ...]:
    """A sentence for each set, bucket or chance that made the predicate what it is of the packet."""
    return tuple(dict.fromkeys(told(one, packet, stores) for one in _decisive(predicate, packet, stores)))


def _decisive(predicate: Predicate, packet: Packet, stores: Stores) -> Iterator[Member | Over | Sample]:
    """The tests of what is kept that decide it; those of which the packet has no key say nothing."""
    match predicate:
        case Negation(operand):
            yield from _decisive(operand, packet, stores)
        case All(operands) | Any(operands):
            settling = isinstance(predicate, Any)
            settled = next((one for one in operands if holds(one, packet, stores) == settling), None)
            for one in operands if settled is None else [settled]:
                yield from _decisive(one, packet, stores)
        case Member():
            if set_key_of(predicate, packet) is not None:
                yield predicate
        case Over():
            if key_of(predicate, packet) is not None:
                yield predicate
        case Sample():
            yield predicate
        case _:
            return


def told(test: Member | Over | Sample, packet: Packet, stores: Stores) -> str:
    """What such a test found of a packet that has the key."""
    match test:
        case Member():
            return _membership(test, packet, stores)
        case Over(limiter):
            burst = f"{limiter.burst:,} {'byte' if limiter.bytes else 'token'}{'s'[: limiter.burst != 1]}"
            if stores.buckets is SPENT:
                return f"its bucket of {burst} decides, and is taken as spent: it is over {limiter.text}"
            return (
                f"its bucket of {burst} decides, of which none is taken as spent: "
                f"a packet by itself is never over {limiter.text}"
            )
        case Sample(_, one_in):
            return f"chance takes one packet in {one_in}, and here it is taken to leave this one"


def _membership(test: Member, packet: Packet, stores: Stores) -> str:
    key = set_key_of(test, packet) or ()
    text = " . ".join(map(shown, test.keys, key))
    content = stores.sets.get(test.set)
    found = next(content.covering(key, test.bits, stores.now_ns), None) if content else None
    if found is None:
        return f"{text} is not in @{test.set}"
    if found.by_rule:
        return f"{text} is in @{test.set}, where a rule in front has added it"
    return f"{text} is in @{test.set}, by {_entry(test, found)}"


def _entry(test: Member, found: Covering) -> str:
    """An entry as commands spell it."""
    parts = found.key[:-1]
    if len(parts) > len(test.keys):
        return f"{dump_value(test.keys[0], parts[0])}/{parts[1]}"
    return " . ".join(map(_part, test.keys, parts))


def _part(ref: FieldRef, value: int) -> str:
    return PROTOCOL_NAMES.get(value, str(value)) if "proto" in ref.name else dump_value(ref, value)


def shown(ref: FieldRef, value: int) -> str:
    """A field's value, and what it is called: `17 (UDP)`."""
    text = dump_value(ref, value)
    known = PROTOCOL_WORDS if "proto" in ref.name else _TYPES if ref.name == "eth.type" else {}
    return f"{text} ({known[value]})" if value in known else text
