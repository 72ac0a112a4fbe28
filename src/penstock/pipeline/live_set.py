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

A change of few entries looks at these alone and imports no numpy; `set_whole` does
those of many, and `replace`.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from penstock.errors import KernelError, LimitError, PenstockError
from penstock.kernel.map_batch import delete_each
from penstock.kernel.maps import Map
from penstock.model.boot_clock import boot_clock_ns
from penstock.model.closing import Closing
from penstock.model.set_text import Keys, expiry_after, keys_of, read_lines
from penstock.model.sets import HIDDEN, LONGEST_S, SetSpec
from penstock.pipeline.set_control import AtRest, Control
from penstock.pipeline.set_few import Few, Step, TooManyError
from penstock.pipeline.set_listing import listed

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from penstock.model.prefixes import Prefixes
    from penstock.pipeline.set_keys import Content

Text: TypeAlias = "str | bytes | Iterable[object] | Prefixes | NDArray[Any] | Content | Keys"
"""Entries as text, as what becomes text (addresses and networks of `ipaddress`), as arrays, or as they were read."""
Progress = Callable[[int, int], None]
PART = 1 << 16
#: Texts that are no longer are read line by line, unless numpy is there already; so many entries are always few.
_SHORT_TEXT, _SHORTER_TEXT, _FEW = 1 << 19, 1 << 13, 256
#: One entry that is looked up and written by itself costs what this many cost that are all read.
_DEARER = 8


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change did: entries that came, that stay longer or shorter, that went."""

    added: int
    changed: int
    removed: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry; `expires_in` in seconds, None for one that stays; counted only where the set counts.

    One that a rule has added says so; the same may have been put in beside it.
    """

    text: str
    expires_in: float | None
    packets: int | None = None
    bytes: int | None = None
    by_rule: bool = False


class LiveSet(Closing):
    """An open set.  `lock` is held while it is changed."""

    def __init__(
        self,
        spec: SetSpec,
        maps: dict[str, Map],
        control: Map,
        lock: Callable[[], AbstractContextManager[None]] = nullcontext,
        place: Path | None = None,
    ) -> None:
        """`place` is where the maps are pinned, if they are."""
        self.spec = spec
        self.maps = maps
        self.control = control
        self.place = place
        self.state = Control(control, spec.families)
        self.progress: Progress = _silent
        """Told how much of what is to be written is written."""
        self._lock = lock

    def close(self) -> None:
        """Let go of the maps; they live on where they are pinned or a program uses them."""
        for held in (*self.maps.values(), self.control):
            held.close()

    def take_over(self, other: LiveSet) -> None:
        """Go on with what another object of the same maps holds open beside them, which it gives away."""

    # ── asking ───────────────────────────────────────────────────────────────

    def __contains__(self, text: object) -> bool:
        """Whether a packet would find it; of a range, each of its ports or networks."""
        return all(self._finds(family, key) for family, key in keys_of(self.spec, str(text)))

    def _finds(self, family: str, key: bytes) -> bool:
        """What a packet would be told."""
        value, active = self.maps[family].lookup(key), self.state.active
        if value is None or not self.state.holds(value, active):
            return False
        return not self.state.has_ended(value, boot_clock_ns())

    @property
    def count(self) -> int:
        """How many entries there are, those among them that have expired and were not forgotten yet."""
        return 0 if self.state.active == HIDDEN else sum(self.state.counts.values())

    @property
    def parts(self) -> tuple[Map, ...]:
        """Every map that it has."""
        return (self.control, *self.maps.values())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Entry]:
        """The entries that have not expired, in the kernel's order, a few thousand read at a time."""
        for text, end, moment, counts in listed(self.spec, self.maps, self.state):
            left = (end - moment) / 1e9 if end else None
            packets, octets = counts or (None, None)
            yield Entry(text, left, packets, octets)

    # ── changing ─────────────────────────────────────────────────────────────

    def read(
        self, entries: Text, timeout: float | None = None, *, forever: bool = False, source: str = "entry"
    ) -> Content | Keys:
        """Entries as the set keeps them, with the ends that `update` would give them; what was read as it is.

        `source` is what their text is called where a line of it is wrong.

        Raises:
            PenstockError: one is no entry of this set.
        """
        if isinstance(entries, dict):
            return entries
        moment = boot_clock_ns()
        expiry = self._expiry(timeout, moment, forever=forever)
        if not isinstance(entries, str | bytes | tuple | list) and "numpy" in sys.modules:
            from penstock.pipeline.set_arrays import content_of

            if (content := content_of(self.spec, entries, expiry)) is not None:
                return content
        text = _bytes_of(entries)
        if len(text) <= (_SHORTER_TEXT if "numpy" in sys.modules else _SHORT_TEXT):
            return read_lines(self.spec, text.decode("utf-8-sig", "replace"), expiry, moment, source)
        from penstock.pipeline.set_keys import read_entries

        return read_entries(self.spec, text, expiry, moment, source)

    def update(
        self, entries: Text, timeout: float | None = None, *, forever: bool = False, source: str = "entry"
    ) -> Changed:
        """Add entries: for `timeout` seconds, for ever, or as the policy says.

        Raises:
            PenstockError: one is no entry of this set; nothing was added.
            LimitError: the set would have more than its size; nothing was added.
            KernelError: the kernel refuses it; nothing was added.
        """
        wanted = self.read(entries, timeout, forever=forever, source=source)
        with self._changing():
            return self._update(wanted)

    def discard(self, entries: Text) -> Changed:
        """Remove entries, written as they were added; those that are not there are passed over.

        Raises: as `update`.
        """
        unwanted = self.read(entries, forever=True)
        with self._changing():
            return self._discard(unwanted)

    def exchange(
        self, gone: Content | Keys, come: Content | Keys, more: Content | Keys | None = None
    ) -> Changed:
        """Remove these entries and let those be there with just these ends, in one step; the others stay.

        What several name stays or comes.  Of `more` what is there stays longer, never shorter.

        Raises: as `update`.
        """
        with self._changing():
            return self._exchange(gone, come, more or {})

    def exchange_claims(self, gone: Content | Keys, come: Content | Keys) -> Changed:
        """As `exchange`, for what commands and feeds claim: what rules have added stays.  Raises: as `update`."""
        return self.exchange(gone, come)

    def replace(
        self, entries: Text, timeout: float | None = None, *, forever: bool = False, source: str = "entry"
    ) -> Changed:
        """Make these the only entries, in one step.  Raises: as `update`."""
        wanted = self.read(entries, timeout, forever=forever, source=source)
        with self._changing():
            return self._replace(wanted)

    def clear(self) -> Changed:
        """Remove every entry, in one step.  Raises KernelError."""
        return self.replace("")

    def clear_added(self) -> int:
        """Remove what rules have added, which to this kind of set they cannot; how many entries went."""
        return 0

    def sweep(self) -> Changed:
        """Remove the entries that have expired, which no packet meets any more.  Raises KernelError."""
        with self._changing():
            return self._sweep()

    # ── how ──────────────────────────────────────────────────────────────────

    def full(self) -> LimitError:
        """What is said of entries for which there is no room."""
        return LimitError(
            f"@{self.spec.name} is full: it takes {self.spec.size:,} entries; it was left as it was",
            limit="entries of a set",
            hint="for more: write a larger `size` in the policy, and apply it again",
        )

    def refused(self, error: KernelError) -> PenstockError:
        """What a failed write is to the caller; what was written is taken back."""
        self._recover()
        return self.full() if error.errno in (errno.E2BIG, errno.ENOSPC) else error

    def _update(self, wanted: Content | Keys) -> Changed:
        if done := self._put_many({}, wanted):
            return done
        few = self._few_of(wanted)
        if few and (done := self._put_few(few, few)):
            return done
        from penstock.pipeline import set_whole

        return set_whole.update(self, wanted)

    def _discard(self, unwanted: Content | Keys) -> Changed:
        if done := self._put_many(unwanted, {}):
            return done
        few = self._few_of(unwanted)
        if few and (done := self._put_few({family: dict.fromkeys(keys) for family, keys in few.items()})):
            return done
        from penstock.pipeline import set_whole

        return set_whole.discard(self, unwanted)

    def _exchange(self, *sides: Content | Keys) -> Changed:
        gone, come, more = sides
        if not any(map(len, come.values())) and (done := self._put_many(gone, more)):
            return done
        few = [one for side in sides if (one := self._few_of(side)) is not None]
        if len(few) == len(sides):
            away, exact, longer = few
            both = {f: {**dict.fromkeys(away[f]), **longer.get(f, {}), **exact[f]} for f in away}
            if done := self._put_few(both, {f: longer.get(f, {}).keys() - exact[f].keys() for f in both}):
                return done
        from penstock.pipeline import set_whole

        return set_whole.exchange(self, *sides)

    def _replace(self, wanted: Content | Keys) -> Changed:
        from penstock.pipeline import set_whole

        return set_whole.replace(self, wanted)

    def _sweep(self) -> Changed:
        from penstock.pipeline import set_whole

        return set_whole.sweep(self)

    def _expiry(self, timeout: float | None, moment: int, *, forever: bool) -> int:
        if forever:
            return 0
        if timeout is not None and not timeout <= LONGEST_S:
            raise PenstockError("an entry stays for at most a hundred years, or for ever")
        default = None if self.spec.timeout_ns is None else self.spec.timeout_ns / 1e9
        return expiry_after(default if timeout is None else timeout, moment)

    def _few_of(self, entries: Content | Keys) -> Keys | None:
        """The same, if they are so few that each is better looked up by itself."""
        count = sum(len(one) for one in entries.values())
        if count > _FEW and count * _DEARER > self.count:
            return None
        return {family: one if isinstance(one, dict) else one.by_key() for family, one in entries.items()}

    def _put_many(self, gone: Content | Keys, come: Content | Keys) -> Changed | None:
        """What goes and what comes of a hash, if it is many and read as arrays; None if it is done otherwise."""
        every = [one for side in (gone, come) for one in side.values() if len(one)]
        if (
            self.spec.structure != "hash"
            or sum(map(len, every)) <= _FEW
            or any(isinstance(one, dict) for one in every)
        ):
            return None
        from penstock.pipeline import set_many

        return set_many.exchange(self, cast("Content", gone), cast("Content", come))

    def _changing(self) -> AbstractContextManager[None]:
        return AtRest(self._lock(), self._recover)

    def _put_few(
        self,
        wanted: Mapping[str, Mapping[bytes, int | None]],
        longer: Mapping[str, Container[bytes]] | None = None,
    ) -> Changed | None:
        """Let these be there, or go where they are None; None if all have to be read for it.

        Those of `longer` that are there stay longer, never shorter.

        Raises:
            LimitError: there is room for fewer, and none has expired.
        """
        state = self.state
        moment, folded = boot_clock_ns(), state.expiring and self.spec.structure == "trie"
        # A walk may leave a ghost behind if its process is killed.
        state.changing = folded
        steps = {}
        try:
            for family, entries in wanted.items():
                few = Few(self.spec, self.maps[family], active=state.active, moment=moment, folded=folded)
                steps[family] = few.becoming(entries, (longer or {}).get(family, ())) if entries else Step()
        except TooManyError:
            state.changing = False
            return None
        state.changing = False
        counts = state.counts
        if any(one.grown > 0 and counts[f] + one.grown > self.spec.size for f, one in steps.items()):
            if not state.may_have_expired(moment):
                raise self.full()
            return None
        state.will_expire(end or 0 for entries in wanted.values() for end in entries.values())
        return self._carry_out(steps)

    def _carry_out(self, steps: Mapping[str, Step]) -> Changed:
        state = self.state
        # Of one entry too: the count follows, and whoever is killed in between leaves a wrong one.
        state.changing = True
        if sum(len(step.first) for step in steps.values()) > 1:
            self._write({family: step.first for family, step in steps.items()})
            state.active = 1 - state.active
        self._write({family: step.last for family, step in steps.items()})
        for family, step in steps.items():
            delete_each(self.maps[family], step.gone)
            state.grow(family, step.grown)
        state.changing = False
        each = steps.values()
        return Changed(
            sum(step.added for step in each),
            sum(step.changed for step in each),
            sum(len(step.gone) for step in each),
        )

    def _write(self, parts: Mapping[str, Mapping[bytes, bytes]]) -> None:
        total, done = sum(len(part) for part in parts.values()), 0
        for family, part in parts.items():
            left = iter(part.items())
            while some := dict(islice(left, PART)):
                try:
                    self.maps[family].update_many(some)
                except KernelError as error:
                    raise self.refused(error) from error
                done += len(some)
                self.progress(done, total)

    def _recover(self) -> None:
        """Undo, or finish, what a writer left that was killed; nothing to do at rest."""
        if self.state.changing:
            from penstock.pipeline import set_whole

            set_whole.recover(self)


def _silent(_done: int, _total: int) -> None:
    """Nobody is told."""


def _bytes_of(entries: Text) -> bytes:
    if isinstance(entries, bytes):
        return entries
    text = entries if isinstance(entries, str) else "\n".join(map(str, cast("Iterable[object]", entries)))
    return text.encode()
