"""Whether boxes cover a box together, and what they leave open.

The region is split along the sides of a box that cuts it least, the part inside
forgotten, until a part is left that no box meets (it is open) or every part lies
within a box.  Every answer is exact; the effort is counted, not timed, so that it
is the same on every machine.

    ports 0-65535 by 0-1023 and 1000-65535     covered
    ports 0-65535 by 0-1023 and 2000-65535     1024-1999 are open
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from penstock.compiler.diagram.axis import Ranks
from penstock.compiler.diagram.boxes import Boxes, Indices

#: What splitting a region costs, in boxes looked at: some calls of numpy, however few these are.
_SPLIT = 1000


class WorkExceededError(Exception):
    """A question took more work than it was given."""


@dataclass(slots=True)
class Work:
    """`most` boxes to be looked at in all, `each` for one question; `spent` grows.

    A million take some 20 ms.
    """

    most: int
    each: int
    spent: int = 0
    _until: int = 0

    def question(self) -> None:
        """Begin a question.  Raises WorkExceededError: everything is spent."""
        if self.spent >= self.most:
            raise WorkExceededError
        self._until = min(self.spent + self.each, self.most)

    def spend(self, amount: int) -> None:
        """Count some work.  Raises WorkExceededError: it is too much."""
        self.spent += amount
        if self.spent > self._until:
            raise WorkExceededError


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """One box by itself; `low` and `high` (one past the end) are ranks."""

    low: Ranks
    high: Ranks

    def __and__(self, other: Region) -> Region:
        return Region(np.maximum(self.low, other.low), np.minimum(self.high, other.high))


def region_of(boxes: Boxes, at: int) -> Region:
    return Region(boxes.low[at], boxes.high[at])


def everything(boxes: Boxes) -> Region:
    widths = np.array([axis.width for axis in boxes.axes], dtype=np.int32)
    return Region(np.zeros_like(widths), widths)


def meeting(boxes: Boxes, region: Region) -> Indices:
    """The boxes that share a point with the region."""
    found: Indices = np.flatnonzero(((boxes.low < region.high) & (boxes.high > region.low)).all(axis=1))
    return found


def open_regions(
    region: Region, boxes: Boxes, chosen: Indices, work: Work, used: set[int] | None = None
) -> Iterator[Region]:
    """Parts of the region outside of all `chosen` boxes; none if these cover it.

    What is yielded does not overlap, and is all that is open when the iterator
    ends.  `used` gets the boxes along which the region was split.

    Raises:
        WorkExceededError: it takes more work than the question was given.
    """
    pending = [(region, chosen)]
    while pending:
        part, near = pending.pop()
        work.spend(_SPLIT + len(near))
        low, high = boxes.low[near], boxes.high[near]
        meets = ((low < part.high) & (high > part.low)).all(axis=1)
        near, low, high = near[meets], low[meets], high[meets]
        if not len(near):
            yield part
            continue
        cuts = (low > part.low).sum(axis=1) + (high < part.high).sum(axis=1)
        best = int(cuts.argmin())
        if used is not None:
            used.add(int(near[best]))
        if cuts[best]:
            rest = np.delete(near, best)
            pending += [(outside, rest) for outside in _outside(part, low[best], high[best])]


def _outside(part: Region, low: Ranks, high: Ranks) -> Iterator[Region]:
    """The part without a box that meets it, in pieces."""
    first, last = part.low.copy(), part.high.copy()
    for axis in range(len(first)):
        if low[axis] > first[axis]:
            above = last.copy()
            above[axis] = low[axis]
            yield Region(first.copy(), above)
            first[axis] = low[axis]
        if high[axis] < last[axis]:
            below = first.copy()
            below[axis] = high[axis]
            yield Region(below, last.copy())
            last[axis] = high[axis]


def some_open(
    region: Region, boxes: Boxes, chosen: Indices, probes: Region, work: Work, used: set[int] | None = None
) -> Region | None:
    """A part of the region that is open, None if there is none.

    Points of the probes (rows of ranges) are tried before the region is split.

    Raises:
        WorkExceededError: it takes more work than the question was given.
    """
    work.spend(_SPLIT + len(chosen))
    low, high = boxes.low[chosen], boxes.high[chosen]
    meets = ((low < region.high) & (high > region.low)).all(axis=1)
    near, low, high = chosen[meets], low[meets], high[meets]
    work.spend(len(probes.low) * len(near))
    points = _points(region, probes)[:, None, :]
    inside = np.logical_and.reduce((low <= points) & (points < high), axis=2)
    free = np.flatnonzero(~np.logical_or.reduce(inside, axis=1))
    if len(free):
        point = points[free[0], 0]
        return Region(point, point + 1)
    return next(open_regions(region, boxes, near, work, used), None)


def _points(region: Region, probes: Region) -> Ranks:
    """A lowest and a highest point of the region for each probe, within it where there is such a point."""
    low, high = np.maximum(region.low, probes.low), np.minimum(region.high, probes.high)
    fits = low < high
    return np.concatenate([np.where(fits, low, region.low), np.where(fits, high, region.high) - 1])
