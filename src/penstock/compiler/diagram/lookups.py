"""Lay out the first step: from a field's value to its class.

Every constructor takes an axis and the class of each of its ranks.  Measured on
10,000 rules: blocks 9-15 ns an address, binary search 20-54, the kernel's LPM
trie 120-206; so 32-bit fields with many cuts get blocks, and only fields wider
than that are searched.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from penstock.compiler.diagram import blocks
from penstock.compiler.diagram.axis import Axis, halves, is_wide
from penstock.compiler.diagram.blocks import BUCKET, PAGE, Runs
from penstock.compiler.diagram.boxes import Indices
from penstock.compiler.diagram.tables import (
    Column,
    DirectLookup,
    Lookup,
    PrefixLookup,
    SearchLookup,
    StrideLookup,
    Table,
    WideLookup,
)

FEW_CUTS = 12
STRIDE_BYTES = 256 << 10
NewTable = Callable[[str, Column], Table]


def narrow(values: Indices) -> Column:
    """The values in the smallest unsigned type that holds them all."""
    top = int(values.max(initial=0))
    return values.astype(np.uint8 if top < 256 else np.uint16 if top < 65536 else np.uint32)


def lookup(axis: Axis, classes: Indices, prefix: str, new: NewTable) -> Lookup:
    """The tables that take a value of `axis` to its class; their names begin with `prefix`."""
    if axis.bits <= 16:
        return DirectLookup(axis.ref, new(f"{prefix}_direct", narrow(_by_value(axis, classes))))
    if is_wide(axis.bits):
        return _wide(axis, classes, prefix, new)
    if axis.bits == 32 and axis.width > FEW_CUTS:
        return _by_stride(axis, classes, prefix, new) or _by_prefix(axis, classes, prefix, new)
    return _search(axis, classes, prefix, new)


def _by_value(axis: Axis, classes: Indices) -> Indices:
    ends = np.append(axis.cuts[1:], axis.cuts[-1:] + np.uint64(1))
    return np.repeat(classes, (ends - axis.cuts).astype(np.int64))


def _upper_slices(axis: Axis, classes: Indices) -> Runs:
    """The classes of the values with each upper half, as functions of the lower half; absent's are the last."""
    starts = np.append(axis.cuts[:-1].astype(np.int64), 1 << 32)
    whole = Runs(np.array([0, len(starts)]), starts, classes)
    return blocks.cut(blocks.joined(whole), 16, (1 << 16) + 1)


def _by_stride(axis: Axis, classes: Indices, prefix: str, new: NewTable) -> StrideLookup | None:
    """Three loads and no branch; None if that takes too much room."""
    slices = _upper_slices(axis, classes)
    kept, first = blocks.alike(slices)
    middle = blocks.cut(slices.pick(kept), 8, 256)
    kept, second = blocks.alike(middle)
    if (len(kept) * 256) * (2 if classes.max() > 255 else 1) > STRIDE_BYTES:
        return None
    third = blocks.written_out(middle.pick(kept), 256).reshape(-1)
    return StrideLookup(
        axis.ref,
        new(f"{prefix}_first", narrow(first)),
        new(f"{prefix}_second", narrow(second)),
        new(f"{prefix}_third", narrow(third)),
    )


def _by_prefix(axis: Axis, classes: Indices, prefix: str, new: NewTable) -> PrefixLookup:
    wide = int(classes.max(initial=0)) > 0xFFFF
    slices = _upper_slices(axis, classes)
    upper = blocks.packed(slices, wide)
    entry = np.where(upper.crowd >= 0, PAGE | upper.crowd, upper.entry).astype(np.uint32)
    bytes_of_crowded = blocks.cut(slices.pick(upper.crowded), 8, 256)
    lower = blocks.packed(bytes_of_crowded, wide)
    lower_buckets = np.where(
        (lower.entry >= BUCKET) & (lower.crowd < 0),
        lower.entry + len(upper.words) // blocks.bucket_words(wide),
        lower.entry,
    )
    second = np.where(lower.crowd >= 0, PAGE | lower.crowd, lower_buckets).astype(np.uint32)
    pages = blocks.written_out(bytes_of_crowded.pick(lower.crowded), 256).reshape(-1)
    return PrefixLookup(
        axis.ref,
        new(f"{prefix}_first", entry),
        new(f"{prefix}_second", second),
        new(f"{prefix}_buckets", np.concatenate([upper.words, lower.words])),
        new(f"{prefix}_pages", pages.astype(np.uint32 if wide else np.uint16)),
        wide,
    )


def _padded(values: Column, size: int) -> Column:
    return np.append(values, np.full(size - len(values), values[-1], dtype=values.dtype))


def _steps(keys: int) -> int:
    return max(1, (keys - 1).bit_length())


def _search(axis: Axis, classes: Indices, prefix: str, new: NewTable) -> SearchLookup:
    steps = _steps(axis.width)
    return SearchLookup(
        axis.ref,
        new(f"{prefix}_keys", _padded(axis.cuts, 1 << steps)),
        new(f"{prefix}_values", narrow(_padded(classes, 1 << steps))),
        steps,
    )


def _wide(axis: Axis, classes: Indices, prefix: str, new: NewTable) -> WideLookup:
    high, low = halves(axis.cuts[:-1])
    inner = high[low > 0]
    keys = np.unique(np.concatenate([high, inner, inner[inner != ~np.uint64(0)] + np.uint64(1)]))
    last_cut = np.searchsorted(high, keys, side="right") - 1
    has_list = np.isin(keys, inner)
    lists = [np.flatnonzero(high == key) for key in keys[has_list].tolist()]
    entries = classes[last_cut].astype(np.uint32)
    entries[has_list] = BUCKET | np.arange(len(lists), dtype=np.uint32)
    low_steps = _steps(max((len(cuts) + 1 for cuts in lists), default=1))
    low_keys, low_values = _low_lists(lists, low, classes, 1 << low_steps)
    steps = _steps(len(keys))
    return WideLookup(
        axis.ref,
        new(f"{prefix}_keys", _padded(keys, 1 << steps)),
        new(f"{prefix}_entries", _padded(entries, 1 << steps)),
        steps,
        new(f"{prefix}_low_keys", low_keys),
        new(f"{prefix}_low_values", low_values),
        low_steps,
        int(classes[-1]),
    )


def _low_lists(lists: list[Indices], low: Column, classes: Indices, size: int) -> tuple[Column, Column]:
    """For each upper half that is cut inside: ascending lower halves from 0, and the class from each on."""
    keys = np.zeros((len(lists), size), dtype=np.uint64)
    values = np.zeros((len(lists), size), dtype=np.uint32)
    for at, cuts in enumerate(lists):
        own_start = low[cuts[0]] == 0
        before = [] if own_start else [classes[cuts[0] - 1]]
        starts = low[cuts] if own_start else np.append(np.uint64(0), low[cuts])
        keys[at] = _padded(starts, size)
        values[at] = _padded(
            np.append(np.array(before, dtype=np.int64), classes[cuts]).astype(np.uint32), size
        )
    return keys.reshape(-1), values.reshape(-1)
