"""Rules that never decide, rules that change nothing, rules that contradict each other, and who reaches the default.

Exact answers come from diagrams of the rules that meet the rule in question,
clipped to its boxes.  Most rules are cleared before that by random packets: one
that a rule decides, and that would fare otherwise without it, proves the rule
needed.

    drop if src net 10.0.0.0/8
    drop if src net 10.1.0.0/16        shadowed by rule 0: no packet reaches it
    pass if src net 11.0.0.0/8         redundant under `default pass`
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.compiler.diagram.axis import Ranks
from penstock.compiler.diagram.boxes import NO_RULE, Boxes, Indices
from penstock.compiler.diagram.build import Budget, OverBudgetError, build, prune, root
from penstock.compiler.diagram.compare import Meaning, Witness, product, witness
from penstock.compiler.diagram.node import Diagram, Terminal
from penstock.compiler.diagram.order import axis_order
from penstock.compiler.diagram.reality import IMPOSSIBLE, with_reality
from penstock.compiler.diagram.reduce import reduce
from penstock.compiler.ir.ops import FieldRef

ROUNDS = 6
_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class Shadowed:
    """No packet is decided by `rule`; `by` are the rules that decide what it would match."""

    rule: int
    by: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Redundant:
    """Without `rule` every packet would fare the same, but `witness` is one that it decides now."""

    rule: int
    witness: Witness


@dataclass(frozen=True, slots=True)
class Correlated:
    """Two rules overlap without one holding the other, and differ in what they do: their order matters."""

    first: int
    second: int


@dataclass(frozen=True, slots=True)
class Findings:
    """`undecided` are rules for which the budget did not suffice."""

    shadowed: tuple[Shadowed, ...]
    redundant: tuple[Redundant, ...]
    undecided: tuple[int, ...]


def findings(
    boxes: Boxes,
    verdicts: Sequence[Hashable],
    default: Hashable,
    budget: Budget | None = None,
    *,
    redundancy: bool = True,
) -> Findings:
    """The shadowed and the redundant rules; `verdicts` has one entry for each rule.

    Without `redundancy` only shadowed rules are looked for, which is quick.
    """
    bounds = budget or Budget(members=4_000_000)
    real = with_reality(boxes)
    proof = _proven(real, verdicts, default)
    cleared = proof.needed if redundancy else set(proof.decided)
    shadowed: list[Shadowed] = []
    redundant: list[Redundant] = []
    undecided: list[int] = []
    for rule in sorted(set(boxes.rule.tolist()) - cleared):
        try:
            found = _judged(real, rule, verdicts, default, bounds, proof)
        except OverBudgetError:
            undecided.append(rule)
            continue
        if isinstance(found, Shadowed):
            shadowed.append(found)
        elif found is not None and redundancy:
            redundant.append(found)
    return Findings(tuple(shadowed), tuple(redundant), tuple(undecided))


def meaning(verdicts: Sequence[Hashable], default: Hashable, numbers: dict[Hashable, int]) -> Meaning:
    """For `reduce`: verdicts (numbered in `numbers`, which grows) in the place of rules."""
    return _Meaning(verdicts, default, numbers)


@dataclass(frozen=True, slots=True)
class _Meaning:
    verdicts: Sequence[Hashable]
    default: Hashable
    numbers: dict[Hashable, int]

    def __call__(self, terminal: Terminal) -> Terminal:
        """The verdicts in the order to try; an opaque predicate that makes no difference is left out."""
        if terminal and terminal[0][0] == IMPOSSIBLE:
            return ((IMPOSSIBLE, 0),)
        answers = [(self._number(self.verdicts[rule]), opaque) for rule, opaque in terminal]
        if not answers or answers[-1][1] != 0:
            answers.append((self._number(self.default), 0))
        kept = answers[-1:]
        for answer in reversed(answers[:-1]):
            if answer[0] != kept[0][0]:
                kept.insert(0, answer)
        return tuple(kept)

    def _number(self, verdict: Hashable) -> int:
        return self.numbers.setdefault(verdict, len(self.numbers))


# ── by random packets ────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Proof:
    """Packets (as ranks) that a rule decides; and the rules whose removal would change one of them."""

    decided: dict[int, list[int]]
    needed: set[int]


def _proven(real: Boxes, verdicts: Sequence[Hashable], default: Hashable) -> _Proof:
    """What random packets say.  Nothing where there are opaque predicates: they may be true or false."""
    proof = _Proof({}, set())
    numbers: dict[Hashable, int] = {default: 0}
    codes = np.array(
        [*(numbers.setdefault(verdict, len(numbers)) for verdict in verdicts), 0], dtype=np.int64
    )
    if (real.opaque != 0).any():
        return proof
    rng = np.random.default_rng(1)
    open_ = np.flatnonzero(real.rule != IMPOSSIBLE)
    for _ in range(ROUNDS):
        points = _points(real, open_, rng)
        first, second = _first_two(real, points)
        rule = np.where(first == NO_RULE, NO_RULE, real.rule[first])
        after = np.where(second == NO_RULE, NO_RULE, real.rule[second])
        decides = np.flatnonzero(rule >= 0)
        proof.decided.update(zip(rule[decides].tolist(), points[decides].tolist(), strict=True))
        differs = decides[codes[rule[decides]] != codes[after[decides]]]
        proof.needed.update(rule[differs].tolist())
        open_ = open_[~np.isin(real.rule[open_], list(proof.needed))]
    return proof


def _points(boxes: Boxes, chosen: Indices, rng: np.random.Generator) -> Ranks:
    low, high = boxes.low[chosen], boxes.high[chosen]
    corner = rng.random(low.shape)
    inner = low + (rng.random(low.shape) * (high - low)).astype(np.int32)
    return np.where(corner < 0.2, low, np.where(corner < 0.4, high - 1, inner))


def _first_two(boxes: Boxes, ranks: Ranks) -> tuple[Indices, Indices]:
    """The first box that holds each point, and the first of another rule behind it; `NO_RULE` for none."""
    first, second = (np.full(len(ranks), NO_RULE, dtype=np.int64) for _ in range(2))
    step = max(1, _CHUNK // max(1, len(boxes)))
    for at in range(0, len(ranks), step):
        part = ranks[at : at + step]
        inside = np.ones((len(part), len(boxes)), dtype=bool)
        for axis in range(len(boxes.axes)):
            column = part[:, axis, None]
            inside &= (boxes.low[:, axis] <= column) & (column < boxes.high[:, axis])
        row = np.arange(len(part))
        best = inside.argmax(axis=1)
        first[at : at + step] = np.where(inside[row, best], best, NO_RULE)
        inside &= boxes.rule[None, :] != boxes.rule[best][:, None]
        then = inside.argmax(axis=1)
        second[at : at + step] = np.where(inside[row, then], then, NO_RULE)
    return first, second


# ── exactly ──────────────────────────────────────────────────────────────────


def _judged(
    real: Boxes, rule: int, verdicts: Sequence[Hashable], default: Hashable, budget: Budget, proof: _Proof
) -> Shadowed | Redundant | None:
    decides = _witness(real, proof.decided[rule]) if rule in proof.decided else None
    parts = [_clipped(real, own) for own in np.flatnonzero(real.rule == rule).tolist()]
    if decides and all(_agree(part, rule, verdicts, default) for part in parts):
        return Redundant(rule, decides)
    by: set[int] = set()
    needed = False
    for clipped in parts:
        order = axis_order(clipped).all
        diagram = build(clipped, order, budget)
        rules = {first for terminal in diagram.terminals for first, _ in terminal}
        if rule not in rules:
            by |= rules - {IMPOSSIBLE}
            continue
        decides = decides or witness(diagram, lambda terminal: any(first == rule for first, _ in terminal))
        needed = needed or _changes(clipped, order, rule, diagram, verdicts, default, budget)
    if decides is None:
        return Shadowed(rule, tuple(sorted(by)))
    return None if needed else Redundant(rule, decides)


def _witness(boxes: Boxes, ranks: list[int]) -> Witness:
    """A packet with these ranks."""
    found: dict[FieldRef, int | None] = {}
    for axis, rank in zip(boxes.axes, ranks, strict=True):
        found[axis.ref] = None if rank == axis.width - 1 else axis.ends(rank)[0]
    return found


def _agree(clipped: Boxes, rule: int, verdicts: Sequence[Hashable], default: Hashable) -> bool:
    """Whether everything behind the rule that meets it does as it does: then nobody misses it."""
    behind = set(clipped.rule[clipped.rule > rule].tolist())
    return default == verdicts[rule] and all(verdicts[other] == verdicts[rule] for other in behind)


def _clipped(boxes: Boxes, own: int) -> Boxes:
    """The boxes that meet box `own`, cut down to it, and of these only what can decide with or without its rule."""
    low, high = boxes.low[own], boxes.high[own]
    meets = np.flatnonzero(((boxes.low < high) & (boxes.high > low)).all(axis=1))
    inside = Boxes(
        boxes.axes,
        np.maximum(boxes.low[meets], low),
        np.minimum(boxes.high[meets], high),
        boxes.rule[meets],
        boxes.opaque[meets],
    )
    mine = inside.rule == boxes.rule[own]
    whole = ((inside.low == low) & (inside.high == high)).all(axis=1) & (inside.opaque == 0) & ~mine
    end = int(whole.argmax()) + 1 if whole.any() else len(inside)
    others = inside.take(np.flatnonzero(~mine[:end]))
    possible = np.flatnonzero(~mine[:end])[prune(root(others), others, range(len(boxes.axes))).box]
    return inside.take(np.sort(np.concatenate([possible, np.flatnonzero(mine[:end])])))


def _changes(
    clipped: Boxes,
    order: Sequence[int],
    rule: int,
    diagram: Diagram,
    verdicts: Sequence[Hashable],
    default: Hashable,
    budget: Budget,
) -> bool:
    """Whether anything inside the clip fares otherwise without the rule."""
    alike = _Meaning(verdicts, default, {})
    without = build(clipped.take(np.flatnonzero(clipped.rule != rule)), order, budget)
    both, _ = product(reduce(diagram, alike), reduce(without, alike))
    return any(both.terminals)


# ── the default, and contradictions ──────────────────────────────────────────


def reaches_default(boxes: Boxes, budget: Budget | None = None) -> Witness | None:
    """A packet that no rule decides, or that only opaque predicates could; None when there is none.

    Raises:
        OverBudgetError: the rules are too many for one diagram.
    """
    real = with_reality(boxes)
    diagram = build(real, axis_order(real).all, budget or Budget())
    return witness(diagram, lambda terminal: not terminal or terminal[-1][1] != 0)


def correlated(boxes: Boxes, verdicts: Sequence[Hashable]) -> Iterator[Correlated]:
    """Pairs of rules with different verdicts whose boxes overlap, neither within the other; each pair once."""
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(verdict, len(numbers)) for verdict in verdicts], dtype=np.int64)
    seen: set[tuple[int, int]] = set()
    for own in range(1, len(boxes)):
        low, high = boxes.low[:own], boxes.high[:own]
        meets = ((low < boxes.high[own]) & (high > boxes.low[own])).all(axis=1)
        meets &= codes[boxes.rule[:own]] != codes[boxes.rule[own]]
        within = ((low <= boxes.low[own]) & (high >= boxes.high[own])).all(axis=1)
        holds = ((low >= boxes.low[own]) & (high <= boxes.high[own])).all(axis=1)
        for first in boxes.rule[:own][meets & ~within & ~holds].tolist():
            pair = (first, int(boxes.rule[own]))
            if pair not in seen:
                seen.add(pair)
                yield Correlated(*pair)
