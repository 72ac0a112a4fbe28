"""A decision diagram as arrays: one level for each axis, in order, and terminals behind the last.

A level holds its nodes' edges one node after the other.  An edge is the first
rank it takes; it ends where the next begins, so the edges of a node cover every
rank exactly once by construction.  Every path asks every axis (the diagram is
*quasi-reduced*): a node with a single edge asks nothing, and whoever emits code
steps over it.

    level 0  dport   node 0: [0 → 0] [53 → 1] [54 → 0]
    level 1  proto   node 0: [0 → none]       node 1: [0 → none] [17 → rule 0] [18 → none]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from penstock.compiler.diagram.axis import Axis, Ranks
from penstock.compiler.diagram.boxes import Indices
from penstock.model.net import IntervalSet

Terminal = tuple[tuple[int, int], ...]
"""(rule, opaque predicate) in the order to try; only the last may have no predicate (0), and then decides.

() is no rule.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """The nodes of one axis.  Node i's edges are ``ptr[i] … ptr[i + 1]`` of `start` and `child`."""

    axis: Axis
    ptr: Indices
    start: Ranks
    child: Indices

    @property
    def nodes(self) -> int:
        return len(self.ptr) - 1

    def edges(self, node: int) -> Iterator[tuple[int, int, int]]:
        """(first rank, one past the last rank, child) of a node's edges, in order."""
        first, last = int(self.ptr[node]), int(self.ptr[node + 1])
        starts = self.start[first:last].tolist()
        return zip(starts, [*starts[1:], self.axis.width], self.child[first:last].tolist(), strict=True)

    def children(self, node: int) -> dict[int, IntervalSet]:
        """The values of the axis that lead to each child of a node."""
        found: dict[int, list[tuple[int, int]]] = {}
        for first, last, child in self.edges(node):
            found.setdefault(child, []).append((self.axis.ends(first)[0], self.axis.ends(last - 1)[1]))
        return {child: IntervalSet.of(*ends) for child, ends in found.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Diagram:
    """Levels from the root (node 0 of the first) to `terminals`, which the last level's children index."""

    levels: tuple[Level, ...]
    terminals: tuple[Terminal, ...]

    @property
    def axes(self) -> tuple[Axis, ...]:
        return tuple(level.axis for level in self.levels)

    def asking(self, depth: int, node: int) -> tuple[int, int]:
        """The first node from here on that asks something, its level first; behind the last level, a terminal."""
        while depth < len(self.levels):
            level = self.levels[depth]
            first = int(level.ptr[node])
            if int(level.ptr[node + 1]) - first != 1:
                break
            depth, node = depth + 1, int(level.child[first])
        return depth, node

    @property
    def nodes(self) -> int:
        return sum(level.nodes for level in self.levels)

    @property
    def edges(self) -> int:
        return sum(len(level.start) for level in self.levels)

    @property
    def comparisons(self) -> int:
        """How many comparisons code for this diagram would hold: one less than the edges of each node."""
        return self.edges - self.nodes
