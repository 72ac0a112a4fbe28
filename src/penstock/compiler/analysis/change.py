"""Every class of packets whose verdict changes between two rule sets.

In go two rule sets; out come `Change`s: the packets (values of fields, and
opaque predicates that hold or do not), both verdicts, and what decides on either
side.  No packet outside of all classes changes its verdict; every packet of a class does.

    - drop if tcp dst port 22        tcp dst port 22: drop (rule 1) -> pass (default)

A packet that matches only rules which both sides have, in the same order, fares
the same on both.  So only the boxes of rules that were edited are looked into,
each with a diagram of what meets it, unless a default or a condition differs
too.  What the budget does not suffice for is not passed over: `Changes.undecided`
names it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import islice

import numpy as np

from penstock.compiler.analysis.compare import (
    Answers,
    Difference,
    count_ways,
    hull,
    meaning,
    paths,
    product,
    ways,
)
from penstock.compiler.analysis.listing import Entry, Listing, Literal, Odd, listing
from penstock.compiler.analysis.merge import Change, merged
from penstock.compiler.analysis.reality import IMPOSSIBLE
from penstock.compiler.diagram.axis import Ranks
from penstock.compiler.diagram.boxes import Boxes, Indices
from penstock.compiler.diagram.build import Budget, OverBudgetError, build, prune, root
from penstock.compiler.diagram.node import Diagram, Terminal
from penstock.compiler.diagram.order import axis_order
from penstock.compiler.diagram.reduce import reduce
from penstock.compiler.ir.ops import DEFAULT_SLOT, Always, Decision, FieldRef, Predicate, RuleSet
from penstock.model.net import IntervalSet
from penstock.model.verdict import Verdict

#: More edited boxes than this, and all of packet space is looked into at once.
MAX_REGIONS = 200
#: More classes than this in one region, and they are told as one, by what they have in common.
MAX_PATHS = 2000
SAMPLES = 8
#: What parts have in common is told of a field in at most so many intervals.
MAX_INTERVALS = 8
MAX_BRANCHES = 256
SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Changes:
    """`undecided` are classes of packets (fields) about which the budget let nothing be said."""

    classes: tuple[Change, ...]
    undecided: tuple[Mapping[FieldRef, IntervalSet], ...] = ()


def changes(
    old: RuleSet,
    new: RuleSet,
    budget: Callable[[], Budget] | None = None,
    within: Predicate | None = None,
) -> Changes:
    """All classes of packets whose verdict changes, looked for only where `within` may hold, if it is given.

    `budget` makes the bounds for one region.
    """
    both = listing(old, new, within or Always(True))
    bounds = budget or _budgets()
    judge = _Judge(both, old.default, new.default)
    found: list[Change] = []
    undecided: list[Mapping[FieldRef, IntervalSet]] = []
    done: list[_Region] = []
    for region in _regions(both, within, whole=old.default is not new.default):
        try:
            found += _changes_in(both, region, done, judge, bounds())
        except OverBudgetError:
            undecided.append(region.fields(both.boxes))
        done.append(region)
    return Changes(tuple(merged(found)), tuple(undecided))


def _budgets() -> Callable[[], Budget]:
    """All regions together have SECONDS."""
    first = Budget(members=4_000_000, seconds=SECONDS)
    return lambda: replace(first)


# ── where to look ────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, eq=False)
class _Region:
    """A box: one range of ranks an axis."""

    low: Ranks
    high: Ranks

    def cut(self, low: Ranks, high: Ranks) -> _Region:
        return _Region(np.maximum(self.low, low), np.minimum(self.high, high))

    def fields(self, boxes: Boxes) -> Mapping[FieldRef, IntervalSet]:
        found = {}
        for axis, low, high in zip(boxes.axes, self.low.tolist(), self.high.tolist(), strict=True):
            if (low, high) != (0, axis.width):
                found[axis.ref] = IntervalSet.of((axis.ends(low)[0], axis.ends(high - 1)[1]))
        return found


def _regions(both: Listing, within: Predicate | None, *, whole: bool) -> list[_Region]:
    """Boxes outside of which nothing can differ, cut down to those of `within`."""
    found = _differing(both, whole=whole)
    if within is None:
        return found
    boxes, rows = both.boxes, both.asked.tolist()
    both_of = [one.cut(boxes.low[row], boxes.high[row]) for one in found for row in rows]
    return [one for one in both_of if (one.low < one.high).all()]


def _differing(both: Listing, *, whole: bool) -> list[_Region]:
    boxes = both.boxes
    edited = _edited(both.entries[: both.new], both.entries[both.new :])
    rows = both.rows_of([*edited[0], *(both.new + at for at in edited[1])])
    if whole or len(rows) > MAX_REGIONS:
        widths = np.array([axis.width for axis in boxes.axes], dtype=np.int32)
        return [_Region(np.zeros_like(widths), widths)]
    found = [_Region(boxes.low[row], boxes.high[row]) for row in rows.tolist()]
    return [
        one
        for at, one in enumerate(found)
        if not any(
            _holds(other, one) and (other_at < at or not _holds(one, other))
            for other_at, other in enumerate(found)
            if other_at != at
        )
    ]


def _holds(outer: _Region, inner: _Region) -> bool:
    return bool(((outer.low <= inner.low) & (outer.high >= inner.high)).all())


def _edited(old: Sequence[Entry], new: Sequence[Entry]) -> tuple[list[int], list[int]]:
    """Entries of either side that the other does not have at the same place among the rest."""
    before, after = ([(entry.verdict, entry.test, entry.odd) for entry in side] for side in (old, new))
    start = 0
    while start < min(len(before), len(after)) and before[start] == after[start]:
        start += 1
    end = 0
    while end < min(len(before), len(after)) - start and before[-1 - end] == after[-1 - end]:
        end += 1
    left, right = before[start : len(before) - end], after[start : len(after) - end]
    gone, come = set(range(len(left))), set(range(len(right)))
    for first, second, size in SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks():
        gone -= set(range(first, first + size))
        come -= set(range(second, second + size))
    return [start + at for at in sorted(gone)], [start + at for at in sorted(come)]


# ── inside a region ──────────────────────────────────────────────────────────


def _changes_in(
    both: Listing, region: _Region, done: list[_Region], judge: _Judge, budget: Budget
) -> list[Change]:
    """The classes in the region and in none of those `done`."""
    left, right = (_clipped(both, region, done, second) for second in (False, True))
    order = axis_order(left if len(left) >= len(right) else right).all
    first, second = (reduce(build(side, order, budget)) for side in (left, right))
    diagram, answers = product(first, second, judge.meanings)
    if count_ways(diagram, bool) > MAX_PATHS:
        return list(_as_one(diagram, answers, judge, region.fields(both.boxes)))
    return [change for difference in paths(diagram, answers) for change in judge.changes(difference)]


def _as_one(
    diagram: Diagram, answers: Answers, judge: _Judge, around: Mapping[FieldRef, IntervalSet]
) -> Iterator[Change]:
    """For each pair of verdicts all its classes as one: what they have in common, and some of them."""
    kinds: dict[tuple[Decision, Decision], dict[int, Change]] = {}
    for at, (old, new) in enumerate(answers):
        for change in judge.changes(Difference({}, old, new, {})) if at else ():
            kinds.setdefault((change.old, change.new), {})[at] = change
    for (old_verdict, new_verdict), of_kind in kinds.items():

        def wanted(terminal: Terminal, pairs: Container[int] = of_kind) -> bool:
            return bool(terminal) and terminal[0][0] in pairs

        common = hull(diagram, wanted)
        told = {ref: held for ref, held in common.items() if len(held.intervals) <= MAX_INTERVALS}
        yield Change(
            {**around, **told},
            frozenset(),
            old_verdict,
            new_verdict,
            frozenset().union(*(change.old_slots for change in of_kind.values())),
            frozenset().union(*(change.new_slots for change in of_kind.values())),
            parts=count_ways(diagram, wanted),
            samples=tuple(fields for fields, _ in islice(ways(diagram, wanted), SAMPLES)),
        )


def _clipped(both: Listing, region: _Region, done: list[_Region], second: bool) -> Boxes:
    """One side's boxes within the region, those that cannot decide there left out."""
    boxes = both.boxes
    rows = np.concatenate([both.impossible, both.side(second)])
    low, high = boxes.low[rows], boxes.high[rows]
    opaque, alike = boxes.opaque[rows], boxes.rule[rows] - (both.new if second else 0) < both.common
    # What the first rules of both sides decide is of no interest, whichever rule it is.
    rule = np.where(alike & (np.cumsum(opaque) == 0), IMPOSSIBLE, boxes.rule[rows]).astype(np.int32)
    if done:
        low = np.concatenate([np.stack([one.low for one in done]), low])
        high = np.concatenate([np.stack([one.high for one in done]), high])
        rule = np.concatenate([np.full(len(done), IMPOSSIBLE, dtype=np.int32), rule])
        opaque = np.concatenate([np.zeros(len(done), dtype=np.int32), opaque])
    meets = ((low < region.high) & (high > region.low)).all(axis=1)
    low, high = np.maximum(low[meets], region.low), np.minimum(high[meets], region.high)
    inside = Boxes(boxes.axes, low, high, rule[meets], opaque[meets])
    kept: Indices = prune(root(inside), inside, range(len(boxes.axes))).box
    return inside.take(np.sort(kept))


@dataclass(frozen=True, slots=True)
class _Judge:
    """Says what terminals mean, and what a pair of them changes."""

    both: Listing
    old_default: Verdict
    new_default: Verdict

    @property
    def meanings(self) -> tuple[Callable[[Terminal], Terminal], Callable[[Terminal], Terminal]]:
        verdicts = [entry.verdict for entry in self.both.entries]
        numbers: dict[object, int] = {}
        return meaning(verdicts, self.old_default, numbers), meaning(verdicts, self.new_default, numbers)

    def changes(self, difference: Difference) -> Iterator[Change]:
        """The classes that a pair of terminals makes: one for each way in which opaque predicates tell them apart."""
        branches = list(islice(self._branches(difference.old, difference.new, {}), MAX_BRANCHES + 1))
        if len(branches) > MAX_BRANCHES:
            raise OverBudgetError(f"more than {MAX_BRANCHES} ways to tell packets apart by opaque predicates")
        for literals, first, second in branches:
            old, new = self._verdict(first, self.old_default), self._verdict(second, self.new_default)
            if old != new:
                slots = frozenset({self._slot(first)}), frozenset({self._slot(second)})
                yield Change(difference.fields, literals, old, new, *slots)

    def _branches(
        self, old: Terminal, new: Terminal, known: dict[object, bool]
    ) -> Iterator[tuple[frozenset[Literal], int | None, int | None]]:
        """(literals, the deciding entry of the old side, of the new side; None is the default)."""
        first, second = self._asked(old, known), self._asked(new, known)
        asked = first if isinstance(first, Literal) else second
        if not isinstance(asked, Literal):
            assert not isinstance(first, Literal)
            literals = frozenset(Literal(atom, truth) for atom, truth in known.items())  # type: ignore[arg-type]
            yield literals, first, asked
            return
        for truth in (True, False):
            if _consistent(known, asked, truth):
                yield from self._branches(old, new, {**known, asked.atom: truth})

    def _asked(self, terminal: Terminal, known: Mapping[object, bool]) -> Literal | int | None:
        """What decides, as far as known; else the literal that has to be known first."""
        for rule, opaque in terminal:
            literals = self.both.literals[opaque - 1] if opaque else ()
            if any(known.get(atom, holds) != holds for atom, holds in literals):
                continue
            unknown = next((one for one in literals if one.atom not in known), None)
            return rule if unknown is None else unknown
        return None

    def _verdict(self, entry: int | None, default: Verdict) -> Decision:
        return default if entry is None else self.both.entries[entry].verdict

    def _slot(self, entry: int | None) -> int:
        return DEFAULT_SLOT if entry is None else self.both.entries[entry].slot


def _consistent(known: Mapping[object, bool], asked: Literal, truth: bool) -> bool:
    """What is malformed down to one depth is so down to every deeper one."""
    one = asked.atom
    if not isinstance(one, Odd):
        return True
    for other, holds in known.items():
        if isinstance(other, Odd) and other.condition == one.condition and holds != truth:
            shallow = one if one.depth < other.depth else other
            if truth if shallow is one else holds:
                return False
    return True
