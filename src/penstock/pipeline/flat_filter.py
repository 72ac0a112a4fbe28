"""What tells of most addresses that they are in no network, without a look into the content.

front_v4(full, has, keys)              the front, from what blocks say of all /24s, and sorted networks
mark_v6(words, keys)                   and of networks of IPv6

`model/flat.py` says which marks a network has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.model.flat import (
    HASHES,
    MARK,
    MARK_WORDS,
    MARKED,
    MARKED_V6,
    MARKS,
    MARKS_V6,
    PIVOT,
    SEED,
    marked_v6,
)
from penstock.pipeline.flat_keys import halves

if TYPE_CHECKING:
    from numpy.typing import NDArray


def front_v4(
    full: NDArray[np.uint64], has: NDArray[np.uint64], keys: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """The words of the front, from what blocks say of all /24s, and sorted networks."""
    words = np.concatenate([full | has, full])
    mark_v4(words, keys)
    return words


def mark_v4(words: NDArray[np.uint64], keys: NDArray[np.uint64]) -> None:
    """Set the marks of the /27s of sorted networks in the front's words."""
    length, address = (keys & np.uint64(255)).astype(np.int64), keys >> np.uint64(8)
    narrow = length > 24
    numbers = _numbers(address[narrow] << np.uint64(32), length[narrow], 37)
    mark = (numbers & np.uint64(2047)).astype(np.uint32) * np.uint32(MARK) >> np.uint32(24)
    at = MARKS + (numbers >> np.uint64(11)).astype(np.intp) * MARK_WORDS + (mark >> np.uint32(6))
    np.bitwise_or.at(words, at, np.uint64(1) << (mark & np.uint32(63)).astype(np.uint64))


def mark_v6(words: NDArray[np.uint64], keys: NDArray[Any]) -> None:
    """Set the marks of sorted networks in the front's words, which have what is hashed by."""
    hi, _, length = halves("v6", keys)
    counts = np.array([marked_v6(one) for one in range(129)])[length]
    for number, count in enumerate(MARKED_V6):
        own = counts == count
        if own.any():
            words[MARKED] |= np.uint64(1 << number)
            numbers = _numbers(hi[own], length[own], 64 - count)
            np.bitwise_or.at(words[MARKS_V6:], *_hashed(numbers, count, len(words) - MARKS_V6, words[SEED]))


def _hashed(
    numbers: NDArray[np.uint64], count: int, words: int, seed: np.uint64
) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
    """As `model.flat.mark_v6` of each, counted from the first mark."""
    found = _hash(numbers, count, seed)
    bits = np.zeros(len(found), np.uint64)
    for shift in (38, 32, 26):
        bits |= np.uint64(1) << (found >> np.uint64(shift) & np.uint64(63))
    return (found >> np.uint64(44) & np.uint64(words - 1)).astype(np.intp), bits


def homes(numbers: NDArray[np.uint64], slots: int, seed: int) -> NDArray[np.int64]:
    """As `model.flat.home_v6` of each."""
    low = _hash(numbers, PIVOT, np.uint64(seed)) & np.uint64(0xFFFFFFFF)
    return (low * np.uint64(slots) >> np.uint64(32)).astype(np.int64)


def _hash(numbers: NDArray[np.uint64], count: int, seed: np.uint64) -> NDArray[np.uint64]:
    first, second = map(np.uint64, HASHES)
    found = (numbers ^ np.uint64(count << 56) ^ seed) * first
    return (found ^ found >> np.uint64(32)) * second


def _numbers(hi: NDArray[np.uint64], length: NDArray[np.int64], shift: int) -> NDArray[np.uint64]:
    """The first bits of all addresses of networks, each once if they are sorted."""
    counts = np.left_shift(1, np.clip(64 - shift - length, 0, None))
    ends = np.cumsum(counts)
    steps = np.arange(counts.sum()) - np.repeat(ends - counts, counts)
    found: NDArray[np.uint64] = np.repeat(hi >> np.uint64(shift), counts) + steps.astype(np.uint64)
    return found[np.append(True, found[1:] != found[:-1])] if len(found) else found
