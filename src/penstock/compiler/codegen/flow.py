"""A small decision diagram as comparisons: what is asked at each place, and where the answers lead.

In: a reduced diagram.  Out: a `Flow`, which nested.py prints as C and
estimate.py lets packets walk through.  Nodes that ask nothing are stepped over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from penstock.compiler.codegen.branching import Branch, Edge, Place, Tree, branches, targets, tree_of
from penstock.compiler.diagram.axis import integers
from penstock.compiler.diagram.node import Diagram, Level
from penstock.compiler.ir.ops import FieldRef


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """A diagram as comparisons.  Trees lead to other places; a place without a tree is a terminal."""

    diagram: Diagram
    root: Place
    trees: dict[Place, Tree]

    def ref(self, place: Place) -> FieldRef:
        """The field that a place asks for."""
        return self.diagram.levels[place[0]].axis.ref

    @property
    def order(self) -> tuple[Place, ...]:
        """The places that ask something, each before those that it leads to."""
        return tuple(sorted(self.trees))

    @property
    def shared(self) -> frozenset[Place]:
        """Places that several ways lead to, and that are more than a `return`."""
        ways = Counter(target for tree in self.trees.values() for target in targets(tree))
        return frozenset(place for place, count in ways.items() if count > 1 and not self._is_short(place))

    def _is_short(self, place: Place) -> bool:
        terminal = None if place in self.trees else self.diagram.terminals[place[1]]
        return terminal is not None and all(opaque == 0 for _, opaque in terminal)

    @property
    def comparisons(self) -> int:
        """How many are printed."""
        return sum(1 for tree in self.trees.values() for _ in branches(tree))


def flow_of(diagram: Diagram) -> Flow:
    """What the places of a reduced diagram compare."""
    root = diagram.asking(0, 0)
    trees: dict[Place, Tree] = {}
    waiting = [root]
    while waiting:
        place = waiting.pop()
        if place[0] == len(diagram.levels) or place in trees:
            continue
        trees[place] = _tree(diagram, place)
        waiting += dict.fromkeys(targets(trees[place]))
    return Flow(diagram, root, trees)


def _tree(diagram: Diagram, place: Place) -> Tree:
    """An IPv6 address is first asked whether it is there, then its value; a length always is."""
    level = diagram.levels[place[0]]
    edges = list(_edges(diagram, level, place))
    last = (1 << level.axis.bits) - 1
    present = [edge._replace(high=min(edge.high, last)) for edge in edges if edge.low <= last]
    if level.axis.ref.name == "len":
        return tree_of(present)
    if level.axis.bits == 128 and len(edges) > 1:
        return Branch(last + 1, last + 1, edges[-1].target, tree_of(present))
    return tree_of(edges)


def _edges(diagram: Diagram, level: Level, place: Place) -> Iterator[Edge]:
    cuts = [*integers(level.axis.cuts), (1 << level.axis.bits) + 1]
    for first, last, child in level.edges(place[1]):
        yield Edge(cuts[first], cuts[last] - 1, diagram.asking(place[0] + 1, child))
