"""What the rules of a filter mean together: those that never decide, change nothing or depend on their order.

In goes a rule set; out comes a `Review`, in which every packet that is shown was
built and run through the reference evaluator.  What holds of all packets (a rule
never matches, a rule changes nothing) is proven on boxes; that there is a packet
is only said if there is one to show.  The effort is bounded by counted work, so
that the answers do not depend on the machine; rules that were left out for that
are listed as undecided.

    drop if src net 10.0.0.0/8
    pass if src host 10.1.2.3          shadowed by the rule before: IPv4(src="10.1.2.3")/UDP()
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice

import numpy as np

from penstock.compiler.analysis.anomalies import Anomalies
from penstock.compiler.analysis.cover import Region, Work, WorkExceededError, everything
from penstock.compiler.analysis.example import examples
from penstock.compiler.analysis.facts import world_of
from penstock.compiler.analysis.reality import widened
from penstock.compiler.analysis.removable import Findings, found_in
from penstock.compiler.diagram.boxes import Boxes, Truth
from penstock.compiler.diagram.convert import listed
from penstock.compiler.ir.evaluate import Packet, evaluate, matches
from penstock.compiler.ir.ops import DEFAULT_SLOT, FIRST_RULE_SLOT, All, Predicate, RuleSet

#: More pairs of correlated rules than these are not looked for.
MOST_PAIRS = 1000
#: Boxes that may be looked at for one question, and for all of one kind.
EACH, ALL = 10_000_000, 50_000_000
#: Regions, and packets of each, that are tried to find an example.
_REGIONS, _PACKETS = 8, 3
#: Rules that are asked for all examples of one kind together; what is found behind them has none.
_ASKED = 30_000
#: So many pairs with opaque predicates are tried in vain; the others are passed over.
_MISSES = 30


@dataclass(frozen=True, slots=True)
class Shadowing:
    """No packet comes to be decided by `rule`: `by` decide them all before; without these it matches none at all."""

    rule: int
    by: tuple[int, ...]
    example: str | None


@dataclass(frozen=True, slots=True)
class Redundancy:
    """Without `rule` (and the redundant ones before it) every packet fares the same.

    `then` decides the example without it, the default if it is None.
    """

    rule: int
    then: int | None
    example: str | None


@dataclass(frozen=True, slots=True)
class Correlation:
    """`first` decides the example, `second` would decide it otherwise; each also matches what the other does not."""

    first: int
    second: int
    example: str | None


@dataclass(frozen=True, slots=True)
class Review:
    """`default` is a packet that reaches the default; `is_closed` tells that none does, None that it is not known."""

    shadowed: tuple[Shadowing, ...]
    redundant: tuple[Redundancy, ...]
    correlated: tuple[Correlation, ...]
    is_complete: bool
    default: str | None
    is_closed: bool | None
    undecided: tuple[int, ...]


def review(rule_set: RuleSet) -> Review:
    """What the rules mean together; rules are numbered from 0."""
    if not rule_set.rules:
        return Review((), (), (), True, None, None, ())
    return _Reviewer(rule_set).review()


def _before_mangling(rule_set: RuleSet) -> int:
    """How many rules stand before the last one that marks or copies packets."""
    mangling = [
        at for at, rule in enumerate(rule_set.rules) if rule.argument is not None and not rule.decides
    ]
    return mangling[-1] if mangling else 0


class _Reviewer:
    def __init__(self, rule_set: RuleSet) -> None:
        self.rule_set = rule_set
        boxes, opaque = listed(rule.condition for rule in rule_set.rules)
        verdicts = [rule.decision for rule in rule_set.rules]
        boxes, atoms = _expiring(rule_set, boxes, [_atoms(predicate) for predicate in opaque])
        self.anomalies = Anomalies(widened(boxes), verdicts, rule_set.default, world_of(rule_set), atoms)
        self.asking = set(boxes.rule[boxes.opaque != 0].tolist())
        self.left, self.missed = _ASKED, 0

    def review(self) -> Review:
        work = Work(ALL, EACH)
        example, is_closed = self._default()
        found = found_in(self.anomalies, work, needed=_before_mangling(self.rule_set))
        gone = np.isin(self.anomalies.real.rule, [one.rule for one in found.shadowed])
        empty = set(range(len(self.rule_set.rules))) - set(self.anomalies.rules)
        by = {one.rule: one.by for one in found.shadowed} | dict.fromkeys(empty, ())
        shadowed = tuple(Shadowing(rule, by[rule], self._shadowed(rule, by[rule])) for rule in sorted(by))
        self.left = _ASKED
        redundant = tuple(self._redundancies(found, gone))
        self.left = _ASKED
        correlated, is_complete = self._correlations(set(by))
        return Review(shadowed, redundant, correlated, is_complete, example, is_closed, found.undecided)

    # ── packets that show it ─────────────────────────────────────────────────

    def _example(self, regions: Iterable[Region], accept: Callable[[bytes], bool]) -> str | None:
        """A packet of one of the regions that is as it should be."""
        try:
            for region in islice(regions, _REGIONS):
                for found in islice(examples(self.anomalies.fields(region)), _PACKETS):
                    self.left -= len(self.rule_set.rules)
                    if accept(found.frame):
                        return found.text
                    if self.left < 0:
                        return None
        except WorkExceededError:
            pass
        return None

    def _decider(self, frame: bytes) -> int:
        """The rule that decides a frame; negative for the default and the odd-packet conditions."""
        return evaluate(self.rule_set, frame).slot - FIRST_RULE_SLOT

    def _matches(self, rule: int, frame: bytes) -> bool:
        return matches(self.rule_set.rules[rule], Packet(frame))

    def _shadowed(self, rule: int, by: tuple[int, ...]) -> str | None:
        if not by or self.left < 0:
            return None
        regions = self.anomalies.possible(rule, Work(EACH, EACH))
        return self._example(regions, lambda frame: self._decider(frame) in by and self._matches(rule, frame))

    def _redundancies(self, found: Findings, gone: Truth) -> Iterator[Redundancy]:
        removed = {one.rule for one in found.shadowed}
        for one in found.redundant:
            removed.add(one.rule)
            yield self._redundancy(one.rule, gone, removed)
            gone = gone | (self.anomalies.real.rule == one.rule)

    def _redundancy(self, rule: int, gone: Truth, removed: set[int]) -> Redundancy:
        """The example is one that the rule decides now, and that what is left then treats alike."""
        verdict = self.rule_set.rules[rule].decision
        then: int | None = None

        def accept(frame: bytes) -> bool:
            nonlocal then
            if self._decider(frame) != rule:
                return False
            then = self._next(rule, removed, Packet(frame))
            return verdict == (self.rule_set.default if then is None else self.rule_set.rules[then].decision)

        if self.left < 0:
            return Redundancy(rule, None, None)
        text = self._example(self.anomalies.decided(rule, gone, Work(EACH, EACH)), accept)
        return Redundancy(rule, then if text else None, text)

    def _next(self, rule: int, removed: set[int], packet: Packet) -> int | None:
        later = enumerate(self.rule_set.rules[rule + 1 :], rule + 1)
        return next(
            (at for at, one in later if one.decides and at not in removed and matches(one, packet)), None
        )

    # ── pairs, and the default ───────────────────────────────────────────────

    def _correlations(self, shadowed: set[int]) -> tuple[tuple[Correlation, ...], bool]:
        found: list[Correlation] = []
        try:
            for pair in self.anomalies.correlated(Work(ALL // 4, EACH)):
                if len(found) == MOST_PAIRS:
                    return tuple(found), False
                if pair.second not in shadowed:
                    found += self._correlation(pair.first, pair.second, pair.overlap)
        except WorkExceededError:
            return tuple(found), False
        return tuple(found), True

    def _correlation(self, first: int, second: int, overlap: Region) -> Iterator[Correlation]:
        """The pair, unless no packet could be found where one was looked for."""
        asks = bool({first, second} & self.asking)
        if asks and self.missed > _MISSES:
            return
        if self.left >= 0:
            ends = zip(self.anomalies.whole(first), self.anomalies.whole(second), strict=False)
            regions = [*(one & other for one, other in ends), overlap]
            example = self._example(
                regions, lambda frame: self._decider(frame) == first and self._matches(second, frame)
            )
            if example is not None:
                yield Correlation(first, second, example)
            self.missed += example is None
        elif not asks:
            yield Correlation(first, second, None)

    def _default(self) -> tuple[str | None, bool | None]:
        work = Work(EACH, EACH)
        try:
            if next(self.anomalies.default(work), None) is None:
                return None, True
        except WorkExceededError:
            return None, None
        regions = chain([everything(self.anomalies.real)], self.anomalies.default(Work(EACH, EACH)))
        example = self._example(regions, lambda frame: self._decider(frame) == DEFAULT_SLOT - FIRST_RULE_SLOT)
        return example, None if example is None else False


def _atoms(predicate: Predicate) -> frozenset[Hashable]:
    return frozenset(predicate.operands if isinstance(predicate, All) else [predicate])


def _expiring(
    rule_set: RuleSet, boxes: Boxes, atoms: list[frozenset[Hashable]]
) -> tuple[Boxes, list[frozenset[Hashable]]]:
    """That a rule has not expired yet is one more thing that may be true of it or not."""
    opaque = boxes.opaque.copy()
    known = [frozenset[Hashable](), *atoms]
    for at, number in enumerate(boxes.rule.tolist()):
        if rule_set.rules[number].until_ns is not None:
            known.append(known[opaque[at]] | {("until", number)})
            opaque[at] = len(known) - 1
    return replace(boxes, opaque=opaque), known[1:]
