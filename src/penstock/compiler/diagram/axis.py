"""One dimension of packet space: a field, cut where some rule's range begins or ends.

The builder never sees addresses or ports.  Every field becomes an axis whose
values are numbered *ranks*: between two neighbouring cuts no rule can tell
packets apart.  So a 128-bit address costs the builder what a port does.

A packet that lacks the field is one more point of the axis, behind the last
value: the key ``2**bits``, always the last rank.  "Wildcard" therefore means all
ranks, "any value that is there" all but the last.

    dport in 53, 1000-2000      cuts 0 53 54 1000 2001 | 65536
                                ranks 0  1  2    3    4 |     5 = absent

Keys are uint64 for fields of at most 63 bits and 17 bytes, big-endian (dtype
``S17``), for IPv6 addresses; numpy sorts and searches both the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.compiler.ir.ops import FieldRef

Keys = npt.NDArray[Any]
Ranks = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]

WIDE_BYTES = 17
WIDE = np.dtype(f"S{WIDE_BYTES}")


def is_wide(bits: int) -> bool:
    """Whether keys of such a field are byte strings instead of uint64."""
    return bits > 63


def keys_of(bits: int, values: Sequence[int]) -> Keys:
    """Python integers (``2**bits`` for absent) as keys of a field of `bits` bits."""
    if not is_wide(bits):
        return np.array(values, dtype=np.uint64)
    packed = b"".join(value.to_bytes(WIDE_BYTES, "big") for value in values)
    return np.frombuffer(packed, dtype=WIDE).copy()


def wide_keys(high: U64, low: U64) -> Keys:
    """128-bit keys from their halves."""
    packed = np.zeros((len(high), WIDE_BYTES), dtype=np.uint8)
    packed[:, 1:9] = high.astype(">u8").view(np.uint8).reshape(-1, 8)
    packed[:, 9:] = low.astype(">u8").view(np.uint8).reshape(-1, 8)
    return packed.reshape(-1).view(WIDE)


def halves(keys: Keys) -> tuple[U64, U64]:
    """High and low half of 128-bit keys; both 0 for absent."""
    packed = np.ascontiguousarray(keys).view(np.uint8).reshape(-1, WIDE_BYTES)
    high, low = (np.ascontiguousarray(packed[:, at : at + 8]).view(">u8").reshape(-1) for at in (1, 9))
    return high.astype(np.uint64), low.astype(np.uint64)


def integers(keys: Keys) -> list[int]:
    """Keys as Python integers."""
    if keys.dtype == np.uint64:
        return [int(key) for key in keys.tolist()]
    packed = np.ascontiguousarray(keys).view(np.uint8).reshape(-1, WIDE_BYTES)
    return [int.from_bytes(row.tobytes(), "big") for row in packed]


def successors(keys: Keys) -> Keys:
    """Each key plus one."""
    if keys.dtype == np.uint64:
        return keys + np.uint64(1)
    high, low = halves(keys)
    carried = wide_keys(high + (low == ~np.uint64(0)), low + np.uint64(1))
    wrapped = (high == ~np.uint64(0)) & (low == ~np.uint64(0))
    return np.where(wrapped, keys_of(128, [1 << 128]), carried)


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """A field and the keys at which its ranks begin: the first is 0, the last is absent."""

    ref: FieldRef
    cuts: Keys

    @property
    def width(self) -> int:
        """How many ranks there are, absent included."""
        return len(self.cuts)

    @property
    def bits(self) -> int:
        return self.ref.field.bits

    def ranks(self, keys: Keys) -> Ranks:
        """The rank that each key lies in."""
        return (np.searchsorted(self.cuts, keys, side="right") - 1).astype(np.int32)

    def ends(self, rank: int) -> tuple[int, int]:
        """First and last value of a rank; both ``2**bits`` for absent."""
        if rank == self.width - 1:
            return 1 << self.bits, 1 << self.bits
        first, after = integers(self.cuts[rank : rank + 2])
        return first, after - 1


def cut(ref: FieldRef, low: Keys, high: Keys) -> Axis:
    """The axis of a field on which every range ``low … high`` (inclusive) is a whole number of ranks."""
    bits = ref.field.bits
    absent = keys_of(bits, [1 << bits])
    after = successors(high[high < absent[0]])
    return Axis(ref, np.unique(np.concatenate([keys_of(bits, [0]), low, after, absent])))
