"""128-bit fingerprints of sets and rows, in two lanes of 64 bits.

A set of boxes is the sum of its members' random numbers, so that walking along
an axis a set is updated by one addition where a box begins and one subtraction
where it ends.  Equal sums stand for equal sets: with two lanes, 10**7 sets
collide with a probability below 2**-80.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from penstock.compiler.diagram.axis import U64
from penstock.compiler.diagram.boxes import Indices

_STEP = np.uint64(0x9E3779B97F4A7C15)
_LANE_SEEDS = (np.uint64(0x0123456789ABCDEF), np.uint64(0xC2B2AE3D27D4EB4F))


@dataclass(frozen=True, slots=True, eq=False)
class Lanes:
    """n fingerprints."""

    a: U64
    b: U64

    def at(self, index: Indices) -> Lanes:
        return Lanes(self.a[index], self.b[index])


def mix(values: U64, seed: U64 | np.uint64) -> U64:
    """A 64-bit permutation without visible structure, one for each seed (SplitMix64, Steele et al. 2014)."""
    x = (values + seed) * _STEP
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def tokens(values: npt.NDArray[np.int64] | U64) -> Lanes:
    """The fingerprint of each single number; equal numbers have equal ones, in every run."""
    numbers = values.astype(np.uint64)
    return Lanes(*(mix(mix(numbers, seed), ~seed) for seed in _LANE_SEEDS))


def pair_tokens(first: Indices, second: Indices) -> Lanes:
    """The fingerprint of each ordered pair."""
    left, right = first.astype(np.uint64), second.astype(np.uint64)
    return Lanes(*(mix(mix(left, seed) ^ right, ~seed) for seed in _LANE_SEEDS))


def segment_sums(lanes: Lanes, ptr: Indices) -> Lanes:
    """The sum over each segment ``ptr[i] … ptr[i + 1]``; an empty segment's is 0."""
    return Lanes(*(_sums(lane, ptr) for lane in (lanes.a, lanes.b)))


def _sums(lane: U64, ptr: Indices) -> U64:
    total = np.zeros(len(lane) + 1, dtype=np.uint64)
    np.cumsum(lane, out=total[1:])
    return total[ptr[1:]] - total[ptr[:-1]]


def distinct(lanes: Lanes) -> tuple[Indices, Indices]:
    """(the first position of every distinct fingerprint, for each position the number of its fingerprint).

    Numbers follow the order of first positions.
    """
    _, first, number = np.unique(lanes.a, return_index=True, return_inverse=True)
    if (lanes.b != lanes.b[first][number]).any():
        both = np.empty(len(lanes.a), dtype=[("a", np.uint64), ("b", np.uint64)])
        both["a"], both["b"] = lanes.a, lanes.b
        _, first, number = np.unique(both, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return first[order].astype(np.int64), place[number]
