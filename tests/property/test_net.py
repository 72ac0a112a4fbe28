"""The laws of interval sets, against Python's own sets."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from hypothesis import given
from hypothesis import strategies as st

from penstock.model.net import IntervalSet, merge_intervals

BITS = 6
DOMAIN = range(1 << BITS)

intervals = st.tuples(st.integers(0, 63), st.integers(0, 63)).map(lambda ends: (min(ends), max(ends)))
interval_sets = st.lists(intervals, max_size=6).map(lambda some: IntervalSet.of(*some))


def members(values: IntervalSet) -> set[int]:
    return {value for value in DOMAIN if value in values}


@given(st.lists(intervals, max_size=8))
def test_of_holds_exactly_what_the_intervals_hold(some: list[tuple[int, int]]) -> None:
    assert members(IntervalSet.of(*some)) == {value for low, high in some for value in range(low, high + 1)}


@given(interval_sets, interval_sets)
def test_operators_are_those_of_sets(a: IntervalSet, b: IntervalSet) -> None:
    assert members(a | b) == members(a) | members(b)
    assert members(a & b) == members(a) & members(b)
    assert members(a - b) == members(a) - members(b)
    assert a.issubset(b) == (members(a) <= members(b))
    assert (a == b) == (members(a) == members(b))


@given(interval_sets, interval_sets, interval_sets)
def test_lattice(a: IntervalSet, b: IntervalSet, c: IntervalSet) -> None:
    assert a | b == b | a
    assert a & b == b & a
    assert a | (b | c) == (a | b) | c
    assert a & (b & c) == (a & b) & c
    assert a & (b | c) == (a & b) | (a & c)
    assert a | (a & b) == a == a & (a | b)


@given(interval_sets)
def test_complement(a: IntervalSet) -> None:
    complement = a.complement(BITS)
    assert members(complement) == set(DOMAIN) - members(a)
    assert complement.complement(BITS) == a
    assert (a | complement).is_full(BITS)
    assert not a & complement


@given(interval_sets)
def test_intervals_are_sorted_and_apart(a: IntervalSet) -> None:
    assert merge_intervals(a.intervals) == a.intervals
    assert all(left[1] + 1 < right[0] for left, right in zip(a.intervals, a.intervals[1:], strict=False))
    assert a.size() == len(members(a))
    assert bool(a) == bool(members(a))


@given(st.integers(0, 32), st.integers(0, (1 << 32) - 1))
def test_prefix_of_ipv4(length: int, address: int) -> None:
    network = IPv4Network((address, length), strict=False)
    values = IntervalSet.prefix(network)
    assert values.size() == 1 << (32 - length)
    assert address in values


@given(st.integers(0, 128), st.integers(0, (1 << 128) - 1))
def test_prefix_of_ipv6(length: int, address: int) -> None:
    values = IntervalSet.prefix(IPv6Network((address, length), strict=False))
    assert values.size() == 1 << (128 - length)
    assert address in values
    assert (address ^ 1 << 128 - length if length else 0) not in values or length == 0
