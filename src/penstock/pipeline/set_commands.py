"""Changing a set: the one way for commands, the daemon and feeds.

    with SetCommands() as commands:      sets and ledgers stay open from one call to the next
        commands.add("threats", ["198.51.100.0/24"], timeout=3600, comment="INC-4711", by=who())
        commands.remove("threats", ["198.51.100.0/24"], by=who())

The kernel holds what all sources claim together, the ledger who claims what.  Promised: an entry
is in the ledger before it is in the kernel, and out of the kernel before it is out of the
ledger, so whoever is killed leaves no entry that another source would take back wrongly; what
is in the ledger alone comes with the next refresh.  What the kernel refuses is taken back in
the ledger.  An entry that a feed claims stays when commands take it back, and the answer says so.
"""

from __future__ import annotations

import dataclasses
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import structs

from penstock.errors import PenstockError
from penstock.model.closing import Closing
from penstock.model.moment import moment
from penstock.model.set_text import text_of, what_it_takes
from penstock.pipeline.ledger import FEW, MANUAL, Ledger, Line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.model.set_text import Keys
    from penstock.pipeline.ledger_book import Book
    from penstock.pipeline.live_set import Changed as Moved
    from penstock.pipeline.live_set import LiveSet, Progress, Text
    from penstock.pipeline.set_keys import Content

_MOST_OPEN = 64
_LONGEST_COMMENT = 1000


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry that was taken back, and that stays for these feeds."""

    entry: str
    feeds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change did to the kernel's set, how many entries it has then, and what stays for feeds."""

    added: int
    changed: int
    removed: int
    entries: int
    kept: tuple[Kept, ...] = ()
    #: How many entries feeds keep; of many, `kept` has the first.
    kept_count: int = 0


class SetCommands(Closing):
    """Changes of any sets; those that were used last stay open."""

    def __init__(self, progress: Progress | None = None, *, tidies_later: bool = False) -> None:
        """`tidies_later`: ledgers are tidied by `tidy` alone."""
        self._progress = progress
        self._untidy: set[str] | None = set() if tidies_later else None
        self._open: dict[str, tuple[LiveSet, Ledger, tuple[int, int]]] = {}

    def close(self) -> None:
        """Let go of all sets."""
        for name in list(self._open):
            self._forget(name)

    def add(
        self,
        name: str,
        entries: Text,
        *,
        by: str,
        timeout: float | None = None,
        forever: bool = False,
        comment: str | None = None,
        file: str | None = None,
    ) -> Changed:
        """Add entries: for `timeout` seconds, for ever, or as the policy says.

        `file` is where they are from: the ledger notes it, and an error names it.

        Raises:
            PenstockError: one is no entry of this set, or the ledger cannot be written; nothing was added.
            LimitError: the set would have more than its size; nothing was added.
            KernelError: the kernel refuses it; nothing was added.
        """
        with self._changing(name) as (found, ledger):
            wanted = found.read(entries, timeout, forever=forever, source=file or "entry")
            line = _line(found, ledger, wanted, by, file, comment)
            at = ledger.append(line)
            done = _or_take_back(ledger, at, lambda: found.update(wanted))
            return _answer(found, done)

    def remove(self, name: str, entries: Text, *, by: str) -> Changed:
        """Take back entries of commands, written as they were added; those that are not there are passed over.

        Raises: as `add`.
        """
        with self._changing(name) as (found, ledger):
            unwanted = found.read(entries, forever=True)
            claims, kept = _of_feeds_among(found, ledger.book(), unwanted)
            line = _removal(found, ledger, unwanted, by)
            done = found.exchange(unwanted, claims) if kept else found.discard(unwanted)
            ledger.append(line, is_done=True)
            return _answer(found, done, kept)

    def update(
        self,
        name: str,
        come: Text,
        gone: Text,
        *,
        by: str,
        timeout: float | None = None,
        forever: bool = False,
        comment: str | None = None,
        files: tuple[str | None, str | None] = (None, None),
    ) -> Changed:
        """As `add` and `remove` in one step; what both name is added.

        `files` is where those that come and those that go are from.  Raises: as `add`.
        """
        with self._changing(name) as (found, ledger):
            wanted = found.read(come, timeout, forever=forever, source=files[0] or "entry")
            unwanted = _left_out(found, found.read(gone, forever=True, source=files[1] or "entry"), wanted)
            claims, kept = _of_feeds_among(found, ledger.book(), unwanted)
            line, back = (
                _line(found, ledger, wanted, by, files[0], comment),
                _removal(found, ledger, unwanted, by),
            )
            at = ledger.append(line)
            done = _or_take_back(ledger, at, lambda: found.exchange(unwanted, claims, wanted))
            ledger.append(back, is_done=True)
            return _answer(found, done, kept)

    def replace(
        self,
        name: str,
        entries: Text,
        *,
        by: str,
        timeout: float | None = None,
        forever: bool = False,
        comment: str | None = None,
        file: str | None = None,
    ) -> Changed:
        """Make these the only entries beside those of feeds, in one step.  Raises: as `add`."""
        with self._changing(name) as (found, ledger):
            wanted = found.read(entries, timeout, forever=forever, source=file or "entry")
            line = _line(found, ledger, wanted, by, file, comment)
            others = _of_feeds(found, ledger.book())
            at = ledger.append(line)
            done = _or_take_back(ledger, at, lambda: found.replace(_with(found, wanted, others)))
            ledger.append(structs.replace(line, op="only"), is_done=True)
            return _answer(found, done)

    def flush(self, name: str, *, by: str) -> Changed:
        """Remove every entry but those of feeds, in one step, and then those of rules.  Raises: as `add`."""
        with self._changing(name) as (found, ledger):
            others = _of_feeds(found, ledger.book())
            done = found.clear() if others is None else found.replace(others)
            of_rules = found.clear_added()
            done = dataclasses.replace(done, removed=done.removed + of_rules)
            ledger.append(Line("only", moment(), by), is_done=True)
            return _answer(found, done)

    # ── how ──────────────────────────────────────────────────────────────────

    @contextmanager
    def _changing(self, name: str) -> Iterator[tuple[LiveSet, Ledger]]:
        name = name.removeprefix("@")
        found, ledger = self._opened(name)
        with ledger.changing():
            try:
                yield found, ledger
            finally:
                if self._untidy is None:
                    ledger.tidy()
                elif ledger.is_untidy:
                    self._untidy.add(name)

    @property
    def is_untidy(self) -> bool:
        """Whether there is something for `tidy` to do."""
        return bool(self._untidy)

    def tidy(self) -> None:
        """Tidy the ledgers of sets that were changed; one that somebody else holds for long, after its next change."""
        while self._untidy:
            known = self._open.get(self._untidy.pop())
            if known is not None:
                with suppress(PenstockError), known[1].changing():
                    known[1].tidy()

    def opened(self, name: str) -> LiveSet | None:
        """The set of that name if it is open; it may have been taken away since."""
        known = self._open.get(name)
        return known[0] if known is not None else None

    def live(self, name: str) -> LiveSet:
        """The set of that name, to be asked; it stays open with the others.  Raises PenstockError: there is none."""
        return self._opened(name.removeprefix("@"))[0]

    def _opened(self, name: str) -> tuple[LiveSet, Ledger]:
        from penstock.pipeline.set_store import open_set, place_of

        known = self._open.get(name)
        place = place_of(name)
        if known is not None:
            # A set that was taken away and made again has other maps.
            if known[2] == place:
                return known[0], known[1]
            self._forget(name)
        found = open_set(name)
        found.progress = self._progress or found.progress
        if len(self._open) >= _MOST_OPEN:
            self._forget(next(iter(self._open)))
        self._open[name] = found, Ledger(name), place
        return self._open[name][:2]

    def _forget(self, name: str) -> None:
        found, ledger, _ = self._open.pop(name)
        found.close()
        ledger.close()


def swept(found: LiveSet) -> Changed:
    """Remove the entries that have expired; of what they were claimed for the ledger forgets by itself."""
    return _answer(found, found.sweep())


def holds(found: LiveSet, entry: str) -> bool:
    """Whether a packet would find an entry.  Raises PenstockError: it is none of this set."""
    try:
        return entry in found
    except ValueError as error:
        raise PenstockError(str(error), hint=what_it_takes(found.spec)) from error


def who(uid: int | None = None) -> str:
    """A user's name, of this process by default: who logged in, if anybody did."""
    if uid is None:
        from penstock.model.login import login_uid

        uid = login_uid()
        if uid is None:
            uid = os.getuid()
    from pwd import getpwuid

    try:
        return getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _or_take_back(ledger: Ledger, at: int, change: Callable[[], Moved]) -> Moved:
    try:
        return change()
    except PenstockError:
        ledger.take_back(at)
        raise


def _answer(found: LiveSet, done: Moved, kept: list[Kept] | None = None) -> Changed:
    stays = kept or []
    return Changed(done.added, done.changed, done.removed, found.count, tuple(stays[:20]), len(stays))


def _texts(found: LiveSet, content: Content | Keys) -> Iterator[tuple[str, str, bytes, int]]:
    """Each entry as it is written in the ledger, with its family, key and end."""
    for family, entries in content.items():
        for key, end in entries.items():
            yield text_of(found.spec, family, key), family, key, end


def _line(
    found: LiveSet,
    ledger: Ledger,
    wanted: Content | Keys,
    by: str,
    file: str | None,
    comment: str | None,
) -> Line:
    """What is done, with few entries in it and many in a file of their own.  Raises PenstockError: by the comment."""
    if comment is not None and len(comment) > _LONGEST_COMMENT:
        raise PenstockError(
            f"a comment has at most {_LONGEST_COMMENT:,} characters, this one {len(comment):,}"
        )
    source = MANUAL if file is None else f"import {file}"
    count = sum(len(entries) for entries in wanted.values())
    if count > FEW:
        kept = ledger.write_entries(found.spec.kind, wanted)
        return Line("add", moment(), by, (), kept, source, comment)
    texts = tuple((entry, end) for entry, _, _, end in _texts(found, wanted))
    return Line("add", moment(), by, texts, None, source, comment)


def _of_feeds(found: LiveSet, book: Book) -> Content | None:
    return book.content(found.spec, moment(), feeds_only=True) if book.feeds else None


def _with(found: LiveSet, wanted: Content | Keys, others: Content | None) -> Content | Keys:
    if others is None:
        return wanted
    from penstock.pipeline.ledger_content import together
    from penstock.pipeline.set_keys import arrays_of

    return together(found.spec, [arrays_of(found.spec, wanted), others])


def _removal(found: LiveSet, ledger: Ledger, unwanted: Content | Keys, by: str) -> Line:
    """What is taken back, few entries in the line and many in a file."""
    if sum(len(entries) for entries in unwanted.values()) > FEW:
        return Line("remove", moment(), by, (), ledger.write_entries(found.spec.kind, unwanted))
    return Line("remove", moment(), by, tuple((entry, 0) for entry, _, _, _ in _texts(found, unwanted)))


def _left_out(found: LiveSet, entries: Content | Keys, others: Content | Keys) -> Content | Keys:
    """The entries that are not among the others."""
    few: Keys = {}
    for family, some in entries.items():
        away = others[family]
        if not isinstance(some, dict) or not isinstance(away, dict):
            break
        few[family] = {key: end for key, end in some.items() if key not in away}
    else:
        return few
    from penstock.pipeline.set_keys import arrays_of

    whole, away_of = arrays_of(found.spec, entries), arrays_of(found.spec, others)
    return {family: one.without(away_of[family]) for family, one in whole.items()}


def _of_feeds_among(found: LiveSet, book: Book, entries: Content | Keys) -> tuple[Content | Keys, list[Kept]]:
    """What feeds claim of some entries: it stays as long as they say."""
    none: Keys = {family: {} for family in found.spec.families}
    if not book.feeds:
        return none, []
    now, kept, claims = moment(), [], []
    for entry, family, key, _ in _texts(found, _perhaps_of_feeds(book, entries)):
        of_feeds = [
            claim
            for claim in book.feed_claims(entry, family, key)
            if (left := claim.left_s(now)) is None or left > 0
        ]
        if of_feeds:
            kept.append(Kept(entry, tuple(claim.source for claim in of_feeds)))
            claims += of_feeds
    if not kept:
        return none, []
    from penstock.pipeline.ledger_content import of_claims

    return of_claims(found.spec, claims, now), kept


def _perhaps_of_feeds(book: Book, entries: Content | Keys) -> Content | Keys:
    """The entries that may be in files of feeds: of arrays these alone, since each is then looked for by itself."""
    from penstock.pipeline.entry_file import is_arrays

    if not is_arrays(entries):
        return entries
    from penstock.pipeline.ledger_content import listed_in

    return listed_in([lot for each in book.feeds.values() for lot in each], entries)
