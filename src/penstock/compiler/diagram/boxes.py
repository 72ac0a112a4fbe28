"""Rules as boxes: for every axis one range of ranks, and the rule that the box belongs to.

A rule whose condition is a disjunction owns several boxes; the first box that
holds a packet names the rule that decides it.  Boxes keep the rules' order, so
"first" is "lowest index" everywhere in this package.

`opaque` of a box is 0, or the number (from 1) of a predicate that no axis can
express and that must hold as well; it is asked last, and only if no earlier box
without such a predicate holds the packet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from penstock.compiler.diagram.axis import Axis, Keys, Ranks, cut
from penstock.compiler.ir.ops import FieldRef

Indices = npt.NDArray[np.int64]
Truth = npt.NDArray[np.bool_]
Packets = Mapping[FieldRef, Keys]
"""A batch of packets: for each field its keys, all of one length."""

NO_RULE = -1
"""What a packet gets that no box holds: the block's successor, or the default."""


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """n boxes over d axes.  `low` and `high` have shape (n, d), `high` is one past the end; `rule` never decreases."""

    axes: tuple[Axis, ...]
    low: Ranks
    high: Ranks
    rule: Ranks
    opaque: Ranks

    def __len__(self) -> int:
        return len(self.rule)

    def take(self, index: Indices) -> Boxes:
        """Some of the boxes; `index` ascends."""
        return Boxes(self.axes, self.low[index], self.high[index], self.rule[index], self.opaque[index])

    def over(self, axes: Sequence[int]) -> Boxes:
        """The boxes seen on some axes only."""
        kept = list(axes)
        return Boxes(
            tuple(self.axes[at] for at in kept), self.low[:, kept], self.high[:, kept], self.rule, self.opaque
        )

    def wildcards(self, axes: Sequence[int]) -> Truth:
        """Which boxes have no condition on any of these axes."""
        widths = np.array([self.axes[at].width for at in axes], dtype=np.int32)
        kept = list(axes)
        covered: Truth = ((self.low[:, kept] == 0) & (self.high[:, kept] == widths)).all(axis=1)
        return covered

    def projections(self, axes: Sequence[int]) -> tuple[Indices, Indices]:
        """Boxes that are alike on these axes share a number: (a box of each number, the number of each box)."""
        kept = list(axes)
        if not kept:
            return np.zeros(min(1, len(self)), dtype=np.int64), np.zeros(len(self), dtype=np.int64)
        rows = np.ascontiguousarray(np.concatenate([self.low[:, kept], self.high[:, kept]], axis=1))
        as_one = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).reshape(-1)
        _, first, number = np.unique(as_one, return_index=True, return_inverse=True)
        return first.astype(np.int64), number.astype(np.int64)


def from_ranges(
    ranges: Mapping[FieldRef, tuple[Keys, Keys]], rule: npt.ArrayLike, opaque: npt.ArrayLike | None = None
) -> Boxes:
    """Boxes from inclusive key ranges, one pair of columns a field; ``0 … 2**bits`` is a wildcard."""
    owner = np.asarray(rule, dtype=np.int32)
    axes = tuple(cut(ref, low, high) for ref, (low, high) in ranges.items())
    shape = (len(owner), len(axes))
    low, high = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.int32)
    for at, (axis, (first, last)) in enumerate(zip(axes, ranges.values(), strict=True)):
        low[:, at], high[:, at] = axis.ranks(first), axis.ranks(last) + 1
    residue = np.zeros(len(owner), dtype=np.int32) if opaque is None else np.asarray(opaque, dtype=np.int32)
    return Boxes(axes, low, high, owner, residue)


def batch_ranks(axes: Sequence[Axis], packets: Packets) -> Ranks:
    """The packets' ranks, shape (packets, axes)."""
    columns = [axis.ranks(packets[axis.ref]) for axis in axes]
    return np.stack(columns, axis=1) if columns else np.zeros((batch_size(packets), 0), dtype=np.int32)


def batch_size(packets: Packets) -> int:
    """How many packets a batch holds."""
    return len(next(iter(packets.values()))) if packets else 0
