"""Counters of a running filter: packets and bytes for each slot, summed over CPUs.

In: a per-CPU array of (packets, bytes) and the totals carried over from the
programs before.  Out: `Counter` by name.

    read_totals(counters, 7)              ->  (Counter(packets=3, bytes=180), …), one a slot
    named(keys, totals)["dns"].packets    ->  3

Plain Python on purpose: a command that reads a few dozen counters should not
wait for numpy.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.kernel.maps import Map
from penstock.pipeline.identity import CounterKey

#: struct ps_counter of bpf/include/penstock/verdict.bpf.h, and an entry of the carried totals.
PAIR = struct.Struct("=QQ")
_SLOT = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class Counter:
    """How often a rule, a condition or the default was counted, and how many bytes those frames had on the wire."""

    packets: int
    bytes: int

    def __add__(self, other: Counter) -> Counter:
        return Counter(self.packets + other.packets, self.bytes + other.bytes)


Totals = tuple[Counter, ...]
ZERO = Counter(0, 0)


def read_totals(counters: Map, slots: int) -> Totals:
    """The counter of each slot, summed over CPUs."""
    return tuple(read_total(counters, slot) for slot in range(slots))


def read_total(counters: Map, slot: int) -> Counter:
    """The counter of one slot, summed over CPUs."""
    return _summed(counters.lookup(_SLOT.pack(slot)) or b"")


def clear(counters: Map, slot: int) -> None:
    """Let a slot that nobody counts in begin at nothing.  Raises KernelError."""
    counters.update(_SLOT.pack(slot), bytes(counters.size))


def _summed(per_cpu: bytes) -> Counter:
    pairs = list(PAIR.iter_unpack(per_cpu))
    return Counter(sum(packets for packets, _ in pairs), sum(size for _, size in pairs))


def pack_totals(totals: Totals) -> bytes:
    """The totals as the bytes of a map's value."""
    return b"".join(PAIR.pack(total.packets, total.bytes) for total in totals)


def unpack_totals(value: bytes) -> Totals:
    """The totals in a map's value."""
    return tuple(Counter(packets, size) for packets, size in PAIR.iter_unpack(value))


def added(left: Totals, right: Totals) -> Totals:
    """Slot by slot, the sum of both."""
    return tuple(one + other for one, other in zip(left, right, strict=True))


def named(keys: Sequence[CounterKey], totals: Totals) -> dict[str, Counter]:
    """The totals by the names of their slots, in slot order."""
    return {key.name: total for key, total in zip(keys, totals, strict=True)}


def carried_over(pairs: Sequence[tuple[int, int]], old: Totals, base: Totals) -> Totals:
    """The base of a new program's counters: the old totals where the rule is the same, `base` elsewhere."""
    kept = {new_slot: old[old_slot] for old_slot, new_slot in pairs}
    return tuple(kept.get(slot, total) for slot, total in enumerate(base))


def nothing(slots: int) -> Totals:
    """So many totals of nothing."""
    return (ZERO,) * slots
