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

_CHUNK = 1 << 22
Asked = Callable[[int], bool]
"""Whether the opaque predicate of this number holds."""


def first_box(boxes: Boxes, ranks: Ranks) -> Indices:
    """The lowest box that holds each packet (rows of ranks), `NO_RULE` if none; opaque predicates are ignored."""
    found = np.full(len(ranks), NO_RULE, dtype=np.int64)
    if not len(boxes):
        return found
    step = max(1, _CHUNK // len(boxes))
    for first in range(0, len(ranks), step):
        part = ranks[first : first + step]
        inside = np.ones((len(part), len(boxes)), dtype=bool)
        for at in range(len(boxes.axes)):
            column = part[:, at, None]
            inside &= (boxes.low[:, at] <= column) & (column < boxes.high[:, at])
        best = inside.argmax(axis=1)
        found[first : first + step] = np.where(inside[np.arange(len(part)), best], best, NO_RULE)
    return found


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
