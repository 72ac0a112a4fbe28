"""Who put which entry into a set, when, until when and why: what the maps of a set cannot tell.

    STATE/sets/threats/journal        a line of JSON for each change, the oldest first
    STATE/sets/threats/7.entries      the entries of a change of many

    ledger = Ledger("threats")
    with ledger.changing():
        ledger.append(Line("add", moment(), "alice", entries=(("192.0.2.9", 0),), comment="INC-4711"))
    ledger.book().claims("192.0.2.9")

Promised: a line is there whole or not at all; what a process that was killed left behind the
last whole line is passed over, and removed by the next one that writes.  A disk that is full
leaves what was there.  The journal is written anew, by temporary file, fsync and rename, when
it has grown to twice what it says.  The ledger knows nothing of entries that rules add: these
are in the kernel alone.
"""

from __future__ import annotations

import math
import os
import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal

import msgspec

from penstock.errors import PenstockError
from penstock.kernel.lock import hold_directory
from penstock.model.closing import Closing
from penstock.model.moment import Moment, moment
from penstock.model.state_directory import (
    make_place,
    open_directory,
    open_file,
    remove_files,
    remove_tree,
    state_directory,
    write_atomically,
)
from penstock.pipeline.ledger_book import Book

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from penstock.model.set_text import Keys
    from penstock.pipeline.set_keys import Content

MANUAL = "manual"
#: A change of more entries than these keeps them in a file of their own.
FEW = 256
_SMALL = 1 << 20
_PATIENCE_S = 10.0
#: From so many files on is looked whether those of most are over.
_MANY_FILES = 32
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One change.

    ``add`` adds entries of commands, ``only`` makes these the only ones of commands, ``remove``
    takes them back; ``feed`` makes its entries those of the feed `source`, and ``join`` adds them.
    `entries` are texts with their ends on the boot clock of `at`, 0 for never; `file` has them
    when they are many.  `by` is who did it.
    """

    op: Literal["add", "only", "remove", "feed", "join"]
    at: Moment
    by: str
    entries: tuple[tuple[str, int], ...] = ()
    file: str | None = None
    source: str = MANUAL
    comment: str | None = None


class _Start(msgspec.Struct, frozen=True):
    """The journal's first line: written anew, it had so many bytes."""

    schema: str
    size: int


class _Read(msgspec.Struct, frozen=True):
    """How far the journal was read, and the last line then."""

    inode: int = 0
    size: int = 0
    last: bytes = b""


_SCHEMA = "penstock.ledger/1"
_DECODER = msgspec.json.Decoder(Line)


class Ledger(Closing):
    """The ledger of one set; the same object may be asked and written to again and again."""

    def __init__(self, name: str, directory: Path | None = None) -> None:
        if not _NAME.fullmatch(name):
            raise PenstockError(f"`{name}` cannot be the name of a set")
        self.name = name
        self.place = (directory or state_directory()) / "sets" / name
        self._journal = self.place / "journal"
        self._file: int | None = None
        self._book = Book(self.place)
        self._read = _Read()
        self._limit = _SMALL
        self._are_files_stale = False
        self._has_new_file = False

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    # ── asking ───────────────────────────────────────────────────────────────

    def book(self) -> Book:
        """What the journal adds up to; only what is new since the last call is read.

        Raises:
            PenstockError: it cannot be read.
        """
        try:
            with os.fdopen(open_file(self._journal, os.O_RDONLY), "rb") as file:
                state = os.fstat(file.fileno())
                read = self._read
                # A journal of another inode was written anew; one that ends otherwise took a line back.
                file.seek(max(read.size - len(read.last), 0))
                if read.inode != state.st_ino or file.read(len(read.last)) != read.last:
                    self._book, read = Book(self.place), _Read()
                    file.seek(0)
                fresh = file.read()
        except FileNotFoundError:
            self._book, self._read = Book(self.place), _Read()
            return self._book
        except OSError as error:
            raise _failed("read", self._journal, error) from error
        whole = fresh[: fresh.rfind(b"\n") + 1]
        lines = whole.splitlines(keepends=True)
        for line in lines:
            try:
                self._book.take(_DECODER.decode(line))
            # Bytes that are no UTF-8 are no DecodeError of msgspec, but a ValueError as that is.
            except ValueError:
                self._book.unread += not _is_start(line)
        self._read = _Read(state.st_ino, read.size + len(whole), lines[-1] if lines else read.last)
        return self._book

    # ── writing ──────────────────────────────────────────────────────────────

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the ledger against other writers.

        Raises:
            PenstockError: there is no place for it, or it cannot be written.
            KernelError: another process holds it for too long.
        """
        try:
            held = self._opened()
        except OSError as error:
            raise _failed("open", self.place, error) from error
        try:
            hold_directory(held, f"the ledger of @{self.name}", _PATIENCE_S)
            self._open()
            yield
        finally:
            os.close(held)

    def _opened(self) -> int:
        try:
            return open_directory(self.place)
        except FileNotFoundError:
            make_place(self.place)
            return open_directory(self.place)

    def append(self, line: Line, *, is_done: bool = False) -> int:
        """Write a line; gives where it begins, for `take_back`.  `is_done`: the kernel has what it says already.

        Raises:
            PenstockError: the disk is full, say; the ledger is as it was.
        """
        assert self._file is not None
        content = msgspec.json.encode(line) + b"\n"
        self._are_files_stale |= line.op in ("only", "feed")
        at = os.fstat(self._file).st_size
        try:
            if os.write(self._file, content) != len(content):
                # The rest would not fit either; asking again gives the reason.
                os.write(self._file, content)
                raise OSError(28, os.strerror(28))
        except OSError as error:
            self.take_back(at)
            raise _failed("write", self._journal, error, is_done=is_done) from error
        return at

    def take_back(self, at: int) -> None:
        """Remove the lines from there on: what they tell of was refused."""
        assert self._file is not None
        with suppress(OSError):
            os.ftruncate(self._file, at)
        self._are_files_stale = True

    def write_entries(self, kind: tuple[str, ...], content: Content | Keys) -> str:
        """Put many entries into a file of their own; gives its name, for a line.

        Raises:
            PenstockError: the disk is full, say; there is no such file then.
        """
        from penstock.pipeline.entry_file import write_entries

        taken = [int(path.stem) for path in self.place.glob("*.entries") if path.stem.isdecimal()]
        name = f"{max(taken, default=0) + 1}.entries"
        try:
            write_entries(self.place / name, kind, content)
        except OSError as error:
            raise _failed("write", self.place / name, error) from error
        self._has_new_file = True
        return name

    @property
    def is_untidy(self) -> bool:
        """Whether `tidy` has anything to look at."""
        is_long = self._file is not None and os.fstat(self._file).st_size >= self._limit
        return is_long or self._has_new_file or self._are_files_stale

    def tidy(self) -> None:
        """Join files of one origin, write the journal anew if that makes it much shorter, and remove unnamed files.

        Nothing is done while the journal is short and no file has come or gone.  A failure leaves all as it
        was: the journal is longer than it need be.
        """
        assert self._file is not None
        is_new, self._has_new_file = self._has_new_file, False
        is_due = os.fstat(self._file).st_size >= self._limit or (is_new and self._are_most_over())
        fewer = self._with_fewer_lots(is_due=is_due) if is_new or is_due else None
        if fewer or is_due:
            self.rewrite(fewer)
            self._are_files_stale = True
        if self._are_files_stale:
            self._are_files_stale = False
            used = self.book().files()
            with suppress(OSError):
                remove_files(self.place, lambda name: name.endswith(".entries") and name not in used)

    def _are_most_over(self) -> bool:
        """Whether most of many files have no entry any more that is in force."""
        if len(lots := self.book().lots) < _MANY_FILES:
            return False
        now = moment()
        return 2 * sum(lot.is_over(now) for lot in lots) > len(lots)

    def _with_fewer_lots(self, *, is_due: bool) -> Book | None:
        """What the journal adds up to, where lots of one origin are many and were joined.

        Where the journal `is_due` to be written, files are, too, without what was taken back: a line of each
        would repeat that.
        """
        from penstock.pipeline.ledger_joining import MANY_LOTS, is_torn, joined

        book = self.book()
        if not is_due and len(book.lots) < MANY_LOTS and not is_torn(book.lots):
            return None
        with suppress(PenstockError):
            return joined(self.name, book, moment(), self.write_entries, FEW if is_due else math.inf)
        return None

    def rewrite(self, book: Book | None = None) -> None:
        """Write the journal anew, from another book that says the same if there is one.

        What is over or taken back is forgotten.  A failure leaves it as it was.
        """
        each = (book or self.book()).lines(moment())
        lines = b"".join(msgspec.json.encode(line) + b"\n" for line in each)
        start = msgspec.json.encode(_Start(_SCHEMA, len(lines))) + b"\n"
        with suppress(OSError):
            write_atomically(self._journal, start, lines, mode=0o644)
            self._open()

    def forget(self) -> None:
        """The set is taken away, and all that is known of its entries.  Raises PenstockError."""
        self.close()
        try:
            remove_tree(self.place)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _failed("remove", self.place, error) from error
        self._book, self._read = Book(self.place), _Read()

    def _read_limit(self, file: int) -> int:
        """How long the journal may become: twice what it was when it was written anew."""
        try:
            size = msgspec.json.decode(os.pread(file, 200, 0).partition(b"\n")[0], type=_Start).size
        except ValueError:
            size = 0
        return max(_SMALL, 2 * size)

    def _open(self) -> None:
        """The journal as it is now, without what a killed writer left of a line."""
        try:
            if not self._is_current():
                self.close()
                if not os.path.lexists(self._journal):
                    write_atomically(self._journal, mode=0o644)
                self._file = open_file(self._journal, os.O_RDWR | os.O_APPEND)
                self._limit = self._read_limit(self._file)
            assert self._file is not None
            self._mend(self._file)
        except OSError as error:
            raise _failed("open", self._journal, error) from error

    def _is_current(self) -> bool:
        try:
            return self._file is not None and self._journal.stat().st_ino == os.fstat(self._file).st_ino
        except FileNotFoundError:
            return False

    @staticmethod
    def _mend(file: int) -> None:
        size = os.fstat(file).st_size
        if not size or os.pread(file, 1, size - 1) == b"\n":
            return
        at, tail = size, b""
        while at and b"\n" not in tail:
            at = max(at - (1 << 16), 0)
            tail = os.pread(file, 1 << 16, at)
        os.ftruncate(file, at + tail.rfind(b"\n") + 1)


def _is_start(line: bytes) -> bool:
    try:
        return msgspec.json.decode(line, type=_Start).schema == _SCHEMA
    except ValueError:
        return False


def ledgers(directory: Path | None = None) -> list[str]:
    """The sets of which something is known, sorted."""
    place = (directory or state_directory()) / "sets"
    try:
        return sorted(path.name for path in place.iterdir() if _NAME.fullmatch(path.name))
    except OSError:
        return []


def _failed(operation: str, path: Path, error: OSError, *, is_done: bool = False) -> PenstockError:
    outcome = "nothing was changed"
    if is_done:
        outcome = "the set was changed, and what has gone from it comes back with the next refresh or reboot"
    return PenstockError(
        f"{operation} {path}: {error.strerror}",
        hint=f"{outcome}; $PENSTOCK_STATE_DIR names another directory",
    )
