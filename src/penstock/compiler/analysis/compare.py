"""What differs between two diagrams, and how a diagram is read out.

Two diagrams over common axes are walked together, and where they lead to
different answers there is a class of packets: for every field the values, the
old and the new answer, and one packet as a witness.

    tcp dst port 22 from 10.0.0.0/8:  drop -> pass   e.g. 10.0.0.0 … port 22
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.compiler.analysis.reality import IMPOSSIBLE
from penstock.compiler.diagram.boxes import Indices, Truth
from penstock.compiler.diagram.build import offsets, spans
from penstock.compiler.diagram.node import Diagram, Level, Terminal
from penstock.compiler.diagram.reduce import merge_nodes, reduce
from penstock.compiler.ir.ops import FieldRef
from penstock.model.net import IntervalSet

Meaning = Callable[[Terminal], Terminal]
Witness = Mapping[FieldRef, int | None]
"""A value for each field of the diagram; None where the packet has no such field."""
SAME = -1


@dataclass(frozen=True, slots=True)
class Difference:
    """A class of packets: `fields` that it restricts, with their values (``2**bits`` is absent), and both answers."""

    fields: Mapping[FieldRef, IntervalSet]
    old: Terminal
    new: Terminal
    witness: Witness


# ── the product ──────────────────────────────────────────────────────────────

Answers = tuple[tuple[Terminal, Terminal], ...]


def product(
    left: Diagram, right: Diagram, meanings: tuple[Meaning, Meaning] | None = None
) -> tuple[Diagram, Answers]:
    """A diagram whose terminals index pairs of (old, new) answers; where both agree it leads to pair 0, ((), ()).

    Both are reduced, over the same axes in the same order.  `meanings` say when
    different answers agree all the same.
    """
    pairs = np.array([[0, 0]], dtype=np.int64)
    alike = _equal_nodes(left, right, meanings)
    levels = []
    for depth, (a, b) in enumerate(zip(left.levels, right.levels, strict=True)):
        level, pairs = _product_level(a, b, pairs, alike[depth + 1])
        levels.append(level)
    answers = tuple(
        ((), ()) if first == SAME else (left.terminals[first], right.terminals[second])
        for first, second in pairs.tolist()
    )
    numbered = Diagram(
        tuple(levels), tuple(((at, 0),) if row[0] != SAME else () for at, row in enumerate(pairs))
    )
    return reduce(numbered), answers


def _equal_nodes(
    left: Diagram, right: Diagram, meanings: tuple[Meaning, Meaning] | None
) -> list[tuple[Indices, Indices]]:
    """For every level, and the terminals behind the last, numbers that equal nodes of the two diagrams share."""
    ends = [left.terminals, right.terminals]
    if meanings is not None:
        ends = [tuple(map(tell, side)) for tell, side in zip(meanings, ends, strict=True)]
    known = {terminal: at for at, terminal in enumerate(dict.fromkeys((*ends[0], *ends[1])))}
    numbers = [np.array([known[terminal] for terminal in side], dtype=np.int64) for side in ends]
    found = [(numbers[0], numbers[1])]
    for a, b in zip(reversed(left.levels), reversed(right.levels), strict=True):
        child = np.concatenate([numbers[0][a.child], numbers[1][b.child]])
        both = Level(a.axis, np.append(a.ptr, b.ptr[1:] + a.ptr[-1]), np.append(a.start, b.start), child)
        _, number = merge_nodes(both, np.arange(int(child.max()) + 1))
        numbers = [number[: a.nodes], number[a.nodes :]]
        found.append((numbers[0], numbers[1]))
    return found[::-1]


def _product_level(
    a: Level, b: Level, pairs: Indices, alike: tuple[Indices, Indices]
) -> tuple[Level, Indices]:
    """One level over pairs of nodes, (SAME, SAME) being all pairs that agree; and the pairs below it."""
    width = a.axis.width
    live = np.flatnonzero(pairs[:, 0] != SAME)
    places = np.unique(np.concatenate([_places(a, pairs[live, 0], live), _places(b, pairs[live, 1], live)]))
    pair, rank = places // width, places % width
    below = np.stack([_child_at(a, pairs[pair, 0], rank), _child_at(b, pairs[pair, 1], rank)], axis=1)
    below[alike[0][below[:, 0]] == alike[1][below[:, 1]]] = SAME
    dead = np.flatnonzero(pairs[:, 0] == SAME)
    places = np.concatenate([places, dead * width])
    below = np.concatenate([below, np.full((len(dead), 2), SAME)])
    order = np.argsort(places, kind="stable")
    places, below = places[order], below[order]
    found, child = np.unique(below, axis=0, return_inverse=True)
    ptr = offsets(np.bincount(places // width, minlength=len(pairs)))
    return Level(a.axis, ptr, (places % width).astype(np.int32), child.reshape(-1).astype(np.int64)), found


def _places(level: Level, nodes: Indices, owner: Indices) -> Indices:
    counts = np.diff(level.ptr)[nodes]
    found: Indices = (
        np.repeat(owner, counts) * level.axis.width + level.start[spans(level.ptr[nodes], counts)]
    )
    return found


def _child_at(level: Level, nodes: Indices, ranks: Indices) -> Indices:
    owner = np.repeat(np.arange(level.nodes), np.diff(level.ptr))
    keys = owner * level.axis.width + level.start
    found: Indices = level.child[np.searchsorted(keys, nodes * level.axis.width + ranks, side="right") - 1]
    return found


# ── reading a diagram out ────────────────────────────────────────────────────


def paths(diagram: Diagram, answers: Answers) -> Iterator[Difference]:
    """The classes of a product, one for each way through the diagram; edges that lead alike are taken together."""
    for fields, terminal in ways(diagram, bool):
        old, new = answers[terminal[0][0]]
        yield Difference(
            _restricting(diagram, fields), old, new, {ref: _some(ref, held) for ref, held in fields.items()}
        )


def ways(
    diagram: Diagram, wanted: Callable[[Terminal], bool]
) -> Iterator[tuple[dict[FieldRef, IntervalSet], Terminal]]:
    """Every way to a wanted terminal: the values of each field, all fields named."""
    reaching = _reaching(diagram, wanted)

    def walk(
        depth: int, node: int, fields: dict[FieldRef, IntervalSet]
    ) -> Iterator[tuple[dict[FieldRef, IntervalSet], Terminal]]:
        if depth == len(diagram.levels):
            yield dict(fields), diagram.terminals[node]
            return
        level = diagram.levels[depth]
        for child, held in level.children(node).items():
            if reaching[depth + 1][child]:
                yield from walk(depth + 1, child, {**fields, level.axis.ref: held})

    if reaching[0][0]:
        yield from walk(0, 0, {})


def _reaching(diagram: Diagram, wanted: Callable[[Terminal], bool]) -> list[Truth]:
    """For the nodes of each level, and the terminals, whether a wanted terminal can be reached."""
    found: list[Truth] = [np.array([wanted(terminal) for terminal in diagram.terminals], dtype=bool)]
    for level in reversed(diagram.levels):
        found.append(np.logical_or.reduceat(found[-1][level.child], level.ptr[:-1]))
    return found[::-1]


def count_ways(diagram: Diagram, wanted: Callable[[Terminal], bool]) -> int:
    """How many ways `ways` would find; above 2**53 about so many."""
    counts = np.array([wanted(terminal) for terminal in diagram.terminals], dtype=float)
    for level in reversed(diagram.levels):
        owner = np.repeat(np.arange(level.nodes), np.diff(level.ptr))
        edges = np.unique(owner * len(counts) + level.child)
        counts = np.bincount(edges // len(counts), counts[edges % len(counts)], level.nodes)
    return int(counts[0])


def hull(diagram: Diagram, wanted: Callable[[Terminal], bool]) -> dict[FieldRef, IntervalSet]:
    """For each field every value that some way to a wanted terminal has; fields with all values are left out."""
    reaching = _reaching(diagram, wanted)
    live = np.ones(1, dtype=bool)
    found: dict[FieldRef, IntervalSet] = {}
    for level, ends in zip(diagram.levels, reaching[1:], strict=True):
        owner = np.repeat(np.arange(level.nodes), np.diff(level.ptr))
        taken = live[owner] & ends[level.child]
        last = np.append(level.start[1:], 0)
        last[level.ptr[1:] - 1] = level.axis.width
        change = np.zeros(level.axis.width + 1, dtype=np.int64)
        np.add.at(change, level.start[taken], 1)
        np.add.at(change, last[taken], -1)
        held = np.flatnonzero(np.cumsum(change)[:-1] > 0).tolist()
        found[level.axis.ref] = IntervalSet.of(*(level.axis.ends(rank) for rank in held))
        live = np.zeros(len(ends), dtype=bool)
        live[level.child[taken]] = True
    return _restricting(diagram, found)


def _restricting(diagram: Diagram, fields: Mapping[FieldRef, IntervalSet]) -> dict[FieldRef, IntervalSet]:
    whole = {axis.ref: ((0, 1 << axis.bits),) for axis in diagram.axes}
    return {ref: held for ref, held in fields.items() if held.intervals != whole[ref]}


def _some(ref: FieldRef, held: IntervalSet) -> int | None:
    value = held.intervals[0][0]
    return None if value == 1 << ref.field.bits else value


def witness(diagram: Diagram, wanted: Callable[[Terminal], bool]) -> Witness | None:
    """Some packet that reaches a wanted terminal."""
    for fields, _ in ways(diagram, wanted):
        return {ref: _some(ref, held) for ref, held in fields.items()}
    return None


# ── verdicts in the place of rules ───────────────────────────────────────────


def meaning(verdicts: Sequence[Hashable], default: Hashable, numbers: dict[Hashable, int]) -> Meaning:
    """For `reduce`: verdicts (numbered in `numbers`, which grows) in the place of rules."""
    return _Meaning(verdicts, default, numbers)


@dataclass(frozen=True, slots=True)
class _Meaning:
    verdicts: Sequence[Hashable]
    default: Hashable
    numbers: dict[Hashable, int]

    def __call__(self, terminal: Terminal) -> Terminal:
        """The verdicts in the order to try, without the opaque predicates at the end that make no difference.

        One before others makes a difference even if the next has its verdict: that may not hold.
        """
        if terminal and terminal[0][0] == IMPOSSIBLE:
            return ((IMPOSSIBLE, 0),)
        answers = [(self._number(self.verdicts[rule]), opaque) for rule, opaque in terminal]
        if not answers or answers[-1][1] != 0:
            answers.append((self._number(self.default), 0))
        kept = answers[-1:]
        for answer in reversed(answers[:-1]):
            if len(kept) > 1 or answer[0] != kept[0][0]:
                kept.insert(0, answer)
        return tuple(kept)

    def _number(self, verdict: Hashable) -> int:
        return self.numbers.setdefault(verdict, len(self.numbers))
