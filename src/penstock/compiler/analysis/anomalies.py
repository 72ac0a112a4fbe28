"""Rules that never decide, rules that change nothing, rules whose order matters, and who reaches the default.

Exact answers come from covering boxes with boxes (cover.py).  Most rules are
cleared before that by random packets: one that a rule decides, and that would
fare otherwise without it, proves the rule needed.

    drop if src net 10.0.0.0/8
    drop if src net 10.1.0.0/16        shadowed by rule 0: no packet reaches it
    pass if src net 11.0.0.0/8         redundant under `default pass`

Opaque predicates are taken as free: what is said holds whatever they say.  A rule
that they could save is not accused, and where they decide nothing is claimed.
Rules without a verdict (they count) decide nothing, but can be shadowed.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from penstock.compiler.analysis.cover import (
    Region,
    Work,
    everything,
    meeting,
    open_regions,
    region_of,
    some_open,
)
from penstock.compiler.analysis.facts import EVERY_FRAME, World
from penstock.compiler.analysis.reality import IMPOSSIBLE, with_reality
from penstock.compiler.analysis.sample import (
    MOST_BYTES,
    first_of,
    from_box,
    index_of,
    kinds_of,
    points_in,
    size_of,
)
from penstock.compiler.diagram.boxes import NO_RULE, Boxes, Indices, Truth
from penstock.compiler.ir.ops import FieldRef
from penstock.model.net import IntervalSet

ROUNDS = 2
#: Points looked up at once.
_CHUNK = 4096
#: So many rules that shadow one together are tried to be left out of the answer.
_MOST_LEFT_OUT = 16
#: So few atoms have fewer subsets than there may be predicates.
_FEW_ATOMS = 6
_NO_VERDICT, _NEVER = -1, -2


@dataclass(frozen=True, slots=True)
class Shadowed:
    """No packet is decided (or counted) by `rule`; `by` are the rules that decide what it would match.

    Without any the rule matches no packet at all.
    """

    rule: int
    by: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Correlated:
    """Two rules with different verdicts overlap, neither within the other, and `first` decides packets of both."""

    first: int
    second: int
    overlap: Region


class Anomalies:
    """The questions that can be asked of one rule set.

    `verdicts` has an entry for each rule, None for one that does not decide;
    `opaque` says for each number of a predicate which atoms it is the conjunction
    of (by default each is one by itself).
    """

    def __init__(
        self,
        boxes: Boxes,
        verdicts: Sequence[Hashable],
        default: Hashable,
        world: World = EVERY_FRAME,
        opaque: Sequence[frozenset[Hashable]] | None = None,
    ) -> None:
        self.real = with_reality(boxes, world)
        self.rules = sorted(set(boxes.rule.tolist()))
        numbers: dict[Hashable, int] = {default: 0}
        codes = [
            _NO_VERDICT if verdict is None else numbers.setdefault(verdict, len(numbers))
            for verdict in verdicts
        ]
        self._codes = np.array([*codes, _NEVER, _NEVER], dtype=np.int64)
        self._code = self._codes[self.real.rule]
        self._blocks = self._code != _NO_VERDICT
        atoms = opaque or [frozenset({at}) for at in range(1, int(self.real.opaque.max(initial=0)) + 1)]
        known: dict[Hashable, int] = {}
        told = [frozenset(known.setdefault(atom, len(known)) for atom in each) for each in atoms]
        self._atoms = [frozenset[int](), *told]
        self._numbers: dict[frozenset[int], list[int]] = {}
        for number, each in enumerate(self._atoms):
            self._numbers.setdefault(each, []).append(number)
        counts = np.bincount(boxes.rule, minlength=len(verdicts) + 2)
        self._alone = (self.real.rule >= 0) & (counts[self.real.rule] == 1)
        kinds = kinds_of(self.real)
        self._kinds = Region(np.stack([kind.low for kind in kinds]), np.stack([kind.high for kind in kinds]))
        self._plain = np.flatnonzero(self._blocks & (self.real.opaque == 0))

    # ── which boxes ──────────────────────────────────────────────────────────

    def _own(self, rule: int) -> range:
        """The boxes of a rule."""
        first, end = np.searchsorted(self.real.rule, [rule, rule + 1]).tolist()
        return range(first, end)

    def _given(self, *boxes: int) -> frozenset[int]:
        """The atoms that are true of what all of these boxes hold."""
        return frozenset[int]().union(*(self._atoms[self.real.opaque[box]] for box in boxes))

    def _certain(self, given: frozenset[int]) -> Truth:
        """The boxes that hold all their packets, where the atoms given are true."""
        if not given:
            plain: Truth = self.real.opaque == 0
            return plain
        true = np.zeros(len(self._atoms), dtype=bool)
        if len(given) <= _FEW_ATOMS:
            parts = (frozenset(part) for size in range(len(given) + 1) for part in combinations(given, size))
            true[[number for part in parts for number in self._numbers.get(part, ())]] = True
        else:
            true[[number for number, atoms in enumerate(self._atoms) if atoms <= given]] = True
        found: Truth = true[self.real.opaque]
        return found

    def _before(self, rule: int, given: frozenset[int]) -> Indices:
        """The boxes that decide all their packets before the rule is asked; the impossible ones first."""
        end = self._own(rule).start
        if not given:
            return self._plain[: np.searchsorted(self._plain, end)]
        found: Indices = np.flatnonzero((self._blocks & self._certain(given))[:end])
        return found

    def _open(
        self, region: Region, chosen: Indices, work: Work, used: set[int] | None = None
    ) -> Region | None:
        return some_open(region, self.real, chosen, self._kinds, work, used)

    def _parts(self, region: Region, chosen: Indices, work: Work) -> Iterator[Region]:
        """What is open of the region, something everyday first, if there is such a thing."""
        first = self._open(region, chosen, work)
        if first is not None:
            yield first
            yield from open_regions(region, self.real, chosen, work)

    def decides(self, rule: int) -> bool:
        """Whether the rule has a verdict."""
        return bool(self._codes[rule] != _NO_VERDICT)

    # ── shadowed ─────────────────────────────────────────────────────────────

    def shadowed(self, rule: int, work: Work) -> Shadowed | None:
        """Whether the rule never comes to decide, and why.

        Raises:
            WorkExceededError: the question takes more work than is allowed.
        """
        work.question()
        used: set[int] = set()
        for own in self._own(rule):
            region = region_of(self.real, own)
            before = self._before(rule, self._given(own))
            if self._open(region, before, work, used) is not None:
                return None
        by = sorted(set(self.real.rule[sorted(used)].tolist()) - {IMPOSSIBLE})
        return Shadowed(rule, self._fewest(rule, by, work))

    def _fewest(self, rule: int, by: list[int], work: Work) -> tuple[int, ...]:
        """The shadowing rules without those that the others make up for; later ones are left out first."""
        if len(by) > _MOST_LEFT_OUT:
            return tuple(by)
        kept = list(by)
        for other in reversed(by):
            fewer = [one for one in kept if one != other]
            if self._are_shadowing(rule, fewer, work):
                kept = fewer
        return tuple(kept)

    def _are_shadowing(self, rule: int, by: list[int], work: Work) -> bool:
        return all(self._is_covered_by(own, [*by, IMPOSSIBLE], work) for own in self._own(rule))

    def _is_covered_by(self, own: int, rules: list[int], work: Work) -> bool:
        """Whether every packet of the box is one of these rules', or none."""
        chosen = np.concatenate([np.array(self._own(rule), dtype=np.int64) for rule in rules])
        certain = self._certain(self._given(own))[chosen]
        return self._open(region_of(self.real, own), chosen[certain], work) is None

    def whole(self, rule: int) -> Iterator[Region]:
        """The boxes of a rule, whatever comes before it and whether or not there are such packets."""
        return (region_of(self.real, own) for own in self._own(rule))

    def possible(self, rule: int, work: Work) -> Iterator[Region]:
        """Packets that the rule's condition could hold, wherever they are decided; its whole boxes come first."""
        work.question()
        never = np.flatnonzero(self.real.rule == IMPOSSIBLE)
        yield from self.whole(rule)
        for own in self._own(rule):
            yield from self._parts(region_of(self.real, own), never, work)

    def decided(self, rule: int, gone: Truth, work: Work) -> Iterator[Region]:
        """Packets that the rule decides once boxes are `gone`, as far as axes can tell.

        Its whole boxes come first, though not all of them is decided by it.
        """
        work.question()
        yield from self.whole(rule)
        for own in self._own(rule):
            before = self._before(rule, self._given(own))
            yield from self._parts(region_of(self.real, own), before[~gone[before]], work)

    # ── redundant ────────────────────────────────────────────────────────────

    def is_redundant(self, rule: int, gone: Truth, work: Work) -> bool:
        """Whether all packets of the rule would fare the same without it; boxes `gone` do not count any more.

        Raises:
            WorkExceededError: the question takes more work than is allowed.
        """
        work.question()
        return all(self._is_spare(own, gone, work) for own in self._own(rule))

    def _is_spare(self, own: int, gone: Truth, work: Work) -> bool:
        rule, code = self.real.rule[own], self._code[own]
        region = region_of(self.real, own)
        near = meeting(self.real, region)
        near = near[self._blocks[near] & ~gone[near] & (self.real.rule[near] != rule)]
        work.spend(len(self.real))
        later, alike = self.real.rule[near] > rule, self._code[near] == code
        for other in near[later & ~alike].tolist():
            between = alike & (near < other)
            covers = near[(~later | between) & self._certain(self._given(own, other))[near]]
            if self._open(region & region_of(self.real, other), covers, work) is not None:
                return False
        if code == 0:
            return True
        return self._open(region, near[self._certain(self._given(own))[near]], work) is None

    # ── correlated ───────────────────────────────────────────────────────────

    def correlated(self, work: Work) -> Iterator[Correlated]:
        """Pairs of rules of which each decides what the other would decide differently; by their second rule.

        Raises:
            WorkExceededError: a question takes more work than is allowed.
        """
        for second in self.rules:
            if not self.decides(second):
                continue
            work.question()
            work.spend(self._own(second).start)
            for first in self._overlapping(second):
                work.question()
                overlap = self._overlap(first, second, work)
                if overlap is None or self._is_within(first, second, work):
                    continue
                if not self._is_within(second, first, work):
                    yield Correlated(first, second, overlap)

    def fields(self, region: Region) -> dict[FieldRef, IntervalSet]:
        """What a region asks of fields (``2**bits`` is absent); those that it leaves open are left out."""
        found = {}
        for axis, low, high in zip(self.real.axes, region.low.tolist(), region.high.tolist(), strict=True):
            if high - low < axis.width:
                found[axis.ref] = IntervalSet.of((axis.ends(low)[0], axis.ends(high - 1)[1]))
        return found

    def _overlapping(self, second: int) -> list[int]:
        """Earlier rules with another verdict, of which some box meets one of this rule's, neither plainly within."""
        own = self._own(second)
        end = own.start
        code, rule = self._code[:end], self.real.rule[:end]
        differs = np.flatnonzero((code >= 0) & (code != self._codes[second]))
        low, high = self.real.low[differs], self.real.high[differs]
        alone = self._alone[differs]
        found: set[int] = set()
        for box in own:
            mine = region_of(self.real, box)
            meets = ((low < mine.high) & (high > mine.low)).all(axis=1)
            at = np.flatnonzero(meets)
            within = ((low[at] >= mine.low) & (high[at] <= mine.high)).all(axis=1) & alone[at]
            holds = ((low[at] <= mine.low) & (high[at] >= mine.high)).all(axis=1)
            plain = within & (self.real.opaque[box] == 0)
            plain |= holds & (self.real.opaque[differs[at]] == 0) & (len(own) == 1)
            found.update(rule[differs[at[~plain]]].tolist())
        return sorted(found)

    def _overlap(self, first: int, second: int, work: Work) -> Region | None:
        """Packets that the first rule decides and the second would."""
        for one in self._own(first):
            for other in self._own(second):
                region = region_of(self.real, one) & region_of(self.real, other)
                if (region.low >= region.high).any():
                    continue
                before = self._before(first, self._given(one, other))
                found = self._open(region, before, work)
                if found is not None:
                    return found
        return None

    def _is_within(self, inner: int, outer: int, work: Work) -> bool:
        return all(self._is_covered_by(own, [outer, IMPOSSIBLE], work) for own in self._own(inner))

    # ── the default ──────────────────────────────────────────────────────────

    def default(self, work: Work) -> Iterator[Region]:
        """Packets that no rule decides; if opaque predicates could, only where there are no others.

        Raises:
            WorkExceededError: the question takes more work than is allowed.
        """
        work.question()
        space = everything(self.real)
        found = False
        for region in self._parts(space, np.flatnonzero(self._blocks), work):
            found = True
            yield region
        if not found and (self.real.opaque != 0).any():
            yield from self._parts(space, np.flatnonzero(self._blocks & self._certain(frozenset())), work)

    # ── by random packets ────────────────────────────────────────────────────

    def cleared(self, gone: Truth, *, needed: bool) -> set[int]:
        """Rules that random packets show to decide; with `needed`, to decide otherwise than what follows them."""
        kept = np.flatnonzero(self._blocks & ~gone)
        blocking = self.real.take(kept)
        if size_of(blocking) > MOST_BYTES or not len(blocking):
            return set()
        index = index_of(blocking)
        ends = np.searchsorted(blocking.rule, blocking.rule, side="right")
        rng = np.random.default_rng(1)
        found: set[int] = set()
        own = np.flatnonzero((self.real.rule != IMPOSSIBLE) & ~gone)
        for kind in kinds_of(self.real) * ROUNDS:
            for at in range(0, len(own), _CHUNK):
                part = own[at : at + _CHUNK]
                words = index.holding(points_in(self.real, part, kind, rng))
                first = first_of(words)
                rule = self.real.rule[part]
                decider = np.where(first == NO_RULE, len(self._codes), blocking.rule[first])
                proven = decider >= rule
                if needed:
                    proven = decider == rule
                    second = first_of(from_box(words, np.where(proven, ends[first], 0)))
                    then = np.where(second == NO_RULE, 0, self._codes[blocking.rule[second]])
                    proven &= then != self._codes[rule]
                found.update(rule[proven].tolist())
            own = own[~np.isin(self.real.rule[own], list(found))]
        return found
