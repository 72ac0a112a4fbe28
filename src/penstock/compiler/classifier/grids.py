"""Cut two address axes into a few hundred intervals each, and list the boxes that touch each cell.

A group whose boxes are specific on both axes has so few of them anywhere that
the exact row and column are not worth knowing: a coarse grid leaves a packet
with one or two boxes to compare, ranges of addresses included.  That is one load
of the grid and one of a record, where rows of a table take three of far more
memory.  Cuts are quantiles of the boxes' ends, so a busy address gets an
interval of its own.

    sources 10.0.0.0/24, 10.0.1.7, 192.0.2.0/24  ─▶  intervals  0-9.… | 10.0.… | 10.1.-…
    cell (source interval, destination interval) ─▶  [4, 17]

The last rank of an axis, absent, is always an interval of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penstock.compiler.diagram.boxes import Boxes, Indices
from penstock.compiler.diagram.build import Frontier, offsets, spans
from penstock.compiler.diagram.fingerprint import distinct, segment_sums, tokens

SIZES = (48, 96, 192, 384, 768)
LEAST_CUTS = 16
#: Entries for each box, beyond which a grid is no way to hold these boxes.
MOST_COPIES = 6
#: Boxes to be compared, on average over the boxes' cells, and at most in any cell.
MOST_COMPARED, LONGEST = 4.0, 48
RECORD_BYTES, CELL_BYTES = 32, 4
#: Rough prices: comparing one more record, and doubling what is touched beyond a megabyte.
COMPARED_NS, DOUBLED_NS = 4.0, 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The intervals of two axes, by the first rank of each; and for each cell, row by row, the number of its list."""

    axes: tuple[int, int]
    cuts: tuple[Indices, Indices]
    cell: Indices
    lists: Frontier
    compared: float

    @property
    def bytes(self) -> int:
        return len(self.cell) * CELL_BYTES + len(self.lists.box) * RECORD_BYTES

    @property
    def price_ns(self) -> float:
        """For choosing among grids; only differences mean something."""
        return COMPARED_NS * self.compared + DOUBLED_NS * float(np.log2(1 + self.bytes / (1 << 20)))

    def interval_of(self, place: int, width: int) -> Indices:
        """The interval of every rank of the axis ``axes[place]``, which has `width` ranks."""
        return np.repeat(np.arange(len(self.cuts[place])), np.diff(np.append(self.cuts[place], width)))


def gridded(boxes: Boxes, axes: tuple[int, int]) -> Grid | None:
    """The best grid for the boxes, or None if every grid copies boxes too often or leaves too many to compare."""
    best: Grid | None = None
    for size in SIZES:
        found = _grid(boxes, axes, size)
        if found is None:
            break
        if _is_good(found) and (best is None or found.price_ns < best.price_ns):
            best = found
    return best


def _is_good(grid: Grid) -> bool:
    """Wide boxes are better found by the exact class of the other axis."""
    if min(map(len, grid.cuts)) < LEAST_CUTS:
        return False
    return grid.compared <= MOST_COMPARED and int(grid.lists.lengths.max(initial=0)) <= LONGEST


def _grid(boxes: Boxes, axes: tuple[int, int], size: int) -> Grid | None:
    cuts = tuple(_quantiles(boxes, at, size) for at in axes)
    first = [np.searchsorted(c, boxes.low[:, at], side="right") - 1 for at, c in zip(axes, cuts, strict=True)]
    after = [np.searchsorted(c, boxes.high[:, at], side="left") for at, c in zip(axes, cuts, strict=True)]
    spread = [end - begin for begin, end in zip(first, after, strict=True)]
    if int((spread[0] * spread[1]).sum()) > MOST_COPIES * len(boxes):
        return None
    box = np.repeat(np.arange(len(boxes)), spread[0])
    row, columns = spans(first[0], spread[0]), spread[1][box]
    cell = np.repeat(row, columns) * len(cuts[1]) + spans(first[1][box], columns)
    box = np.repeat(box, columns)
    by_cell = np.argsort(cell, kind="stable")
    counts = np.bincount(cell, minlength=len(cuts[0]) * len(cuts[1]))
    touching = Frontier(offsets(counts), box[by_cell])
    kept, number = distinct(segment_sums(tokens(touching.box), touching.ptr))
    compared = np.bincount(box, counts[cell]) / np.bincount(box)
    return Grid(axes, (cuts[0], cuts[1]), number, touching.pick(kept), float(compared.mean()))


def _quantiles(boxes: Boxes, at: int, size: int) -> Indices:
    width = boxes.axes[at].width
    ends = np.sort(np.concatenate([boxes.low[:, at], boxes.high[:, at]]))
    ends = ends[(ends > 0) & (ends < width)]
    inner = ends[np.linspace(0, len(ends) - 1, size).astype(np.int64)] if len(ends) else ends
    return np.unique(np.concatenate([[0, width - 1], inner])).astype(np.int64)
