"""Sets hold what their feeds say, when the fetcher has brought a new copy or somebody wants another feed.

    feeding.look()     a set whose feeds have changed is folded; the rest cost a few `stat`s

In: the sets that there are, STATE/sets and STATE/feeds.  It blocks, for seconds
where a million entries come, so it runs in a thread of its own.  What a set held
before a reboot comes with the set, when it is made (`set_store.shared`).
"""

from __future__ import annotations

from pathlib import Path

from penstock.daemon.journal import Journal
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

    def look(self) -> bool:
        """Bring every set up to date whose feeds have changed; whether any feed is wanted."""
        wanted = [self._settle(name) for name in names()]
        return any(wanted)

    def _settle(self, name: str) -> bool:
        """Bring one set up to date; whether it wants feeds.  What fails is told, and tried when something changes."""
        key = f"set @{name}"
        try:
            feeds = [one.name for one in subscriptions(name)]
        except PenstockError as error:
            self._journal.alarm(key, f"@{name} cannot be filled: {error.message}")
            return True
        copies = [_stamp(Path("feeds", one, "state.json")) for one in feeds]
        mark = place_of(name), _stamp(Path("sets", name, "feeds.json")), copies
        if self._seen.get(name) == mark:
            return bool(feeds)
        is_new, self._seen[name] = name not in self._seen, mark
        if is_new and not feeds:
            self._journal.settle(key)
            return False
        try:
            self._fold(name)
        except PenstockError as error:
            self._journal.alarm(key, f"@{name} cannot be filled: {error.message}")
        else:
            self._journal.settle(key, f"@{name} is filled again")
        return bool(feeds)

    def _fold(self, name: str) -> None:
        done = fold(name)
        if done.added or done.changed or done.removed:
            self._journal.note(f"@{name}: feeds added {done.added:,} entries and took back {done.removed:,}")
        refused = {feed: note.refused for feed, note in done.notes.items() if note.refused}
        for feed in done.notes:
            if feed in refused:
                self._journal.alarm(f"feed {name} {feed}", f"@{name}: {feed} is not taken: {refused[feed]}")
            else:
                self._journal.settle(f"feed {name} {feed}", f"@{name}: {feed} is taken again")


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is exchanged for another; None where there is none."""
    try:
        found = (state_directory() / path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
