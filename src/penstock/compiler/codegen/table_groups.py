"""Print a group's cells and leaf as C statements.

In: a group of a `Family`; the C around it has declared the views' words, the
lanes and `best`, the lowest rule so far.  Out: lines that lower `best`.

Lists are compared in a function of its own, global so that the verifier checks
it once, knows nothing about its result, and does not walk a loop for each caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import assert_never

from penstock.compiler.classifier.blocks import coding
from penstock.compiler.classifier.tables import (
    RANGED,
    SPAN,
    AnyGroup,
    BitGroup,
    BlockCells,
    Cells,
    DenseCells,
    Family,
    Fold,
    GridGroup,
    ListLeaf,
    Local,
    MatrixLeaf,
    RuleLeaf,
    Table,
    TableGroup,
)
from penstock.compiler.codegen.table_bits import bit_lines
from penstock.compiler.codegen.table_lookups import block_lines, checked

#: Records that one call compares: the verifier follows every comparison of a function, and a call at no cost.
STRETCH = 6
GOES_ON = 1 << 31
SPAN_BITS = SPAN.bit_length() - 1
_RULE = "((r[{first}] >> 32 & 0x7fff0000) | r[{last}] >> 48)"
"""The rule plus one of record `r`: the lane that no field uses, of both words."""


def scan_lines(family: Family, name: str, tables: str) -> Iterator[str]:
    """The functions that find the record of a list that fits the packet, 0 for none; GOES_ON + where to go on.

    Nothing for families whose lists have one record.  They give the record, not
    its rule: the verifier walks every way out, so the ways out are short.
    """
    longest = [g.leaf.longest for g in _table_groups(family) if isinstance(g.leaf, ListLeaf) and not g.opaque]
    lanes = "".join(f", __u64 packet{word}" for word in range(family.words))
    if max(longest, default=0) > 1 and family.records is not None:
        yield f"__attribute__((noinline)) __u32 {name}_scan(__u64 record{lanes})"
        yield from _scan_body(family, 0, max(longest), family.last_record, f"{tables}.{family.records.name}")
        yield from _on_lines(f"{name}_scan", lanes, max(longest))
    if family.longest_range > 1 and family.ranges is not None:
        yield f"__attribute__((noinline)) __u32 {name}_search(__u64 record, __u64 pair{lanes})"
        table = f"{tables}.{family.ranges.name}"
        yield from _scan_body(family, RANGED, family.longest_range, family.last_range, table)
        yield from _on_lines(f"{name}_search", f", __u64 pair{lanes}", family.longest_range)


def _scan_body(family: Family, ranged: int, longest: int, last: int, table: str) -> Iterator[str]:
    size = ranged + 2 * family.words
    yield "{"
    yield from checked("record", last)
    yield f"    const __u64 *r = &{table}[record * {size}];"
    stretch = min(longest - 1, STRETCH)
    for number in range(stretch):
        yield f"    if (!({_misses(family, ranged, size * number)})) return record + {number};"
        yield f"    if (r[{size * number + ranged}] >> 63) return 0;"
    yield f"    return record + {GOES_ON + stretch}U;"
    yield "}"


def _on_lines(function: str, parameters: str, longest: int) -> Iterator[str]:
    """The function again, as often as the longest list may ask for it; then a list has ended."""
    if longest - 1 <= STRETCH:
        return
    names = parameters.replace("__u64 ", "")
    yield f"__attribute__((noinline)) __u32 {function}_on(__u64 record{parameters})"
    yield "{"
    yield f"    for (int i = 1; i < {-(-(longest - 1) // STRETCH)} && record >= {GOES_ON}U; i++)"
    yield f"        record = {function}(record - {GOES_ON}U{names});"
    yield "    return record;"
    yield "}"


def _misses(family: Family, ranged: int, at: int = 0) -> str:
    words, first = family.words, at + ranged
    tops = ["PS_FIRST_LANE_TOPS", *["PS_LANE_TOPS"] * (words - 1)]
    outside = ["ps_outside(pair, r[{}])", "ps_outside(pair >> 32, r[{}])"][:ranged]
    parts = [part.format(at + number) for number, part in enumerate(outside)]
    parts += [
        f"ps_misses(packet{word}, r[{first + word}], r[{first + words + word}], {top})"
        for word, top in enumerate(tops)
    ]
    return " | ".join(parts)


def _table_groups(family: Family) -> Iterator[TableGroup]:
    return (group for group in family.groups if isinstance(group, TableGroup))


def _record_lines(family: Family, ranged: int, tables: str) -> Iterator[str]:
    """Lines that declare `r`, the record, and `fits`, 1 or 0, computed without a branch."""
    table = family.ranges if ranged else family.records
    assert table is not None
    yield f"        const __u64 *r = &{tables}.{table.name}[record * {ranged + 2 * family.words}];"
    yield f"        __u64 fits = {_misses(family, ranged)};"
    yield "        ps_opaque_value(fits);"
    yield "        fits = (fits - 1) >> 63;"


def cell_lines(family: Family, tables: str) -> Iterator[str]:
    """Lines that declare ``cell{n}`` of every group n but bit vectors.

    Step by step for all groups together: the loads of one step depend on those
    of the step before, not on each other, so the CPU waits for all of them at once.
    """
    asked = [(n, group) for n, group in enumerate(family.groups) if not isinstance(group, BitGroup)]
    steps = [list(_cell_steps(family, number, group, tables)) for number, group in asked]
    for together in zip_longest(*steps, fillvalue=()):
        for lines in together:
            yield from lines


def _cell_steps(
    family: Family, number: int, group: TableGroup | GridGroup, tables: str
) -> Iterator[list[str]]:
    yield [f"    __u64 row{number} = {_local(family, group.row)};"] + (
        [f"    __u64 column{number} = {_local(family, group.column)};"] if group.column is not None else []
    )
    if isinstance(group, GridGroup):
        yield list(_dense_lines(number, group.cells, group.stride, True, tables))
        return
    yield from _cells_in_steps(number, group.cells, group.column is not None, tables)


def group_lines(
    family: Family, number: int, group: AnyGroup, name: str, tables: str, predicate: str
) -> Iterator[str]:
    """Lines that set `best` to the group's rule if that is lower."""
    yield f"    if (best > {group.first_rule}) {{" if number else "    {"
    match group:
        case TableGroup():
            yield f"    __u64 cell = cell{number};"
            yield from _leaf_lines(family, group, name, tables, predicate)
        case GridGroup():
            yield f"    __u64 cell = cell{number}, found = 0;"
            yield from _list_lines(family, f"{name}_search", RANGED, group.longest, tables)
            yield "    best = ps_lower(best, found);"
        case BitGroup():
            numbers = [_local(family, Local(view, group.slot)) for view in range(group.leading)]
            yield from bit_lines(family, group, name, numbers)
        case _:
            assert_never(group)
    yield "    }"


def _local(family: Family, local: Local) -> str:
    if family.views[local.view].table is None:
        return f"class{local.view}"
    return f"(view{local.view}_{local.slot // 4} >> {16 * (local.slot % 4)}) & 0xffff"


def _dense_lines(number: int, table: Table, stride: int, has_column: bool, tables: str) -> Iterator[str]:
    yield f"    __u64 i{number} = row{number} * {stride}" + (f" + column{number};" if has_column else ";")
    yield from checked(f"i{number}", len(table.data) - 1)
    yield f"    __u64 cell{number} = {tables}.{table.name}[i{number}];"
    yield f"    ps_opaque_value(cell{number});"


def _cells_in_steps(number: int, cells: Cells, has_column: bool, tables: str) -> Iterator[list[str]]:
    match cells:
        case DenseCells(table, stride):
            yield list(_dense_lines(number, table, stride, has_column, tables))
        case BlockCells():
            yield list(_index_lines(number, cells, tables))
            code = coding(cells.index.data)
            yield [
                f"    __u64 low{number} = column{number} & {(1 << cells.shift) - 1};",
                *block_lines(
                    f"cell{number}",
                    f"low{number}",
                    cells.shift,
                    code,
                    cells.buckets,
                    cells.pages,
                    cells.wide,
                    tables,
                ),
            ]
        case _:
            assert_never(cells)


def _index_lines(number: int, cells: BlockCells, tables: str) -> Iterator[str]:
    i, row, column = (f"{name}{number}" for name in ("i", "row", "column"))
    if cells.outer is None:
        yield f"    __u64 {i} = {row} * {cells.stride} + ({column} >> {cells.shift});"
    else:
        yield f"    __u64 {i} = {row} * {cells.stride} + ({column} >> {cells.shift + SPAN_BITS});"
        yield from checked(i, len(cells.outer.data) - 1)
        stretch = f"(__u64){tables}.{cells.outer.name}[{i}] * {SPAN}"
        yield f"    {i} = {stretch} + ({column} >> {cells.shift} & {SPAN - 1});"
    yield from checked(i, len(cells.index.data) - 1)
    yield f"    __u64 cell{number} = {tables}.{cells.index.name}[{i}];"
    yield f"    ps_opaque_value(cell{number});"


def _leaf_lines(family: Family, group: TableGroup, name: str, tables: str, predicate: str) -> Iterator[str]:
    match group.leaf:
        case RuleLeaf():
            yield "    __u64 found = cell;"
        case MatrixLeaf(table, width):
            yield from _fold_lines(family.fold, tables)
            yield f"    __u64 answer = cell * {width} + x;"
            yield from checked("answer", len(table.data) - 1)
            yield f"    __u64 found = {tables}.{table.name}[answer];"
        case ListLeaf(longest):
            yield "    __u64 found = 0;"
            if group.opaque:
                yield from _opaque_lines(family, longest, tables, predicate)
            else:
                yield from _list_lines(family, f"{name}_scan", 0, longest, tables)
        case _:
            assert_never(group.leaf)
    yield "    best = ps_lower(best, found);"


def _list_lines(family: Family, function: str, ranged: int, longest: int, tables: str) -> Iterator[str]:
    """The first record here, where most lists end; the others in the function."""
    table = family.ranges if ranged else family.records
    assert table is not None
    arguments = (", pair" if ranged else "") + "".join(f", packet{word}" for word in range(family.words))
    rule = _RULE.format(first=ranged, last=ranged + family.words)
    yield "    __u64 record = cell;"
    yield from checked("record", family.last_range if ranged else family.last_record)
    yield from _record_lines(family, ranged, tables)
    yield f"    found = {rule} & (0 - fits);"
    if longest > 1:
        yield f"    if (!(fits | r[{ranged}] >> 63)) {{"
        yield f"        record = {function}(record + 1{arguments});"
        if longest - 1 > STRETCH:
            yield f"        if (record >= {GOES_ON}U) record = {function}_on(record{arguments});"
        yield from checked("record", family.last_range if ranged else family.last_record)
        yield f"        r = &{tables}.{table.name}[record * {ranged + 2 * family.words}];"
        yield f"        found = {rule};"
        yield "    }"


def _fold_lines(fold: Fold | None, tables: str) -> Iterator[str]:
    yield "    __u64 x = 0;"
    for number, step in enumerate(fold.steps if fold else ()):
        yield f"    __u64 c{number} = lane{step.lane};"
        yield from checked(f"c{number}", len(step.classes.data) - 1)
        yield f"    x = x * {step.width} + {tables}.{step.classes.name}[c{number}];"
        yield from checked("x", len(step.table.data) - 1)
        yield f"    x = {tables}.{step.table.name}[x];"


def _opaque_lines(family: Family, longest: int, tables: str, predicate: str) -> Iterator[str]:
    """Records in order, each asked only if it lies before what is decided already.

    One that does not fit has an impossible predicate: with a branch of its own the
    verifier would follow both ways through every later record.
    """
    assert family.predicates is not None
    yield "    __u64 record = cell;"
    yield from checked("record", family.last_record)
    yield f"    for (int i = 0; cell && i < {longest}; i++, record++) {{"
    yield from _record_lines(family, 0, tables)
    yield f"        __u64 rule = {_RULE.format(first=0, last=family.words)};"
    yield "        if (rule > best) break;"
    yield f"        __u64 number = {tables}.{family.predicates.name}[record] | (fits - 1);"
    yield "        ps_opaque_value(number);"
    yield f"        if ({predicate.format(number='number')}) {{"
    yield "            found = rule;"
    yield "            break;"
    yield "        }"
    yield "        if (r[0] >> 63) break;"
    yield "    }"
