"""Bit vectors: the boxes that no table can hold, in chunks of up to 1,024, asked from the first on.

For every chunk and axis, each class of values has a row: bit i says that box i
of the chunk allows the class.  A packet's boxes are the bits that its rows have
in common, and the lowest is the one that decides.

    chunk of 3 boxes     dport 22 -> 101      src 10/8 -> 011     common: 001, box 0

A chunk's table grows with its size squared, so chunks keep memory in proportion
to the boxes, whatever these are: about 128 bytes a box, axis and class boundary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penstock.compiler.classifier.lookups import NewTable, narrow
from penstock.compiler.classifier.tables import BITS, BitGroup
from penstock.compiler.diagram.axis import U64, Ranks
from penstock.compiler.diagram.boxes import Boxes, Indices
from penstock.compiler.diagram.fingerprint import Lanes, distinct, mix, tokens

#: Bits in the rows of a chunk; fewer words if there is one chunk, and it is smaller.
MOST_WORDS = 16
#: Words times axes: the verifier follows three instructions for each.
MOST_LOADS = 96


@dataclass(frozen=True, slots=True, eq=False)
class BitRows:
    """All chunks' rows.  `rows[axis][chunk]` are bits, `classes[axis][chunk]` the row of every rank of the axis."""

    boxes: Boxes
    words: int
    rows: tuple[tuple[U64, ...], ...]
    classes: tuple[tuple[Indices, ...], ...]

    @property
    def chunks(self) -> int:
        return -(-len(self.boxes) // (self.words * BITS))


def bit_rows(boxes: Boxes) -> BitRows:
    """The rows of all boxes, which are in the order of their rules."""
    words = min(MOST_WORDS, MOST_LOADS // max(1, len(boxes.axes)), -(-len(boxes) // BITS))
    size = words * BITS
    found = [
        [
            _rows(
                boxes.low[first : first + size, at], boxes.high[first : first + size, at], axis.width, words
            )
            for first in range(0, len(boxes), size)
        ]
        for at, axis in enumerate(boxes.axes)
    ]
    return BitRows(
        boxes,
        words,
        tuple(tuple(rows for rows, _ in chunks) for chunks in found),
        tuple(tuple(classes for _, classes in chunks) for chunks in found),
    )


def _rows(low: Ranks, high: Ranks, width: int, words: int) -> tuple[U64, Indices]:
    """(a row of words for each class, the class of every rank)."""
    starts = np.unique(np.concatenate([[0], low, high[high < width]]))
    inside = np.zeros((len(starts), words * BITS), dtype=bool)
    inside[:, : len(low)] = (low <= starts[:, None]) & (starts[:, None] < high)
    rows = np.packbits(inside, axis=1, bitorder="little").view(np.uint64)
    weights = tokens(np.arange(words))
    first, number = distinct(Lanes(mix(rows, weights.a).sum(axis=1), mix(rows, weights.b).sum(axis=1)))
    return rows[first], np.repeat(number, np.diff(np.append(starts, width)))


def bit_group(
    found: BitRows, leading: tuple[int, ...], rest: tuple[int, ...], slot: int, prefix: str, new: NewTable
) -> BitGroup:
    """The group, whose chunks have the views' slots from `slot` on."""
    axes, chunks = (*leading, *rest), range(found.chunks)
    parts = [found.rows[at][chunk] for chunk in chunks for at in axes]
    first = np.cumsum([0, *map(len, parts)])[:-1]
    lanes = [found.classes[at][chunk] for chunk in chunks for at in rest]
    begins = np.cumsum([0, *map(len, lanes)])[:-1]
    rule = found.boxes.rule.astype(np.int64)
    return BitGroup(
        slot,
        len(leading),
        len(rest),
        found.words,
        new(f"{prefix}_bits", np.concatenate(parts).reshape(-1)),
        new(f"{prefix}_bits_first", first.astype(np.uint32)),
        new(f"{prefix}_bits_lanes", narrow(np.concatenate(lanes)) if lanes else np.zeros(1, dtype=np.uint8)),
        new(f"{prefix}_bits_begin", begins.astype(np.uint32)),
        new(f"{prefix}_bits_rules", (rule + 1).astype(np.uint32)),
        new(f"{prefix}_bits_lowest", rule[:: found.words * BITS].astype(np.uint32)),
        int(rule[0]),
    )
