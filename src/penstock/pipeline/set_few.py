"""What has to be written for a few entries to come into a set or go from it; nothing else of the set is read.

In: the map of one family, at rest, and keys.  Out: a `Step`, as `set_change` makes
one for whole contents.

    few = Few(spec, table, active=0, moment=boot_clock_ns(), folded=False)
    few.becoming({key: expiry})     ->  Step(first, last, gone, added, changed, grown)

The longest match of a trie tells what covers a prefix.  What lies beneath one is
walked only where entries have had expiries (`folded`): the state of an entry has
the latest of its own and those that cover it, so theirs may move.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

from penstock.kernel.map_batch import lookup_each
from penstock.kernel.maps import Map
from penstock.model.set_text import later
from penstock.model.sets import EXPIRY_MASK, HOLDS, REST, SetSpec
from penstock.pipeline.set_walk import beneath, cut, length_of

Values = dict[bytes, bytes]
#: A network that covers more entries than this is better added with all of them read at once.
MOST_BENEATH = 2048


class TooManyError(Exception):
    """What is to be changed covers more entries than are looked at one by one."""


@dataclass(frozen=True, slots=True)
class Step:
    """`first` is written before the banks are exchanged, `last` behind it, and `gone` removed then.

    `grown` is how many more entries the map has behind it.
    """

    first: Values = field(default_factory=dict)
    last: Values = field(default_factory=dict)
    gone: tuple[bytes, ...] = ()
    added: int = 0
    changed: int = 0
    grown: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """An entry of a map: the latest expiry of it and those that cover it, that of its own, and what it counted."""

    key: bytes
    late: int
    own: int
    counts: bytes


@dataclass(frozen=True, slots=True)
class Side:
    """What one content says of a key: whether it is in it, and the latest expiry around it, None without any."""

    asked: bool
    late: int | None


@dataclass(frozen=True, slots=True)
class _Becoming:
    """The value of an entry of a hash while banks are exchanged, and behind that, None if it goes."""

    during: bytes
    rest: bytes | None = None
    is_added: bool = False


class Few:
    """Entries of one map, looked up one by one."""

    def __init__(self, spec: SetSpec, table: Map, *, active: int, moment: int, folded: bool) -> None:
        self._table, self._active, self._moment = table, active, moment
        self._is_trie = spec.structure == "trie"
        self._is_folded = folded and self._is_trie
        self._head = struct.Struct("=QQ" if self._is_trie else "=Q")
        self._no_counts = bytes(table.size - self._head.size)

    def becoming(self, wanted: Mapping[bytes, int | None], longer: Container[bytes] = ()) -> Step:
        """Entries come or get these expiries; those with None go, if they are there.

        Those of `longer` that are there stay longer, never shorter.

        Raises:
            TooManyError: it covers more entries than are worth looking at one by one.
            KernelError: the kernel refuses a question.
        """
        return (self._networks if self._is_trie else self._keys)(wanted, longer)

    def _keys(self, wanted: Mapping[bytes, int | None], longer: Container[bytes]) -> Step:
        """Entries of a hash, each by itself: those that are alike become alike."""
        first, last, gone = Values(), Values(), []
        added = new = 0
        alike: dict[tuple[bytes | None, int | None, bool], _Becoming | None] = {}
        values = lookup_each(self._table, wanted)
        for (key, end), value in zip(wanted.items(), values, strict=True):
            form = value, end, key in longer
            if form not in alike:
                alike[form] = self._of_key(*form)
            if (one := alike[form]) is None:
                continue
            first[key] = one.during
            new += value is None
            if one.rest is None:
                gone.append(key)
            else:
                last[key] = one.rest
                added += one.is_added
        changed = len(last) - added
        return Step(first, last, tuple(gone), added, changed, new - len(gone))

    def _of_key(self, value: bytes | None, end: int | None, longer: bool) -> _Becoming | None:
        """What an entry of a hash has to be; None if it is that."""
        found = None if value is None else self._found(b"", value)
        if not _differs(end, found, longer):
            return None
        counts = found.counts if found else self._no_counts
        sides = Side(found is not None, found.own if found else None), Side(end is not None, end)
        during = self._during(b"", *sides, 0, counts)
        if end is None:
            return _Becoming(during)
        is_added = found is None or not self._is_live(found.own)
        return _Becoming(during, self._value(b"", end | REST, 0, counts), is_added=is_added)

    def _networks(self, wanted: Mapping[bytes, int | None], longer: Container[bytes]) -> Step:
        there = self._there(wanted)
        moved = {key: end for key, end in wanted.items() if _differs(end, there.get(key), key in longer)}
        first, last, wide = Values(), Values(), []
        coming = _Wide({key: end for key, end in moved.items() if end is not None})
        for key, end in moved.items():
            found = there.get(key)
            around = found or self._cover(key)
            old = Side(found is not None, around.late if around else None)
            late = coming.latest(key, self._staying(around, moved))
            own, counts = (found.own, found.counts) if found else (0, self._no_counts)
            own = own if end is None else end
            first[key] = self._during(key, old, Side(end is not None, late), own, counts)
            if end is not None:
                last[key] = self._value(key, (late or 0) | REST, own, counts)
            if late != old.late:
                wide.append(key)
        for found in self._beneath(wide):
            late = coming.latest(found.key, self._staying(found, moved))
            if late is not None and late != found.late and found.key not in moved:
                self._move(found, late, first, last)
        gone = tuple(key for key, end in moved.items() if end is None)
        dead = sum(key in there and not self._is_live(there[key].own) for key in last if key in moved)
        new = sum(key not in there for key in moved)
        added = new + dead
        return Step(first, last, gone, added, len(moved) - len(gone) - added, new - len(gone))

    def match(self, key: bytes) -> Found | None:
        """What the map finds for a key: in a trie the longest prefix that covers it or is it.  Raises KernelError."""
        value = self._table.lookup(key)
        return None if value is None else self._found(key, value)

    # ── how ──────────────────────────────────────────────────────────────────

    def _found(self, key: bytes, value: bytes) -> Found:
        state, *own = self._head.unpack_from(value)
        expiry, counts = state & EXPIRY_MASK, value[self._head.size :]
        if not own:
            return Found(key, expiry, expiry, counts)
        return Found(cut(key, own[0] & ~EXPIRY_MASK), expiry, own[0] & EXPIRY_MASK, counts)

    def _there(self, keys: Iterable[bytes]) -> dict[bytes, Found]:
        matches = ((key, self.match(key)) for key in keys)
        return {key: found for key, found in matches if found is not None and found.key == key}

    def _cover(self, key: bytes) -> Found | None:
        """The longest prefix that covers another."""
        length = length_of(key)
        return self.match(cut(key, length - 1)) if length else None

    def _beneath(self, keys: Iterable[bytes]) -> Iterator[Found]:
        """What these prefixes cover, each once; nothing where no state can have to move."""
        if not self._is_folded:
            return
        seen = set[bytes]()
        for key in keys:
            with closing(beneath(self._table, key, self._ghost)) as walk:
                found = list(islice(walk, MOST_BENEATH + 1))
            if len(found) > MOST_BENEATH:
                raise TooManyError
            for one, value in found:
                if one not in seen:
                    seen.add(one)
                    state, own = self._head.unpack_from(value)
                    counts = value[self._head.size :]
                    yield Found(one, state & EXPIRY_MASK, own & EXPIRY_MASK, counts)

    def _ghost(self, key: bytes) -> bytes | None:
        around = self.match(key)
        if around is not None and around.key == key:
            return None
        return self._value(key, around.late | HOLDS if around else 0, 0, self._no_counts)

    def _staying(self, at: Found | None, moved: Mapping[bytes, int | None]) -> int | None:
        """The latest expiry of an entry and those that cover it, of those that stay as they are; None without any."""
        late: int | None = None
        while at is not None and late != 0:
            if at.key not in moved:
                late = at.own if late is None else later(at.own, late)
            at = self._cover(at.key)
        return late

    def _move(self, found: Found, late: int, first: Values, last: Values) -> None:
        """An entry that stays is covered by others than before."""
        sides = Side(True, found.late), Side(True, late)
        first[found.key] = self._during(found.key, *sides, found.own, found.counts)
        last[found.key] = self._value(found.key, late | REST, found.own, found.counts)

    def _during(self, key: bytes, old: Side, new: Side, own: int, counts: bytes) -> bytes:
        """A value that answers for the old content while its bank counts, and for the new one from then on."""
        bits, ends = 0, []
        for bank, side in ((self._active, old), (1 - self._active, new)):
            if side.late is not None and self._is_live(side.late):
                bits |= 1 << bank
                ends.append(side.late)
            bits |= side.asked << bank + 2
        end = 0 if not ends or 0 in ends else max(ends)
        return self._value(key, end | bits, own, counts)

    def _value(self, key: bytes, state: int, own: int, counts: bytes) -> bytes:
        words = (state, own | length_of(key)) if self._is_trie else (state,)
        return self._head.pack(*words) + counts

    def _is_live(self, expiry: int) -> bool:
        return not expiry or expiry > self._moment


class _Wide:
    """Prefixes with expiries, to be found by what they cover."""

    def __init__(self, ends: Mapping[bytes, int]) -> None:
        self._ends = ends
        self._lengths = sorted({length_of(key) for key in ends})

    def latest(self, key: bytes, end: int | None) -> int | None:
        """The latest of an expiry, if there is one, and those of the prefixes that cover a key, or are it."""
        own = length_of(key)
        for length in self._lengths:
            if length <= own and (wide := self._ends.get(cut(key, length))) is not None:
                end = wide if end is None else later(end, wide)
        return end


def _differs(end: int | None, found: Found | None, longer: bool) -> bool:
    if end is None or found is None:
        return (end is None) != (found is None)
    return end != found.own and (not longer or later(end, found.own) == end)
