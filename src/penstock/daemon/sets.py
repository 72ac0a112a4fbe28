"""Sets kept open, so that one entry more costs little, and swept while nobody waits.

    sets.add(SetAdd(set="banned", entries=("203.0.113.9",)), by="alice")     ->  {"set": "banned", "added": 1, …}
    sets.sweep_next()                                      one set, the next the next time

Changes are those of `pipeline/set_commands.py`, ledger and all.  One at a time:
in a thread, since another process may hold the set for seconds, or, where nobody
does and it is a matter of microseconds (`is_quick`), at once, which saves more
than half of what an entry costs.  What reads (`entries`, `listed`) opens a set
for itself, and may run in any thread.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, assert_never

from penstock.control.protocol import SetUpdate, SetWrite
from penstock.errors import PenstockError
from penstock.model.state_directory import state_directory
from penstock.pipeline.set_commands import SetCommands, holds, swept
from penstock.pipeline.set_record import every_record, record_of_entry
from penstock.pipeline.set_store import is_free, names, open_set

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.control.protocol import SetAdd, Texted
    from penstock.pipeline.set_commands import Changed

_FEW = 16
_FEW_NETWORKS = 10_000


@dataclass(frozen=True, slots=True)
class Swept:
    """One set of so many; `fault` is why what has expired in it cannot be forgotten."""

    sets: int
    name: str = ""
    fault: str | None = None


class OpenSets:
    """The sets of this host, opened when they are first changed."""

    def __init__(self) -> None:
        self._commands = SetCommands(tidies_later=True)
        self._swept: list[str] = []

    def add(self, asked: SetAdd, *, by: str) -> dict[str, Any]:
        """Add entries.  Raises PenstockError: as `SetCommands.add`."""
        return _told(asked.set, self._commands.add(asked.set, asked.entries, by=by, **_times(asked)))

    def remove(self, name: str, entries: Sequence[str], *, by: str) -> dict[str, Any]:
        """Take entries back.  Raises PenstockError: as `SetCommands.remove`."""
        return _told(name, self._commands.remove(name, entries, by=by))

    def with_text(self, asked: Texted, text: bytes, *, by: str) -> dict[str, Any]:
        """Add the entries of a text, make them the only ones, or exchange them for others.

        Raises: as `SetCommands.update`.
        """
        match asked:
            case SetWrite(source=name):
                change = self._commands.replace if asked.whole else self._commands.add
                done = change(asked.set, text, by=by, file=name, **_times(asked))
                return _told(asked.set, done)
            case SetUpdate(names=files, first=first):
                texts = text[:first], text[first:]
                done = self._commands.update(asked.set, *texts, by=by, files=files, **_times(asked))
                return _told(asked.set, done)
            case _ as never:
                assert_never(never)

    def flush(self, name: str, *, by: str) -> dict[str, Any]:
        """Take back what no feed lists.  Raises PenstockError: as `SetCommands.flush`."""
        return _told(name, self._commands.flush(name, by=by))

    def sweep(self, name: str) -> dict[str, Any]:
        """Give back the memory of what has expired.  Raises PenstockError."""
        with open_set(name) as found:
            return _told(name, swept(found))

    def is_quick(self, name: str, count: int) -> bool:
        """Whether a change of so many entries keeps nobody waiting: it is open, has room, and nobody changes it."""
        name = name.removeprefix("@")
        found = self._commands.opened(name)
        if found is None or count > _FEW:
            return False
        there = found.count
        # One network may cover all others, and have each looked at: seconds of a million.
        if there + count > found.spec.size or (found.spec.kind == ("net",) and there > _FEW_NETWORKS):
            return False
        return is_free(name) and _nobody_holds(f"{state_directory()}/sets/{name}")

    def sweep_next(self) -> Swept:
        """Forget what has expired in one set, each in its turn.  Raises KernelError: sets cannot be listed."""
        there = names()
        waiting = [name for name in there if name not in self._swept]
        if not waiting:
            self._swept, waiting = [], there
        if not waiting:
            return Swept(0)
        self._swept.append(waiting[0])
        try:
            with open_set(waiting[0]) as found:
                found.sweep()
        except PenstockError as error:
            return Swept(len(there), waiting[0], error.message)
        return Swept(len(there), waiting[0])

    @property
    def is_untidy(self) -> bool:
        """Whether there is something for `tidy` to do."""
        return self._commands.is_untidy

    def tidy(self) -> None:
        """Shorten the ledgers of what was changed, which nobody has to wait for."""
        self._commands.tidy()

    def close(self) -> None:
        """Let go of all of them."""
        self._commands.close()


def _nobody_holds(path: str) -> bool:
    """Whether the lock of a directory is free at the moment."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def entries(name: str, limit: int) -> dict[str, Any]:
    """The first entries of a set, and how many there are.  Raises PenstockError."""
    with open_set(name) as found:
        shown = [record_of_entry(found, one) for one in islice(found, limit)]
        return {"set": found.spec.name, "count": found.count, "entries": shown}


def tested(name: str, asked: Sequence[str]) -> dict[str, Any]:
    """Whether a packet would find each of these entries.  Raises PenstockError: one is no entry of the set."""
    with open_set(name) as found:
        return {"set": found.spec.name, "is_in": [holds(found, entry) for entry in asked]}


def listed() -> dict[str, Any]:
    """Every set, how full it is, and what is wrong with those that cannot be opened.  Raises PrivilegeError."""
    records, faults = every_record()
    return {"sets": records, "faults": [{"message": one.message, "hint": one.hint} for one in faults]}


def _times(asked: SetAdd | Texted) -> dict[str, Any]:
    return {"timeout": asked.timeout, "forever": asked.forever, "comment": asked.comment}


def _told(name: str, done: Changed) -> dict[str, Any]:
    counts = {"added": done.added, "changed": done.changed, "removed": done.removed, "entries": done.entries}
    kept = [{"entry": one.entry, "feeds": one.feeds} for one in done.kept]
    return {"set": name.removeprefix("@"), **counts, "kept": kept, "kept_count": done.kept_count}
