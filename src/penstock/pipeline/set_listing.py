"""The entries of a set one after the other, a few thousand read at a time and none kept.

    for text, expiry, moment, (packets, bytes) in listed(spec, maps, state): …

Entries that come or go meanwhile may be left out or not; every other comes once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping

from penstock.kernel.map_entries import batches
from penstock.kernel.maps import Map
from penstock.model.boot_clock import boot_clock_ns
from penstock.model.set_text import text_of
from penstock.model.sets import EXPIRY_MASK, HIDDEN, SetSpec
from penstock.pipeline.set_control import Control
from penstock.pipeline.set_walk import end_of

Listed = tuple[str, int, int, tuple[int, ...]]


def listed(spec: SetSpec, maps: Mapping[str, Map], state: Control) -> Iterator[Listed]:
    """Text, expiry, the moment at which it was looked at, and where the set counts what was counted.

    Raises KernelError.
    """
    bank = state.active
    if bank == HIDDEN:
        return
    words = struct.Struct(f"={spec.value_words}Q")
    asked, own = 4 << bank, 1 if spec.structure == "trie" else 0
    for family, table in maps.items():
        for batch in _in_order(table) if spec.structure == "trie" else batches(table):
            moment = boot_clock_ns()
            for key, value in batch:
                if value is None:
                    continue
                found = words.unpack(value)
                end = found[own] & EXPIRY_MASK
                if found[0] & asked and (not end or moment < end):
                    yield text_of(spec, family, key), end, moment, found[-2:] if spec.counters else ()


def _in_order(table: Map) -> Iterator[Iterable[tuple[bytes, bytes | None]]]:
    """A trie begins anew if the entry goes behind which it was to go on: what was there is left out then."""
    farthest = (-1, 0)
    for batch in batches(table):
        fresh = []
        for one in batch:
            at = end_of(one[0])
            if at > farthest:
                farthest = at
                fresh.append(one)
        yield fresh
