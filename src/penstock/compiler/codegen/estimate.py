"""What a packet meets in each form of a stretch of rules: comparisons, and branches that go the rarer way.

In: a run of rules as boxes, or its flow.  Out: averages over packets that are
drawn from inside the boxes (diagram/verify.py: the same packets for the same
rules, so the compiler's choice depends on nothing else).  Nothing is timed here;
plan.py turns the counts into nanoseconds by what was measured once.

A branch that k of n packets take surprises the processor about min(k, n - k)
times when such packets come in random order, and never when one packet is
repeated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penstock.compiler.codegen.branching import Branch, Place, Tree
from penstock.compiler.codegen.flow import Flow
from penstock.compiler.diagram.axis import Keys, keys_of
from penstock.compiler.diagram.boxes import Boxes, Indices, Packets, Truth, batch_ranks
from penstock.compiler.diagram.verify import probes
from penstock.compiler.ir.ops import FieldRef

PACKETS, SEED = 512, 3


@dataclass(frozen=True, slots=True)
class Met:
    """What a packet meets on average: `comparisons`, and how many of them it was not expected to answer so."""

    comparisons: float
    surprises: float


@dataclass(slots=True)
class _Count:
    comparisons: int = 0
    surprises: int = 0

    def branch(self, packets: int, taken: int) -> None:
        self.comparisons += packets
        self.surprises += min(taken, packets - taken)

    def average(self) -> Met:
        return Met(self.comparisons / PACKETS, self.surprises / PACKETS)


def traffic(boxes: Boxes) -> Packets:
    """The packets that estimates are about."""
    return probes(boxes, PACKETS, SEED)


def met_in_order(boxes: Boxes, packets: Packets) -> Met:
    """Rules compared one after the other, each up to the first test that fails."""
    count = _Count()
    ranks = batch_ranks(boxes.axes, packets)
    wildcard = (boxes.low == 0) & (boxes.high == np.array([axis.width for axis in boxes.axes]))
    undecided = np.arange(PACKETS)
    for box in range(len(boxes)):
        inside = undecided
        for at in np.flatnonzero(~wildcard[box]):
            holds = _between(ranks[inside, at], int(boxes.low[box, at]), int(boxes.high[box, at]))
            count.branch(len(inside), int(holds.sum()))
            inside = inside[holds]
        # What a predicate says of a drawn packet is not known: most sets hold few of all.
        if not boxes.opaque[box]:
            undecided = np.setdiff1d(undecided, inside, assume_unique=True)
    return count.average()


def _between(ranks: Indices, low: int, high: int) -> Truth:
    found: Truth = (low <= ranks) & (ranks < high)
    return found


def met_nested(flow: Flow, packets: Packets) -> Met:
    """A diagram as comparisons."""
    count = _Count()
    waiting: dict[Place, list[Indices]] = {flow.root: [np.arange(PACKETS)]}
    for place in flow.order:
        here = np.concatenate(waiting.get(place, [np.zeros(0, dtype=np.int64)]))
        if len(here):
            ref = flow.ref(place)
            _walk(flow.trees[place], ref, packets[ref], here, waiting, count)
    return count.average()


def _walk(
    tree: Tree,
    ref: FieldRef,
    keys: Keys,
    here: Indices,
    waiting: dict[Place, list[Indices]],
    count: _Count,
) -> None:
    if not isinstance(tree, Branch):
        waiting.setdefault(tree, []).append(here)
    elif len(here):
        low, high = keys_of(ref.field.bits, [tree.low, tree.high])
        inside = (keys[here] >= low) & (keys[here] <= high)
        count.branch(len(here), int(inside.sum()))
        _walk(tree.inside, ref, keys, here[inside], waiting, count)
        _walk(tree.outside, ref, keys, here[~inside], waiting, count)
