"""Lay out the first step: from a field's value to its class.

Every constructor takes an axis and the class of each of its ranks.  Measured on
10,000 rules: blocks 9-15 ns an address, binary search 20-54, the kernel's LPM
trie 120-206; so 32-bit fields with many cuts get blocks, and only fields wider
than that are searched.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from penstock.compiler.classifier import blocks
from penstock.compiler.classifier.blocks import BUCKET, PAGE, Runs
from penstock.compiler.classifier.tables import (
    Column,
    DirectLookup,
    Lookup,
    PrefixLookup,
    SearchLookup,
    StrideLookup,
    Table,
    WideLookup,
)
from penstock.compiler.diagram.axis import Axis, halves, is_wide
from penstock.compiler.diagram.boxes import Indices

FEW_CUTS = 12
MOST_HALF = (1 << 63) - 1
STRIDE_BYTES = 256 << 10
#: So many times the blocks that fit, and it is not tried whether enough of them are alike.
HOPELESS = 4
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
    room = STRIDE_BYTES // (512 if classes.max() > 255 else 256)
    if len(np.unique(axis.cuts[(axis.cuts & np.uint64(0xFF)) != 0] >> np.uint64(8))) > HOPELESS * room:
        return None
    slices = _upper_slices(axis, classes)
    kept, first = blocks.alike(slices)
    middle = blocks.cut(slices.pick(kept), 8, 256)
    kept, second = blocks.alike(middle)
    if len(kept) > room:
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
    short_first, short_second = blocks.narrowed(entry, second)
    return PrefixLookup(
        axis.ref,
        new(f"{prefix}_first", short_first),
        new(f"{prefix}_second", short_second),
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
    inner = np.unique(high[low > 0])
    half = np.unique(np.concatenate([high, inner]) >> np.uint64(1))
    keys = np.unique(np.concatenate([half, half + np.uint64(1)]))
    keys = keys[keys <= np.uint64(MOST_HALF)]
    uppers = np.stack([keys << np.uint64(1), keys << np.uint64(1) | np.uint64(1)], axis=1).reshape(-1)
    entries = classes[np.searchsorted(high, uppers, side="right") - 1].astype(np.uint32)
    entries[np.isin(uppers, inner)] = BUCKET | np.arange(len(inner), dtype=np.uint32)
    steps = _steps(len(keys))
    unused = (1 << steps) - len(keys)
    lists, low_keys, low_values = _low_lists(inner, high, low, classes)
    return WideLookup(
        axis.ref,
        new(f"{prefix}_keys", np.append(keys, np.full(unused, MOST_HALF, dtype=np.uint64))),
        new(f"{prefix}_entries", np.append(entries, np.tile(entries[-2:], unused))),
        steps,
        new(f"{prefix}_lists", lists),
        new(f"{prefix}_low_keys", low_keys),
        new(f"{prefix}_low_values", low_values),
        _steps(int((lists & np.uint64(0xFFFF_FFFF)).max(initial=0)) + 1),
        int(classes[-1]),
    )


def _low_lists(inner: Column, high: Column, low: Column, classes: Indices) -> tuple[Column, Column, Column]:
    """For each upper half that is cut inside: where its list begins and its length minus one, a power of two minus one.

    A list has ascending lower halves from 0, and the class from each on.
    """
    first, after = np.searchsorted(high, inner), np.searchsorted(high, inner, side="right")
    lists, keys, values = [], [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)]
    size = 0
    for begin, end in zip(first.tolist(), after.tolist(), strict=True):
        begin -= int(low[begin] != 0)
        starts = low[begin:end].copy()
        starts[0] = 0
        room = 1 << _steps(end - begin)
        keys.append(_padded(starts, room))
        values.append(_padded(classes[begin:end], room))
        lists.append(size << 32 | room - 1)
        size += room
    return np.array(lists, dtype=np.uint64), np.concatenate(keys), narrow(np.concatenate(values))
