"""What differs between two filters: classes of packets, settings, counters; and what a capture says of it.

    compare(old, new)                        ->  Comparison(classes=(Found(…), …), …)
    weigh(comparison, old, new, ["a.pcap"])  ->  the same, with packets and bytes of each class

Every class comes with a packet on which the reference evaluator has both
verdicts; a class without one says so, and may have no packet at all.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from penstock.compiler.analysis.change import Changes, changes
from penstock.compiler.analysis.example import Example, examples, is_in
from penstock.compiler.analysis.expression import expression
from penstock.compiler.analysis.guess import guesses
from penstock.compiler.analysis.listing import literals_of, satisfies
from penstock.compiler.analysis.merge import Change, meet
from penstock.compiler.analysis.spelling import condition_of
from penstock.compiler.diagram.axis import integers
from penstock.compiler.diagram.disjunction import TooManyTermsError, terms
from penstock.compiler.ir.evaluate import Packet, conditions_of, evaluate, evaluate_packet, holds
from penstock.compiler.ir.ops import (
    FIRST_RULE_SLOT,
    Decision,
    FieldRef,
    Predicate,
    Rule,
    RuleSet,
    counter_names,
)
from penstock.compiler.ir.outcome import decision_on
from penstock.engine.batch import axes_of
from penstock.engine.effects import EffectChange, effect_changes, reordered
from penstock.model.net import IntervalSet
from penstock.model.verdict import Condition, Verdict
from penstock.observe.capture import ethernet_frames

#: Packets that are tried to show a class by.
MAX_TRIES = 400
SAMPLES = 20


@dataclass(frozen=True, slots=True)
class Decider:
    """What decides on one side: a rule (then with its line), a condition or the default."""

    name: str
    line: int | None


@dataclass(frozen=True, slots=True)
class Traffic:
    """Packets and bytes on the wire."""

    packets: int = 0
    size: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.packets + other.packets, self.size + other.size)


@dataclass(frozen=True, slots=True)
class Found:
    """One class: its condition (`exact` if penstock parses it), what decides, a packet of it, its traffic."""

    change: Change
    condition: str
    exact: bool
    old: tuple[Decider, ...]
    new: tuple[Decider, ...]
    example: Example | None = None
    traffic: Traffic | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """A default or an `on` line that differs."""

    name: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Counters:
    """Counters (by name) that only one side has, or that count something else."""

    gone: tuple[str, ...]
    come: tuple[str, ...]
    changed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.gone or self.come or self.changed)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that differs.

    `effects` are rules that mark, copy or change sets otherwise, `reordered` such rules in
    another order.  `undecided` are conditions of packets about which nothing could be proven.
    `total`, `unaffected` and `warnings` are of the captures, if there were any.
    """

    classes: tuple[Found, ...]
    settings: tuple[Setting, ...]
    counters: Counters
    effects: tuple[EffectChange, ...] = ()
    reordered: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    undecided_fields: tuple[Mapping[FieldRef, IntervalSet], ...] = ()
    total: Traffic | None = None
    unaffected: Traffic | None = None
    warnings: tuple[str, ...] = ()

    @property
    def same_verdicts(self) -> bool:
        """Proven: every packet has the same verdict on both sides."""
        return not self.classes and not self.undecided


def compare(old: RuleSet, new: RuleSet) -> Comparison:
    """The differences, classes with most packets first; their examples are still to be found (`shown`)."""
    found: Changes = changes(old, new)
    return Comparison(
        tuple(_found(change, old, new) for change in found.classes),
        tuple(_settings(old, new)),
        _counters(old, new),
        effect_changes(old, new),
        reordered(old, new),
        tuple(expression(fields) for fields in found.undecided),
        found.undecided,
    )


def _found(change: Change, old: RuleSet, new: RuleSet) -> Found:
    text, exact = condition_of(change.fields, change.literals, {old.depth, new.depth})
    return Found(change, text, exact, _deciders(old, change.old_slots), _deciders(new, change.new_slots))


def _deciders(rules: RuleSet, slots: frozenset[int]) -> tuple[Decider, ...]:
    names = counter_names(rules)
    return tuple(
        Decider(names[slot], rules.rules[slot - FIRST_RULE_SLOT].line if slot >= FIRST_RULE_SLOT else None)
        for slot in sorted(slots)
    )


def shown(found: Found, old: RuleSet, new: RuleSet, wanted: Predicate | None = None) -> Found:
    """The class with an example on which both sides do as it says (and `wanted` holds), if one is found."""
    change = found.change
    parts = change.samples or (change.fields,)
    tries = (one for fields in parts for one in guesses(fields, change.literals))
    for one in islice(tries, MAX_TRIES):
        decisions = decision_on(old, evaluate(old, one.frame)), decision_on(new, evaluate(new, one.frame))
        if decisions == (change.old, change.new) and (wanted is None or holds(wanted, Packet(one.frame))):
            return replace(found, example=one)
    return found


def evidence(comparison: Comparison, old: RuleSet, new: RuleSet) -> tuple[Example | None, ...]:
    """For each condition that is undecided a packet whose verdict changes, if one is found."""
    return tuple(
        next((one for one in _tries(fields, old, new) if _changes(one.frame, old, new)), None)
        for fields in comparison.undecided_fields
    )


def _tries(fields: Mapping[FieldRef, IntervalSet], old: RuleSet, new: RuleSet) -> Iterator[Example]:
    """Packets of the class: plain ones, then some with values at which a test of some rule begins or ends."""
    yield from islice(examples(fields), SAMPLES)
    draw = np.random.default_rng(0)
    axes = axes_of(rule.condition for side in (old, new) for rule in side.rules)
    cuts = {ref: integers(axis.cuts[:-1]) for ref, axis in axes.items() if not ref.scope}
    for _ in range(MAX_TRIES):
        point = dict(fields)
        for ref, values in cuts.items():
            value = values[int(draw.integers(len(values)))]
            if draw.random() < 0.5 and (ref not in fields or value in fields[ref]):
                point[ref] = IntervalSet.single(value)
        yield from islice(examples(point), 1)


def _changes(frame: bytes, old: RuleSet, new: RuleSet) -> bool:
    return decision_on(old, evaluate(old, frame)) != decision_on(new, evaluate(new, frame))


# ── settings and counters ────────────────────────────────────────────────────


def _settings(old: RuleSet, new: RuleSet) -> Iterator[Setting]:
    if old.default is not new.default:
        yield Setting("default", old.default.value, new.default.value)
    for condition in Condition:
        before, after = (_word(side.verdict_on(condition)) for side in (old, new))
        if before != after:
            yield Setting(f"on {condition.word}", before, after)


def _word(verdict: Verdict | None) -> str:
    return "continue" if verdict is None else verdict.value


def _counters(old: RuleSet, new: RuleSet) -> Counters:
    """Counters by name.  A rule without a label, named after its line, is no other for standing on another one."""
    before, after = ({rule.name: rule for rule in side.rules} for side in (old, new))
    there, here = ({_told(rule) for rule in side.rules if not rule.labelled} for side in (old, new))
    gone = [name for name, rule in before.items() if rule.labelled or _told(rule) not in here]
    come = [name for name, rule in after.items() if rule.labelled or _told(rule) not in there]
    changed = [name for name in gone if name in come and _told(before[name]) != _told(after[name])]
    return Counters(
        tuple(name for name in gone if name not in after or (name not in come and name not in changed)),
        tuple(name for name in come if name not in before or (name not in gone and name not in changed)),
        tuple(changed),
    )


def _told(rule: Rule) -> tuple[object, Predicate]:
    return (rule.action, rule.argument), rule.condition


# ── does it touch an expression? ─────────────────────────────────────────────


def touching(old: RuleSet, new: RuleSet, wanted: Predicate) -> Comparison:
    """The comparison of packets for which `wanted` may hold; what is opaque in it may or may not."""
    found = changes(old, new, within=wanted)
    return Comparison(
        tuple(_found(change, old, new) for change in found.classes if _may_hold(wanted, change)),
        tuple(_settings(old, new)),
        _counters(old, new),
        undecided=tuple(expression(fields) for fields in found.undecided),
        undecided_fields=found.undecided,
    )


def _may_hold(wanted: Predicate, change: Change) -> bool:
    """Whether what is opaque in the expression is not ruled out by what the class says."""
    try:
        alternatives = terms(wanted)
    except TooManyTermsError:
        return True
    known = {literal.atom: literal.holds for literal in change.literals}
    return any(
        meet(change.fields, term.fields)
        and all(
            known.get(one.atom, one.holds) == one.holds for test in term.opaque for one in literals_of(test)
        )
        for term in alternatives
    )


# ── captures ─────────────────────────────────────────────────────────────────


def weigh(comparison: Comparison, old: RuleSet, new: RuleSet, paths: Sequence[str]) -> Comparison:
    """The comparison with the captures' traffic in each class, most first.

    Classes overlap; a packet counts for the first that it is in.  Where something
    is undecided, packets in none are put to both sides one by one.

    Raises:
        CaptureError: a capture cannot be read.
    """
    weights = [Traffic()] * len(comparison.classes)
    total = affected = Traffic()
    warnings: list[str] = []
    classes = Classes([found.change for found in comparison.classes], old, new)
    for path in paths:
        for frame in ethernet_frames(path, warnings):
            packet, one = Packet(frame.data, frame.wire_length), Traffic(1, frame.wire_length)
            total += one
            at = classes.first(packet)
            if at is not None:
                weights[at] += one
                affected += one
            elif comparison.undecided and classes.differs(packet):
                affected += one
    weighed = zip(comparison.classes, weights, strict=True)
    most_first = sorted(weighed, key=lambda pair: (-pair[1].packets, -pair[1].size))
    rest = Traffic(total.packets - affected.packets, total.size - affected.size)
    return replace(
        comparison,
        classes=tuple(replace(found, traffic=weight) for found, weight in most_first),
        total=total,
        unaffected=rest,
        warnings=tuple(warnings),
    )


class Classes:
    """Finds the class of a packet.  Values between the same ends of intervals are looked up once."""

    def __init__(self, classes: Sequence[Change], old: RuleSet, new: RuleSet) -> None:
        self._classes, self._sides = classes, (old, new)
        refs = dict.fromkeys(ref for one in classes for ref in one.fields)
        self._cuts = {
            ref: sorted(
                {end for one in classes for low, high in one.fields.get(ref, ()) for end in (low, high + 1)}
            )
            for ref in refs
        }
        self._known: dict[tuple[int, ...], tuple[int, ...]] = {}

    def first(self, packet: Packet) -> int | None:
        """The first class that the packet is in; None if its verdict does not change."""
        key = tuple(bisect_right(cuts, _key(packet, ref)) for ref, cuts in self._cuts.items())
        if key not in self._known:
            inside = [at for at, one in enumerate(self._classes) if is_in(packet, one.fields)]
            self._known[key] = tuple(inside)
        for at in self._known[key]:
            one = self._classes[at]
            if one.parts > 1:
                if self._verdicts(packet) == (one.old, one.new):
                    return at
            elif all(satisfies(literal, packet) for literal in one.literals):
                return None if self._is_settled(packet) else at
        return None

    def _is_settled(self, packet: Packet) -> bool:
        """Whether both sides judge it by an odd-packet condition, and alike."""
        before, after = (_judged(side, packet) for side in self._sides)
        return before is not None and before is after

    def differs(self, packet: Packet) -> bool:
        """The definition of a packet whose verdict changes."""
        before, after = self._verdicts(packet)
        return before != after

    def _verdicts(self, packet: Packet) -> tuple[Decision, Decision]:
        first, second = self._sides
        return (
            decision_on(first, evaluate_packet(first, packet)),
            decision_on(second, evaluate_packet(second, packet)),
        )


def _key(packet: Packet, ref: FieldRef) -> int:
    value = packet.value(ref)
    return 1 << ref.field.bits if value is None else value


def _judged(rules: RuleSet, packet: Packet) -> Verdict | None:
    verdicts = map(rules.verdict_on, sorted(conditions_of(packet, rules.depth)))
    return next((verdict for verdict in verdicts if verdict is not None), None)
