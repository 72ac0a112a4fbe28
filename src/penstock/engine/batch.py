"""Predicates of many packets at once.

In go the predicates that will be asked and a batch of packets; a predicate is
then answered for any of the packets as one array of truths.  A field's values
are cut where some predicate's intervals begin or end, so that a test of a field
is a comparison of small numbers; what is no test of a field (arithmetic, headers
walked) is asked of the reference evaluator, once for each packet.

    batch = Batch(axes_of(predicates), packets)        with `stores` for what sets contain
    batch.holds(predicate, np.array([0, 3]))   ->  array([True, False])
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import assert_never

import numpy as np

from penstock.compiler.diagram.axis import Axis, Ranks, cut, keys_of
from penstock.compiler.diagram.boxes import Indices, Truth
from penstock.compiler.ir.depth import leaves
from penstock.compiler.ir.evaluate import Packet, holds
from penstock.compiler.ir.ops import (
    All,
    Always,
    Any,
    Classic,
    Compare,
    FieldRef,
    HeaderWalked,
    Member,
    Negation,
    Over,
    Predicate,
    Sample,
    Within,
)
from penstock.compiler.ir.stores import EMPTY, Stores
from penstock.model.net import IntervalSet

#: More intervals than this are looked up in a table and not compared one by one.
_FEW = 4


def axes_of(predicates: Iterable[Predicate]) -> dict[FieldRef, Axis]:
    """An axis for each field that is tested, cut at the ends of all its intervals."""
    ends: dict[FieldRef, set[tuple[int, int]]] = {}
    for predicate in predicates:
        for test, _ in leaves(predicate):
            if isinstance(test, Within):
                ends.setdefault(test.ref, set()).update(test.values.intervals)
    return {ref: _axis(ref, sorted(intervals)) for ref, intervals in ends.items()}


def _axis(ref: FieldRef, intervals: Sequence[tuple[int, int]]) -> Axis:
    bits = ref.field.bits
    return cut(ref, *(keys_of(bits, [one[side] for one in intervals]) for side in (0, 1)))


class Batch:
    """Some packets, and what is known of them."""

    def __init__(self, axes: dict[FieldRef, Axis], packets: Sequence[Packet], stores: Stores = EMPTY) -> None:
        self._axes, self._packets, self._stores = axes, packets, stores
        self._columns: dict[FieldRef, Ranks] = {}
        self._answers: dict[Predicate, dict[int, bool]] = {}

    def holds(self, predicate: Predicate, rows: Indices) -> Truth:
        """Whether the predicate holds of each of these packets."""
        match predicate:
            case Always(value):
                return np.full(len(rows), value, dtype=bool)
            case Within(ref, values):
                return self._within(ref, values, rows)
            case Compare() | HeaderWalked() | Classic() | Member() | Over() | Sample():
                return self._asked(predicate, rows)
            case Negation(operand):
                return ~self.holds(operand, rows)
            case All(operands):
                return self._joined(operands, rows, wanted=True)
            case Any(operands):
                return ~self._joined(operands, rows, wanted=False)
            case _:
                assert_never(predicate)

    def _joined(self, operands: Sequence[Predicate], rows: Indices, *, wanted: bool) -> Truth:
        """Whether every operand is `wanted`; the next is asked only where all before it are."""
        found = np.ones(len(rows), dtype=bool)
        left = np.arange(len(rows))
        for operand in operands:
            kept = self.holds(operand, rows[left]) == wanted
            found[left[~kept]] = False
            left = left[kept]
            if not len(left):
                break
        return found

    def _within(self, ref: FieldRef, values: IntervalSet, rows: Indices) -> Truth:
        axis, ranks = self._axes[ref], self._column(ref)[rows]
        ends = np.array(values.intervals, dtype=object).reshape(-1, 2)
        first, last = (axis.ranks(keys_of(axis.bits, ends[:, side].tolist())) for side in (0, 1))
        if len(first) > _FEW:
            steps = np.zeros(axis.width + 1, dtype=np.int32)
            np.add.at(steps, first, 1)
            np.add.at(steps, last + 1, -1)
            found: Truth = np.cumsum(steps)[ranks] > 0
            return found
        found = np.zeros(len(rows), dtype=bool)
        for low, high in zip(first.tolist(), last.tolist(), strict=True):
            found |= (ranks >= low) & (ranks <= high)
        return found

    def _column(self, ref: FieldRef) -> Ranks:
        if ref not in self._columns:
            absent = 1 << ref.field.bits
            values = [packet.value(ref) for packet in self._packets]
            keys = keys_of(ref.field.bits, [absent if value is None else value for value in values])
            self._columns[ref] = self._axes[ref].ranks(keys)
        return self._columns[ref]

    def _asked(self, predicate: Predicate, rows: Indices) -> Truth:
        known = self._answers.setdefault(predicate, {})
        for row in rows.tolist():
            if row not in known:
                known[row] = holds(predicate, self._packets[row], self._stores)
        return np.array([known[row] for row in rows.tolist()], dtype=bool)
