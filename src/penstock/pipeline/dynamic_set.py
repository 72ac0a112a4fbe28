"""A set that rules change as well: what commands and feeds have put in, and what rules have added.

The two lie apart, so a change of the one is whole whatever rules do meanwhile.
Who asks for the set sees both; `replace` and `update` are about the first alone,
and what rules have added goes with its time, or is taken away by `discard` and `clear`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from penstock.model.boot_clock import boot_clock_ns
from penstock.model.set_text import text_of
from penstock.pipeline.added_entries import AddedEntries
from penstock.pipeline.live_set import Changed, Entry, LiveSet, Text

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.kernel.maps import Map
    from penstock.model.set_text import Keys
    from penstock.model.sets import SetSpec
    from penstock.pipeline.set_keys import Content


class DynamicSet(LiveSet):
    """An open set with what rules have added to it."""

    def __init__(
        self,
        spec: SetSpec,
        maps: dict[str, Map],
        control: Map,
        added: dict[str, Map],
        lock: Callable[[], AbstractContextManager[None]] = nullcontext,
        place: Path | None = None,
    ) -> None:
        super().__init__(spec, maps, control, lock, place)
        self.added = AddedEntries(spec, added)

    def close(self) -> None:
        """Let go of the maps; they live on where they are pinned or a program uses them."""
        super().close()
        self.added.close()

    def _finds(self, family: str, key: bytes) -> bool:
        if super()._finds(family, key):
            return True
        bare = self.added.bare(family, key)
        return bare is not None and self.added.has(family, bare)

    @property
    def parts(self) -> tuple[Map, ...]:
        """Every map that it has."""
        return (*super().parts, *self.added.maps.values())

    @property
    def count(self) -> int:
        """How many entries there are, those among them that have expired and were not forgotten yet."""
        return super().count + self.added.count

    def __iter__(self) -> Iterator[Entry]:
        """The entries that have not expired, in the kernel's order; those of rules come last."""
        yield from super().__iter__()
        moment = boot_clock_ns()
        for family, key, value in self.added.entries():
            left = (value[0] - moment) / 1e9 if value[0] else None
            packets, octets = value[1:] if self.spec.counters else (None, None)
            yield Entry(text_of(self.spec, family, key), left, packets, octets, by_rule=True)

    def discard(self, entries: Text) -> Changed:
        """Remove entries, whoever added them; raises as `LiveSet.discard`."""
        unwanted = self.read(entries, forever=True)
        return self._beside(super().discard(unwanted), lambda: self._remove(unwanted))

    def exchange(
        self, gone: Content | Keys, come: Content | Keys, more: Content | Keys | None = None
    ) -> Changed:
        """As `LiveSet.exchange`; of what goes, what rules have added goes as well."""
        return self._beside(super().exchange(gone, come, more), lambda: self._remove(gone))

    def exchange_claims(self, gone: Content | Keys, come: Content | Keys) -> Changed:
        """As `LiveSet.exchange`; what rules have added stays."""
        return super().exchange(gone, come)

    def clear(self) -> Changed:
        """Remove every entry: in one step what was put in, and then what rules have added.  Raises KernelError."""
        return self._beside(super().clear(), self.added.clear)

    def clear_added(self) -> int:
        """Remove what rules have added; how many entries went.  Raises KernelError."""
        with self._changing():
            return self.added.clear()

    def sweep(self) -> Changed:
        """Remove the entries that have expired, which no packet meets any more.  Raises KernelError."""
        return self._beside(super().sweep(), lambda: self.added.clear(expired=True))

    def _beside(self, done: Changed, remove: Callable[[], int]) -> Changed:
        with self._changing():
            return Changed(done.added, done.changed, done.removed + remove())

    def _remove(self, unwanted: Content | Keys) -> int:
        gone = 0
        for family, entries in unwanted.items():
            for key in entries if isinstance(entries, dict) else entries.by_key():
                bare = self.added.bare(family, key)
                gone += bare is not None and self.added.remove(family, bare)
        return gone
