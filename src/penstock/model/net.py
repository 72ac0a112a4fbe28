"""Sets of integers as sorted, disjoint, inclusive intervals.

Every packet field is an unsigned integer, so "source in 10.0.0.0/8 or
192.168.0.0/16" and "port 80 or 8000-8100" are the same kind of value: a set of
intervals of that field's domain.

>>> web = IntervalSet.of((80, 80), (443, 443), (8000, 8100), (8101, 8200))
>>> web.intervals
((80, 80), (443, 443), (8000, 8200))
>>> 8150 in web, 81 in web
(True, False)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

Interval = tuple[int, int]


def merge_intervals(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Sort intervals and join those that overlap or touch."""
    merged: list[Interval] = []
    for low, high in sorted(intervals):
        if merged and low <= merged[-1][1] + 1:
            if high > merged[-1][1]:
                merged[-1] = (merged[-1][0], high)
        else:
            merged.append((low, high))
    return tuple(merged)


@dataclass(frozen=True, slots=True)
class IntervalSet:
    """An immutable set of non-negative integers; equal sets have equal `intervals`."""

    intervals: tuple[Interval, ...] = ()

    @classmethod
    def of(cls, *intervals: Interval) -> IntervalSet:
        """The union of inclusive intervals, in any order."""
        return cls(merge_intervals(intervals))

    @classmethod
    def single(cls, *values: int) -> IntervalSet:
        """The set of exactly these values."""
        if len(values) == 1:
            return cls(((values[0], values[0]),))
        return cls(merge_intervals((value, value) for value in values))

    @classmethod
    def full(cls, bits: int) -> IntervalSet:
        """Every value of an unsigned field of `bits` bits."""
        return cls(((0, (1 << bits) - 1),))

    @classmethod
    def prefix(cls, network: IPv4Network | IPv6Network) -> IntervalSet:
        """The addresses of a prefix, as integers in host order."""
        low = int(network.network_address)
        return cls(((low, low + network.num_addresses - 1),))

    def __bool__(self) -> bool:
        return bool(self.intervals)

    def __iter__(self) -> Iterator[Interval]:
        return iter(self.intervals)

    def __contains__(self, value: int) -> bool:
        at = bisect_right(self.intervals, value, key=lambda interval: interval[0]) - 1
        return at >= 0 and value <= self.intervals[at][1]

    def __or__(self, other: IntervalSet) -> IntervalSet:
        return IntervalSet(merge_intervals((*self.intervals, *other.intervals)))

    def __and__(self, other: IntervalSet) -> IntervalSet:
        found: list[Interval] = []
        left, right = iter(self.intervals), iter(other.intervals)
        a, b = next(left, None), next(right, None)
        while a is not None and b is not None:
            low, high = max(a[0], b[0]), min(a[1], b[1])
            if low <= high:
                found.append((low, high))
            if a[1] < b[1]:
                a = next(left, None)
            else:
                b = next(right, None)
        return IntervalSet(tuple(found))

    def __sub__(self, other: IntervalSet) -> IntervalSet:
        if not self.intervals:
            return self
        return self & other.complement(self.intervals[-1][1].bit_length())

    def complement(self, bits: int) -> IntervalSet:
        """Every value of a `bits`-wide field that is not in the set."""
        gaps: list[Interval] = []
        start, top = 0, (1 << bits) - 1
        for low, high in self.intervals:
            if low > top:
                break
            if start < low:
                gaps.append((start, low - 1))
            start = high + 1
        if start <= top:
            gaps.append((start, top))
        return IntervalSet(tuple(gaps))

    def is_full(self, bits: int) -> bool:
        """Whether the set is the whole domain of a `bits`-wide field."""
        return self.intervals == ((0, (1 << bits) - 1),)

    def issubset(self, other: IntervalSet) -> bool:
        """Whether every value of this set is in `other`."""
        return (self & other) == self

    def size(self) -> int:
        """How many values the set holds."""
        return sum(high - low + 1 for low, high in self.intervals)
