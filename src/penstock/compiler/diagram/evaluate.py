"""What a diagram, or a list of boxes, says about packets.

`first_box` is the definition everything else is tested against: the boxes in
order, each compared with each packet.  It shares no code with the builder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from penstock.compiler.diagram.axis import Ranks, keys_of
from penstock.compiler.diagram.boxes import NO_RULE, Boxes, Indices, Packets, batch_ranks
from penstock.compiler.diagram.node import Diagram, Terminal
from penstock.compiler.ir.ops import FieldRef

Asked = Callable[[int], bool]
"""Whether the opaque predicate of this number holds."""


def first_box(boxes: Boxes, ranks: Ranks) -> Indices:
    """The lowest box that holds each packet (rows of ranks), `NO_RULE` if none; opaque predicates are ignored.

    From the last box to the first, each paints its number over the packets it
    holds.  Packets are sorted by one axis, so a box looks at those alone that
    lie in its range there.
    """
    if not boxes.axes or not len(boxes):
        return np.full(len(ranks), 0 if len(boxes) else NO_RULE, dtype=np.int64)
    painted = np.full(len(ranks), NO_RULE, dtype=np.int64)
    sorted_by = _narrowest(boxes)
    order = np.argsort(ranks[:, sorted_by], kind="stable")
    columns = np.ascontiguousarray(ranks[order].T)
    begins = np.searchsorted(columns[sorted_by], boxes.low[:, sorted_by]).tolist()
    ends = np.searchsorted(columns[sorted_by], boxes.high[:, sorted_by]).tolist()
    for box in range(len(boxes) - 1, -1, -1):
        begin, end = begins[box], ends[box]
        if begin < end:
            near = columns[:, begin:end]
            inside = (boxes.low[box, :, None] <= near) & (near < boxes.high[box, :, None])
            painted[begin:end][inside.all(axis=0)] = box
    found = np.empty_like(painted)
    found[order] = painted
    return found


def _narrowest(boxes: Boxes) -> int:
    """The axis on which the boxes cover least."""
    widths = np.array([axis.width for axis in boxes.axes])
    return int(((boxes.high - boxes.low).mean(axis=0) / widths).argmin())


def first_rule(boxes: Boxes, packets: Packets) -> Indices:
    """The rule that decides each packet by linear search, `NO_RULE` where none does."""
    box = first_box(boxes, batch_ranks(boxes.axes, packets))
    return np.where(box == NO_RULE, NO_RULE, boxes.rule[box]) if len(boxes) else box


def walk(diagram: Diagram, packets: Packets) -> Indices:
    """The terminal of each packet of a batch."""
    node = np.zeros(len(next(iter(packets.values()))), dtype=np.int64)
    for level in diagram.levels:
        owner = np.repeat(np.arange(level.nodes), np.diff(level.ptr))
        keys = owner * level.axis.width + level.start
        edge = np.searchsorted(
            keys, node * level.axis.width + level.axis.ranks(packets[level.axis.ref]), side="right"
        )
        node = level.child[edge - 1]
    return node


def terminal_of(diagram: Diagram, packet: Mapping[FieldRef, int | None]) -> Terminal:
    """What one packet reaches; None (or no entry) is a field the packet does not have."""
    node = 0
    for level in diagram.levels:
        value = packet.get(level.axis.ref)
        key = keys_of(level.axis.bits, [1 << level.axis.bits if value is None else value])
        rank = int(level.axis.ranks(key)[0])
        node = next(child for first, last, child in level.edges(node) if first <= rank < last)
    return diagram.terminals[node]


def decide(terminal: Terminal, asked: Asked) -> int:
    """The rule of a terminal, its opaque predicates asked in order and only as far as needed; `NO_RULE` if none."""
    for rule, opaque in terminal:
        if opaque == 0 or asked(opaque):
            return rule
    return NO_RULE
