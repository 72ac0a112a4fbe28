"""A flat set in the kernel, with the methods of every live set.

    with open_set("threats") as threats:               set threats : net size 1M
        threats.update(["192.0.2.0/24"])               in place, while packets flow
        threats.replace(Path("drop.txt").read_bytes()) a new content, and the switch to it

Networks that stay come and go in place (`flat_batch.py`), a few without numpy and
whatever else the set holds, if they are longer than /18, or /16 of IPv6.  Other changes are
`flat_whole.py`'s.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from penstock.model.boot_clock import boot_clock_ns
from penstock.model.flat import FRONT_BYTES, LINE_BYTES, front_lines
from penstock.model.set_text import text_of
from penstock.model.sets import FLAT, FRONT, SetSpec
from penstock.pipeline.dynamic_set import DynamicSet
from penstock.pipeline.flat_batch import Batch
from penstock.pipeline.flat_blocks import NoRoomError
from penstock.pipeline.flat_content import Content
from penstock.pipeline.flat_slots import Slots
from penstock.pipeline.live_set import Changed, Entry, LiveSet
from penstock.pipeline.set_few import Few

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from penstock.kernel.maps import Map
    from penstock.model.set_text import Keys
    from penstock.pipeline.set_keys import Content as Many


#: Changes that are few: where numpy has to be imported first, and where it is there.
_FEW, _FEW_BY_NUMPY = 4096, 64


class FlatSet(LiveSet):
    """An open set that is searched flat."""

    def __init__(
        self,
        spec: SetSpec,
        maps: dict[str, Map],
        control: Map,
        lock: Callable[[], AbstractContextManager[None]] = nullcontext,
        place: Path | None = None,
    ) -> None:
        super().__init__(spec, maps, control, lock, place)
        #: The entries with a time.
        self.tries = LiveSet(spec.timed, {family: maps[family] for family in spec.families}, control)
        self.slots = Slots(maps[FLAT], place)
        self._mapped: tuple[tuple[int, int], Content] | None = None

    def close(self) -> None:
        """Let go of the maps; they live on where they are pinned or a program uses them."""
        self.slots.close()
        super().close()

    def take_over(self, other: LiveSet) -> None:
        """Go on with what another object of the same maps holds open, which it gives away."""
        if isinstance(other, FlatSet):
            self.slots.take(other.slots)

    # ── asking ───────────────────────────────────────────────────────────────

    def _finds(self, family: str, key: bytes) -> bool:
        address, length, bits = _network(key)
        if (content := self.content()) is not None:
            if length == bits:
                found = content.holds(family, address)
            else:
                found = any(
                    content.has(family, address >> bits - one << bits - one, one) for one in range(length + 1)
                )
            if found:
                return True
        return self.state.timed and self.tries._finds(family, key)

    @property
    def count(self) -> int:
        """How many entries there are, those among them that have expired and were not forgotten yet."""
        content = self.content()
        return (content.count if content else 0) + sum(self.state.counts.values())

    @property
    def parts(self) -> tuple[Map, ...]:
        """Every map that it has."""
        return (*super().parts, *(lines for slot in (0, 1) if (lines := self.slots.open(slot)) is not None))

    @property
    def memory(self) -> int:
        """The bytes that its content takes, without those of entries with a time."""
        lines = self.slots.open(self.bank)
        front = self.maps[FRONT].info.max_entries * FRONT_BYTES
        return front + (lines.info.max_entries * LINE_BYTES if lines else 0)

    def __iter__(self) -> Iterator[Entry]:
        """The entries that have not expired: those that stay, in order, and those with a time.

        They are read a few thousand at a time, of the content that is there when it begins.
        """
        content = self.content()
        for family in self.spec.families if content else ():
            assert content is not None
            for key in content.keys(family):
                octets = key.to_bytes(5, "big") if isinstance(key, int) else key
                trie_key = int(octets[-1]).to_bytes(4, sys.byteorder) + octets[:-1]
                yield Entry(text_of(self.spec, family, trie_key), None)
        yield from self.tries

    @property
    def bank(self) -> int:
        """The bank, and the slot, that counts."""
        return self.state.active & 1

    def content(self) -> Content | None:
        """What counts at this moment; None if there is nothing.  Raises KernelError."""
        bank = self.bank
        lines = self.slots.open(bank)
        if lines is None:
            self._mapped = None
        elif self._mapped is None or self._mapped[0] != (bank, lines.info.id):
            # A mapping takes the kernel a page table entry for each 4 KiB: milliseconds of a large content.
            self._mapped = (bank, lines.info.id), Content(lines.memory(), self.front(bank))
        return self._mapped[1] if self._mapped else None

    def front(self, bank: int) -> memoryview:
        """What packets ask first while that bank counts.  Raises KernelError."""
        size = front_lines(self.spec.size) * FRONT_BYTES
        return self.maps[FRONT].memory(part=slice(bank * size, (bank + 1) * size))

    # ── how ──────────────────────────────────────────────────────────────────

    def _update(self, wanted: Many | Keys) -> Changed:
        if done := self._in_place({}, wanted):
            return done
        from penstock.pipeline import flat_whole

        return flat_whole.update(self, wanted)

    def _discard(self, unwanted: Many | Keys) -> Changed:
        if done := self._in_place(unwanted, {}):
            return done
        from penstock.pipeline import flat_whole

        return flat_whole.discard(self, unwanted)

    def _exchange(self, *sides: Many | Keys) -> Changed:
        if done := self._in_place(*sides):
            return done
        from penstock.pipeline import flat_whole

        return flat_whole.exchange(self, *sides)

    def _replace(self, wanted: Many | Keys) -> Changed:
        from penstock.pipeline import flat_whole

        return flat_whole.replace(self, wanted)

    def _sweep(self) -> Changed:
        if not self.state.timed:
            return Changed(0, 0, 0)
        from penstock.pipeline import flat_whole

        return flat_whole.sweep(self)

    def _in_place(self, gone: Many | Keys, *come: Many | Keys) -> Changed | None:
        """A change of few entries that stay, if it can be done in place."""
        content, changes = self.content(), self._few(gone, *come)
        if content is None or changes is None:
            return None
        batch = Batch(content)
        try:
            for (family, key), is_added in changes.items():
                batch.change(family, *_network(key)[:2], is_added=is_added)
        except NoRoomError:
            return None
        for family in self.spec.families:
            count = content.count_of(family) + batch.grown(family) + self.state.counts[family]
            if batch.grown(family) > 0 and count > self.spec.size:
                if not self.state.timed:
                    raise self.full()
                return None
        came, went = batch.counts
        if came or went:
            batch.happen()
        return Changed(came, 0, went)

    def _few(self, *sides: Many | Keys) -> dict[tuple[str, bytes], bool] | None:
        """The keys of what goes, of the first side, and comes; None if it is not few, or has times."""
        if sum(map(_size, sides)) > (_FEW_BY_NUMPY if "numpy" in sys.modules else _FEW):
            return None
        changes: dict[tuple[str, bytes], bool] = {}
        for number, side in enumerate(sides):
            for family, one in side.items():
                for key, end in (one if isinstance(one, dict) else one.by_key()).items():
                    if (end and number) or self._has_time(family, key):
                        return None
                    changes[family, key] = number > 0
        return changes

    def _has_time(self, family: str, key: bytes) -> bool:
        """Whether this entry may lie in the tries."""
        if not self.state.timed:
            return False
        table, spec = self.tries.maps[family], self.spec.timed
        found = Few(spec, table, active=self.state.active, moment=boot_clock_ns(), folded=False).match(key)
        return found is not None and found.key == key

    def _recover(self) -> None:
        """Undo, or finish, what a writer left that was killed; nothing to do at rest."""
        if self.state.changing:
            from penstock.pipeline import flat_whole

            flat_whole.recover(self)
        if self.slots.is_used(1 - self.bank):
            self.slots.drop(1 - self.bank)
        if (content := self.content()) is not None:
            content.settle()


class DynamicFlatSet(DynamicSet, FlatSet):
    """An open flat set with what rules have added to it."""


def _network(key: bytes) -> tuple[int, int, int]:
    """The address, the length and the bits of a trie's key."""
    return int.from_bytes(key[4:], "big"), int.from_bytes(key[:4], sys.byteorder), 8 * len(key) - 32


def _size(entries: Many | Keys) -> int:
    return sum(map(len, entries.values()))
