"""One look at a field as a tree of comparisons.

In: the edges of a diagram's node, as intervals of values in order, each with
where it leads.  Out: a `Tree` of few comparisons.  A comparison asks whether the
value lies in an interval; one that begins at 0, or goes on to the end, is a
single unsigned compare in C, and so is any other one on a register.

    0-52 → a, 53 → b, 54-absent → a      53? b : a
    0-9 → a, 10-19 → b, 20-absent → c    0-9? a : 0-19? b : c

Long lists are halved; short ones are tried every way, so that a value among
others that lead elsewhere together costs one comparison and not two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

#: Lists of at most so many edges are tried every way: that is quick, and longer ones are halved well enough.
EXACT = 5

Place = tuple[int, int]
"""Where an edge leads: (level, node) that asks something; the level behind the last holds the terminals."""


class Edge(NamedTuple):
    """The values `low` to `high`, inclusive, lead to `target`; it stands for `weight` edges of the node."""

    low: int
    high: int
    target: Place
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Branch:
    """Whether a value lies in ``low … high``; `inside` if it does."""

    low: int
    high: int
    inside: Tree
    outside: Tree


Tree = Branch | Place
"""A comparison, or the target that is reached."""


def tree_of(edges: Sequence[Edge]) -> Tree:
    """The comparisons that lead from a value to its edge's target; neighbouring edges lead to different ones."""
    return _Search().best(tuple(edges))[1]


def branches(tree: Tree) -> Iterator[Branch]:
    """Every comparison of a tree."""
    if isinstance(tree, Branch):
        yield tree
        yield from branches(tree.inside)
        yield from branches(tree.outside)


def targets(tree: Tree) -> Iterator[Place]:
    """Where a tree leads, as often as it is written there."""
    if isinstance(tree, Branch):
        yield from targets(tree.inside)
        yield from targets(tree.outside)
    else:
        yield tree


Found = tuple[int, Tree]
"""The comparisons of all edges together, and the tree."""


@dataclass(frozen=True, slots=True)
class _Search:
    known: dict[tuple[Edge, ...], Found] = field(default_factory=dict)

    def best(self, edges: tuple[Edge, ...]) -> Found:
        if len(edges) == 1:
            return 0, edges[0].target
        if edges not in self.known:
            self.known[edges] = min(self._ways(edges), key=lambda found: found[0])
        return self.known[edges]

    def _ways(self, edges: tuple[Edge, ...]) -> Iterator[Found]:
        count, middle = len(edges), len(edges) // 2
        for at in range(1, count) if count <= EXACT else range(middle - 1, middle + 2):
            yield self._halved(edges, at)
        for at in range(1, count - 1) if count <= EXACT else ():
            if edges[at - 1].target == edges[at + 1].target:
                yield self._peeled(edges, at)

    def _halved(self, edges: tuple[Edge, ...], at: int) -> Found:
        left, right = self.best(edges[:at]), self.best(edges[at:])
        return left[0] + right[0] + _weight(edges), Branch(0, edges[at - 1].high, left[1], right[1])

    def _peeled(self, edges: tuple[Edge, ...], at: int) -> Found:
        """First ask for one edge between two that lead to the same."""
        before, edge, after = edges[at - 1 : at + 2]
        joined = Edge(before.low, after.high, before.target, before.weight + after.weight)
        cost, rest = self.best((*edges[: at - 1], joined, *edges[at + 2 :]))
        return cost + _weight(edges), Branch(edge.low, edge.high, edge.target, rest)


def _weight(edges: Sequence[Edge]) -> int:
    return sum(edge.weight for edge in edges)
