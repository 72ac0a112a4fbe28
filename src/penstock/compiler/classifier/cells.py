"""Lay out the middle step: the number of an address in each group, and the cells of a group's table.

A table of 5,000 rows and 6,000 columns has few different values in a row, so
rows are stored as step functions in blocks unless the whole table is small.
"""

from __future__ import annotations

import numpy as np

from penstock.compiler.classifier import blocks
from penstock.compiler.classifier.blocks import PAGE, Runs
from penstock.compiler.classifier.groups import Group
from penstock.compiler.classifier.lookups import NewTable, narrow
from penstock.compiler.classifier.tables import SPAN, BlockCells, Cells, Column, DenseCells
from penstock.compiler.diagram.boxes import Indices
from penstock.compiler.diagram.build import offsets
from penstock.compiler.diagram.fingerprint import Lanes, distinct, mix, tokens
from penstock.compiler.diagram.node import Level
from penstock.compiler.diagram.reduce import rows

DENSE_BYTES = 256 << 10
INDEX_BYTES = 18 << 20
LEAST_SHIFT, MOST_SHIFT = 5, 12
SAMPLE = 3000


def numbers(group: Group, at: int) -> Indices:
    """For every rank of leading axis `at` its row or column in the group."""
    axis = group.boxes.axes[at]
    if group.grid is not None:
        return group.grid.interval_of(group.grid.axes.index(at), axis.width)
    assert group.rows is not None
    if group.rows.axis.ref == axis.ref:
        level = group.rows
        return rows(level, np.arange(axis.width), slice(0, 1)).reshape(-1)
    return group.column_class


def cells(group: Group, values: Indices, prefix: str, new: NewTable) -> Cells:
    """The group's table, with ``values[i]`` where list i stands."""
    if group.columns is None:
        return DenseCells(new(f"{prefix}_cells", narrow(values)), 1)
    row_runs = _row_runs(group.columns, group.column_class, values)
    count = group.row_count * group.column_count
    if count * (2 if values.max(initial=0) < 65536 else 4) <= DENSE_BYTES:
        table = blocks.written_out(row_runs, group.column_count)
        return DenseCells(new(f"{prefix}_cells", narrow(table.reshape(-1))), group.column_count)
    return _blocks(row_runs, group.column_count, prefix, new)


def _row_runs(columns: Level, column_class: Indices, values: Indices) -> Runs:
    """The nodes of `columns` as step functions of the column number."""
    first_rank = np.unique(column_class, return_index=True)[1]
    place = np.searchsorted(first_rank, columns.start)
    owner = np.repeat(np.arange(columns.nodes), np.diff(columns.ptr))
    kept = np.append((place[1:] != place[:-1]) | (owner[1:] != owner[:-1]), True) & (place < len(first_rank))
    counts = np.bincount(owner[kept], minlength=columns.nodes)
    return blocks.joined(Runs(offsets(counts), place[kept], values[columns.child[kept]]))


def _blocks(row_runs: Runs, column_count: int, prefix: str, new: NewTable) -> BlockCells:
    wide = int(row_runs.value.max(initial=0)) > 0xFFFF
    sample = row_runs.pick(
        np.linspace(0, row_runs.segments - 1, min(row_runs.segments, SAMPLE)).astype(np.int64)
    )
    shift = min(
        _shifts(row_runs, column_count), key=lambda shift: _block_bytes(sample, column_count, shift, wide)
    )
    stride = -(-column_count // (1 << shift))
    runs = blocks.cut(row_runs, shift, stride)
    made = blocks.packed(runs, wide)
    index = np.where(made.crowd >= 0, PAGE | made.crowd, made.entry).astype(np.uint32)
    (entries,) = blocks.narrowed(index)
    outer: Column | None = None
    if entries.nbytes > INDEX_BYTES:
        outer, entries, stride = _shared(entries, stride)
    pages = blocks.written_out(runs.pick(made.crowded), 1 << shift).reshape(-1)
    return BlockCells(
        None if outer is None else new(f"{prefix}_outer", outer),
        new(f"{prefix}_index", entries),
        stride,
        shift,
        new(f"{prefix}_buckets", made.words),
        new(f"{prefix}_pages", pages.astype(np.uint32 if wide else np.uint16)),
        wide,
    )


def _shared(index: Column, stride: int) -> tuple[Column, Column, int]:
    """(which stretch each row has at each place, the different stretches, how many places a row has)."""
    padded = np.pad(index.reshape(-1, stride), ((0, 0), (0, -stride % SPAN))).reshape(-1, SPAN)
    weights = tokens(np.arange(SPAN))
    numbers = padded.astype(np.uint64)
    first, number = distinct(Lanes(mix(numbers, weights.a).sum(axis=1), mix(numbers, weights.b).sum(axis=1)))
    return narrow(number), np.ascontiguousarray(padded[first]).reshape(-1), -(-stride // SPAN)


def _shifts(row_runs: Runs, column_count: int) -> range:
    """Block sizes worth trying: the one with a run or two a block, and its neighbours."""
    runs_a_row = max(1.0, len(row_runs.start) / row_runs.segments)
    middle = int(np.log2(column_count / runs_a_row))
    return range(
        min(max(middle - 1, LEAST_SHIFT), MOST_SHIFT), min(max(middle + 2, LEAST_SHIFT + 1), MOST_SHIFT + 1)
    )


def _block_bytes(row_runs: Runs, column_count: int, shift: int, wide: bool) -> int:
    runs = blocks.cut(row_runs, shift, -(-column_count // (1 << shift)))
    made = blocks.packed(runs, wide)
    return made.entry.nbytes + made.words.nbytes + len(made.crowded) * ((4 if wide else 2) << shift)
