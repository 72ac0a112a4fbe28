"""What the lines of a ledger add up to: for each entry, who claims it.

    book = ledger.book()
    book.claims_of(spec_key…)     Claim(source="manual", by="alice", comment="INC-4711", …)
    book.content(spec, moment())  all that the kernel should hold, as arrays

Claims of commands are taken back one by one; those of a feed are exchanged with its next
copy.  Ends lie on the boot clock of the moment that is noted beside them.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING

from penstock.errors import PenstockError
from penstock.model.moment import Moment, boot_ns_of
from penstock.model.set_text import keys_of
from penstock.model.sets import SetSpec
from penstock.pipeline.entry_file import EntryFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from penstock.pipeline.ledger import Line
    from penstock.pipeline.set_keys import Content


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody's word for an entry, written as `entry`; `end_ns` on the boot clock of `at`, 0 for never."""

    entry: str
    source: str
    by: str
    at: Moment
    end_ns: int
    comment: str | None
    is_feed: bool = False

    def left_s(self, now: Moment) -> float | None:
        """Seconds until it is over, negative behind it; None for never."""
        if not self.end_ns:
            return None
        return (boot_ns_of(self.at, self.end_ns, now) - now.boot_ns) / 1e9


@dataclass(slots=True)
class Lot:
    """The entries of one line that are in a file; `gone` are those that were taken back since, as texts.

    Of many that were taken back at once `without` has the files.
    """

    line: Line
    file: EntryFile
    gone: set[str] = field(default_factory=set)
    without: list[EntryFile] = field(default_factory=list)

    def claim(self, entry: str, family: str, key: bytes, *, is_feed: bool = False) -> Claim | None:
        """Its claim of an entry."""
        is_gone = entry in self.gone or any(file.end_of(family, key) is not None for file in self.without)
        end = None if is_gone else self.file.end_of(family, key)
        line = self.line
        return (
            None
            if end is None
            else Claim(entry, line.source, line.by, line.at, end, line.comment, is_feed=is_feed)
        )

    def but(self, file: EntryFile) -> Lot:
        """The same where one file says all that was taken back."""
        return Lot(self.line, self.file, set(), [file])

    def is_over(self, now: Moment) -> bool:
        """Whether none of its entries is in force any more; one that cannot be read may be."""
        try:
            end = self.file.last_end
        except PenstockError:
            return False
        return bool(end) and boot_ns_of(self.line.at, end, now) <= now.boot_ns


class Book:
    """The state of a set's ledger; `directory` has the files that lines name."""

    def __init__(self, directory: Path) -> None:
        self.few: dict[str, dict[str, Claim]] = {}
        """Claims of commands by entry and source."""
        self.lots: list[Lot] = []
        """Claims of commands in files."""
        self.feeds: dict[str, list[Lot]] = {}
        """Claims of feeds: one lot each, and two of one that is being exchanged."""
        self.unread = 0
        """Lines of the journal that are not what was written there."""
        self._directory = directory

    @property
    def journal(self) -> Path:
        """The file whose lines these are."""
        return self._directory / "journal"

    def take(self, line: Line) -> None:
        """Enter the next line."""
        if line.op == "remove":
            self._remove(line)
        elif line.op == "feed":
            self.feeds.pop(line.source, None)
            if line.file:
                self.feeds[line.source] = [self._lot(line)]
        elif line.op == "join":
            self.feeds.setdefault(line.source, []).append(self._lot(line))
        else:
            if line.op == "only":
                self.few.clear()
                self.lots.clear()
            self._add(line)

    def _lot(self, line: Line) -> Lot:
        return Lot(line, EntryFile(self._directory / (line.file or "")))

    def _add(self, line: Line) -> None:
        if line.file:
            self.lots.append(self._lot(line))
        for entry, end in line.entries:
            claims = self.few.setdefault(entry, {})
            before = claims.get(line.source)
            comment = line.comment or (before.comment if before else None)
            if before is not None and end:
                old = boot_ns_of(before.at, before.end_ns, line.at)
                end = max(end, old) if old else 0
            claims[line.source] = Claim(entry, line.source, line.by, line.at, end, comment)

    def _remove(self, line: Line) -> None:
        entries = [entry for entry, _ in line.entries]
        for entry in entries:
            self.few.pop(entry, None)
        for lot in self.lots:
            lot.gone.update(entries)
        if line.file:
            self._remove_many(EntryFile(self._directory / line.file))

    def _remove_many(self, file: EntryFile) -> None:
        for lot in self.lots:
            if all(one.path != file.path for one in lot.without):
                lot.without.append(file)
        # What cannot be read takes nothing back.
        with suppress(PenstockError):
            spec = SetSpec(self._directory.name, file.kind) if self.few else None
            for entry in list(self.few):
                if spec and all(file.end_of(*key) is not None for key in keys_of(spec, entry)):
                    del self.few[entry]

    # ── asking ───────────────────────────────────────────────────────────────

    def claims(self, entry: str, family: str, key: bytes) -> list[Claim]:
        """All that claim exactly this entry, commands first."""
        found = [*self.few.get(entry, {}).values()]
        found += [claim for lot in self.lots if (claim := lot.claim(entry, family, key))]
        return found + self.feed_claims(entry, family, key)

    def feed_claims(self, entry: str, family: str, key: bytes) -> list[Claim]:
        """The feeds that claim exactly this entry."""
        lots = [lot for each in self.feeds.values() for lot in each]
        return [claim for lot in lots if (claim := lot.claim(entry, family, key, is_feed=True))]

    def files(self) -> set[str]:
        """The names of the files that are in use."""
        return {file.path.name for lot in self.every_lot() for file in (lot.file, *lot.without)}

    def every_lot(self) -> Iterator[Lot]:
        """The claims in files, those of commands first."""
        yield from self.lots
        for each in self.feeds.values():
            yield from each

    def with_lots(self, lots: list[Lot], lines: list[Line]) -> Book:
        """The same with these lots of commands, and behind them those that lines name."""
        found = Book(self._directory)
        found.few, found.feeds = self.few, self.feeds
        found.lots = [*lots, *(self._lot(line) for line in lines)]
        return found

    def without_damage(self) -> Book:
        """The same without the files that are not what was written there."""
        found = Book(self._directory)
        found.few = self.few
        found.lots = [
            Lot(lot.line, lot.file, lot.gone, [file for file in lot.without if file.is_whole])
            for lot in self.lots
            if lot.file.is_whole
        ]
        found.feeds = {
            name: whole
            for name, each in self.feeds.items()
            if (whole := [lot for lot in each if lot.file.is_whole])
        }
        return found

    def lines(self, now: Moment) -> Iterator[Line]:
        """The fewest lines that add up to this; entries that are over are left out."""
        from penstock.pipeline.ledger import Line

        lots = [lot for lot in self.lots if not lot.is_over(now)]
        for lot, following in zip_longest(lots, lots[1:]):
            yield lot.line
            if lot.gone:
                yield Line("remove", now, "", tuple((entry, 0) for entry in sorted(lot.gone)))
            # What was taken back of the next was taken back behind it, and of those before it, too.
            later = {file.path for file in following.without} if following else set()
            for file in lot.without:
                if file.path not in later:
                    yield Line("remove", now, "", (), file.path.name)
        for claims in self.few.values():
            for claim in claims.values():
                left = claim.left_s(now)
                if left is None or left > 0:
                    entry = (claim.entry, claim.end_ns)
                    yield Line("add", claim.at, claim.by, (entry,), None, claim.source, claim.comment)
        for each in self.feeds.values():
            yield from (lot.line for lot in each)

    # ── as arrays ────────────────────────────────────────────────────────────

    def content(self, spec: SetSpec, now: Moment, *, feeds_only: bool = False, feeds: bool = True) -> Content:
        """What all claim together, ends on the boot clock of `now`; what is over is left out.

        An entry that several claim occurs several times.  What is no entry of such a set is left out, too.
        """
        from penstock.pipeline.ledger_content import of_claims, of_lot, together

        parts = [of_lot(spec, lot, now) for each in self.feeds.values() for lot in each if feeds]
        if not feeds_only:
            parts += [of_lot(spec, lot, now) for lot in self.lots]
            parts.append(of_claims(spec, [one for each in self.few.values() for one in each.values()], now))
        return together(spec, parts)

    def feed_content(self, spec: SetSpec, name: str, now: Moment) -> Content:
        """What one feed claims."""
        from penstock.pipeline.ledger_content import of_lot, together

        return together(spec, [of_lot(spec, lot, now) for lot in self.feeds.get(name, ())])
