"""Changes of a flat set that happen at once and in place: a few of them, without numpy.

    batch = Batch(content)
    batch.change("v4", address, 24, is_added=True)      as often as need be; nobody meets it yet
    batch.happen()                                      packets meet all of it

New lines are written behind the others, where nobody reads.  What words are to name is
kept here till the end, and asked before the memory, so that each change sees those before it.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

from penstock.model.flat import ROOT_BITS, Field
from penstock.pipeline.flat_blocks import NoRoomError, moved_v4, moved_v6
from penstock.pipeline.flat_content import Content, FewMoves
from penstock.pipeline.flat_log import Key, key_of, line_of

if TYPE_CHECKING:
    from collections.abc import Iterator


class Batch:
    """Some changes of a content."""

    def __init__(self, content: Content) -> None:
        self._content, self.words = content, content.words
        self.slot_of, self.home, self.put = content.slot_of, content.home, content.put
        #: Lines from here on are of this batch.
        self._first = content.header(Field.NEXT)
        self._changed: dict[Key, bool] = {}
        self._near: dict[int, dict[int, bool]] = {}
        #: Words, and what they are to name.
        self.moves: dict[int, int] = {}
        self.changes: list[tuple[str, int, int, bool]] = []

    # ── asking: what is there behind the changes so far ──────────────────────

    def has(self, family: str, address: int, length: int) -> bool:
        """Whether this very network is there."""
        changed = self._changed.get(key_of(family, address, length))
        return self._content.has(family, address, length) if changed is None else changed

    def beside(self, address: int) -> Iterator[int]:
        """The networks of IPv4 that are longer than /24 and in this address's /24."""
        changed = self._near.get(address >> 8, {})
        yield from (key for key in self._content.beside(address) if key not in changed)
        yield from (key for key, is_there in changed.items() if is_there)

    def place(self, slot: int) -> int:
        """What a word of a root or a block names."""
        return self.moves[slot] if slot in self.moves else self._content.places[slot]

    def children(self, begin: int, count: int) -> list[int]:
        """What so many of them name."""
        found: list[int] = self._content.places[begin : begin + count].tolist()
        moves = self.moves
        return [moves.get(slot, place) for slot, place in enumerate(found, begin)] if moves else found

    def grown(self, family: str) -> int:
        """How many more networks of a family there are."""
        return sum(1 if is_added else -1 for of, _, _, is_added in self.changes if of == family)

    @property
    def counts(self) -> tuple[int, int]:
        """How many networks come, and how many go."""
        came = sum(is_added for *_, is_added in self.changes)
        return came, len(self.changes) - came

    # ── changing ─────────────────────────────────────────────────────────────

    def change(self, family: str, address: int, length: int, *, is_added: bool) -> None:
        """One network more or less, if it is not so already; each once in a batch.  Raises NoRoomError."""
        if self.has(family, address, length) == is_added:
            return
        if length <= ROOT_BITS[family] or len(self.changes) >= self._content.log.room:
            raise NoRoomError
        moved = moved_v4 if family == "v4" else moved_v6
        slot, place = moved(self, address, length, is_added=is_added)
        if slot >= 8 * self._first:
            self._content.places[slot] = place
        elif place != self.place(slot):
            self.moves[slot] = place
        key = key_of(family, address, length)
        self._changed[key] = is_added
        if isinstance(key, int) and length > 24:
            self._near.setdefault(address >> 8, {})[key] = is_added
        self.changes.append((family, address, length, is_added))

    def happen(self) -> None:
        """Let packets meet all of it, from one store on."""
        content, moves = self._content, list(self.moves.items())
        olds = [(slot, content.places[slot], place) for slot, place in moves]
        lines = [line_of(change, move) for change, move in zip_longest(self.changes, olds)]
        content.carry_out(b"".join(lines), FewMoves(content, moves, self.come))

    @property
    def come(self) -> list[tuple[str, int, int]]:
        """The networks that come."""
        return [(family, address, length) for family, address, length, is_added in self.changes if is_added]
