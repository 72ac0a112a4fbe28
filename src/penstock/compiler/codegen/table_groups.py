"""Print a group's cells and leaf as C statements.

In: a group of a `Family`; the C around it has declared the views' words, the
lanes and `best`, the lowest rule so far.  Out: lines that lower `best`.

Lists are compared in a function of its own, global so that the verifier checks
it once, knows nothing about its result, and does not walk a loop for each caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from penstock.compiler.codegen.table_lookups import block_lines, checked
from penstock.compiler.diagram.blocks import coding
from penstock.compiler.diagram.tables import (
    SPAN,
    AnyGroup,
    BitGroup,
    BlockCells,
    Cells,
    DenseCells,
    Family,
    Fold,
    ListLeaf,
    Local,
    MatrixLeaf,
    RuleLeaf,
    TableGroup,
)

SPAN_BITS = SPAN.bit_length() - 1
_RULE = "((r[0] >> 32 & 0x7fff0000) | r[{words}] >> 48)"
"""The rule plus one of record `r`: the lane that no field uses, of both words."""


def scan_lines(family: Family, name: str, tables: str) -> Iterator[str]:
    """The function that finds the record of a list that fits the packet's lanes, 0 for none.

    Nothing for families whose lists have one record.  It gives the record, not
    its rule: the verifier walks every way out, so the ways out are short.
    """
    longest = [g.leaf.longest for g in _table_groups(family) if isinstance(g.leaf, ListLeaf) and not g.opaque]
    if max(longest, default=0) < 2 or family.records is None:
        return
    lanes = ", ".join(f"__u64 packet{word}" for word in range(family.words))
    yield f"__attribute__((noinline)) __u32 {name}_scan(__u64 record{', ' + lanes})"
    yield "{"
    yield from checked("record", family.last_record)
    words = family.words
    yield f"    const __u64 *r = &{tables}.{family.records.name}[record * {2 * words}];"
    tops = ["PS_FIRST_LANE_TOPS", *["PS_LANE_TOPS"] * (words - 1)]
    for number in range(max(longest) - 1):
        first = 2 * words * number
        fits = [
            f"ps_fits(packet{at}, r[{first + at}], r[{first + words + at}], {top})"
            for at, top in enumerate(tops)
        ]
        yield f"    if ({' && '.join(fits)}) return record + {number};"
        yield f"    if (r[{first}] >> 63) return 0;"
    yield "    return 0;"
    yield "}"


def _table_groups(family: Family) -> Iterator[TableGroup]:
    return (group for group in family.groups if isinstance(group, TableGroup))


def _record_lines(family: Family, tables: str) -> Iterator[str]:
    """Lines that declare `r`, the record, and `fits`, 1 or 0, computed without a branch."""
    assert family.records is not None
    words = family.words
    yield f"        const __u64 *r = &{tables}.{family.records.name}[record * {2 * words}];"
    tops = ["PS_FIRST_LANE_TOPS", *["PS_LANE_TOPS"] * (words - 1)]
    misses = [
        f"ps_misses(packet{word}, r[{word}], r[{words + word}], {top})" for word, top in enumerate(tops)
    ]
    yield f"        __u64 fits = {' | '.join(misses)};"
    yield "        ps_opaque_value(fits);"
    yield "        fits = (fits - 1) >> 63;"


def group_lines(
    family: Family, number: int, group: AnyGroup, name: str, tables: str, predicate: str
) -> Iterator[str]:
    """Lines that set `best` to the group's rule if that is lower."""
    yield f"    if (best > {group.first_rule}) {{" if number else "    {"
    match group:
        case TableGroup():
            yield f"    __u64 row = {_local(family, group.row)};"
            if group.column is not None:
                yield f"    __u64 column = {_local(family, group.column)};"
            yield from _cell_lines(group.cells, group.column is not None, tables)
            yield from _leaf_lines(family, group, name, tables, predicate)
        case BitGroup():
            yield from _bit_lines(family, group, tables)
        case _:
            assert_never(group)
    yield "    }"


def _local(family: Family, local: Local) -> str:
    if family.views[local.view].table is None:
        return f"class{local.view}"
    return f"(view{local.view}_{local.slot // 4} >> {16 * (local.slot % 4)}) & 0xffff"


def _cell_lines(cells: Cells, has_column: bool, tables: str) -> Iterator[str]:
    match cells:
        case DenseCells(table, stride):
            yield f"    __u64 i = row * {stride}" + (" + column;" if has_column else ";")
            yield from checked("i", len(table.data) - 1)
            yield f"    __u64 cell = {tables}.{table.name}[i];"
        case BlockCells():
            if cells.outer is None:
                yield f"    __u64 i = row * {cells.stride} + (column >> {cells.shift});"
            else:
                yield f"    __u64 i = row * {cells.stride} + (column >> {cells.shift + SPAN_BITS});"
                yield from checked("i", len(cells.outer.data) - 1)
                stretch = f"(__u64){tables}.{cells.outer.name}[i] * {SPAN}"
                yield f"    i = {stretch} + (column >> {cells.shift} & {SPAN - 1});"
            yield from checked("i", len(cells.index.data) - 1)
            yield f"    __u64 cell = {tables}.{cells.index.name}[i];"
            yield f"    __u64 low = column & {(1 << cells.shift) - 1};"
            yield from block_lines(
                "cell",
                "low",
                cells.shift,
                coding(cells.index.data),
                cells.buckets,
                cells.pages,
                cells.wide,
                tables,
            )
        case _:
            assert_never(cells)


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
                yield from _list_lines(family, name, longest, tables)
        case _:
            assert_never(group.leaf)
    yield "    best = ps_lower(best, found);"


def _list_lines(family: Family, name: str, longest: int, tables: str) -> Iterator[str]:
    """The first record here, where most lists end; the others in the function."""
    assert family.records is not None
    lanes = "".join(f", packet{word}" for word in range(family.words))
    yield "    __u64 record = cell;"
    yield from checked("record", family.last_record)
    yield from _record_lines(family, tables)
    yield f"    found = {_RULE.format(words=family.words)} & (0 - fits);"
    if longest > 1:
        yield "    if (!(fits | r[0] >> 63)) {"
        yield f"    record = {name}_scan(record + 1{lanes});"
        yield from checked("record", family.last_record)
        yield f"    r = &{tables}.{family.records.name}[record * {2 * family.words}];"
        yield f"    found = {_RULE.format(words=family.words)};"
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
    yield from _record_lines(family, tables)
    yield f"        __u64 rule = {_RULE.format(words=family.words)};"
    yield "        if (rule > best) break;"
    yield f"        __u64 number = {tables}.{family.predicates.name}[record] | (fits - 1);"
    yield "        ps_opaque_value(number);"
    yield f"        if ({predicate.format(number='number')}) {{"
    yield "            found = rule;"
    yield "            break;"
    yield "        }"
    yield "        if (r[0] >> 63) break;"
    yield "    }"


def _bit_lines(family: Family, group: BitGroup, tables: str) -> Iterator[str]:
    rows = [(_local(family, local), table) for local, table in group.leading]
    rows += [(f"lane{lane}", table) for lane, table in group.others]
    for number, (row, table) in enumerate(rows):
        yield f"    __u64 row{number} = ({row}) * {group.words};"
        yield from checked(f"row{number}", len(table.data) - group.words)
    common = " & ".join(f"{tables}.{table.name}[row{number} + w]" for number, (_, table) in enumerate(rows))
    yield f"    for (int w = 0; w < {group.words}; w++) {{"
    yield f"        __u64 bits = {common};"
    yield "        if (bits) {"
    yield "            __u64 bit = 64 * (__u64)w + __builtin_ctzll(bits);"
    yield from checked("bit", len(group.rules.data) - 1)
    yield f"            __u64 found = {tables}.{group.rules.name}[bit];"
    yield "            best = ps_lower(best, found);"
    yield "            break;"
    yield "        }"
    yield "    }"
