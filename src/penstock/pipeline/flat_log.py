"""What was done to a flat set since its networks were written in order, and how many changes happen at once.

    log = Log(memory)                    the content's memory
    log.changed("v4")                    {key: whether it came}
    log.begin(lines)                     changes that nobody meets yet
    log.happen()                         all of them have happened

A line is {operation, length, what a word names; first 64 bits; last 64 bits; that
word, and what it is to name}: a network that comes or goes, and a word that moves, which
need not have to do with one another; either may be missing.  While words move they
name their line, and packets take from it what they are to find: what was
named, or, of a line before `LOGGED`, what is to be.  So one store of that number lets
all of it happen, and lines from `SETTLED` on may have words that still name them.
Lines are read once and remembered.  A key is, of IPv4, the address and in the lowest byte the
length; of IPv6 17 bytes of the same.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from penstock.model.flat import HEADER, LINE_BYTES, MOVING, Field
from penstock.model.sets import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Iterator

Key = int | bytes
#: What is done to a network of which family; 0 for nothing.
OPERATIONS = {
    (family, is_added): 1 + 2 * at + is_added for at, family in enumerate(FAMILIES) for is_added in (0, 1)
}
#: Operation, length, old place; address; place, word.
LINE = struct.Struct("=BBxxIQQII")
#: The same, of an array of lines.
LINE_FIELDS = [
    ("operation", "u1"),
    ("length", "u1"),
    ("", "u2"),
    ("old", "u4"),
    ("hi", "u8"),
    ("lo", "u8"),
    ("place", "u4"),
    ("slot", "u4"),
]
_OLD_AT, _PLACE_AT, _SLOT_AT = 1, 6, 7
_FIRST_V6 = OPERATIONS["v6", False]


def key_of(family: str, address: int, length: int) -> Key:
    """A network as it is sorted."""
    return address << 8 | length if family == "v4" else (address << 8 | length).to_bytes(17, "big")


def line_of(change: tuple[str, int, int, bool] | None, move: tuple[int, int, int] | None) -> bytes:
    """A line: a network that comes or goes; a word that moves, what it names, and what it is to name."""
    slot, old, place = move or (0, 0, 0)
    if change is None:
        return LINE.pack(0, 0, old, 0, 0, place, slot)
    family, address, length, is_added = change
    whole = address << 96 if family == "v4" else address
    hi, lo = whole >> 64, whole & (1 << 64) - 1
    return LINE.pack(OPERATIONS[family, is_added], length, old, hi, lo, place, slot)


class Log:
    """The lines of a log, in memory that others may write, too."""

    __slots__ = ("_balance", "_changed", "_counted", "_near", "_octets", "_places", "_seen", "_words")

    def __init__(self, octets: memoryview) -> None:
        self._octets, self._words, self._places = octets, octets.cast("Q"), octets.cast("I")
        self._seen = self._header(Field.LOG)
        self._changed: dict[str, dict[Key, bool]] = {family: {} for family in FAMILIES}
        self._near: dict[int, set[int]] = {}
        self._balance, self._counted = dict.fromkeys(FAMILIES, 0), 0

    # ── asking ───────────────────────────────────────────────────────────────

    @property
    def lines(self) -> memoryview:
        """The lines of all that has happened."""
        return self._between(self._header(Field.LOG), self._header(Field.LOGGED))

    @property
    def room(self) -> int:
        """How many more lines there is room for."""
        return self._header(Field.LOG_END) - self._header(Field.BEGUN)

    def changed(self, family: str) -> dict[Key, bool]:
        """Networks that came or went, and whether they are there."""
        self._read()
        return self._changed[family]

    def near(self, address: int) -> set[int]:
        """Those of IPv4 longer than /24 in an address's /24 that came or went."""
        self._read()
        return self._near.get(address >> 8, set())

    def balance(self, family: str) -> int:
        """How many more networks of a family there are than were written in order."""
        lines = self.lines
        if lines.nbytes != self._counted:
            operations = lines[self._counted :: LINE_BYTES].tobytes()
            for one in FAMILIES:
                came, went = (operations.count(OPERATIONS[one, is_added]) for is_added in (True, False))
                self._balance[one] += came - went
            self._counted = lines.nbytes
        return self._balance[family]

    def settled(self, place: int) -> int:
        """What a word that names this names at this moment."""
        if place & MOVING != MOVING:
            return place
        line = place & ~MOVING
        _, _, old, _, _, new, _ = LINE.unpack_from(self._octets, LINE_BYTES * line)
        return int(new if line < self._header(Field.LOGGED) else old)

    # ── writing ──────────────────────────────────────────────────────────────

    def begin(self, lines: bytes) -> int:
        """Write lines, of which no word knows yet, and tell the first; there must be room."""
        first = self._header(Field.BEGUN)
        behind = first + len(lines) // LINE_BYTES
        self._octets[LINE_BYTES * first : LINE_BYTES * behind] = lines
        self._put(Field.BEGUN, behind)
        return first

    def happen(self) -> None:
        """Let everything that was begun have happened."""
        self._put(Field.LOGGED, self._header(Field.BEGUN))

    def moving(self) -> Iterator[tuple[int, int]]:
        """The words that name lines, and what they are to name instead."""
        first, logged = self._header(Field.SETTLED), self._header(Field.LOGGED)
        lines = self._between(first, self._header(Field.BEGUN))
        for line, (_, _, old, _, _, place, slot) in enumerate(LINE.iter_unpack(lines), first):
            if slot and self._places[slot] == MOVING | line:
                yield slot, place if line < logged else old

    def settle(self) -> None:
        """No word names a line any more; what has not happened never will.

        A packet may still have read the line's number from a word: so its line is not
        used again, and says what it said.
        """
        begun = self._header(Field.BEGUN)
        for line in range(self._header(Field.LOGGED), begun):
            self._places[8 * line + _PLACE_AT] = self._places[8 * line + _OLD_AT]
            self._places[8 * line + _SLOT_AT] = self._octets[LINE_BYTES * line] = 0
        self._put(Field.LOGGED, begun)
        self._put(Field.SETTLED, begun)

    # ── how ──────────────────────────────────────────────────────────────────

    def _header(self, field: Field) -> int:
        return self._words[4 * HEADER + field]

    def _put(self, field: Field, value: int) -> None:
        self._words[4 * HEADER + field] = value

    def _between(self, first: int, behind: int) -> memoryview:
        return self._octets[LINE_BYTES * first : LINE_BYTES * behind]

    def _read(self) -> None:
        """Learn what others, or this process, have written since."""
        behind = self._header(Field.LOGGED)
        if behind == self._seen:
            return
        v4, v6, near = self._changed["v4"], self._changed["v6"], self._near
        for done, length, _, hi, lo, _, _ in LINE.iter_unpack(self._between(self._seen, behind)):
            if not done:
                continue
            if done >= _FIRST_V6:
                v6[(hi << 72 | lo << 8 | length).to_bytes(17, "big")] = done > _FIRST_V6
                continue
            key = hi >> 24 | length
            v4[key] = done > 1
            if length > 24:
                near.setdefault(hi >> 40, set()).add(key)
        self._seen = behind
