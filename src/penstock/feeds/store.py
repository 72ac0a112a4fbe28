"""The last good copy of each feed on disk, and what is known of it.

    STATE/feeds/drop/state.json            what is known: a FeedState
    STATE/feeds/drop/5f0c…e1.body          the bytes of the last good copy, named by their SHA-256

Promised: a process that is killed, or a disk that is full, at any moment leaves the old
state with the old copy or the new one with the new.  The copy is written first, under a
name that nothing knows; exchanging state.json is what makes it the good one.
"""

from __future__ import annotations

import errno
import hashlib
import re
from pathlib import Path

import msgspec

from penstock.errors import FeedError
from penstock.feeds.unpack import MOST_BYTES
from penstock.model.moment import Moment
from penstock.model.state_directory import (
    make_place,
    read_kept,
    remove_files,
    remove_tree,
    state_directory,
    write_atomically,
)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
_MOST_STATE = 1 << 20


class FeedState(msgspec.Struct, frozen=True):
    """What is known of a feed.

    Times are seconds since 1970, and for those that waits are counted from the boot clock's too; `body` is
    the last good copy's SHA-256.  `has_answered` is whether the last try in vain got an answer that was refused.
    """

    body: str | None = None
    entries: int | None = None
    fetched_at: float | None = None
    checked_at: float | None = None
    etag: str | None = None
    last_modified: str | None = None
    failures: int = 0
    reason: str | None = None
    next_at: float | None = None
    fetched: Moment | None = None
    checked: Moment | None = None
    has_answered: bool = False

    def wait_s(self, now: Moment) -> float:
        """Seconds until the feed is to be asked again, whatever was done to the wall clock meanwhile."""
        if self.next_at is None or self.checked_at is None:
            return 0.0
        elapsed = now.wall - self.checked_at if self.checked is None else self.checked.elapsed_s(now)
        return max(self.next_at - self.checked_at - elapsed, 0.0)

    @property
    def status(self) -> str:
        """``new``, ``ok``, ``stale``, ``refused`` or ``never fetched``."""
        if self.reason is None:
            return "new" if self.checked_at is None else "ok"
        if self.body is not None:
            return "stale"
        return "refused" if self.has_answered else "never fetched"


class Store:
    """The copies under one directory, which is made when something is written."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = (directory or state_directory()) / "feeds"

    def names(self) -> list[str]:
        """The feeds of which something is known."""
        if not self.directory.is_dir():
            return []
        return sorted(found.parent.name for found in self.directory.glob("*/state.json"))

    def state(self, name: str) -> FeedState:
        """What is known of a feed; nothing if there is none, or if what is there cannot be read as such."""
        try:
            return msgspec.json.decode(self._read(name, "state.json", _MOST_STATE), type=FeedState)
        except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return FeedState()
        except OSError as error:
            raise _failed("read", self._place(name), error) from error

    def body(self, name: str, state: FeedState) -> bytes | None:
        """The last good copy; None if there is none, or if it is not what was written."""
        if state.body is None:
            return None
        try:
            content = self._read(name, f"{state.body}.body", MOST_BYTES)
        except (OSError, ValueError):
            return None
        return content if digest(content) == state.body else None

    def _read(self, name: str, file: str, most: int) -> bytes:
        """A file of a feed: the fetcher, which may have been taken over, writes here, and others read who may more.

        Raises OSError: it cannot be read, is a link, or no file.
        """
        place = self._place(name)
        if place.is_symlink():
            raise OSError(errno.ELOOP, "it is a link")
        return read_kept(place / file, most)

    def write(self, name: str, state: FeedState, body: bytes | None = None) -> None:
        """Make this the state of a feed, and with a body (whose digest it has) the last good copy.

        Raises:
            FeedError: it cannot be written; the old state is intact.
        """
        place = self._place(name)
        try:
            make_place(place)
            if body is not None:
                write_atomically(place / f"{state.body}.body", body, mode=0o644, follows_links=False)
            content = msgspec.json.encode(state) + b"\n"
            write_atomically(place / "state.json", content, mode=0o644, follows_links=False)
            _remove_bodies(place, f"{state.body}.body")
        except OSError as error:
            raise _failed("write", place, error) from error

    def forget(self, name: str) -> None:
        """Remove what is known of a feed, and its copy.  Raises FeedError: it cannot be removed, or is a link."""
        place = self._place(name)
        try:
            remove_tree(place)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _failed("remove", place, error) from error

    def _place(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise FeedError(
                f"`{name}` cannot be a feed's name", hint="letters, digits, `_`, `-` and `.`, at most 64"
            )
        return self.directory / name


def digest(body: bytes) -> str:
    """The SHA-256 of a copy."""
    return hashlib.sha256(body).hexdigest()


def _remove_bodies(place: Path, kept: str) -> None:
    """Remove the copies that are no longer in use.  Raises OSError."""
    remove_files(place, lambda name: name.endswith(".body") and name != kept)


def _failed(operation: str, path: Path, error: OSError) -> FeedError:
    return FeedError(
        f"{operation} {path}: {error.strerror}", hint="PENSTOCK_STATE_DIR names another directory"
    )
