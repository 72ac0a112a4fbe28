"""The lines of a flat set, from its networks; a million in a tenth of a second.

    built = build("v4", keys, first)       keys sorted, each once; `first` is where the lines will lie
    built.root, built.lines, built.front

`model/flat.py` says what lines hold.  Networks that lie in others are kept: what
is narrower than a block's 8 bits lies below, whether or not the block says that
all of it is in the set, so that one of them can go and leave the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from secrets import randbits
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.model.flat import ALL, BLOCK_LINES, LEAF, LEAF_COUNT, MOST_IN_LEAF, PIVOT, PROBES, ROOT_BITS
from penstock.pipeline.flat_filter import front_v4, homes
from penstock.pipeline.flat_keys import halves

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FULL = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """The root's words, the lines of blocks and leaves, shape (n, 4), and the front's lines, of IPv4 alone."""

    root: NDArray[np.uint32]
    lines: NDArray[np.uint64]
    front: NDArray[np.uint64]
    #: Of IPv6: the table, with which the lines begin; there are some lines more behind its slots.
    table: int = 0
    slots: int = 0
    #: What is hashed by.
    seed: int = 0


def build(family: str, keys: NDArray[Any], first: int) -> Built:
    """What a content has of a family."""
    bits = ROOT_BITS[family]
    root = np.zeros(1 << bits, np.uint32)
    hi, lo, length = halves(family, keys)
    deep = length > bits
    wide = covered(_bits(hi, lo, 0, bits)[~deep], length[~deep], bits)
    if family == "v4":
        tops, places, lines = blocks_v4(keys[deep], first)
        whole, has = np.zeros((2, 1 << bits), np.uint64)
        whole[tops], has[tops] = lines[places - first, :2].T
        whole[wide] = _FULL
        root[tops], root[wide] = places, ALL
        return Built(root, lines, front_v4(whole, has, keys))
    table = length >= PIVOT
    seed, slots, found, size = table_v6(hi[table], lo[table], length[table], first)
    deep &= ~table
    tops = _bits(hi[deep], lo[deep], 0, bits)
    begins = _begins(tops)
    places, lines = trees_v6(hi[deep], lo[deep], length[deep], begins, bits, first + len(found))
    root[tops[begins]], root[wide] = places, ALL
    return Built(root, np.concatenate([found, lines]), np.zeros(0, np.uint64), size, slots, seed)


def covered(tops: NDArray[np.int64], lengths: NDArray[np.int64], bits: int) -> NDArray[np.bool_]:
    """The words of a root that wide networks cover."""
    steps = np.zeros((1 << bits) + 1, np.int64)
    np.add.at(steps, tops, 1)
    np.add.at(steps, tops + (1 << bits - lengths), -1)
    return np.cumsum(steps[:-1]) > 0


# ── IPv4 ─────────────────────────────────────────────────────────────────────


def blocks_v4(
    keys: NDArray[np.uint64], first: int
) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.uint64]]:
    """The blocks of networks longer than /18: the first 18 bits and the line of each, and all lines."""
    length, address = (keys & np.uint64(255)).astype(np.int64), (keys >> np.uint64(8)).astype(np.int64)
    is_narrow = length > 24
    narrow, width = address[is_narrow], 1 << 32 - length[is_narrow]
    begins = _begins(narrow >> 8)
    leaves, counts = narrow[begins] >> 8, np.diff(np.append(begins, len(narrow)))
    middle, widths = address[~is_narrow], 1 << 24 - length[~is_narrow]
    tops = _union(leaves >> 6, middle >> 14)
    block_of = np.searchsorted(tops, leaves >> 6)
    full, has = np.zeros(len(tops), np.uint64), np.zeros(len(tops), np.uint64)
    _fill(full, np.searchsorted(tops, middle >> 14) * 64 + (middle >> 8 & 63), widths)
    _fill(has, block_of * 64 + (leaves & 63), np.ones(len(leaves), np.int64))
    many = counts > 1
    children = np.bincount(block_of, minlength=len(tops))
    rows = np.bincount(block_of[many], minlength=len(tops))
    own = children + 4 + 7 >> 3
    at, total = _places(own + rows)
    lines = np.zeros((total, 4), np.uint64)
    lines[at, 0], lines[at, 1] = full, has
    row_at = (at + own - _places(rows)[0])[block_of[many]] + np.arange(rows.sum())
    lines[row_at] = _rows(narrow, width, counts)
    place = np.empty(len(leaves), np.uint32)
    place[many] = row_at + first
    alone = begins[~many]
    place[~many] = LEAF | 256 - width[alone] << 8 | narrow[alone] & 255
    slots = (8 * at + 4 - _places(children)[0])[block_of] + np.arange(len(leaves))
    lines.reshape(-1).view(np.uint32)[slots] = place
    return tops, (at + first).astype(np.uint32), lines


def _rows(
    narrow: NDArray[np.int64], width: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """The bits of each /24 that has more than one network, one a line."""
    many = counts > 1
    members = np.repeat(many, counts)
    number = np.repeat(np.arange(np.count_nonzero(many)), counts[many])
    bits = np.zeros(4 * np.count_nonzero(many), np.uint64)
    _fill(bits, number * 256 + (narrow[members] & 255), width[members])
    return bits.reshape(-1, 4)


def _union(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    # Two runs that are in order each: merged in one pass.
    both = np.sort(np.concatenate([one, other]), kind="stable")
    return both[_begins(both)]


# ── IPv6 ─────────────────────────────────────────────────────────────────────


def table_v6(
    hi: NDArray[np.uint64], lo: NDArray[np.uint64], length: NDArray[np.int64], first: int
) -> tuple[int, int, NDArray[np.uint64], int]:
    """What a table is hashed by, its slots, its lines with those of the trees behind it, and how many are its own."""
    number = hi >> np.uint64(64 - PIVOT)
    begins = _begins(number)
    counts = np.diff(np.append(begins, len(hi)))
    seed, slots, at = _slots(number[begins])
    size = slots + PROBES
    members = np.repeat(counts > 1, counts)
    places, below = trees_v6(
        hi[members], lo[members], length[members], _begins(number[members]), PIVOT, first + size
    )
    word = (length[begins] | LEAF).astype(np.uint64)
    word[counts > 1] = places
    table = np.zeros((size, 4), np.uint64)
    table[at, 0], table[at, 1], table[at, 2] = hi[begins], lo[begins], word
    return seed, slots, np.concatenate([table, below]), size


def _slots(numbers: NDArray[np.uint64]) -> tuple[int, int, NDArray[np.int64]]:
    """What a table is hashed by, how many slots it has, and where each number lies."""
    slots = max(64, 2 * len(numbers))
    while True:
        seed = randbits(64)
        home = homes(numbers, slots, seed)
        order = np.argsort(home, kind="stable")
        ranks = np.arange(len(order))
        at = ranks + np.maximum.accumulate(home[order] - ranks) if len(order) else ranks
        # Some room is left for those that come.
        if not len(order) or (at - home[order]).max() < PROBES - PROBES // 4:
            found = np.empty(len(order), np.int64)
            found[order] = at
            return seed, slots, found
        slots += slots // 4


def trees_v6(
    hi: NDArray[np.uint64],
    lo: NDArray[np.uint64],
    length: NDArray[np.int64],
    begins: NDArray[np.int64],
    depth: int,
    first: int,
) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
    """What lies below `depth`: the place of each tree, and all lines.

    A place is a line, or with LEAF that of a leaf.  The networks are sorted, no one is shorter than
    `depth`, and a tree's begin at each of `begins`: they have the same bits before it.
    """
    levels: list[_Level] = []
    here = first
    while len(hi):
        level, begins, inner = _level(hi, lo, length, begins, depth, here)
        levels.append(level)
        here += len(level.lines)
        hi, lo, length, depth = hi[inner], lo[inner], length[inner], depth + 8
    lines = np.concatenate([np.zeros((0, 4), np.uint64), *(level.lines for level in levels)])
    words = lines.reshape(-1).view(np.uint32)
    for above, level in pairwise(levels):
        words[above.slots - 8 * first] = level.places
    return levels[0].places if levels else np.empty(0, np.uint32), lines


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    """One level of trees: its lines, the place of each tree, and the words where those of the next level go."""

    lines: NDArray[np.uint64]
    places: NDArray[np.uint32]
    slots: NDArray[np.int64]


def _level(
    hi: NDArray[np.uint64],
    lo: NDArray[np.uint64],
    length: NDArray[np.int64],
    begins: NDArray[np.int64],
    depth: int,
    here: int,
) -> tuple[_Level, NDArray[np.int64], NDArray[np.int64]]:
    """A level from `here` on, where each of the next begins, and which networks those are."""
    counts = np.diff(np.append(begins, len(hi)))
    is_leaf = counts <= MOST_IN_LEAF
    alone = np.flatnonzero(np.repeat(is_leaf, counts))
    leaves = np.stack([hi[alone], lo[alone], *_masks(length[alone])], axis=1)
    blocks = np.flatnonzero(~is_leaf)
    number = np.repeat(np.arange(len(blocks)), counts[blocks])
    members = np.flatnonzero(np.repeat(~is_leaf, counts))
    value = number * 256 + _bits(hi[members], lo[members], depth, 8)
    ends = length[members] <= depth + 8
    full, has = np.zeros(4 * len(blocks), np.uint64), np.zeros(4 * len(blocks), np.uint64)
    _fill(full, value[ends], 1 << depth + 8 - length[members][ends])
    inner, deeper = members[~ends], value[~ends]
    next_begins = _begins(deeper)
    child = deeper[next_begins]
    _fill(has, child, np.ones(len(child), np.int64))
    children = np.bincount(child >> 8, minlength=len(blocks))
    at, total = _places(BLOCK_LINES + (children + 15 >> 4 << 1))
    # Blocks begin at even lines: what is read of one first is in one line of a cache.
    room = len(leaves) + 1 & ~1
    lines = np.zeros((room + total, 4), np.uint64)
    lines[: len(leaves)] = leaves
    at += room
    _put_blocks(lines, at, full, has)
    rank = np.arange(len(child)) - (np.cumsum(children) - children)[child >> 8]
    places = np.empty(len(begins), np.uint32)
    sizes = counts[is_leaf]
    places[is_leaf] = np.cumsum(sizes) - sizes + here | sizes - 1 << LEAF_COUNT | LEAF
    places[blocks] = at + here
    slots = (at[child >> 8] + here + BLOCK_LINES) * 8 + rank
    return _Level(lines, places, slots), next_begins, inner


def _bits(hi: NDArray[np.uint64], lo: NDArray[np.uint64], at: int, count: int) -> NDArray[np.int64]:
    """`count` bits of addresses from bit `at` on."""
    shift = 128 - at - count
    if shift >= 64:
        found = hi >> np.uint64(shift - 64)
    elif shift + count <= 64:
        found = lo >> np.uint64(shift)
    else:
        found = hi << np.uint64(64 - shift) | lo >> np.uint64(shift)
    return (found & np.uint64((1 << count) - 1)).astype(np.int64)


def _masks(length: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The bits of networks that count, first and last 64."""
    return _mask(np.clip(length, 0, 64)), _mask(np.clip(length - 64, 0, 64))


def _mask(count: NDArray[np.int64]) -> NDArray[np.uint64]:
    # A shift by 64 does nothing on some processors.
    return np.where(count == 0, np.uint64(0), _FULL << ((64 - count) % 64).astype(np.uint64))


# ── both ─────────────────────────────────────────────────────────────────────


def _begins(groups: NDArray[Any]) -> NDArray[np.int64]:
    """Where each run of equal numbers begins."""
    if not len(groups):
        return np.empty(0, np.int64)
    return np.concatenate(([0], np.flatnonzero(groups[1:] != groups[:-1]) + 1))


def _fill(words: NDArray[np.uint64], at: NDArray[np.int64], count: NDArray[np.int64]) -> None:
    """Set `count` bits from each place on: powers of two up to 256, aligned, places in order."""
    whole = count == 256
    if whole.any():
        words.reshape(-1, 4)[at[whole] >> 8] = _FULL
        at, count = at[~whole], count[~whole]
    whole = count == 128
    if whole.any():
        words.reshape(-1, 2)[at[whole] >> 7] = _FULL
        at, count = at[~whole], count[~whole]
    if not len(at):
        return
    index = at >> 6
    begins = _begins(index)
    value = (_FULL >> (64 - count).astype(np.uint64)) << (at & 63).astype(np.uint64)
    words[index[begins]] |= np.bitwise_or.reduceat(value, begins)


def _places(sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Where things of these sizes begin, one behind the other, and the end."""
    ends = np.cumsum(sizes)
    return ends - sizes, int(ends[-1]) if len(ends) else 0


def _put_blocks(
    lines: NDArray[np.uint64], at: NDArray[np.int64], full: NDArray[np.uint64], has: NDArray[np.uint64]
) -> None:
    """The two lines of each block: {full, has} of each 64 values."""
    pairs = np.stack([full, has], axis=1).reshape(-1, 8)
    lines[at], lines[at + 1] = pairs[:, :4], pairs[:, 4:]
