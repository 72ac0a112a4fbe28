"""Run a classifier's tables on a batch of packets, in numpy: step for step what the emitted C does.

The tables are tested here, against the boxes they were made from, before any
kernel sees them; what the program in the kernel answers is then compared too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import assert_never

import numpy as np
import numpy.typing as npt

from penstock.compiler.classifier import blocks
from penstock.compiler.classifier.blocks import BUCKET, NUMBER
from penstock.compiler.classifier.leaves import MOST_VALUE
from penstock.compiler.classifier.tables import (
    BITS,
    LANES,
    RANGED,
    SPAN,
    BitGroup,
    BlockCells,
    Cells,
    Classifier,
    Column,
    DenseCells,
    DirectLookup,
    Family,
    Fold,
    GridGroup,
    ListLeaf,
    Lookup,
    MatrixLeaf,
    PrefixLookup,
    RuleLeaf,
    SearchLookup,
    StrideLookup,
    Table,
    TableGroup,
    View,
    WideLookup,
    place,
)
from penstock.compiler.diagram.axis import Keys, halves, keys_of
from penstock.compiler.diagram.boxes import NO_RULE, Indices, Packets, Truth, batch_size

Truths = npt.NDArray[np.bool_]
"""Whether each opaque predicate (column number - 1) holds for each packet (row)."""
NOTHING = np.iinfo(np.int64).max


def classify(classifier: Classifier, packets: Packets, truths: Truths | None = None) -> Indices:
    """The rule of each packet, `NO_RULE` where none matches; without `truths` every opaque predicate is false."""
    count = batch_size(packets)
    if truths is None:
        truths = np.zeros((count, 1 << 10), dtype=bool)
    found = _family(classifier.main, packets, truths, count)
    if classifier.other is None:
        return found
    has = np.zeros(count, dtype=bool)
    for ref in classifier.distinguishing:
        has |= packets[ref] != keys_of(ref.field.bits, [1 << ref.field.bits])[0]
    return np.where(has, _family(classifier.other, packets, truths, count), found)


def _family(family: Family, packets: Packets, truths: Truths, count: int) -> Indices:
    locals_ = [_view(view, packets) for view in family.views]
    lanes = [look_up(lookup, packets[lookup.ref]) for lookup in family.lanes]
    x = _fold(family.fold, lanes, count) if family.fold else np.zeros(count, dtype=np.int64)
    best = np.full(count, NOTHING)
    for group in family.groups:
        if isinstance(group, GridGroup):
            found = _grid(family, group, locals_, lanes, packets)
            found = np.where(found == 0, NOTHING, found - 1)
        elif isinstance(group, BitGroup):
            found = _bits(group, locals_, lanes, count)
        else:
            found = _group(family, group, locals_, lanes, x, truths)
        best = np.minimum(best, found)
    return np.where(best == NOTHING, NO_RULE, best)


def look_up(lookup: Lookup, keys: Keys) -> Indices:
    """The class or rank of each key."""
    match lookup:
        case DirectLookup(_, table):
            return _numbers(table, keys.astype(np.int64))
        case StrideLookup(_, first, second, third):
            value = keys.astype(np.int64)
            middle = first.data[value >> 16].astype(np.int64) << 8 | (value >> 8 & 0xFF)
            return _numbers(third, _numbers(second, middle) << 8 | (value & 0xFF))
        case PrefixLookup():
            return _by_prefix(lookup, keys.astype(np.int64))
        case SearchLookup(_, table, values, _):
            return _numbers(values, np.searchsorted(table.data, keys, side="right") - 1)
        case WideLookup():
            return _wide(lookup, keys)
        case _:
            assert_never(lookup)


def _numbers(table: Table, index: Indices) -> Indices:
    found: Indices = table.data[index].astype(np.int64)
    return found


def _by_prefix(lookup: PrefixLookup, value: Indices) -> Indices:
    entry = lookup.first.data[value >> 16]
    low = value & 0xFFFF
    code = blocks.coding(entry)
    crowded = entry >= code.page
    place = ((entry[crowded].astype(np.int64) & code.number) << 8) + (low[crowded] >> 8)
    entry[crowded] = lookup.second.data[place]
    low[crowded] &= 0xFF
    return blocks.look_up(entry, lookup.buckets.data, lookup.pages.data, low, 8, wide=lookup.wide)


def _wide(lookup: WideLookup, keys: Keys) -> Indices:
    high, low = halves(keys)
    at = np.searchsorted(lookup.keys.data, high >> np.uint64(1), side="right") - 1
    entry = lookup.entries.data[2 * at + (high & np.uint64(1)).astype(np.int64)]
    found = entry.astype(np.int64)
    for row in np.flatnonzero(entry >= BUCKET).tolist():
        listed = int(lookup.lists.data[int(entry[row]) & NUMBER])
        begin, end = listed >> 32, (listed >> 32) + (listed & 0xFFFF_FFFF) + 1
        within = int(np.searchsorted(lookup.low_keys.data[begin:end], low[row], side="right")) - 1
        found[row] = lookup.low_values.data[begin + within]
    return np.where(keys == keys_of(128, [1 << 128])[0], lookup.absent, found)


def _view(view: View, packets: Packets) -> Indices:
    """The packets' numbers in every group, shape (packets, groups)."""
    classes = look_up(view.lookup, packets[view.lookup.ref])
    if view.table is None:
        return classes[:, None]
    return view.table.data.view(np.uint16).reshape(-1, view.stride * LANES)[classes].astype(np.int64)


def _fold(fold: Fold, lanes: list[Indices], count: int) -> Indices:
    x = np.zeros(count, dtype=np.int64)
    for step in fold.steps:
        x = step.table.data[x * step.width + step.classes.data[lanes[step.lane]]].astype(np.int64)
    return x


def _group(
    family: Family,
    group: TableGroup,
    locals_: list[Indices],
    lanes: list[Indices],
    x: Indices,
    truths: Truths,
) -> Indices:
    row = locals_[group.row.view][:, group.row.slot]
    column = locals_[group.column.view][:, group.column.slot] if group.column else np.zeros_like(row)
    cell = _cells(group.cells, row, column)
    match group.leaf:
        case RuleLeaf():
            found = cell
        case MatrixLeaf(table, width):
            found = table.data[cell * width + x].astype(np.int64)
        case ListLeaf():
            found = _scan(family, group, cell, lanes, truths)
        case _:
            assert_never(group.leaf)
    return np.where(found == 0, NOTHING, found - 1)


def _cells(cells: Cells, row: Indices, column: Indices) -> Indices:
    match cells:
        case DenseCells(table, stride):
            return _numbers(table, row * stride + column)
        case BlockCells():
            block = column >> cells.shift
            if cells.outer is None:
                entry = cells.index.data[row * cells.stride + block]
            else:
                stretch = _numbers(cells.outer, row * cells.stride + block // SPAN)
                entry = cells.index.data[stretch * SPAN + block % SPAN]
            low = column & ((1 << cells.shift) - 1)
            return blocks.look_up(
                entry, cells.buckets.data, cells.pages.data, low, cells.shift, wide=cells.wide
            )
        case _:
            assert_never(cells)


def _scan(family: Family, group: TableGroup, cell: Indices, lanes: list[Indices], truths: Truths) -> Indices:
    assert family.records is not None
    predicates = family.predicates

    def holds(active: Indices, record: Indices) -> Truth:
        if not group.opaque or predicates is None:
            return np.ones(len(record), dtype=bool)
        number = predicates.data[record].astype(np.int64)
        found: Truth = (number == 0) | truths[active, number - 1]
        return found

    return _listed(family.records.data.reshape(-1, 2 * family.words), cell, lanes, holds)


def _grid(
    family: Family, group: GridGroup, locals_: list[Indices], lanes: list[Indices], packets: Packets
) -> Indices:
    assert family.ranges is not None
    row, column = (locals_[local.view][:, local.slot] for local in (group.row, group.column))
    ranges = family.ranges.data.reshape(-1, family.range_words)
    values = [
        np.minimum(packets[view.lookup.ref], np.uint64(MOST_VALUE)).astype(np.int64) for view in family.views
    ]

    def holds(active: Indices, record: Indices) -> Truth:
        found = np.ones(len(record), dtype=bool)
        for column, value in enumerate(values):
            ends = (
                np.ascontiguousarray(ranges[record, column]).view(np.uint32).reshape(-1, 2).astype(np.int64)
            )
            offset = value[active] - ends[:, 0]
            found &= (offset >= 0) & (offset <= ends[:, 1])
        return found

    return _listed(ranges[:, RANGED:], _numbers(group.cells, row * group.stride + column), lanes, holds)


def _listed(
    records: Column, cell: Indices, lanes: list[Indices], holds: Callable[[Indices, Indices], Truth]
) -> Indices:
    """The rule plus one of the first record that fits, in the list that begins at `cell`; 0 for none.

    ``holds(packets, records)`` says what else has to be true, packet by packet.
    """
    halves_ = np.ascontiguousarray(records).view(np.uint16).reshape(len(records), 2, -1)
    low, high = halves_[:, 0], halves_[:, 1] & 0x7FFF
    is_last = low[:, LANES - 1] >= 0x8000
    rule = (low[:, LANES - 1].astype(np.int64) & 0x7FFF) << 16 | halves_[:, 1, LANES - 1]
    found = np.zeros(len(cell), dtype=np.int64)
    active = np.flatnonzero(cell > 0)
    record = cell[active]
    while len(active):
        fits = holds(active, record)
        for lane, ranks in enumerate(lanes):
            word, within = place(lane)
            at = word * LANES + within
            fits &= (low[record, at] <= ranks[active]) & (ranks[active] <= high[record, at])
        found[active[fits]] = rule[record[fits]]
        goes_on = ~fits & ~is_last[record]
        active, record = active[goes_on], record[goes_on] + 1
    return found


def _bits(group: BitGroup, locals_: list[Indices], lanes: list[Indices], count: int) -> Indices:
    found = np.full(count, NOTHING)
    rows = group.rows.data.reshape(-1, group.words)
    step = max(1, (1 << 22) // group.words)
    for chunk in range(group.chunks):
        open_ = np.flatnonzero(found == NOTHING)
        for packet in (open_[first : first + step] for first in range(0, len(open_), step)):
            common = np.full((len(packet), group.words), ~np.uint64(0))
            for at, row in enumerate(_bit_rows(group, chunk, locals_, lanes)):
                common &= rows[int(group.first.data[chunk * group.axes + at]) + row[packet]]
            bits = np.unpackbits(common.view(np.uint8), axis=1, bitorder="little")
            at_ = bits.argmax(axis=1)
            hit = bits[np.arange(len(bits)), at_] != 0
            box = chunk * group.words * BITS + at_[hit]
            found[packet[hit]] = group.rules.data[box].astype(np.int64) - 1
    return found


def _bit_rows(group: BitGroup, chunk: int, locals_: list[Indices], lanes: list[Indices]) -> Iterator[Indices]:
    """The packets' classes on each axis of a chunk."""
    for numbers in locals_:
        yield numbers[:, group.slot + chunk] if numbers.shape[1] > 1 else numbers[:, 0]
    for lane, ranks in enumerate(lanes):
        yield _numbers(group.classes, int(group.begin.data[chunk * group.lanes + lane]) + ranks)
