"""The reference evaluator: what a rule set does with a packet.

In go a rule set and the bytes of a frame, out comes an `Outcome`.  This is the
definition that every back end is measured against, so it is written to be read:
slow, obvious, one sentence of the language after the other.  It never raises,
whatever the bytes are.

Rules are tried in order.  One that matches without deciding leaves its slot in
`hits` and the search goes on; the first that decides ends it; else the default
does.  Before all rules, the odd-packet conditions are judged in the order of
the `Condition` enum, and the first that has a verdict of its own decides.

>>> from penstock.compiler.ir.ops import FieldRef, Within
>>> from penstock.model.net import IntervalSet
>>> holds(Within(FieldRef("len"), IntervalSet.of((0, 60))), Packet(bytes(60)))
True
"""

from __future__ import annotations

from typing import assert_never

from penstock.compiler.ir.chain import AUTHENTICATION
from penstock.compiler.ir.classic import run
from penstock.compiler.ir.conditions import conditions_of
from penstock.compiler.ir.depth import leaves
from penstock.compiler.ir.headers import Headers, Packet, frame_length
from penstock.compiler.ir.ops import (
    DEFAULT_SLOT,
    FIRST_CONDITION_SLOT,
    FIRST_RULE_SLOT,
    All,
    Always,
    Any,
    Base,
    Binary,
    Classic,
    Compare,
    FieldTerm,
    HeaderWalked,
    Literal32,
    Member,
    Negation,
    Over,
    Predicate,
    Read,
    Rule,
    RuleSet,
    Sample,
    Term,
    Within,
)
from penstock.compiler.ir.outcome import Outcome
from penstock.compiler.ir.stores import EMPTY, Stores
from penstock.model.action import Change
from penstock.model.field import EXTENSION_HEADERS
from penstock.model.metadata import NOTHING_KNOWN, Metadata
from penstock.model.verdict import Verdict

__all__ = ["Packet", "conditions_of", "evaluate", "evaluate_packet", "holds", "term_value"]

WORD = 0xFFFFFFFF


def evaluate(
    rule_set: RuleSet,
    frame: bytes,
    wire_length: int | None = None,
    now_ns: int | None = None,
    metadata: Metadata = NOTHING_KNOWN,
    stores: Stores = EMPTY,
) -> Outcome:
    """What becomes of a frame.

    `wire_length` is its length before a capture cut it (default: it was not
    cut).  `now_ns` is the boot clock for rules that expire; without it none has.
    `stores` is what sets and buckets hold; without it sets are empty, and buckets full.
    """
    return evaluate_packet(rule_set, Packet(frame, wire_length, metadata), now_ns, stores)


def evaluate_packet(
    rule_set: RuleSet, packet: Packet, now_ns: int | None = None, stores: Stores = EMPTY
) -> Outcome:
    """`evaluate` of a packet that is parsed already."""
    conditions = conditions_of(packet, rule_set.depth)
    for condition in sorted(conditions):
        verdict = rule_set.verdict_on(condition)
        if verdict is not None:
            return Outcome(verdict, FIRST_CONDITION_SLOT + condition, (), conditions)
    hits: list[int] = []
    for slot, rule in enumerate(rule_set.rules, FIRST_RULE_SLOT):
        if not matches(rule, packet, now_ns, stores):
            continue
        if isinstance(rule.action, Verdict):
            return Outcome(rule.action, slot, tuple(hits), conditions)
        if rule.target is not None:
            change(rule, packet, stores)
        hits.append(slot)
    return Outcome(rule_set.default, DEFAULT_SLOT, tuple(hits), conditions)


def matches(rule: Rule, packet: Packet, now_ns: int | None = None, stores: Stores = EMPTY) -> bool:
    """Whether the rule has not expired and its condition holds."""
    if rule.until_ns is not None and now_ns is not None and now_ns >= rule.until_ns:
        return False
    return holds(rule.condition, packet, stores)


def change(rule: Rule, packet: Packet, stores: Stores) -> None:
    """What a rule does to its set: of the keys of its target the first that the packet has is added or removed."""
    assert isinstance(rule.argument, Change)
    assert rule.target is not None
    guards, keys = target_of(rule.target)
    if not all(holds(guard, packet) for guard in guards):
        return
    for member in keys:
        key = key_of(member, packet)
        if key is not None and rule.argument.adds:
            stores.add(member.set, key, member.bits, rule.argument.stay_ns)
        elif key is not None:
            stores.remove(member.set, key, member.bits)


def target_of(target: Predicate) -> tuple[tuple[Predicate, ...], tuple[Member, ...]]:
    """What must hold of a packet, and the keys, one for each family."""
    parts = target.operands if isinstance(target, All) else (target,)
    keys = tuple(leaf for part in parts for leaf, _ in leaves(part) if isinstance(leaf, Member))
    return tuple(part for part in parts if not isinstance(part, Member | Any)), keys


# ── predicates ───────────────────────────────────────────────────────────────


def holds(predicate: Predicate, packet: Packet, stores: Stores = EMPTY) -> bool:
    """Whether the packet satisfies the predicate; a test of anything absent is false."""
    match predicate:
        case Always(value):
            return value
        case Within(ref, values):
            found = packet.value(ref)
            return found is not None and found in values
        case Compare(operator, left, right):
            return _compare(operator, term_value(left, packet), term_value(right, packet))
        case HeaderWalked():
            return _is_walked(predicate, packet)
        case Classic(program):
            return run(program, packet.frame, frame_length(packet)).matched
        case Member():
            return _is_member(predicate, packet, stores)
        case Over():
            return stores.buckets.asks(predicate, packet)
        case Sample():
            return stores.buckets.samples(predicate)
        case Negation(operand):
            return not holds(operand, packet, stores)
        case All(operands):
            return all(holds(operand, packet, stores) for operand in operands)
        case Any(operands):
            return any(holds(operand, packet, stores) for operand in operands)
        case _:
            assert_never(predicate)


def _is_member(member: Member, packet: Packet, stores: Stores) -> bool:
    key = key_of(member, packet)
    return key is not None and stores.holds(member.set, key, member.bits)


def key_of(member: Member, packet: Packet) -> tuple[int, ...] | None:
    """The parts of the packet's key; None if it has not all of them."""
    key = [packet.value(ref) for ref in member.keys]
    present = [value for value in key if value is not None]
    return tuple(present) if len(present) == len(key) else None


def _compare(operator: str, left: int | None, right: int | None) -> bool:
    if left is None or right is None:
        return False
    return {
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
        "==": left == right,
        "!=": left != right,
    }[operator]


def _is_walked(walked: HeaderWalked, packet: Packet) -> bool:
    headers = packet.headers(walked.scope)
    if headers is None:
        return False
    if walked.ipv4:
        return headers.is_ipv4 and headers.network.proto == AUTHENTICATION == walked.number
    mask = headers.network.mask
    return mask is not None and bool(mask >> EXTENSION_HEADERS[walked.number] & 1)


# ── terms ────────────────────────────────────────────────────────────────────


def term_value(term: Term, packet: Packet) -> int | None:
    """A term's value modulo 2**32, None when anything it needs is absent."""
    match term:
        case Literal32(value):
            return value
        case FieldTerm(ref):
            return packet.value(ref)
        case Read():
            return _read(term, packet)
        case Binary(operator, left, right):
            a, b = term_value(left, packet), term_value(right, packet)
            return None if a is None or b is None else arithmetic(operator, a, b)
        case _:
            assert_never(term)


def arithmetic(operator: str, left: int, right: int) -> int | None:
    """`left OPERATOR right` modulo 2**32; None for a division by zero."""
    match operator:
        case "+":
            return (left + right) & WORD
        case "-":
            return (left - right) & WORD
        case "*":
            return (left * right) & WORD
        case "/":
            return left // right if right else None
        case "%":
            return left % right if right else None
        case "&":
            return left & right
        case "|":
            return left | right
        case "^":
            return left ^ right
        case "<<":
            return (left << right) & WORD if right < 32 else 0
        case ">>":
            return left >> right if right < 32 else 0
        case _:
            raise ValueError(operator)


def _read(read: Read, packet: Packet) -> int | None:
    headers, offset = packet.headers(read.scope), term_value(read.offset, packet)
    if headers is None or offset is None:
        return None
    if read.base is Base.TRANSPORT:
        return _read_transport(packet, headers, offset, read.size)
    start = headers.base(read.base)
    return None if start is None else packet.number(start + offset, read.size)


def _read_transport(packet: Packet, headers: Headers, offset: int, size: int) -> int | None:
    """The distance from the network header is what wraps at 2**32: see `Read`."""
    network, transport = headers.link.network, headers.network.transport
    if network is None or transport is None:
        return None
    return packet.number(network + (transport - network + offset & WORD), size)
