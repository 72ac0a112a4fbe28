"""Store step functions in fixed-size blocks, so that a look-up is one or two loads.

A step function maps 0 … 2**16 - 1 to numbers by *runs*: a run is where a value
begins.  Rows of a table and address ranges are such functions.  A function is
cut into blocks, and an entry (32 bits) says what a block is:

    0 . value        the whole block has this value
    1 0 . number     a bucket: up to 8 runs, found without a branch
    1 1 . number     a page: the block written out, one value after the other

A bucket is 4 (values below 2**16) or 6 words of 64 bits: 8 starts of 16 bits,
then 8 values.  Unused starts are 0xffff and repeat the last value.  Blocks that
are alike share their bucket or page.

Where values are below 2**15 and numbers below 2**14, entries are stored in 16
bits, coded alike: `Coding` has the constants of either width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.compiler.diagram.axis import U64
from penstock.compiler.diagram.boxes import Indices
from penstock.compiler.diagram.build import offsets, spans
from penstock.compiler.diagram.fingerprint import distinct, pair_tokens, segment_sums

Entries = npt.NDArray[np.uint32]
Column = npt.NDArray[Any]

RUNS = 8
BUCKET = 1 << 31
PAGE = 3 << 30
NUMBER = (1 << 30) - 1


@dataclass(frozen=True, slots=True)
class Coding:
    """Entries of `bits` bits: from `page` on a page, else from `bucket` on a bucket, of number ``entry & number``."""

    bits: int

    @property
    def bucket(self) -> int:
        return 1 << (self.bits - 1)

    @property
    def page(self) -> int:
        return 3 << (self.bits - 2)

    @property
    def number(self) -> int:
        return (1 << (self.bits - 2)) - 1


def coding(entries: Column) -> Coding:
    """How these entries are coded: by the width of their type."""
    return Coding(8 * entries.dtype.itemsize)


def narrowed(*columns: Entries) -> list[Column]:
    """The entries in 16 bits if those of all columns fit, else as they are."""
    short = Coding(16)
    if any(((column < BUCKET) & (column >= short.bucket)).any() for column in columns):
        return list(columns)
    if any(((column >= BUCKET) & ((column & np.uint32(NUMBER)) > short.number)).any() for column in columns):
        return list(columns)
    return [
        np.where(column < BUCKET, column, column >> 30 << 14 | column & short.number).astype(np.uint16)
        for column in columns
    ]


LAST_START = 0xFFFF


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Segments of runs: segment i's are ``ptr[i] … ptr[i + 1]`` of `start` (ascending, the first 0) and `value`."""

    ptr: Indices
    start: Indices
    value: Indices

    @property
    def segments(self) -> int:
        return len(self.ptr) - 1

    @property
    def owner(self) -> Indices:
        return np.repeat(np.arange(self.segments), np.diff(self.ptr))

    def pick(self, segments: Indices) -> Runs:
        counts = np.diff(self.ptr)[segments]
        index = spans(self.ptr[segments], counts)
        return Runs(offsets(counts), self.start[index], self.value[index])


def joined(runs: Runs) -> Runs:
    """The same functions, neighbouring runs of one value merged."""
    owner = runs.owner
    kept = np.append(True, (runs.value[1:] != runs.value[:-1]) | (owner[1:] != owner[:-1]))[: len(owner)]
    return Runs(
        offsets(np.bincount(owner[kept], minlength=runs.segments)), runs.start[kept], runs.value[kept]
    )


def cut(runs: Runs, shift: int, blocks: int) -> Runs:
    """Each function cut into `blocks` blocks of ``2**shift``; segments are (function, block), starts relative to it."""
    base = runs.owner * (blocks << shift)
    borders = np.arange(runs.segments * blocks) << shift
    place = base + runs.start
    before = np.searchsorted(place, borders, side="right") - 1
    added = borders[place[before] != borders]
    places = np.concatenate([place, added])
    values = np.concatenate([runs.value, runs.value[before[place[before] != borders]]])
    order = np.argsort(places, kind="stable")
    places, values = places[order], values[order]
    counts = np.bincount(places >> shift, minlength=runs.segments * blocks)
    return joined(Runs(offsets(counts), places & ((1 << shift) - 1), values))


def alike(runs: Runs) -> tuple[Indices, Indices]:
    """(the first segment of each different function, for every segment the number of its function)."""
    return distinct(segment_sums(pair_tokens(runs.start, runs.value), runs.ptr))


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """`entry` of every segment; `words` of the buckets; `crowded`, the segments with too many runs (entry 0)."""

    entry: Entries
    words: U64
    crowded: Indices
    """Distinct ones only; `crowd` gives each segment's number among them, or -1."""
    crowd: Indices


def packed(runs: Runs, wide: bool) -> Packed:
    """Entries and buckets; `wide` when values may need more than 16 bits."""
    first, number = alike(runs)
    counts = np.diff(runs.ptr)[first]
    is_bucket = (counts > 1) & (counts <= RUNS)
    is_crowded = counts > RUNS
    entry = np.zeros(len(first), dtype=np.uint32)
    constant = counts == 1
    entry[constant] = runs.value[runs.ptr[first[constant]]]
    entry[is_bucket] = BUCKET | np.arange(int(is_bucket.sum()))
    crowd = np.where(is_crowded, np.cumsum(is_crowded) - 1, -1)
    return Packed(
        entry[number], _buckets(runs.pick(first[is_bucket]), wide), first[is_crowded], crowd[number]
    )


def _buckets(runs: Runs, wide: bool) -> U64:
    column = np.arange(len(runs.start)) - np.repeat(runs.ptr[:-1], np.diff(runs.ptr))
    starts = np.full((runs.segments, RUNS), LAST_START, dtype=np.uint16)
    starts[runs.owner, column] = runs.start
    last = runs.value[runs.ptr[1:] - 1] if runs.segments else np.zeros(0, dtype=np.int64)
    values = np.repeat(last[:, None], RUNS, axis=1).astype(np.uint32 if wide else np.uint16)
    values[runs.owner, column] = runs.value
    return np.ascontiguousarray(
        np.concatenate([starts.view(np.uint64), values.view(np.uint64)], axis=1)
    ).reshape(-1)


def bucket_words(wide: bool) -> int:
    """How many 64-bit words a bucket has."""
    return 6 if wide else 4


def written_out(runs: Runs, size: int) -> Indices:
    """Every segment as `size` values, shape (segments, size)."""
    counts = np.diff(np.append(runs.start, 0))
    counts[runs.ptr[1:] - 1] = size - runs.start[runs.ptr[1:] - 1]
    return np.repeat(runs.value, counts).reshape(runs.segments, size)


def look_up(entry: Column, words: U64, pages: Column, low: Indices, shift: int, *, wide: bool) -> Indices:
    """The value of each entry at the offset `low` (below ``2**shift``) in its block: what the emitted C does."""
    code = coding(entry)
    number = entry.astype(np.int64) & code.number
    value = np.where(entry < code.bucket, entry.astype(np.int64), 0)
    in_page = entry >= code.page
    value[in_page] = pages[(number[in_page] << shift) + low[in_page]]
    in_bucket = (entry >= code.bucket) & ~in_page
    value[in_bucket] = from_buckets(words, number[in_bucket], low[in_bucket], wide=wide)
    return value


def from_buckets(words: U64, number: Indices, low: Indices, *, wide: bool) -> Indices:
    """The value at `low` in each bucket."""
    if not len(number):
        return np.zeros(0, dtype=np.int64)  # There may be no buckets at all, not even the words of one.
    table = words.reshape(-1, bucket_words(wide))[number]
    starts = np.ascontiguousarray(table[:, :2]).view(np.uint16)
    values = np.ascontiguousarray(table[:, 2:]).view(np.uint32 if wide else np.uint16)
    index = (starts <= low[:, None].astype(np.uint16)).sum(axis=1) - 1
    found: Indices = values[np.arange(len(index)), index].astype(np.int64)
    return found
