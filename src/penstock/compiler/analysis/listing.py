"""Two rule sets as one list of boxes, so that both speak of the same axes and the same opaque predicates.

In go the old and the new rule set; out comes a `Listing`: what decides a
packet's verdict on either side, in order, as boxes over common axes, behind the
boxes of what no packet can be.  The odd-packet conditions that have a verdict of
their own are rules before the first rule:

    on fragment drop              frag 2
    on malformed drop             everything, if the packet is malformed (opaque)

An opaque predicate is a conjunction of *literals*: an atom, and whether it
holds.  Atoms are shared by both sides, so "the same test on either side" is
seen to be the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import NamedTuple

import numpy as np

from penstock.compiler.analysis.reality import IMPOSSIBLE, with_reality
from penstock.compiler.diagram.boxes import Boxes, Indices
from penstock.compiler.diagram.convert import listed
from penstock.compiler.ir.conditions import conditions_of
from penstock.compiler.ir.evaluate import holds
from penstock.compiler.ir.headers import IPV4, IPV6, Packet
from penstock.compiler.ir.ops import (
    FIRST_CONDITION_SLOT,
    FIRST_RULE_SLOT,
    All,
    Always,
    Decision,
    FieldRef,
    Negation,
    Predicate,
    RuleSet,
    Within,
)
from penstock.model.field import VLAN_TPIDS, Layer
from penstock.model.net import IntervalSet
from penstock.model.verdict import Condition


@dataclass(frozen=True, slots=True)
class Odd:
    """The packet is odd in this way, judged down to `depth`."""

    condition: Condition
    depth: Layer


Atom = Predicate | Odd


class Literal(NamedTuple):
    """An atom, and whether it holds."""

    atom: Atom
    holds: bool


def satisfies(literal: Literal, packet: Packet) -> bool:
    """Whether the packet is as the literal says."""
    atom = literal.atom
    found = (
        atom.condition in conditions_of(packet, atom.depth) if isinstance(atom, Odd) else holds(atom, packet)
    )
    return found == literal.holds


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that can decide: its counter slot, its verdict, what it asks, and whether of an odd packet."""

    slot: int
    verdict: Decision
    test: Predicate
    odd: Odd | None = None

    def decides_like(self, other: Entry) -> bool:
        """Whether both decide the same packets alike, wherever they stand."""
        return (self.verdict, self.test, self.odd) == (other.verdict, other.test, other.odd)


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """Boxes of IMPOSSIBLE, then the old side's, then the new side's; a box's rule r is ``entries[r]``.

    The new side's entries begin at `new`, behind both sides' are the boxes `asked`.
    The first `common` entries are alike on both.  Opaque predicate n is ``literals[n - 1]``.
    """

    boxes: Boxes
    entries: tuple[Entry, ...]
    new: int
    common: int
    literals: tuple[tuple[Literal, ...], ...]

    def side(self, second: bool) -> Indices:
        """The rows of one side, IMPOSSIBLE's apart."""
        rule = self.boxes.rule
        end = len(self.entries)
        chosen = (rule >= self.new) & (rule < end) if second else (rule >= 0) & (rule < self.new)
        return np.flatnonzero(chosen).astype(np.int64)

    def rows_of(self, entries: Sequence[int]) -> Indices:
        """The rows of some entries."""
        return np.flatnonzero(np.isin(self.boxes.rule, np.array(entries, dtype=np.int64))).astype(np.int64)

    @property
    def asked(self) -> Indices:
        """The rows of where to look."""
        return self.rows_of([len(self.entries)])

    @property
    def impossible(self) -> Indices:
        return np.flatnonzero(self.boxes.rule == IMPOSSIBLE).astype(np.int64)


def listing(old: RuleSet, new: RuleSet, asked: Predicate) -> Listing:
    """Both rule sets' entries as boxes; `asked` says where to look."""
    first, second = (list(entries(side)) for side in (old, new))
    _drop_equal_odd(first, second)
    both = (*first, *second)
    boxes, opaque = listed([*(entry.test for entry in both), asked])
    literals = [literals_of(predicate) for predicate in opaque]
    numbers = boxes.opaque.copy()
    for odd in dict.fromkeys(entry.odd for entry in both if entry.odd is not None):
        literals.append((Literal(odd, True),))
        of_it = [at for at, entry in enumerate(both) if entry.odd == odd]
        numbers[np.isin(boxes.rule, of_it)] = len(literals)
    pairs = zip(first, second, strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0].decides_like(pair[1]), pairs))
    real = with_reality(replace(boxes, opaque=numbers))
    return Listing(real, both, len(first), common, tuple(literals))


def literals_of(opaque: Predicate) -> tuple[Literal, ...]:
    """The literals that an opaque predicate is the conjunction of."""
    operands = opaque.operands if isinstance(opaque, All) else (opaque,)
    return tuple(
        Literal(one.operand, False) if isinstance(one, Negation) else Literal(one, True) for one in operands
    )


def entries(rule_set: RuleSet) -> Iterator[Entry]:
    """What can decide, in order; what only counts, or never matches, is not among it."""
    for condition, verdict in sorted(rule_set.conditions):
        if verdict is not None and rule_set.depth >= _LAYERS[condition]:
            slot = FIRST_CONDITION_SLOT + condition
            test = _TESTS.get(condition, Always(True))
            # Of the conditions only `malformed` asks for more the deeper it is judged.
            depth = rule_set.depth if condition is Condition.MALFORMED else _LAYERS[condition]
            odd = Odd(condition, depth) if condition in _JUDGED else None
            yield Entry(slot, verdict, test, odd)
    for slot, rule in enumerate(rule_set.rules, FIRST_RULE_SLOT):
        decision = rule.decision
        if decision is not None:
            yield Entry(slot, decision, rule.condition)


def _drop_equal_odd(first: list[Entry], second: list[Entry]) -> None:
    """Take out judgements that both sides make alike before anything else: they change nothing."""
    at = 0
    while at < min(len(first), len(second)) and first[at] == second[at] and first[at].slot < FIRST_RULE_SLOT:
        if first[at].odd is None:
            at += 1
        else:
            del first[at], second[at]


#: Conditions that no field tells.  A chain that is too long is IPv6 without a protocol.
_JUDGED = frozenset({Condition.MALFORMED, Condition.EXTHDR_LIMIT, Condition.IP_OPTIONS})
_LAYERS = {
    Condition.MALFORMED: Layer.LINK,
    Condition.UNKNOWN_TAG: Layer.LINK,
    Condition.EXTHDR_LIMIT: Layer.NETWORK,
    Condition.FRAGMENT: Layer.NETWORK,
    Condition.IP_OPTIONS: Layer.NETWORK,
}
_TESTS: dict[Condition, Predicate] = {
    Condition.UNKNOWN_TAG: Within(FieldRef("eth.type"), IntervalSet.single(*VLAN_TPIDS)),
    Condition.EXTHDR_LIMIT: All(
        (
            Within(FieldRef("eth.type"), IntervalSet.single(IPV6)),
            Negation(Within(FieldRef("proto"), IntervalSet.full(8))),
        )
    ),
    Condition.FRAGMENT: Within(FieldRef("frag"), IntervalSet.single(2)),
    Condition.IP_OPTIONS: Within(FieldRef("eth.type"), IntervalSet.single(IPV4)),
}
