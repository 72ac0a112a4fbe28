"""What was done to a flat set since its networks were written in order: one line a change.

    log = Log(words, places)             the content's memory, as 64-bit and as 32-bit words
    log.changed("v4")                    {key: whether it came}
    log.append(…)                        a change that happens when its word is moved

A line is {operation, family, length, how many networks there are then; first 64 bits;
last 64 bits; the word that is moved, and what to}.  While the word of the last line is
not that, its change has not happened.  Lines are read once and remembered.  A key is, of IPv4, the address
and in the lowest byte the length; of IPv6 17 bytes of the same.
"""

from __future__ import annotations

from penstock.model.flat import HEADER, Field
from penstock.model.sets import FAMILIES

Key = int | bytes
_ADD, _REMOVE = 1, 2
_FAMILY_AT, _LENGTH_AT, _TOTAL_AT, _SLOT_AT = 8, 16, 32, 32
_LOW = 0xFFFFFFFF
_HEADER = 4 * HEADER


def key_of(family: str, address: int, length: int) -> Key:
    """A network as it is sorted."""
    return address << 8 | length if family == "v4" else (address << 8 | length).to_bytes(17, "big")


class Log:
    """The lines of a log, in memory that others may write, too."""

    __slots__ = ("_balance", "_changed", "_near", "_places", "_seen", "_words")

    def __init__(self, words: memoryview, places: memoryview) -> None:
        self._words, self._places = words, places
        self._forget()

    def _forget(self) -> None:
        self._seen = 0
        self._changed: dict[str, dict[Key, bool]] = {family: {} for family in FAMILIES}
        self._near: dict[int, set[int]] = {}
        self._balance = dict.fromkeys(FAMILIES, 0)

    # ── asking ───────────────────────────────────────────────────────────────

    @property
    def happened(self) -> int:
        """How many lines tell of changes that have happened."""
        count = self._words[_HEADER + Field.LOGGED]
        if count:
            move = self._words[self._at(count) - 1]
            count -= self._places[move >> _SLOT_AT] != move & _LOW
        return count

    @property
    def is_full(self) -> bool:
        """Whether there is no room for a line."""
        return self._words[_HEADER + Field.LOGGED] >= self._words[_HEADER + Field.LOG_ROOM]

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
        self._read()
        return self._balance[family]

    # ── writing ──────────────────────────────────────────────────────────────

    def settle(self) -> None:
        """Forget a change that was begun by somebody who was killed."""
        self._words[_HEADER + Field.LOGGED] = self.happened

    def append(
        self, family: str, address: int, length: int, *, is_added: bool, total: int, slot: int, place: int
    ) -> None:
        """Tell of a change that happens when a word is moved."""
        count = self._words[_HEADER + Field.LOGGED]
        first = (_ADD if is_added else _REMOVE) | FAMILIES.index(family) << _FAMILY_AT
        whole = address << 96 if family == "v4" else address
        at = self._at(count)
        self._words[at] = first | length << _LENGTH_AT | total << _TOTAL_AT
        self._words[at + 1], self._words[at + 2] = whole >> 64, whole & (1 << 64) - 1
        self._words[at + 3] = slot << _SLOT_AT | place
        self._words[_HEADER + Field.LOGGED] = count + 1

    # ── how ──────────────────────────────────────────────────────────────────

    def _at(self, number: int) -> int:
        return 4 * (self._words[_HEADER + Field.LOG] + number)

    def _read(self) -> None:
        """Learn what others, or this process, have written since."""
        count = self.happened
        if count < self._seen:
            self._forget()
        for number in range(self._seen, count):
            self._learn(number)
        self._seen = count

    def _learn(self, number: int) -> None:
        at = self._at(number)
        first, hi, lo, _ = self._words[at : at + 4].tolist()
        family, length = FAMILIES[first >> _FAMILY_AT & 255], first >> _LENGTH_AT & 255
        is_there = first & 255 == _ADD
        address = hi >> 32 if family == "v4" else hi << 64 | lo
        key = key_of(family, address, length)
        self._changed[family][key] = is_there
        self._balance[family] += 1 if is_there else -1
        if isinstance(key, int) and length > 24:
            self._near.setdefault(address >> 8, set()).add(key)
