"""Print the look-up of a field's class as C statements.

In: a `Lookup` and the field's expressions.  Out: lines that declare a `__u64`
of the given name and set it to what `interpret.look_up` computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import assert_never

from penstock.compiler.classifier.blocks import BUCKET, NUMBER, Coding, bucket_words, coding
from penstock.compiler.classifier.tables import (
    DirectLookup,
    Lookup,
    PrefixLookup,
    SearchLookup,
    StrideLookup,
    Table,
    WideLookup,
)
from penstock.compiler.ir.ops import FieldRef


def checked(index: str, limit: int) -> Iterator[str]:
    """Lines that convince the verifier that `index` is at most `limit`."""
    yield f"    ps_opaque_value({index});"
    yield f"    if ({index} > {limit}) return 0;"


def clamped(index: str, limit: int) -> Iterator[str]:
    """Lines that take any `index` beyond `limit` as `limit`: how C spells "absent" is the caller's affair."""
    yield f"    ps_opaque_value({index});"
    yield f"    if (ps_by_helpers) ps_clamp({index}, {limit});"
    yield f"    else if ({index} > {limit}) {index} = {limit};"


def lookup_lines(
    lookup: Lookup,
    name: str,
    tables: str,
    scalars: Mapping[FieldRef, str],
    wides: Mapping[FieldRef, tuple[str, str, str]],
) -> Iterator[str]:
    """Lines that declare `name`, the class or rank of the packet's field.

    A direct look-up is loaded at once: as long as clang puts it off, the verifier
    follows both ways out of `clamped`, once more for each such field.
    """
    match lookup:
        case DirectLookup(ref, table):
            yield f"    __u64 {name} = {scalars[ref]};"
            yield from clamped(name, len(table.data) - 1)
            yield f"    {name} = {tables}.{table.name}[{name}];"
            yield f"    ps_opaque_value({name});"
        case StrideLookup(ref, first, second, third):
            yield f"    __u64 {name}_v = {scalars[ref]}, {name} = {name}_v >> 16;"
            yield from clamped(name, len(first.data) - 1)
            yield f"    {name} = ((__u64){tables}.{first.name}[{name}] << 8) + ({name}_v >> 8 & 0xff);"
            yield from checked(name, len(second.data) - 1)
            yield f"    {name} = ((__u64){tables}.{second.name}[{name}] << 8) + ({name}_v & 0xff);"
            yield from checked(name, len(third.data) - 1)
            yield f"    {name} = {tables}.{third.name}[{name}];"
        case PrefixLookup():
            yield from _prefix_lines(lookup, name, tables, scalars[lookup.ref])
        case SearchLookup(ref, keys, values, steps):
            yield f"    __u64 {name}_v = {scalars[ref]}, {name} = 0;"
            yield from _search_lines(f"{tables}.{keys.name}", "", f"{name}_v", name, steps)
            yield f"    {name} = {tables}.{values.name}[{name}];"
        case WideLookup():
            yield from _wide_lines(lookup, name, tables, wides[lookup.ref])
        case _:
            assert_never(lookup)


def _search_lines(keys: str, base: str, value: str, at: str, steps: int) -> Iterator[str]:
    for step in range(steps - 1, -1, -1):
        yield f"    {at} += ps_step_if_le({keys}[{base}{at} + {1 << step}], {value}, {1 << step});"


def _prefix_lines(lookup: PrefixLookup, name: str, tables: str, value: str) -> Iterator[str]:
    first, second = lookup.first, lookup.second
    yield f"    __u64 {name}_v = {value}, {name}_i = {name}_v >> 16, {name}_low = {name}_v & 0xffff;"
    yield from clamped(f"{name}_i", len(first.data) - 1)
    yield f"    __u64 {name} = {tables}.{first.name}[{name}_i];"
    code = coding(first.data)
    if (first.data >= code.page).any():
        yield f"    if ({name} >= {code.page}ULL) {{"
        yield f"    {name}_i = (({name} & {code.number}) << 8) + ({name}_low >> 8);"
        yield from checked(f"{name}_i", len(second.data) - 1)
        yield f"    {name} = {tables}.{second.name}[{name}_i];"
        yield f"    {name}_low &= 0xff;"
        yield "    }"
    yield from block_lines(name, f"{name}_low", 8, code, lookup.buckets, lookup.pages, lookup.wide, tables)


def block_lines(
    name: str, low: str, shift: int, code: Coding, buckets: Table, pages: Table, wide: bool, tables: str
) -> Iterator[str]:
    """Lines that replace an entry (blocks.py) in `name` by the value at `low` in its block."""
    has_pages, has_buckets = len(pages.data) > 1, len(buckets.data) > 1
    if has_pages:
        yield f"    if ({name} >= {code.page}ULL) {{"
        yield f"    __u64 i = (({name} & {code.number}) << {shift}) + {low};"
        yield from checked("i", len(pages.data) - 1)
        yield f"    {name} = {tables}.{pages.name}[i];"
        yield "    } else {" if has_buckets else "    }"
    if has_buckets:
        yield from _bucket_lines(name, low, code, buckets, wide, tables)
    if has_pages and has_buckets:
        yield "    }"


def _bucket_lines(
    name: str, low: str, code: Coding, buckets: Table, wide: bool, tables: str
) -> Iterator[str]:
    """Without a branch: whether a block is a bucket is as good as random, and a wrong guess costs more."""
    words = bucket_words(wide)
    per_word, bits, mask = (2, 32, "0xffffffffULL") if wide else (4, 16, "0xffffULL")
    yield f"    __u64 {name}_is = 0 - ({name} >> {code.bits - 1});"
    yield f"    ps_opaque_value({name}_is);"
    yield f"    __u64 {name}_b = ({name} & {name}_is & {code.number}) * {words};"
    yield from checked(f"{name}_b", len(buckets.data) - words)
    yield f"    const __u64 *{name}_w = &{tables}.{buckets.name}[{name}_b];"
    yield f"    __u64 {name}_run = ps_bucket_run({name}_w[0], {name}_w[1], {low});"
    value = f"({name}_w[2 + {name}_run / {per_word}] >> ({bits} * ({name}_run % {per_word})))"
    yield f"    {name} = ({value} & {mask} & {name}_is) | ({name} & ~{name}_is);"


def _wide_lines(lookup: WideLookup, name: str, tables: str, value: tuple[str, str, str]) -> Iterator[str]:
    high, low, present = value
    yield f"    __u64 {name}_h = ({high}) >> 1, {name} = 0;"
    for step in range(lookup.steps - 1, -1, -1):
        key = f"{tables}.{lookup.keys.name}[{name} + {1 << step}]"
        yield f"    {name} += ps_step_if_le63({key}, {name}_h, {step});"
    yield f"    {name} = {tables}.{lookup.entries.name}[2 * {name} + (({high}) & 1)];"
    if (lookup.entries.data >= BUCKET).any():
        yield f"    if ({name} >= {BUCKET}ULL) {{"
        yield f"    __u64 list = {name} & {NUMBER}, low = {low}, at = 0;"
        yield from checked("list", len(lookup.lists.data) - 1)
        yield f"    list = {tables}.{lookup.lists.name}[list];"
        yield "    __u64 base = list >> 32;"
        yield from checked("base", len(lookup.low_keys.data) - 1)
        for step in range(lookup.low_steps - 1, -1, -1):
            yield f"    __u64 next{step} = base + at + ({1 << step} & list);"
            yield from checked(f"next{step}", len(lookup.low_keys.data) - 1)
            key = f"{tables}.{lookup.low_keys.name}[next{step}]"
            yield f"    at += ps_step_if_le({key}, low, {1 << step} & list);"
        yield "    base += at;"
        yield from checked("base", len(lookup.low_values.data) - 1)
        yield f"    {name} = {tables}.{lookup.low_values.name}[base];"
        yield "    }"
    yield f"    if (!({present})) {name} = {lookup.absent};"
    guarded = "" if (lookup.entries.data >= BUCKET).any() else "if (ps_by_helpers) "
    yield f"    {guarded}{name} = ps_forget({name}, {high});"
