"""What a flat set holds, in the memory of its map: looked into, and changed in place; without numpy.

    content = Content(memory, front)           the map's memory, and the bank's part of the front's
    content.has("v4", address, 24)             whether this very network is there
    content.carry_out(lines, moves)            changes that happen at once

The sorted keys of both families lie behind the lines that packets read, and the log
of changes behind those (`flat_log.py`).  Changes are done in this order: new lines,
which nobody reads yet; lines of the log; the words that move, which name those; how far the log
has happened, by which packets meet all of it; the words, which name what they are to name.
What it costs does not grow with the set.
"""

from __future__ import annotations

from bisect import bisect_left
from heapq import merge
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

from penstock.kernel.libc import memory_barrier
from penstock.model.flat import (
    GONE,
    HEADER,
    LEAF,
    LEAF_COUNT,
    LEAF_LINE,
    LINE_BYTES,
    MARKED,
    MARKED_V6,
    MARKS,
    MARKS_V6,
    MOST_IN_LEAF,
    MOVING,
    PIVOT,
    PROBES,
    ROOT_BITS,
    ROOTS,
    SEED,
    SLOT_WORD,
    SLOTS,
    TABLE,
    Field,
    home_v6,
    mark_v4,
    mark_v6,
    marked_v6,
)
from penstock.pipeline.flat_blocks import NoRoomError
from penstock.pipeline.flat_log import Key, Log, key_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_COUNTS = {"v4": Field.COUNT_V4, "v6": Field.COUNT_V6}
_PLACES = {"v4": Field.AT_V4, "v6": Field.AT_V6}
_BITS = {"v4": 32, "v6": 128}
_V6_BYTES = 17
_AT_A_TIME = 4096


class Content:
    """A content, in memory that packets read."""

    def __init__(self, memory: memoryview, front: memoryview) -> None:
        self.octets = memory
        self.front = front.cast("Q")
        self.words, self.places = memory.cast("Q"), memory.cast("I")
        self.log = Log(memory)

    def header(self, field: Field) -> int:
        """A word of the header."""
        return self.words[4 * HEADER + field]

    # ── asking ───────────────────────────────────────────────────────────────

    @property
    def count(self) -> int:
        """How many networks there are."""
        return sum(map(self.count_of, _COUNTS))

    def count_of(self, family: str) -> int:
        """How many networks of a family there are."""
        return self.header(_COUNTS[family]) + self.log.balance(family)

    def has(self, family: str, address: int, length: int) -> bool:
        """Whether this very network is there."""
        key = key_of(family, address, length)
        changed = self.log.changed(family).get(key)
        if changed is not None:
            return changed
        found = self.sorted(family)
        at = bisect_left(found, key)
        return at < len(found) and bool(found[at] == key)

    def keys(self, family: str) -> Iterator[Key]:
        """The networks of a family as they are now, in order; a few thousand are read at a time."""
        changed: dict[Any, bool] = dict(self.log.changed(family))
        found = self.sorted(family)
        parts = (found[at : at + _AT_A_TIME] for at in range(0, len(found), _AT_A_TIME))
        old = (key for part in parts for key in part if key not in changed)
        return merge(old, sorted(key for key, is_there in changed.items() if is_there)) if changed else old

    def beside(self, address: int) -> Iterator[int]:
        """The networks of IPv4 that are longer than /24 and in this address's /24."""
        found, changed = self.sorted("v4"), self.log.near(address)
        first, there = address >> 8 << 16, self.log.changed("v4")
        begin = bisect_left(found, first)
        end = bisect_left(found, first + (1 << 16), begin)
        for key in chain((one for one in found[begin:end] if one not in changed), changed):
            if key & 255 > 24 and there.get(key, True):
                yield key

    def sorted(self, family: str) -> Any:
        """A sequence of the keys that were there when all was written, in the map's memory."""
        at, count = self.header(_PLACES[family]), self.header(_COUNTS[family])
        if family == "v4":
            return self.words[4 * at : 4 * at + count]
        return _Octets(self.octets[LINE_BYTES * at :][: _V6_BYTES * count])

    def holds(self, family: str, address: int) -> bool:
        """What a packet would be told of an address."""
        at = self.place(self.slot_of(family, address))
        if family == "v4":
            return self._holds_v4(at, address)
        marked = self._marked(address >> 64)
        if PIVOT in marked and self._is_in_table(address):
            return True
        return bool(marked - {PIVOT}) and self._holds_v6(at, address, ROOT_BITS["v6"])

    def slot_of(self, family: str, address: int) -> int:
        """The word of a root for an address, counted from the first line."""
        return 8 * ROOTS[family] + (address >> _BITS[family] - ROOT_BITS[family])

    def home(self, address: int) -> int:
        """The line from which on an address of IPv6 is looked for in the table."""
        return self.front[TABLE] + home_v6(address >> 128 - PIVOT, self.front[SLOTS], self.front[SEED])

    def place(self, slot: int) -> int:
        """What a word of a root or a block names for packets."""
        return self.log.settled(self.places[slot])

    def _holds_v4(self, at: int, address: int) -> bool:
        bit = 1 << (address >> 8 & 63)
        if not at or not self._may_have_v4(address):
            return False
        full, has = self.words[4 * at], self.words[4 * at + 1]
        if full & bit or not has & bit:
            return bool(full & bit)
        place = self.place(8 * at + 4 + (has & bit - 1).bit_count())
        if place & LEAF:
            return not (address ^ place) & place >> 8 & 255
        return bool(place and self.words[4 * place + (address >> 6 & 3)] >> (address & 63) & 1)

    def _is_in_table(self, address: int) -> bool:
        first, hi = self.home(address), address >> 64
        for line in range(first, first + PROBES):
            held, at = self.words[4 * line], self.places[8 * line + SLOT_WORD]
            if not at:
                return False
            if not (held ^ hi) >> 64 - PIVOT:
                break
        else:
            return False
        at = self.log.settled(at)
        if not at & LEAF or at & ~LEAF > 255:
            return self._holds_v6(at, address, PIVOT)
        other = held << 64 | self.words[4 * line + 1]
        return at != GONE and not (other ^ address) >> 128 - (at & ~LEAF)

    def _holds_v6(self, at: int, address: int, depth: int) -> bool:
        hi, lo = address >> 64, address & (1 << 64) - 1
        while at:
            if at & LEAF:
                first = 4 * (at & LEAF_LINE)
                lines = self.words[first : first + 4 * (at >> LEAF_COUNT & MOST_IN_LEAF - 1) + 4].tolist()
                parts = zip(*(lines[part::4] for part in range(4)), strict=True)
                return any(not ((hi ^ one) & mask | (lo ^ two) & rest) for one, two, mask, rest in parts)
            value = address >> 120 - depth & 255
            bit, word = 1 << (value & 63), value >> 6
            pairs = self.words[4 * at : 4 * at + 8]
            full, has = pairs[2 * word], pairs[2 * word + 1]
            if full & bit or not has & bit:
                return bool(full & bit)
            rank = sum(pairs[2 * one + 1].bit_count() for one in range(word)) + (has & bit - 1).bit_count()
            at = self.place(8 * (at + 2) + rank)
            depth += 8
        return False

    def _may_have_v4(self, address: int) -> bool:
        """What the front says of an address."""
        at, bit = address >> 14, 1 << (address >> 8 & 63)
        mark, mark_bit = mark_v4(address)
        return bool(self.front[at] & bit and (self.front[MARKS + at] & bit or self.front[mark] & mark_bit))

    def _marked(self, hi: int) -> set[int]:
        """How many of the first 64 bits of an address of IPv6 are marked."""
        counts = (count for at, count in enumerate(MARKED_V6) if self.front[MARKED] >> at & 1)
        words, seed = len(self.front) - MARKS_V6, self.front[SEED]
        found = {count: mark_v6(hi >> 64 - count, count, words, seed) for count in counts}
        return {count for count, (at, bits) in found.items() if self.front[at] & bits == bits}

    # ── changing in place ────────────────────────────────────────────────────

    def next(self, count: int = 2) -> int:
        """Where so many new lines will lie."""
        here = self.header(Field.NEXT)
        # A block of IPv6 is read as one line of a cache, which is two of these.
        return here + (here & 1) if count > 1 else here

    def put(self, lines: bytes, here: int | None = None) -> int:
        """Write new lines, which nobody reads yet, and tell the first.  Raises NoRoomError."""
        here = self.next(len(lines) // LINE_BYTES) if here is None else here
        behind = here + len(lines) // LINE_BYTES
        if behind > self.header(Field.END):
            raise NoRoomError
        self.octets[LINE_BYTES * here : LINE_BYTES * behind] = lines
        self.words[4 * HEADER + Field.NEXT] = behind
        return here

    def carry_out(self, lines: bytes, moves: Moves) -> None:
        """Let lines of the log happen, of which the first have the words that move; there must be room."""
        first = self.log.begin(lines)
        moves.widen()
        memory_barrier()
        moves.name_lines(first)
        memory_barrier()
        self.log.happen()
        memory_barrier()
        moves.name_places()
        memory_barrier()
        moves.narrow()
        self.log.settle()

    def settle(self) -> None:
        """Let words name what they are to name, or what they named if somebody was killed before that happened."""
        moves = FewMoves(self, list(self.log.moving()))
        moves.name_places()
        memory_barrier()
        moves.narrow()
        self.log.settle()

    def block(self, place: int) -> tuple[int, int]:
        """Which /24s of a block of IPv4 are in the set as a whole, and which have something narrower."""
        return (self.words[4 * place], self.words[4 * place + 1]) if place else (0, 0)

    def mark(self, family: str, address: int, length: int) -> None:
        """Let the front know a network."""
        if family == "v6":
            self._mark_v6(address >> 64, length)
        elif length > 24:
            for one in range(address, address + (1 << 32 - length), 32):
                at, bit = mark_v4(one)
                self.front[at] |= bit

    def _mark_v6(self, hi: int, length: int) -> None:
        count = marked_v6(length)
        self.front[MARKED] |= 1 << MARKED_V6.index(count)
        first = hi >> 64 - count
        for number in range(first, first + (1 << max(0, count - length))):
            at, bits = mark_v6(number, count, len(self.front) - MARKS_V6, self.front[SEED])
            self.front[at] |= bits


class Moves(Protocol):
    """Words of roots and blocks that move at once, and what packets ask before them."""

    def widen(self) -> None:
        """Let the front know what is to be, too."""

    def name_lines(self, first: int) -> None:
        """Let the words name lines of the log, from this one on."""

    def name_places(self) -> None:
        """Let them name what is to be."""

    def narrow(self) -> None:
        """Let the front know that alone; marks stay."""


class FewMoves:
    """Words and what they are to name, for networks of which some come."""

    def __init__(
        self,
        content: Content,
        moves: Sequence[tuple[int, int]],
        come: Iterable[tuple[str, int, int]] = (),
    ) -> None:
        self._content, self._moves, self._come = content, moves, come
        root = range(8 * ROOTS["v4"], 8 * ROOTS["v4"] + (1 << ROOT_BITS["v4"]))
        self._tops = [(slot - root.start, *content.block(place)) for slot, place in moves if slot in root]

    def widen(self) -> None:
        """As `Moves.widen`."""
        front = self._content.front
        for top, full, has in self._tops:
            front[top] |= full | has
            front[MARKS + top] |= full
        for network in self._come:
            self._content.mark(*network)

    def name_lines(self, first: int) -> None:
        """As `Moves.name_lines`."""
        for line, (slot, _) in enumerate(self._moves, first):
            self._content.places[slot] = MOVING | line

    def name_places(self) -> None:
        """As `Moves.name_places`."""
        for slot, place in self._moves:
            self._content.places[slot] = place

    def narrow(self) -> None:
        """As `Moves.narrow`."""
        for top, full, has in self._tops:
            self._content.front[top] = full | has


class _Octets:
    """Keys of 17 bytes, one behind the other."""

    __slots__ = ("_octets",)

    def __init__(self, octets: memoryview) -> None:
        self._octets = octets

    def __len__(self) -> int:
        return len(self._octets) // _V6_BYTES

    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, int):
            return self._octets[_V6_BYTES * at : _V6_BYTES * (at + 1)].tobytes()
        some = self._octets[_V6_BYTES * at.start : _V6_BYTES * at.stop].tobytes()
        return [some[first : first + _V6_BYTES] for first in range(0, len(some), _V6_BYTES)]
