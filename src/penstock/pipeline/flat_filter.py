"""What tells of most addresses that they are in no network, without a look into the content.

front_v4(full, has, keys)              the front, from what blocks say of all /24s, and sorted networks
shift, bits = filter_of(keys)          the filter before the tree of IPv6: what a number is shifted by, and its words

`model/flat.py` says which marks and bits a network has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.model.flat import (
    FILTER_SHIFTS,
    HAS_WIDE,
    HASH,
    MARK,
    MARK_WORDS,
    MARKS,
    MOST_FILTER_BITS,
    WIDE_SHIFT,
)
from penstock.pipeline.flat_keys import halves

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEAST_BITS = 256
#: Of a network that is shorter more bits would be set than are worth it.
_SHORTEST = 12
_BITS_PER_MARK = 16


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


def filter_of(keys: NDArray[Any]) -> tuple[int, NDArray[np.uint64]]:
    """How a filter of these networks shifts, as the header has it, and its bits."""
    hi, _, length = halves("v6", keys)
    if (length < _SHORTEST).any():
        return FILTER_SHIFTS[0], np.full(_LEAST_BITS // 64, 0xFFFFFFFFFFFFFFFF, np.uint64)
    shift, most = FILTER_SHIFTS[-1], MOST_FILTER_BITS // 4
    for one in FILTER_SHIFTS:
        if _counts(length[length >= 56 - one], one).sum() <= most:
            shift = one
            break
    own = length >= 56 - shift
    narrow, wide = _numbers(hi[own], length[own], shift), _numbers(hi[~own], length[~own], WIDE_SHIFT)
    count = _LEAST_BITS
    while count < min(_BITS_PER_MARK * (len(narrow) + len(wide)), MOST_FILTER_BITS):
        count *= 2
    bits = np.zeros(count, bool)
    for numbers, by in ((narrow, shift), (wide, WIDE_SHIFT)):
        bits[_hashed(numbers, by, count - 1)] = True
    return shift | (HAS_WIDE if len(wide) else 0), np.packbits(bits, bitorder="little").view("<u8").astype(
        np.uint64
    )


def _counts(length: NDArray[np.int64], shift: int) -> NDArray[np.int64]:
    """How many bits each network has."""
    return np.left_shift(1, np.clip(64 - shift - length, 0, None))


def _numbers(hi: NDArray[np.uint64], length: NDArray[np.int64], shift: int) -> NDArray[np.uint64]:
    """The first bits of all addresses of networks, each once if they are sorted."""
    counts = _counts(length, shift)
    ends = np.cumsum(counts)
    steps = np.arange(counts.sum()) - np.repeat(ends - counts, counts)
    found: NDArray[np.uint64] = np.repeat(hi >> np.uint64(shift), counts) + steps.astype(np.uint64)
    return found[np.append(True, found[1:] != found[:-1])] if len(found) else found


def _hashed(numbers: NDArray[np.uint64], shift: int, mask: int) -> NDArray[np.uint64]:
    """As `filter_bit` of each."""
    keys = numbers << np.uint64(6) | np.uint64(shift)
    return keys * np.uint64(HASH) >> np.uint64(32) & np.uint64(mask)
