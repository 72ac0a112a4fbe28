"""What differs between two rule sets, and packets that show it.

Both become diagrams over common axes, the two are walked together, and where
they lead to different answers there is a class of packets: for every field the
values, the old and the new answer, and one packet as a witness.

    tcp dst port 22 from 10.0.0.0/8:  drop -> pass   e.g. 10.0.0.0 … port 22
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from penstock.compiler.diagram.axis import Keys, keys_of
from penstock.compiler.diagram.boxes import Boxes, Indices, from_ranges
from penstock.compiler.diagram.build import Budget, build, offsets, spans
from penstock.compiler.diagram.node import Diagram, Level, Terminal
from penstock.compiler.diagram.order import axis_order
from penstock.compiler.diagram.reality import key_ranges, with_reality
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


def differences(
    old: Boxes, new: Boxes, old_meaning: Meaning, new_meaning: Meaning, budget: Budget | None = None
) -> Iterator[Difference]:
    """Every class of packets on which the two disagree; none if they are equivalent.

    Each side's `meaning` makes terminals comparable, for example by putting
    verdicts in the place of rules.

    Raises:
        OverBudgetError: a rule set is too big for one diagram.
    """
    left, right = (with_reality(boxes) for boxes in aligned(old, new))
    left, right = aligned(left, right)
    order = axis_order(left if len(left) >= len(right) else right).all
    bounds = budget or Budget()
    first = reduce(build(left, order, bounds), old_meaning)
    second = reduce(build(right, order, bounds), new_meaning)
    return paths(*product(first, second))


def aligned(old: Boxes, new: Boxes) -> tuple[Boxes, Boxes]:
    """Both over all axes of either, cut wherever one of them is."""
    refs = list(dict.fromkeys(axis.ref for boxes in (old, new) for axis in boxes.axes))
    both: dict[FieldRef, tuple[Keys, Keys]] = {}
    for ref in refs:
        ends = [_ranges(boxes, ref) for boxes in (old, new)]
        both[ref] = np.concatenate([low for low, _ in ends]), np.concatenate([high for _, high in ends])
    # from_ranges asks for nothing but one row a box; the halves are cut apart again.
    joined = from_ranges(both, np.concatenate([old.rule, new.rule]), np.concatenate([old.opaque, new.opaque]))
    return joined.take(np.arange(len(old))), joined.take(np.arange(len(old), len(joined)))


def _ranges(boxes: Boxes, ref: FieldRef) -> tuple[Keys, Keys]:
    for at, axis in enumerate(boxes.axes):
        if axis.ref == ref:
            return key_ranges(boxes, at)
    bits = ref.field.bits
    return keys_of(bits, [0]).repeat(len(boxes)), keys_of(bits, [1 << bits]).repeat(len(boxes))


# ── the product ──────────────────────────────────────────────────────────────

Answers = tuple[tuple[Terminal, Terminal], ...]


def product(left: Diagram, right: Diagram) -> tuple[Diagram, Answers]:
    """A diagram whose terminals index pairs of (old, new) answers; where both agree it leads to pair 0, ((), ()).

    Both are reduced, over the same axes in the same order.
    """
    pairs = np.array([[0, 0]], dtype=np.int64)
    alike = _equal_nodes(left, right)
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


def _equal_nodes(left: Diagram, right: Diagram) -> list[tuple[Indices, Indices]]:
    """For every level, and the terminals behind the last, numbers that equal nodes of the two diagrams share."""
    known = {terminal: at for at, terminal in enumerate(dict.fromkeys((*left.terminals, *right.terminals)))}
    numbers = [
        np.array([known[terminal] for terminal in side.terminals], dtype=np.int64) for side in (left, right)
    ]
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
    reaching = [np.array([wanted(terminal) for terminal in diagram.terminals], dtype=bool)]
    for level in reversed(diagram.levels):
        reaching.append(np.logical_or.reduceat(reaching[-1][level.child], level.ptr[:-1]))
    reaching.reverse()

    def walk(
        depth: int, node: int, fields: dict[FieldRef, IntervalSet]
    ) -> Iterator[tuple[dict[FieldRef, IntervalSet], Terminal]]:
        if depth == len(diagram.levels):
            yield dict(fields), diagram.terminals[node]
            return
        level = diagram.levels[depth]
        for child, held in children_of(level, node).items():
            if reaching[depth + 1][child]:
                yield from walk(depth + 1, child, {**fields, level.axis.ref: held})

    if reaching[0][0]:
        yield from walk(0, 0, {})


def children_of(level: Level, node: int) -> dict[int, IntervalSet]:
    found: dict[int, list[tuple[int, int]]] = {}
    for first, last, child in level.edges(node):
        found.setdefault(child, []).append((level.axis.ends(first)[0], level.axis.ends(last - 1)[1]))
    return {child: IntervalSet.of(*ends) for child, ends in found.items()}


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
