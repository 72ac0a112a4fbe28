"""What a flat set holds, in the memory of its map: read, filled, and changed in place.

    content = Content(lines)                   lines: the map's memory, shape (n, 4) uint64
    content.keys("v4")                         its networks, sorted
    content.add("v4", key)                     one more, or None: there is no room, it has to be written anew

The sorted keys of both families lie behind the lines that packets read; a single
change is logged behind those.  It is done in this order: new blocks, which nobody
reads yet; a line of the log; the count of the log; the word of a root.  The last
line of the log says what that word is to be: while it is not, the change has not
happened, for packets and for whoever lists the entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.kernel.libc import memory_barrier
from penstock.model.flat import ALL, FIRST, FRONT_LINES, HEADER, LEAF, LINE_BYTES, ROOT_BITS, ROOTS, Field
from penstock.model.sets import FAMILIES
from penstock.pipeline.flat_build import Built, blocks_v4, build
from penstock.pipeline.flat_keys import DTYPES, halves

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_COUNTS = {"v4": Field.COUNT_V4, "v6": Field.COUNT_V6}
_PLACES = {"v4": Field.AT_V4, "v6": Field.AT_V6}
_ADD, _REMOVE = 1, 2
_FAMILY_AT, _LENGTH_AT, _TOTAL_AT = 8, 16, 32
_LEAST_ROOM, _LEAST_LOG, _MOST_LOG = 1024, 256, 16_384


@dataclass(frozen=True, slots=True, eq=False)
class Filling:
    """A content that has been made, but for the memory to lie in."""

    keys: Mapping[str, NDArray[Any]]
    built: Mapping[str, Built]
    header: Mapping[Field, int]
    total: int


def filling(keys: Mapping[str, NDArray[Any]]) -> Filling:
    """The lines of these networks, of each family sorted and each once; with room for changes."""
    here, built = FIRST, {}
    for family in FAMILIES:
        built[family] = build(family, keys[family], here)
        here += len(built[family].lines)
    header = {Field.NEXT: here, Field.END: here + max(_LEAST_ROOM, (here - FIRST) // 4)}
    here = header[Field.END]
    for family in FAMILIES:
        header[_PLACES[family]], header[_COUNTS[family]] = here, len(keys[family])
        here += -(-keys[family].nbytes // LINE_BYTES)
    room = min(_MOST_LOG, max(_LEAST_LOG, sum(map(len, keys.values())) // 16))
    header |= {Field.LOG: here, Field.LOG_ROOM: room, Field.LOGGED: 0}
    return Filling(keys, built, header, here + room)


class Content:
    """A content, in memory that packets read."""

    def __init__(self, lines: NDArray[np.uint64]) -> None:
        self._lines = lines
        self._header = lines[HEADER : HEADER + 4].reshape(-1)
        self._roots = lines[:HEADER].reshape(-1).view(np.uint32)
        self._front = lines[:FRONT_LINES].reshape(-1)

    def fill(self, made: Filling) -> None:
        """Write a whole content into memory that is zero, and that no packet reads yet."""
        here = FIRST
        for family, one in made.built.items():
            self._lines[here : here + len(one.lines)] = one.lines
            here += len(one.lines)
            self._roots[_slot(family, 0) :][: len(one.root)] = one.root
            self._front[: len(one.front)] = one.front
        self._lines[ALL, 0::2] = self._lines[ALL + 1, 0::2] = np.uint64(0xFFFFFFFFFFFFFFFF)
        for name, value in made.header.items():
            self._header[name] = value
        for family, keys in made.keys.items():
            self._sorted(family)[:] = keys

    # ── asking ───────────────────────────────────────────────────────────────

    @property
    def count(self) -> int:
        """How many networks there are."""
        logged = self._logged()
        if len(logged):
            return int(logged[-1, 0]) >> _TOTAL_AT
        return sum(int(self._header[one]) for one in _COUNTS.values())

    def count_of(self, family: str) -> int:
        """How many networks of a family there are."""
        logged = self._logged_of(family)
        operations = logged[:, 0] & np.uint64(255)
        balance = np.count_nonzero(operations == _ADD) - np.count_nonzero(operations == _REMOVE)
        return int(self._header[_COUNTS[family]]) + int(balance)

    def keys(self, family: str) -> NDArray[Any]:
        """The networks of a family, sorted; a copy."""
        return self._with_log(family, self._sorted(family).copy(), self._logged_of(family))

    def has(self, family: str, key: Any) -> bool:
        """Whether this very network is there."""
        found = self._sorted(family)
        at = int(np.searchsorted(found, np.array(key, found.dtype)))
        there = at < len(found) and found[at] == key
        logged = self._logged_of(family)
        if len(logged):
            hi, lo, length = (one[0] for one in halves(family, np.array([key], DTYPES[family])))
            lengths = logged[:, 0] >> np.uint64(_LENGTH_AT) & np.uint64(255)
            same = np.flatnonzero((logged[:, 1] == hi) & (logged[:, 2] == lo) & (lengths == length))
            if len(same):
                return int(logged[same[-1], 0]) & 255 == _ADD
        return bool(there)

    def holds(self, family: str, hi: int, lo: int) -> bool:
        """What a packet would be told of an address: an IPv4 address is the first 32 bits of `hi`."""
        at = int(self._roots[_slot(family, hi >> 64 - ROOT_BITS[family])])
        return self._holds_v4(at, hi >> 32) if family == "v4" else self._holds_v6(at, hi, lo)

    def _holds_v4(self, at: int, address: int) -> bool:
        bit = 1 << (address >> 8 & 63)
        if not at or not int(self._front[address >> 14]) & bit:
            return False
        full, has = self._lines[at, :2].tolist()
        if full & bit or not has & bit:
            return bool(full & bit)
        rank = (has & bit - 1).bit_count()
        return bool(int(self._lines[at + 1 + rank, address >> 6 & 3]) >> (address & 63) & 1)

    def _holds_v6(self, at: int, hi: int, lo: int) -> bool:
        address, depth = hi << 64 | lo, ROOT_BITS["v6"]
        while at:
            if at & LEAF:
                line = self._lines[at & ~LEAF].tolist()
                return not ((hi ^ line[0]) & line[2] | (lo ^ line[1]) & line[3])
            value = address >> 120 - depth & 255
            bit, word = 1 << (value & 63), value >> 6
            pairs = self._lines[at : at + 2].reshape(4, 2).tolist()
            full, has = pairs[word]
            if full & bit or not has & bit:
                return bool(full & bit)
            rank = sum(one.bit_count() for _, one in pairs[:word]) + (has & bit - 1).bit_count()
            at = int(self._lines[at + 2 :].reshape(-1).view(np.uint32)[rank])
            depth += 8
        return False

    # ── changing in place ────────────────────────────────────────────────────

    def add(self, family: str, key: Any) -> bool | None:
        """Add one network; whether it was not there; None without a change if it cannot be done in place."""
        return False if self.has(family, key) else self._change(_ADD, family, key)

    def remove(self, family: str, key: Any) -> bool | None:
        """Remove one network; whether it was there; None without a change if it cannot be done in place."""
        return self._change(_REMOVE, family, key) if self.has(family, key) else False

    def settle(self) -> None:
        """Forget a change that was begun by somebody who was killed."""
        self._header[Field.LOGGED] = len(self._logged())

    def _change(self, operation: int, family: str, key: Any) -> bool | None:
        hi, lo, length = (one[0] for one in halves(family, np.array([key], DTYPES[family])))
        logged = int(self._header[Field.LOGGED])
        if length <= ROOT_BITS[family] or logged == int(self._header[Field.LOG_ROOM]):
            return None
        top = int(hi) >> 64 - ROOT_BITS[family]
        new = self._grown(operation, family, key, top)
        if new is None:
            return None
        total = self.count + (1 if operation == _ADD else -1)
        first = operation | FAMILIES.index(family) << _FAMILY_AT | int(length) << _LENGTH_AT
        line = self._lines[int(self._header[Field.LOG]) + logged]
        line[:] = (first | total << _TOTAL_AT, hi, lo, new)
        memory_barrier()
        self._header[Field.LOGGED] = logged + 1
        front = self._front_of(family, new)
        if front is not None:
            self._front[top] |= front
        memory_barrier()
        self._roots[_slot(family, top)] = new
        if front is not None:
            self._front[top] = front
        return True

    def _front_of(self, family: str, place: int) -> np.uint64 | None:
        """The word of the front that goes with a word of a root."""
        if family != "v4":
            return None
        line = self._lines[place]
        return line[0] | line[1] if place else np.uint64(0)

    def _grown(self, operation: int, family: str, key: Any, top: int) -> int | None:
        """The word of a root with a network more or less, its lines being written; None if there is no room."""
        old = int(self._roots[_slot(family, top)])
        if old == ALL:
            return old
        if family != "v4":
            return None
        keys = self._below(top)
        keys = np.sort(np.append(keys, np.uint64(key))) if operation == _ADD else keys[keys != key]
        here = int(self._header[Field.NEXT])
        _, places, lines = blocks_v4(keys, here)
        if here + len(lines) > int(self._header[Field.END]):
            return None
        self._lines[here : here + len(lines)] = lines
        self._header[Field.NEXT] = here + len(lines)
        return int(places[0]) if len(places) else 0

    def _below(self, top: int) -> NDArray[np.uint64]:
        """The networks of IPv4 longer than /18 with these first 18 bits."""
        found, first = self._sorted("v4"), top << 22
        begin, end = np.searchsorted(found, np.array([first, first + (1 << 22)], np.uint64))
        logged = self._logged_of("v4")
        logged = logged[logged[:, 1] >> np.uint64(46) == top]
        keys = self._with_log("v4", found[begin:end].copy(), logged)
        deep: NDArray[np.uint64] = keys[keys & np.uint64(255) > ROOT_BITS["v4"]]
        return deep

    # ── the log ──────────────────────────────────────────────────────────────

    def _logged(self) -> NDArray[np.uint64]:
        """The changes that have happened, one a line."""
        at, count = int(self._header[Field.LOG]), int(self._header[Field.LOGGED])
        if count:
            first, hi, _, word = self._lines[at + count - 1].tolist()
            family = FAMILIES[first >> _FAMILY_AT & 255]
            count -= int(self._roots[_slot(family, hi >> 64 - ROOT_BITS[family])]) != word
        return self._lines[at : at + count]

    def _logged_of(self, family: str) -> NDArray[np.uint64]:
        logged = self._logged()
        number = np.uint64(FAMILIES.index(family))
        found: NDArray[np.uint64] = logged[(logged[:, 0] >> np.uint64(_FAMILY_AT) & np.uint64(255)) == number]
        return found

    def _sorted(self, family: str) -> NDArray[Any]:
        """The networks that were there when all was written, in the map's memory."""
        at, kind = int(self._header[_PLACES[family]]), DTYPES[family]
        size = int(self._header[_COUNTS[family]]) * kind.itemsize
        octets = self._lines[at : at + -(-size // LINE_BYTES)].reshape(-1).view(np.uint8)
        return octets[:size].view(kind)

    def _with_log(self, family: str, keys: NDArray[Any], logged: NDArray[np.uint64]) -> NDArray[Any]:
        """Sorted networks and what was done to them since; the last line of each counts."""
        last = {_key(family, line): int(line[0]) & 255 for line in logged}
        if not last:
            return keys
        changed = np.array(list(last), DTYPES[family])
        come = np.array([one for one, operation in last.items() if operation == _ADD], DTYPES[family])
        return np.sort(np.concatenate([keys[~np.isin(keys, changed)], come]))


def _slot(family: str, top: int) -> int:
    """The word of a root, counted from the first line."""
    return 8 * ROOTS[family] + top


def _key(family: str, line: NDArray[np.uint64]) -> Any:
    """The network of a line of the log."""
    first, hi, lo, _ = line.tolist()
    length = first >> _LENGTH_AT & 255
    if family == "v4":
        return hi >> 32 << 8 | length
    return (hi << 72 | lo << 8 | length).to_bytes(17, "big").rstrip(b"\0")
