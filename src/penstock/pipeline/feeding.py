"""Fold last good copies of feeds into the sets that want them.

    fold("threats")       the set holds what its feeds list now, beside what commands put there
    restore("threats")    a set that was made anew holds what it held before the reboot

In: the subscriptions of a set, the copies under STATE/feeds, the set's ledger.  Promised: a copy
comes in whole or not at all; one that is in already costs no write, and one of which a hundredth
has changed costs the writes of that hundredth.  An entry that a feed lists no more goes, unless
another feed or a command claims it.  What is protected never comes in.  Nothing is fetched here.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from penstock.errors import FeedError, LimitError, PenstockError
from penstock.model.moment import Moment, moment
from penstock.model.state_directory import read_kept, state_directory, write_atomically
from penstock.pipeline.ledger import Ledger, Line
from penstock.pipeline.subscriptions import Subscription, subscriptions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from penstock.feeds.protected import Protected
    from penstock.feeds.refresh import Feed
    from penstock.feeds.store import FeedState, Store
    from penstock.model.sets import SetSpec
    from penstock.pipeline.ledger_book import Book
    from penstock.pipeline.live_set import LiveSet, Progress
    from penstock.pipeline.set_keys import Content


class Note(msgspec.Struct, frozen=True):
    """What became of a feed's copy in a set: `copy` tells it from others; `refused` is why it is not in."""

    copy: str
    entries: int
    left_out: int
    at: float
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Folded:
    """What folding did to a set, and the notes of its feeds by name; a feed without a copy has none."""

    added: int
    changed: int
    removed: int
    notes: dict[str, Note]


def fold(name: str, *, progress: Progress | None = None, again: bool = False) -> Folded:
    """Let a set hold what its feeds' last good copies list; with `again` what was refused is tried once more.

    Raises:
        PenstockError: there is no such set, or its ledger cannot be written.
        KernelError: the kernel refuses a change; the set is as it was before that.
    """
    from penstock.pipeline.set_store import open_set

    with open_set(name) as found, Ledger(name) as ledger, ledger.changing():
        found.progress = progress or found.progress
        folding = _Folding(found, ledger, notes(name), again)
        done = folding.all(subscriptions(name))
        ledger.tidy()
        return done


def restore(name: str) -> int:
    """Let a set hold what its ledger and its feeds' last good copies say; gives how many entries were missing.

    What of both cannot be read is left out (damage.py).  Raises: as `fold`.
    """
    from penstock.pipeline.ledger_content import of_texts
    from penstock.pipeline.set_store import open_set

    if not Ledger(name).place.exists():
        return 0
    with open_set(name) as found, Ledger(name) as ledger, ledger.changing():
        book = ledger.book().without_damage()
        content = book.content(found.spec, moment())
        try:
            missing = found.exchange_claims(of_texts(found.spec, ()), content).added
        except LimitError:
            # The policy gives it less room than before: a filter with what fits is better than none.
            missing = _restore_what_fits(found, book)
    wanted: tuple[Subscription, ...] = ()
    with suppress(PenstockError):
        wanted = subscriptions(name)
    return missing + fold(name).added if wanted else missing


def _restore_what_fits(found: LiveSet, book: Book) -> int:
    """Bring in what commands claim, then one feed after the other; those for which there is no room are noted."""
    from penstock.pipeline.ledger_content import of_texts

    spec, now, added = found.spec, moment(), 0
    known = notes(spec.name)
    parts = {"": book.content(spec, now, feeds=False)}
    parts |= {name: book.feed_content(spec, name, now) for name in book.feeds}
    for name, content in parts.items():
        try:
            added += found.exchange_claims(of_texts(spec, ()), content).added
        except LimitError as error:
            if name in known:
                known[name] = msgspec.structs.replace(known[name], entries=0, refused=error.message)
    _write_notes(spec.name, known)
    return added


def _write_notes(name: str, known: dict[str, Note]) -> None:
    try:
        write_atomically(_path(name), msgspec.json.encode(known), mode=0o644)
    except OSError as error:
        raise PenstockError(f"write {_path(name)}: {error.strerror}") from error


def notes(name: str) -> dict[str, Note]:
    """What became of the copies of a set's feeds, by their names."""
    try:
        return msgspec.json.decode(read_kept(_path(name)), type=dict[str, Note])
    except (OSError, ValueError):
        return {}


def _path(name: str) -> Path:
    return state_directory() / "sets" / name / "folded.json"


def feed_of(one: Subscription, protected: Sequence[Protected], interval_s: float | None = None) -> Feed:
    """A subscription as the fetcher wants it.  Raises FeedError: its source or format is none."""
    from penstock.feeds.formats import check_format
    from penstock.feeds.judge import Limits
    from penstock.feeds.presets import PRESETS
    from penstock.feeds.protected import NEVER, SPECIAL
    from penstock.feeds.refresh import Feed
    from penstock.feeds.sources import Url, source_of
    from penstock.model.feeds import least_interval_s

    preset = PRESETS.get(one.source)
    source = source_of(preset.url if preset else one.source)
    header = preset.key_header if preset else "X-Api-Key" if one.read_as == "crowdsec" else None
    key = os.environ.get("PENSTOCK_FEED_KEY")
    if isinstance(source, Url):
        own = {header: key} if header and key else {}
        source = Url(source.url, {**(preset.headers if preset else {}), **own})
    check_format(one.read_as)
    limits = preset.limits if preset else Limits()
    if one.read_as == "crowdsec":
        # Decisions come and go in numbers; that there are none is an answer.
        limits = Limits(shrink=None, growth=None, may_be_empty=True)
    return Feed(
        one.name,
        source,
        one.read_as,
        interval_s or one.interval_s,
        least_interval_s(one.source),
        limits,
        (*(NEVER if one.is_private else SPECIAL), *protected),
    )


class _Folding:
    """One set, open and held, and what is done to it."""

    def __init__(self, found: LiveSet, ledger: Ledger, known: dict[str, Note], again: bool) -> None:
        from penstock.feeds.store import Store
        from penstock.pipeline.peers import note_peer, recent_peers
        from penstock.pipeline.surroundings import surroundings

        self._set, self._ledger, self._notes, self._again = found, ledger, known, again
        self._store: Store = Store()
        note_peer()
        self._protected = _each_once((*surroundings(), *recent_peers()))
        self._sums = [0, 0, 0]

    def all(self, wanted: Sequence[Subscription]) -> Folded:
        """Every feed that is wanted, and those that no longer are."""
        before = dict(self._notes)
        for name in set(self._ledger.book().feeds) - {one.name for one in wanted}:
            self._exchange(name, None, "")
        for name in set(self._notes) - {one.name for one in wanted}:
            del self._notes[name]
        for one in wanted:
            self._one(one)
        if self._notes != before:
            _write_notes(self._set.spec.name, self._notes)
        added, changed, removed = self._sums
        return Folded(added, changed, removed, dict(self._notes))

    def _one(self, one: Subscription) -> None:
        feed = feed_of(one, self._protected)
        state = self._store.state(one.name)
        if state.body is None:
            return
        copy = _copy_name(state, feed)
        note = self._notes.get(one.name)
        lots = self._ledger.book().feeds.get(one.name, ())
        is_settled = len(lots) < 2 and all(lot.file.is_whole for lot in lots)
        if note is not None and note.copy == copy and is_settled and not (self._again and note.refused):
            return
        body = self._store.body(one.name, state)
        if body is None:
            return
        try:
            entries, left_out = self._fold(one, feed, body, state)
            self._notes[one.name] = Note(copy, entries, left_out, time.time())
        except PenstockError as error:
            kept = note.entries if note else 0
            # A copy that cannot be taken is not tried again by itself; what fails for another reason is.
            tried = copy if isinstance(error, FeedError | LimitError) else ""
            self._notes[one.name] = Note(tried, kept, 0, time.time(), error.message)

    def _fold(self, one: Subscription, feed: Feed, body: bytes, state: FeedState) -> tuple[int, int]:
        """Bring a copy in; gives how many entries it has and how many are protected."""
        from penstock.feeds.refresh import examine
        from penstock.pipeline.feed_content import content_of

        fetched_at = state.fetched_at or 0.0
        limits = replace(feed.limits, max_entries=None)
        examined = examine(body, replace(feed, limits=limits), None, fetched_at)
        if examined.reasons:
            raise FeedError("; ".join(examined.reasons))
        fetched = state.fetched or Moment(fetched_at, 0, "")
        content = content_of(self._set.spec, examined.listed, fetched, moment())
        self._exchange(one.name, content, one.source)
        left = sum(each.removed + each.split for each in examined.left_out)
        return sum(len(entries) for entries in content.values()), left

    def _exchange(self, name: str, content: Content | None, source: str) -> None:
        """Let a feed list this, in the ledger and in the kernel; None takes it back."""
        from penstock.pipeline.feed_content import settled
        from penstock.pipeline.ledger_content import of_texts, together

        spec, now, ledger = self._set.spec, moment(), self._ledger
        book = ledger.book()
        is_known = all(lot.file.is_whole for lot in book.feeds.get(name, ()))
        old = book.feed_content(spec, name, now) if is_known else of_texts(spec, ())
        others = _others(book, spec, name, now)
        new = of_texts(spec, ()) if content is None else settled(content, old)
        line = Line("feed", now, source or "feed", source=name)
        at_line = None
        if content is not None:
            file = ledger.write_entries(spec.kind, new)
            line = Line("feed", now, source, file=file, source=name)
            at_line = ledger.append(msgspec.structs.replace(line, op="join"))
        try:
            target = together(spec, [others, new])
            if is_known:
                gone = {family: entries.without(target[family]) for family, entries in old.items()}
                done = self._set.exchange_claims(gone, target)
            else:
                # What it listed before is told by no file: all that nobody else claims.
                done = self._set.replace(target)
        except PenstockError:
            if at_line is not None:
                ledger.take_back(at_line)
            raise
        ledger.append(line, is_done=True)
        for number, count in enumerate((done.added, done.changed, done.removed)):
            self._sums[number] += count


def _each_once(protected: Sequence[Protected]) -> tuple[Protected, ...]:
    """Each network with the first reason for it, in an order that does not depend on who asks."""
    first = {one.network: one for one in reversed(protected)}
    return tuple(sorted(first.values(), key=lambda one: (one.network.version, str(one.network))))


def _others(book: Book, spec: SetSpec, name: str, now: Moment) -> Content:
    """What all but one feed claim."""
    kept = book.feeds.pop(name, None)
    try:
        return book.content(spec, now)
    finally:
        if kept is not None:
            book.feeds[name] = kept


def _copy_name(state: FeedState, feed: Feed) -> str:
    """What tells this copy, as it would be folded here and now, from any other."""
    protected = "\n".join(str(one.network) for one in feed.protected)
    told = f"{state.body} {state.fetched_at} {feed.format}\n{protected}"
    return sha256(told.encode()).hexdigest()[:24]
