"""A set in the kernel: looked into, and changed while packets flow.

    with open_set("threats") as threats:
        threats.update(["192.0.2.0/24", "2001:db8::/32"])      adds; packets meet all of them or none
        threats.discard(["192.0.2.0/24"])
        threats.replace(open("drop.txt", "rb").read())         what was there and is not in the text goes
        "192.0.2.9" in threats

Every change is whole: one that is refused (the set would be too full, a line is no
entry) leaves the set as it was, and so does one whose process is killed, or it is
done.  Adding an entry again lets it stay longer, never shorter.  Expired entries
are forgotten by the next change that sees them.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from penstock.errors import KernelError, LimitError
from penstock.kernel.maps import ANY, NOEXIST, Map
from penstock.model.closing import Closing
from penstock.model.sets import EXPIRY_MASK, HIDDEN, REST, SetSpec
from penstock.pipeline.set_change import Held, change, comparable, initial, settled, trie_order
from penstock.pipeline.set_keys import (
    Content,
    Entries,
    expiry_after,
    keys_of,
    nothing,
    read_entries,
    size,
    text_of,
)
from penstock.pipeline.set_maps import now, read_map

if TYPE_CHECKING:
    from numpy.typing import NDArray

Text = str | bytes | Iterable[str] | Content
"""Entries as text, or as they were read."""
Progress = Callable[[int, int], None]
_PART = 1 << 16
_ACTIVE, _CHANGING, _EXPIRING = 0, 1, 2
_COUNTS_AT = 2  # in 64-bit words


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change did: entries that came, that stay longer or shorter, that went."""

    added: int
    changed: int
    removed: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry; `expires_in` in seconds, None for one that stays; counted only where the set counts."""

    text: str
    expires_in: float | None
    packets: int | None = None
    bytes: int | None = None


class LiveSet(Closing):
    """An open set.  `lock` is held while it is changed."""

    def __init__(
        self,
        spec: SetSpec,
        maps: dict[str, Map],
        control: Map,
        lock: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.spec = spec
        self.maps = maps
        self.control = control
        self.progress: Progress = _silent
        """Told how much of what is to be written is written."""
        self._lock = lock
        self._words = control.view("u4")[0]
        self._counts = self._words.view("u8")[_COUNTS_AT : _COUNTS_AT + len(spec.families)]

    def close(self) -> None:
        """Let go of the maps; they live on where they are pinned or a program uses them."""
        for held in (*self.maps.values(), self.control):
            held.close()

    # ── asking ───────────────────────────────────────────────────────────────

    def __contains__(self, text: object) -> bool:
        return any(self._find(family, key) for family, key in keys_of(self.spec, str(text)))

    def _find(self, family: str, key: bytes) -> bool:
        """What a packet would be told."""
        value = self.maps[family].lookup(key)
        if value is None:
            return False
        state, active = int.from_bytes(value[:8], sys.byteorder), int(self._words[_ACTIVE])
        expiry = state & EXPIRY_MASK
        return bool((state & 3) >> active & 1) and (not expiry or now() < expiry)

    @property
    def count(self) -> int:
        """How many entries there are, those among them that have expired and were not forgotten yet."""
        return 0 if self._words[_ACTIVE] == HIDDEN else int(self._counts.sum())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Entry]:
        """The entries that have not expired, in the kernel's order."""
        if self._words[_ACTIVE] == HIDDEN:
            return
        asked = 2 + int(self._words[_ACTIVE])
        for family, table in self.maps.items():
            held = read_map(self.spec, table)
            moment = now()
            expiry = held.entries(self.spec).expiry
            for key, value, end in zip(held.keys, held.values.tolist(), expiry.tolist(), strict=True):
                if value[0] >> asked & 1 and (not end or moment < end):
                    left = (end - moment) / 1e9 if end else None
                    counts = value[-2:] if self.spec.counters else (None, None)
                    yield Entry(text_of(self.spec, family, key.tobytes()), left, *counts)

    # ── changing ─────────────────────────────────────────────────────────────

    def read(
        self, entries: Text, timeout: float | None = None, *, forever: bool = False, source: str = "entry"
    ) -> Content:
        """Entries as the set keeps them, with the ends that `update` would give them; `Content` as it is.

        Raises:
            PenstockError: one is no entry of this set.
        """
        if isinstance(entries, dict):
            return entries
        text = entries if isinstance(entries, str | bytes) else "\n".join(map(str, entries))
        raw, moment = text.encode() if isinstance(text, str) else text, now()
        return read_entries(self.spec, raw, self._expiry(timeout, moment, forever=forever), moment, source)

    def update(
        self, entries: Text, timeout: float | None = None, *, forever: bool = False, source: str = "entry"
    ) -> Changed:
        """Add entries: for `timeout` seconds, for ever, or as the policy says.

        `source` is what their text is called where a line of it is wrong.

        Raises:
            PenstockError: one is no entry of this set; nothing was added.
            LimitError: the set would have more than its size; nothing was added.
            KernelError: the kernel refuses it; nothing was added.
        """
        wanted, moment = self.read(entries, timeout, forever=forever, source=source), now()
        with self._changing():
            if self._is_few(wanted):
                return self._update_few(wanted)
            held = self._held()
            joined = {
                family: _joined(_live(held[family].entries(self.spec), moment), more)
                for family, more in wanted.items()
            }
            return self._put(held, joined)

    def discard(self, entries: Text) -> Changed:
        """Remove entries, written as they were added; those that are not there are passed over.

        Raises: as `update`.
        """
        unwanted = self.read(entries, forever=True)
        with self._changing():
            if size(unwanted) == 1 and not self._is_folded:
                return self._remove_few(unwanted)
            held = self._held()
            left = {}
            for family, found in held.items():
                entry = _live(found.entries(self.spec), now())
                keep = ~np.isin(comparable(entry.keys), comparable(unwanted[family].keys))
                left[family] = Entries(entry.keys[keep], entry.expiry[keep])
            return self._put(held, left)

    def replace(
        self, entries: Text, timeout: float | None = None, *, forever: bool = False, source: str = "entry"
    ) -> Changed:
        """Make these the only entries, in one step.  Raises: as `update`."""
        wanted = self.read(entries, timeout, forever=forever, source=source)
        with self._changing():
            return self._put(self._held(), wanted)

    def exchange(self, gone: Content, come: Content) -> Changed:
        """Remove these entries and let those be there with just these ends, in one step; the others stay.

        What both name stays or comes.

        Raises: as `update`.
        """
        with self._changing():
            held, moment = self._held(), now()
            after = {}
            for family, found in held.items():
                entry = _live(found.entries(self.spec), moment)
                named = [comparable(side[family].keys) for side in (gone, come) if len(side[family])]
                if named:
                    keep = ~np.isin(comparable(entry.keys), np.concatenate(named))
                    entry = Entries(entry.keys[keep], entry.expiry[keep])
                after[family] = _joined(entry, come[family])
            return self._put(held, after)

    def clear(self) -> Changed:
        """Remove every entry, in one step.  Raises KernelError."""
        with self._changing():
            return self._put(self._held(), nothing(self.spec))

    def sweep(self) -> Changed:
        """Remove the entries that have expired, which no packet meets any more.  Raises KernelError."""
        with self._changing():
            held, moment = self._held(), now()
            return self._put(
                held, {family: _live(one.entries(self.spec), moment) for family, one in held.items()}
            )

    # ── how ──────────────────────────────────────────────────────────────────

    @property
    def _is_folded(self) -> bool:
        """Whether the value of an entry may depend on others: prefixes of which some expire."""
        return self.spec.structure == "trie" and bool(self._words[_EXPIRING])

    def _is_few(self, wanted: Content) -> bool:
        ends = {end for entries in wanted.values() for end in entries.expiry.tolist()}
        return size(wanted) == 1 and not (self._is_folded or (self.spec.structure == "trie" and any(ends)))

    def _expiry(self, timeout: float | None, moment: int, *, forever: bool) -> int:
        if forever:
            return 0
        default = None if self.spec.timeout_ns is None else self.spec.timeout_ns / 1e9
        return expiry_after(default if timeout is None else timeout, moment)

    def _changing(self) -> AbstractContextManager[None]:
        return _Change(self._lock(), self._recover)

    def _update_few(self, wanted: Content) -> Changed:
        """One entry, in one step, whatever else the set holds."""
        family, entries = next(one for one in wanted.items() if len(one[1]))
        key, end = entries.keys[0].tobytes(), int(entries.expiry[0])
        table, at = self.maps[family], self.spec.families.index(family)
        # A trie would answer with a wider prefix; of one that is asked here no entry expires.
        found = None if self.spec.structure == "trie" else table.lookup(key)
        words = np.zeros(self.spec.value_words, np.uint64)
        before = 0
        if found is not None:
            words[:] = np.frombuffer(found, np.uint64)
            before = int(words[0]) & EXPIRY_MASK
            if before == 0 or (end and before >= end):
                return Changed(0, 0, 0)
        elif int(self._counts[at]) >= self.spec.size:
            return self._put_one_more(wanted)
        words[0] = end | REST
        if end:
            self._words[_EXPIRING] = 1
        try:
            table.update(key, words.tobytes(), NOEXIST if self.spec.structure == "trie" else ANY)
        except KernelError as error:
            if error.errno == errno.EEXIST:
                return Changed(0, 0, 0)
            if error.errno in (errno.E2BIG, errno.ENOSPC):
                raise self._full() from error
            raise
        if found is None:
            self._counts[at] += 1
        is_new = found is None or before <= now()
        return Changed(int(is_new), int(not is_new), 0)

    def _put_one_more(self, wanted: Content) -> Changed:
        """The count says that the set is full: what has expired makes room, or it is."""
        held, moment = self._held(), now()
        joined = {
            family: _joined(_live(held[family].entries(self.spec), moment), wanted[family]) for family in held
        }
        return self._put(held, joined)

    def _remove_few(self, unwanted: Content) -> Changed:
        family, entries = next(one for one in unwanted.items() if len(one[1]))
        if not self.maps[family].delete(entries.keys[0].tobytes()):
            return Changed(0, 0, 0)
        at = self.spec.families.index(family)
        self._counts[at] = max(int(self._counts[at]) - 1, 0)
        return Changed(0, 0, 1)

    def _held(self) -> dict[str, Held]:
        return {family: read_map(self.spec, table) for family, table in self.maps.items()}

    def _full(self) -> LimitError:
        return LimitError(
            f"@{self.spec.name} is full: it takes {self.spec.size:,} entries; it was left as it was",
            limit="entries of a set",
            hint=f"a larger `size` in the policy, behind `penstock set delete {self.spec.name}`",
        )

    def _is_too_much(self, entries: Entries) -> bool:
        return len(entries) > self.spec.size and len(np.unique(comparable(entries.keys))) > self.spec.size

    def _put(self, held: dict[str, Held], wanted: Content) -> Changed:
        """Let the set hold what is wanted: packets meet all of it or what was there."""
        if any(self._is_too_much(one) for one in wanted.values()):
            raise self._full()
        if any(entries.expiry.any() for entries in wanted.values()):
            self._words[_EXPIRING] = 1
        if not any(len(one.keys) for one in held.values()) or not size(wanted):
            return self._put_hidden(held, wanted)
        active = int(self._words[_ACTIVE])
        changes = {family: change(self.spec, held[family], wanted[family], active) for family in held}
        if all(one.is_empty for one in changes.values()):
            return Changed(0, 0, 0)
        self._words[_CHANGING] = 1
        self._write({family: one.first for family, one in changes.items()})
        self._words[_ACTIVE] = 1 - active
        self._write({family: one.last for family, one in changes.items()})
        for family, one in changes.items():
            self.maps[family].delete_all(one.gone)
        self._words[_CHANGING] = 0
        for at, family in enumerate(self.spec.families):
            self._counts[at] = len(held[family].keys) + changes[family].added - len(changes[family].gone)
        sums = [(one.added, one.changed, len(one.gone)) for one in changes.values()]
        return Changed(*(sum(column) for column in zip(*sums, strict=True)))

    def _put_hidden(self, held: dict[str, Held], wanted: Content) -> Changed:
        """A change from or to nothing: the set is empty meanwhile, and each entry is written or removed once."""
        self._words[_CHANGING] = 1
        self._words[_ACTIVE] = HIDDEN
        for family, one in held.items():
            self.maps[family].delete_all(one.keys)
        first = {family: initial(self.spec, entries) for family, entries in wanted.items()}
        self._write(first)
        self._words[_ACTIVE] = 0
        self._words[_CHANGING] = 0
        for at, family in enumerate(self.spec.families):
            self._counts[at] = len(first[family].keys)
        added = sum(len(one.keys) for one in first.values())
        return Changed(added, 0, sum(len(one.keys) for one in held.values()))

    def _write(self, parts: dict[str, Held]) -> None:
        total, done = sum(len(part.keys) for part in parts.values()), 0
        for family, part in parts.items():
            keys, values = part.keys, part.values
            if self.spec.structure == "trie" and len(keys) > 1:
                order = trie_order(keys)
                keys, values = keys[order], values[order]
            for at in range(0, len(keys), _PART):
                self._update(family, keys[at : at + _PART], values[at : at + _PART])
                done += len(keys[at : at + _PART])
                self.progress(done, total)

    def _update(self, family: str, keys: NDArray[np.uint8], values: NDArray[np.uint64]) -> None:
        try:
            self.maps[family].update_all(keys, values)
        except KernelError as error:
            self._recover()
            if error.errno in (errno.E2BIG, errno.ENOSPC):
                raise self._full() from error
            raise

    def _recover(self) -> None:
        """Undo, or finish, what a writer left that was killed; nothing to do at rest."""
        if not self._words[_CHANGING]:
            return
        active = int(self._words[_ACTIVE])
        for family, table in self.maps.items():
            held = read_map(self.spec, table)
            if active == HIDDEN:
                table.delete_all(held.keys)
                left = 0
            else:
                kept, gone = settled(self.spec, held, active)
                if len(kept.keys):
                    table.update_all(kept.keys, kept.values)
                table.delete_all(gone)
                left = len(held.keys) - len(gone)
            self._counts[self.spec.families.index(family)] = left
        if active == HIDDEN:
            self._words[_ACTIVE] = 0
        self._words[_CHANGING] = 0


class _Change:
    """The lock, and behind it a set at rest."""

    def __init__(self, lock: AbstractContextManager[None], recover: Callable[[], None]) -> None:
        self._lock, self._recover = lock, recover

    def __enter__(self) -> None:
        self._lock.__enter__()
        try:
            self._recover()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise

    def __exit__(self, *details: object) -> None:
        self._lock.__exit__(None, None, None)


def _silent(_done: int, _total: int) -> None:
    """Nobody is told."""


def _live(entries: Entries, moment: int) -> Entries:
    keep = (entries.expiry == 0) | (entries.expiry > np.uint64(moment))
    return entries if keep.all() else Entries(entries.keys[keep], entries.expiry[keep])


def _joined(one: Entries, more: Entries) -> Entries:
    return Entries(np.concatenate([one.keys, more.keys]), np.concatenate([one.expiry, more.expiry]))


__all__ = ["Changed", "Entry", "LiveSet"]
