"""Grow a decision diagram from boxes, one level at a time, all nodes of a level at once.

A node is the list of boxes that are still possible.  Growing a level takes, for
all nodes together:

1. the places where some box of a node begins or ends on the axis, sorted;
2. the fingerprint of the set of boxes between two places, by a running sum;
   equal sets become one child;
3. the children's members, read off at one place of each child;
4. pruning, by what can no longer matter on the axes that remain: (a) boxes that
   are alike there, (b) whatever follows a box with no condition left, (c) boxes
   inside an earlier box;
5. fingerprints of what is left; equal ones become one node of the next level.

Everything is arrays: 10,000 rules take as many numpy calls as ten.  The price is
memory, so a `Budget` bounds the number of list entries; `OverBudgetError` says
that this set of boxes and axes is not one diagram, and classifier/groups.py splits it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from penstock.compiler.diagram.axis import Ranks
from penstock.compiler.diagram.boxes import Boxes, Indices, Truth
from penstock.compiler.diagram.fingerprint import Lanes, distinct, pair_tokens, segment_sums
from penstock.compiler.diagram.node import Diagram, Level, Terminal

MAX_COVER_PROJECTIONS = 3000
MAX_COVER_PAIRS = 20_000_000


class OverBudgetError(Exception):
    """The diagram would need more than its budget allows; `what` says which bound was crossed."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


@dataclass(frozen=True, slots=True)
class Budget:
    """How large a level may become (list entries, places) and how long building may take."""

    members: int = 25_000_000
    seconds: float = 30.0
    started: float = field(default_factory=time.monotonic)

    def check(self, members: int) -> None:
        """Raises OverBudgetError when a bound is crossed."""
        if members > self.members:
            raise OverBudgetError(f"{members:,} list entries, more than {self.members:,}")
        if time.monotonic() - self.started > self.seconds:
            raise OverBudgetError(f"more than {self.seconds:g} s of building")


@dataclass(frozen=True, slots=True, eq=False)
class Frontier:
    """The nodes that have no edges yet: node i's boxes are ``box[ptr[i]:ptr[i + 1]]``, ascending."""

    ptr: Indices
    box: Indices

    @property
    def nodes(self) -> int:
        return len(self.ptr) - 1

    @property
    def owner(self) -> Indices:
        """The node of each entry."""
        return np.repeat(np.arange(self.nodes), np.diff(self.ptr))

    @property
    def lengths(self) -> Indices:
        return np.diff(self.ptr)

    def keep(self, kept: Truth) -> Frontier:
        """The same nodes with some of their entries."""
        counts = np.bincount(self.owner[kept], minlength=self.nodes)
        return Frontier(offsets(counts), self.box[kept])

    def pick(self, nodes: Indices) -> Frontier:
        """Some of the nodes."""
        ptr = offsets(self.lengths[nodes])
        return Frontier(ptr, self.box[spans(self.ptr[nodes], np.diff(ptr))])


def offsets(counts: Indices) -> Indices:
    found = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=found[1:])
    return found


def spans(first: Indices, counts: Indices) -> Indices:
    """``first[i], first[i] + 1, …`` (`counts[i]` of them) for every i, one after the other."""
    ends = np.cumsum(counts)
    found: Indices = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(first - (ends - counts), counts)
    return found


def root(boxes: Boxes) -> Frontier:
    """The one node at which every box is possible."""
    return Frontier(np.array([0, len(boxes)], dtype=np.int64), np.arange(len(boxes), dtype=np.int64))


def build(boxes: Boxes, order: Sequence[int], budget: Budget | None = None) -> Diagram:
    """One diagram of all boxes; `order` are the axes' indices from root to terminals, each once.

    Raises:
        OverBudgetError: the diagram is too big; split the boxes into groups.
    """
    bounds = budget or Budget()
    frontier, levels = root(boxes), []
    for depth, at in enumerate(order):
        level, frontier = grow(frontier, boxes, at, order[depth + 1 :], bounds)
        levels.append(level)
    if not order:
        frontier = prune(frontier, boxes, ())
    return Diagram(tuple(levels), _terminals(frontier, boxes))


def _terminals(frontier: Frontier, boxes: Boxes) -> tuple[Terminal, ...]:
    pairs = list(zip(boxes.rule[frontier.box].tolist(), boxes.opaque[frontier.box].tolist(), strict=True))
    ptr = frontier.ptr.tolist()
    return tuple(tuple(pairs[first:last]) for first, last in pairwise(ptr))


def grow(
    frontier: Frontier,
    boxes: Boxes,
    at: int,
    remaining: Sequence[int],
    budget: Budget,
    *,
    pruned: bool = True,
) -> tuple[Level, Frontier]:
    """The frontier's nodes with edges on axis `at`, and the nodes that these edges lead to.

    With `pruned` false every box is kept, also where an earlier one decides.

    Raises:
        OverBudgetError: the next frontier would exceed the budget.
    """
    axis = boxes.axes[at]
    lanes = _lanes(boxes, remaining)
    key, interval = _intervals(frontier, boxes.low[:, at], boxes.high[:, at], axis.width, lanes, budget)
    first, child = distinct(interval)
    below = _members(frontier, boxes.low[:, at], boxes.high[:, at], axis.width, key[first], budget)
    if pruned:
        below = prune(below, boxes, remaining)
    kept, merged = distinct(segment_sums(lanes.at(below.box), below.ptr))
    return _level(axis.width, boxes, at, frontier.nodes, key, merged[child]), below.pick(kept)


def _lanes(boxes: Boxes, remaining: Sequence[int]) -> Lanes:
    """A number for every box; boxes of one rule that are alike on the remaining axes share it."""
    _, projection = boxes.projections(remaining)
    return pair_tokens(boxes.rule.astype(np.int64) << 24 | boxes.opaque.astype(np.int64), projection)


def _intervals(
    frontier: Frontier, low: Ranks, high: Ranks, width: int, lanes: Lanes, budget: Budget
) -> tuple[Indices, Lanes]:
    """(node * width + first rank, fingerprint of the active boxes) of all nodes' intervals, in order."""
    budget.check(2 * len(frontier.box) + frontier.nodes)
    base = frontier.owner * width
    nodes = np.arange(frontier.nodes) * width
    keys = np.concatenate([nodes, base + low[frontier.box], base + high[frontier.box]])
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    run_ends = np.flatnonzero(np.append(keys[1:] != keys[:-1], True))
    run_ends = run_ends[keys[run_ends] < frontier.nodes * width]
    members = lanes.at(frontier.box)
    sums = []
    for lane in (members.a, members.b):
        changes = np.concatenate([np.zeros(frontier.nodes, dtype=np.uint64), lane, np.uint64(0) - lane])
        sums.append(np.cumsum(changes[order])[run_ends])
    return keys[run_ends], Lanes(*sums)


def _members(
    frontier: Frontier, low: Ranks, high: Ranks, width: int, places: Indices, budget: Budget
) -> Frontier:
    """The boxes that hold each place (node * width + rank); node i of the result is place i."""
    order = np.argsort(places)
    ascending = places[order]
    base = frontier.owner * width
    first = np.searchsorted(ascending, base + low[frontier.box])
    counts = np.searchsorted(ascending, base + high[frontier.box]) - first
    budget.check(int(counts.sum()))
    owner = order[spans(first, counts)]
    entries = np.repeat(frontier.box, counts)
    by_place = np.argsort(owner, kind="stable")
    return Frontier(offsets(np.bincount(owner, minlength=len(places))), entries[by_place])


def _level(width: int, boxes: Boxes, at: int, nodes: int, key: Indices, child: Indices) -> Level:
    node = key // width
    kept = np.append(True, (child[1:] != child[:-1]) | (node[1:] != node[:-1]))
    counts = np.bincount(node[kept], minlength=nodes)
    return Level(boxes.axes[at], offsets(counts), (key[kept] % width).astype(np.int32), child[kept])


# ── pruning ──────────────────────────────────────────────────────────────────


def prune(frontier: Frontier, boxes: Boxes, remaining: Sequence[int]) -> Frontier:
    """The frontier without boxes that can never decide, whatever the remaining axes say.

    Only boxes without an opaque predicate shadow others.
    """
    first, projection = boxes.projections(remaining)
    frontier = _cut_after_wildcards(frontier, boxes, boxes.wildcards(remaining))
    frontier = _first_of_each(frontier, boxes, projection, len(first))
    if 1 < len(first) <= MAX_COVER_PROJECTIONS:
        frontier = _drop_covered(frontier, boxes.over(remaining), first, projection)
    return frontier


def _cut_after_wildcards(frontier: Frontier, boxes: Boxes, wildcard: Truth) -> Frontier:
    stops = wildcard[frontier.box] & (boxes.opaque[frontier.box] == 0)
    if not stops.any():
        return frontier
    owner = frontier.owner
    limit = np.full(frontier.nodes, len(boxes), dtype=np.int64)
    np.minimum.at(limit, owner[stops], frontier.box[stops])
    return frontier.keep(frontier.box <= limit[owner])


def _first_of_each(frontier: Frontier, boxes: Boxes, projection: Indices, projections: int) -> Frontier:
    _, group = np.unique(frontier.owner * projections + projection[frontier.box], return_inverse=True)
    limit = np.full(int(group.max(initial=-1)) + 1, len(boxes), dtype=np.int64)
    certain = boxes.opaque[frontier.box] == 0
    np.minimum.at(limit, group[certain], frontier.box[certain])
    kept = frontier.box <= limit[group]
    return frontier if kept.all() else frontier.keep(kept)


def _drop_covered(frontier: Frontier, boxes: Boxes, first: Indices, projection: Indices) -> Frontier:
    covers = _covers(boxes.low[first], boxes.high[first])
    owner, mine = frontier.owner, projection[frontier.box]
    pairs = covers.lengths[mine]
    certain = boxes.opaque[frontier.box] == 0
    if not (pairs.any() and certain.any()) or int(pairs.sum()) > MAX_COVER_PAIRS:
        return frontier
    present = owner[certain] * len(first) + mine[certain]
    by_key = np.argsort(present, kind="stable")
    present, box = present[by_key], frontier.box[certain][by_key]
    entry = np.repeat(np.arange(len(mine)), pairs)
    wanted = owner[entry] * len(first) + covers.box[spans(covers.ptr[mine], pairs)]
    found = np.minimum(np.searchsorted(present, wanted), len(present) - 1)
    shadows = (present[found] == wanted) & (box[found] < frontier.box[entry])
    kept = np.ones(len(mine), dtype=bool)
    kept[entry[shadows]] = False
    return frontier.keep(kept)


def _covers(low: Ranks, high: Ranks) -> Frontier:
    """For each row the other rows that contain it."""
    inside = np.ones((len(low), len(low)), dtype=bool)
    for at in range(low.shape[1]):
        inside &= (low[None, :, at] <= low[:, None, at]) & (high[None, :, at] >= high[:, None, at])
    np.fill_diagonal(inside, False)
    return Frontier(offsets(inside.sum(axis=1)), np.nonzero(inside)[1].astype(np.int64))
