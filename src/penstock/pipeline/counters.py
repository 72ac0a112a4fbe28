"""Counters of a running filter: packets and bytes for each slot, summed over CPUs.

In: a per-CPU array of (packets, bytes) and the totals carried over from the
programs before.  Out: `Counter` by name.

    read_totals(counters)                 ->  array([[3, 180], …]) uint64, one row a slot
    named(keys, totals)["dns"].packets    ->  3
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.kernel.maps import Map
from penstock.pipeline.identity import CounterKey

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COLUMNS = 2  # packets, bytes


@dataclass(frozen=True, slots=True)
class Counter:
    """How often a rule, a condition or the default was counted, and how many bytes those frames had on the wire."""

    packets: int
    bytes: int


def read_totals(counters: Map, slots: int) -> NDArray[np.uint64]:
    """Packets and bytes of each slot, shape (slots, 2), summed over CPUs."""
    _, values = counters.read_all()
    totals: NDArray[np.uint64] = values[:slots, :, :COLUMNS].sum(axis=1)
    return totals


def named(keys: Sequence[CounterKey], totals: NDArray[np.uint64]) -> dict[str, Counter]:
    """The totals by the names of their slots, in slot order."""
    return {key.name: Counter(int(row[0]), int(row[1])) for key, row in zip(keys, totals, strict=True)}


def carried_over(pairs: Sequence[tuple[int, int]], old: NDArray[np.uint64], slots: int) -> NDArray[np.uint64]:
    """The base of a new program's counters: the old totals where the rule is the same, zero elsewhere."""
    import numpy as np

    base = np.zeros((slots, COLUMNS), np.uint64)
    for old_slot, new_slot in pairs:
        base[new_slot] = old[old_slot]
    return base
