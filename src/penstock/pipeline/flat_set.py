"""A flat set in the kernel, with the methods of every live set.

    with open_set("threats") as threats:               set threats : net size 1M
        threats.update(["192.0.2.0/24"])               in place, while packets flow
        threats.replace(Path("drop.txt").read_bytes()) a new content, and the switch to it

One network longer than /16 comes and goes in place (`flat_content.py`).  Any other
change makes a new content beside the old one, puts it into the slot of the bank
that does not count, and moves the banks by one store; that moves the tries beside
it, too, where entries with a time lie.  What is in the other slot is given back
when no packet looks into it any more.  A writer that is killed leaves a slot that
does not count, and the next change empties it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.errors import KernelError
from penstock.model.flat import LINE_BYTES
from penstock.model.sets import FLAT, SetSpec
from penstock.pipeline.dynamic_set import DynamicSet
from penstock.pipeline.flat_content import Content, filling
from penstock.pipeline.flat_keys import nothing, packed, unpacked
from penstock.pipeline.flat_slots import Slots
from penstock.pipeline.live_set import Changed, Entry, LiveSet, Text
from penstock.pipeline.set_change import Change, Held, change, settled
from penstock.pipeline.set_control import now
from penstock.pipeline.set_keys import Entries, arrays_of
from penstock.pipeline.set_maps import create_lines, read_map
from penstock.pipeline.set_text import keys_of, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from penstock.kernel.maps import Map
    from penstock.pipeline.set_keys import Content as Wanted
    from penstock.pipeline.set_text import Keys

    Flat = dict[str, NDArray[Any]]


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
        self._tables = {family: maps[family] for family in spec.families}
        self._tries = LiveSet(spec.timed, self._tables, control)
        self._slots = Slots(maps[FLAT], place)
        self._mapped: tuple[int, Content] | None = None

    def close(self) -> None:
        """Let go of the maps; they live on where they are pinned or a program uses them."""
        self._slots.close()
        super().close()

    def take_over(self, other: LiveSet) -> None:
        """Go on with what another object of the same maps holds open, which it gives away."""
        if isinstance(other, FlatSet):
            self._slots.take(other._slots)

    # ── asking ───────────────────────────────────────────────────────────────

    def __contains__(self, text: object) -> bool:
        return any(self._finds(family, key) for family, key in keys_of(self.spec, str(text)))

    def _finds(self, family: str, key: bytes) -> bool:
        content = self._content()
        length, address = int.from_bytes(key[:4], "little"), int.from_bytes(key[4:], "big")
        bits = 8 * len(key[4:])
        if content is not None:
            if length == bits:
                whole = address << 128 - bits
                found = content.holds(family, whole >> 64, whole & (1 << 64) - 1)
            else:
                found = any(content.has(family, one) for one in _covering(family, address, length))
            if found:
                return True
        return self.state.timed and self._tries._find(family, key)

    @property
    def count(self) -> int:
        """How many entries there are, those among them that have expired and were not forgotten yet."""
        content = self._content()
        return (content.count if content else 0) + sum(self.state.counts.values())

    @property
    def memory(self) -> int:
        """The bytes that its content takes, without those of entries with a time."""
        lines = self._slots.open(self._bank)
        return lines.info.max_entries * LINE_BYTES if lines else 0

    def __iter__(self) -> Iterator[Entry]:
        """The entries that have not expired: those that stay, in order, and those with a time."""
        for family, keys in self._flat().items():
            for key in unpacked(family, keys):
                yield Entry(text_of(self.spec, family, key.tobytes()), None)
        yield from self._tries

    @property
    def _bank(self) -> int:
        return self.state.active & 1

    def _content(self) -> Content | None:
        """What counts at this moment; None if there is nothing."""
        lines = self._slots.open(self._bank)
        if lines is None:
            self._mapped = None
        elif self._mapped is None or self._mapped[0] != lines.info.id:
            # A mapping takes the kernel a page table entry for each 4 KiB: milliseconds of a large content.
            self._mapped = lines.info.id, Content(lines.view(np.uint64))
        return self._mapped[1] if self._mapped else None

    def _flat(self) -> Flat:
        content = self._content()
        return {f: content.keys(f) if content else nothing(f) for f in self.spec.families}

    # ── changing ─────────────────────────────────────────────────────────────

    def update(
        self, entries: Text, timeout: float | None = None, *, forever: bool = False, source: str = "entry"
    ) -> Changed:
        """Add entries: for `timeout` seconds, or for ever.  Raises: as LiveSet.update."""
        wanted, moment = self._arrays(entries, timeout, forever=forever, source=source), now()
        with self._changing():
            stay, timed = _split(wanted)
            if not any(map(len, timed.values())) and (done := self._in_place(stay, adding=True)):
                return done
            held = self._held()
            joined = {
                family: _together(_live(held[family].entries(self.spec.timed), moment), timed[family])
                for family in timed
            }
            if not any(map(len, stay.values())):
                return self._put(held, None, joined)
            flat = {family: _union(keys, stay[family]) for family, keys in self._flat().items()}
            return self._put(held, flat, joined)

    def discard(self, entries: Text) -> Changed:
        """Remove entries, written as they were added; others are passed over.  Raises: as LiveSet.update."""
        unwanted = _split(self._arrays(entries, forever=True))[0]
        with self._changing():
            if done := self._in_place(unwanted, adding=False):
                return done
            held = self._held()
            return self._put(held, *self._left(held, unwanted))

    def replace(
        self, entries: Text, timeout: float | None = None, *, forever: bool = False, source: str = "entry"
    ) -> Changed:
        """Make these the only entries, in one step.  Raises: as LiveSet.update."""
        wanted = self._arrays(entries, timeout, forever=forever, source=source)
        with self._changing():
            stay, timed = _split(wanted)
            flat = {family: _union(nothing(family), keys) for family, keys in stay.items()}
            return self._put(self._held(), flat, timed)

    def exchange(self, gone: Wanted | Keys, come: Wanted | Keys) -> Changed:
        """Remove these entries and let those be there with just these ends, in one step; the others stay.

        What both name stays or comes.  Raises: as LiveSet.update.
        """
        gone, come = arrays_of(self.spec, gone), arrays_of(self.spec, come)
        with self._changing():
            held = self._held()
            named = {f: packed(f, np.concatenate([gone[f].keys, come[f].keys])) for f in self.spec.families}
            flat, timed = self._left(held, named)
            stay, more = _split(come)
            return self._put(
                held,
                {family: _union(flat[family], stay[family]) for family in flat},
                {family: _together(timed[family], more[family]) for family in timed},
            )

    def sweep(self) -> Changed:
        """Remove the entries that have expired, which no packet meets any more.  Raises KernelError."""
        with self._changing():
            held, moment = self._held(), now()
            timed = self.spec.timed
            return self._put(held, None, {f: _live(one.entries(timed), moment) for f, one in held.items()})

    # ── how ──────────────────────────────────────────────────────────────────

    def _arrays(
        self, entries: Text, timeout: float | None = None, *, forever: bool = False, source: str = "entry"
    ) -> Wanted:
        return arrays_of(self.spec, self.read(entries, timeout, forever=forever, source=source))

    def _held(self) -> dict[str, Held]:
        """What the tries hold."""
        return {family: read_map(self.spec.timed, table) for family, table in self._tables.items()}

    def _left(self, held: dict[str, Held], unwanted: Flat) -> tuple[Flat, Wanted]:
        """What is there without some entries."""
        flat = {family: keys[~np.isin(keys, unwanted[family])] for family, keys in self._flat().items()}
        timed, moment = {}, now()
        for family, one in held.items():
            timed[family] = _without(family, _live(one.entries(self.spec.timed), moment), unwanted[family])
        return flat, timed

    def _in_place(self, keys: Flat, *, adding: bool) -> Changed | None:
        """A change of one entry that stays, if it can be done in place."""
        content = self._content()
        if content is None or sum(map(len, keys.values())) != 1:
            return None
        family = next(one for one, found in keys.items() if len(found))
        key = keys[family][0].item()
        if self.state.timed and np.isin(keys[family], self._timed_keys(family)).any():
            return None
        if adding and content.count_of(family) + self.state.counts[family] >= self.spec.size:
            return None
        done = content.add(family, key) if adding else content.remove(family, key)
        if done is None:
            return None
        return Changed(int(done and adding), 0, int(done and not adding))

    def _timed_keys(self, family: str) -> NDArray[Any]:
        return packed(family, read_map(self.spec.timed, self._tables[family]).keys)

    def _put(self, held: dict[str, Held], flat: Flat | None, timed: Wanted) -> Changed:
        """Let the set hold this: packets meet all of it or what was there.  None leaves what stays as it is."""
        before = self._flat() if flat is not None or any(map(len, timed.values())) else {}
        after = before if flat is None else flat
        timed = {f: _without(f, one, after[f]) if after else one for f, one in timed.items()}
        self._check_size(after, timed)
        moment = now()
        tries = {f: change(self.spec.timed, held[f], timed[f], self._bank, moment) for f in held}
        same = flat is None or all(np.array_equal(before[f], after[f]) for f in after)
        if same and all(one.is_empty for one in tries.values()):
            return Changed(0, 0, 0)
        self._exchange(None if same else after, tries, timed)
        return _counted(before, after, tries)

    def _check_size(self, flat: Mapping[str, NDArray[Any]], timed: Wanted) -> None:
        for family, one in timed.items():
            count = len(one) and len(np.unique(packed(family, one.keys)))
            if len(flat.get(family, ())) + count > self.spec.size:
                raise self.full()

    def _exchange(self, flat: Flat | None, tries: dict[str, Change], timed: Wanted) -> None:
        active = self._bank
        self._fill(1 - active, flat)
        self.progress(0, 1)
        self.state.changing = True
        if any(map(len, timed.values())):
            self.state.timed = self.state.expiring = True
        try:
            self._write_tries({family: one.first for family, one in tries.items()})
        except KernelError as error:
            raise self.refused(error) from error
        self.state.active = 1 - active
        self._write_tries({family: one.last for family, one in tries.items()})
        for family, one in tries.items():
            self._tables[family].delete_all(one.gone)
        self.progress(1, 1)
        self._mapped = None
        self._slots.drop(active)
        self._rest()

    def _fill(self, slot: int, flat: Flat | None) -> None:
        """Put a content into a slot; None for the one that is in the other."""
        if flat is None:
            lines = self._slots.open(1 - slot)
            if lines is not None:
                self._slots.put(slot, lines.duplicate())
            return
        if not any(map(len, flat.values())):
            return
        made = filling(flat)
        lines = create_lines(self.spec.name, made.total)
        try:
            Content(lines.view(np.uint64)).fill(made)
            self._slots.put(slot, lines)
        except BaseException:
            lines.close()
            raise

    def _write_tries(self, parts: dict[str, Held]) -> None:
        for family, part in parts.items():
            if len(part.keys):
                self._tables[family].update_all(part.keys, part.values)

    def _rest(self) -> None:
        """Nothing is under way any more; count the tries."""
        timed = False
        for family, table in self._tables.items():
            count = len(table.read_all()[0]) if self.state.timed else 0
            self.state.count(family, count)
            timed = timed or count > 0
        self.state.timed, self.state.changing = timed, False

    def _recover(self) -> None:
        """Undo, or finish, what a writer left that was killed; nothing to do at rest."""
        active = self._bank
        if self.state.changing:
            for table in self._tables.values():
                kept, gone = settled(self.spec.timed, read_map(self.spec.timed, table), active)
                if len(kept.keys):
                    table.update_all(kept.keys, kept.values)
                table.delete_all(gone)
            self._rest()
        if self._slots.is_used(1 - active):
            self._slots.drop(1 - active)
        if (content := self._content()) is not None:
            content.settle()


class DynamicFlatSet(DynamicSet, FlatSet):
    """An open flat set with what rules have added to it."""


def _split(wanted: Wanted) -> tuple[Flat, Wanted]:
    """The keys of entries that stay, and the entries with a time."""
    stay, timed = {}, {}
    for family, one in wanted.items():
        stays = one.expiry == 0
        stay[family] = packed(family, one.keys[stays])
        timed[family] = Entries(one.keys[~stays], one.expiry[~stays])
    return stay, timed


def _union(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """The keys of both, sorted, each once."""
    both = np.concatenate([one, other])
    both.sort()
    keep = np.ones(len(both), bool)
    keep[1:] = both[1:] != both[:-1]
    return both if keep.all() else both[keep]


def _without(family: str, entries: Entries, keys: NDArray[Any]) -> Entries:
    if not len(entries):
        return entries
    keep = ~np.isin(packed(family, entries.keys), keys)
    return Entries(entries.keys[keep], entries.expiry[keep])


def _live(entries: Entries, moment: int) -> Entries:
    keep = entries.expiry > np.uint64(moment)
    return Entries(entries.keys[keep], entries.expiry[keep])


def _together(one: Entries, more: Entries) -> Entries:
    return Entries(np.concatenate([one.keys, more.keys]), np.concatenate([one.expiry, more.expiry]))


def _covering(family: str, address: int, length: int) -> Iterator[Any]:
    """The keys of all networks that a network lies in, and its own."""
    bits = 32 if family == "v4" else 128
    for count in range(length + 1):
        number = (address >> bits - count << bits - count) << 8 | count
        yield number if family == "v4" else number.to_bytes(17, "big").rstrip(b"\0")


def _counted(before: Flat, after: Flat, tries: Mapping[str, Change]) -> Changed:
    """What came, what stays another time, what went; an entry that gets a time, or loses it, stays."""
    added = changed = removed = 0
    for family, one in tries.items():
        old, new = before.get(family, nothing(family)), after.get(family, nothing(family))
        come = np.setdiff1d(new, old, assume_unique=True) if new is not old else nothing(family)
        gone = np.setdiff1d(old, new, assume_unique=True) if new is not old else nothing(family)
        lost, got = packed(family, one.gone), packed(family, one.last.keys)
        moved = int(np.isin(come, lost).sum() + np.isin(gone, got).sum())
        added += len(come) + one.added - moved
        removed += len(gone) + len(one.gone) - moved
        changed += one.changed + moved
    return Changed(int(added), int(changed), int(removed))
