"""Sets hold what their feeds say, when the fetcher has brought a new copy or somebody wants another feed.

    feeding.look()     a set whose feeds have changed is folded; the rest cost a few `stat`s

In: the sets that there are, STATE/sets and STATE/feeds.  It blocks, for seconds
where a million entries come, so it runs in a thread of its own.  What a set held
before a reboot comes with the set, when it is made (`set_store.shared`).
"""

from __future__ import annotations

import time
from pathlib import Path

from penstock.daemon.journal import Journal
from penstock.daemon.patience import Patience
from penstock.errors import PenstockError
from penstock.model.state_directory import state_directory
from penstock.pipeline.feeding import fold
from penstock.pipeline.set_store import names, place_of
from penstock.pipeline.subscriptions import subscriptions


class Feeding:
    """What was seen of each set's feeds."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._seen: dict[str, object] = {}
        self._again: set[str] = set()
        """Sets that could not be filled for a reason that may be gone the next time."""
        self._patience = Patience()

    def look(self) -> bool:
        """Bring every set up to date whose feeds have changed; whether any feed is wanted."""
        there = names()
        for name in self._seen.keys() - there:
            self._forget(name)
        wanted = [self._settle(name) for name in there]
        return any(wanted)

    def _settle(self, name: str) -> bool:
        """Bring one set up to date; whether it wants feeds.

        What fails is told, and tried when something changes; if it is not the copy's fault, it is tried again, too.
        """
        try:
            feeds = [one.name for one in subscriptions(name)]
        except PenstockError as error:
            self._seen[name] = None
            self._fail(name, error)
            return True
        copies = [_stamp(Path("feeds", one, "state.json")) for one in feeds]
        mark = place_of(name), _stamp(Path("sets", name, "feeds.json")), copies
        is_new, is_same = name not in self._seen, self._seen.get(name) == mark
        self._seen[name] = mark
        if is_new and not feeds:
            return False
        if not is_same or self._is_time(name):
            self._fold(name)
        return bool(feeds)

    def _is_time(self, name: str) -> bool:
        return name in self._again and self._patience.may(name, time.monotonic())

    def _fold(self, name: str) -> None:
        try:
            done = fold(name)
        except PenstockError as error:
            self._fail(name, error)
            self._try_again(name)
            return
        self._journal.settle(_key(name), f"@{name} is filled again")
        if done.added or done.changed or done.removed:
            self._journal.note(f"@{name}: feeds added {done.added:,} entries and took back {done.removed:,}")
        for feed, note in done.notes.items():
            if note.refused:
                self._journal.alarm(_key(name, feed), f"@{name}: {feed} is not taken: {note.refused}")
            else:
                self._journal.settle(_key(name, feed), f"@{name}: {feed} is taken again")
        self._journal.settle_all_but(_key(name, ""), {_key(name, feed) for feed in done.notes})
        # A copy that is refused for what it is has a name: it is not tried again.
        if any(note.refused and not note.copy for note in done.notes.values()):
            self._try_again(name)
        else:
            self._again.discard(name)
            self._patience.forget(name)

    def _fail(self, name: str, error: PenstockError) -> None:
        self._journal.alarm(_key(name), f"@{name} cannot be filled: {error.message}")

    def _try_again(self, name: str) -> None:
        self._again.add(name)
        self._patience.wait(name, time.monotonic())

    def _forget(self, name: str) -> None:
        """The set is gone, and with it what was wrong with it."""
        del self._seen[name]
        self._again.discard(name)
        self._patience.forget(name)
        self._journal.settle(_key(name))
        for begin in (f"{_key(name)} ", _key(name, "")):
            self._journal.settle_all_but(begin, ())


def _key(name: str, feed: str | None = None) -> str:
    """What an alarm of a set, or of one of its feeds, is known by."""
    return f"set @{name}" if feed is None else f"feed @{name} {feed}"


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is exchanged for another; None where there is none."""
    try:
        found = (state_directory() / path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
