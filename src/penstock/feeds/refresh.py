"""Bring one feed up to date: ask, read, judge, keep.

In: a feed, the store of last good copies, the time.  Out: an `Outcome`: what the feed lists
now and how far that can be trusted.  Promised: whatever the source does, the outcome lists
the new copy as a whole or the last good one as a whole, and says which and why.

    ok             the source has answered; its copy, or the one that it says is still right, is in use
    stale          it has not, or its answer was refused: the last good copy goes on
    refused        its answer was refused, and there is no last good copy
    never fetched  it has not answered, and there is no last good copy
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from random import Random, SystemRandom
from typing import assert_never

import msgspec

from penstock.errors import FeedError
from penstock.feeds import schedule, taxii
from penstock.feeds.crowdsec import Book, is_empty, stream_url
from penstock.feeds.fetch import POLITE, Answer, Fetched, Manners, NotModified, Validators, fetch
from penstock.feeds.formats import parse
from penstock.feeds.judge import Limits, judge
from penstock.feeds.protected import SPECIAL, LeftOut, Protected, around, outside
from penstock.feeds.result import Listed, Parsed, joined
from penstock.feeds.sources import Command, File, Source, Stdin, Url, read_file, read_stdin, run_command
from penstock.feeds.store import FeedState, Store, digest
from penstock.model.moment import Moment, boot_id, moment


@dataclass(frozen=True, slots=True)
class Feed:
    """A feed as it is configured; `protected` is what it may never list, the special addresses first."""

    name: str
    source: Source
    format: str = "list"
    interval_s: float = 3600.0
    min_interval_s: float = 0.0
    limits: Limits = Limits()
    protected: Sequence[Protected] = SPECIAL


@dataclass(frozen=True, slots=True)
class Examined:
    """What a copy says and whether it may be believed: `reasons` against it, none if it may.

    `count` is what the next copy is compared with: entries that are not protected.
    """

    parsed: Parsed
    listed: Listed
    count: int
    left_out: tuple[LeftOut, ...]
    reasons: tuple[str, ...]


class Status(Enum):
    """How far what a feed lists can be trusted to be new."""

    OK = "ok"
    STALE = "stale"
    REFUSED = "refused"
    NEVER_FETCHED = "never fetched"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a feed lists after it was asked.

    `is_changed` is whether this may be other than before, so that a set has to be written; `copy` is
    the parse that is in use.  `state` is what was stored, with the reason and the time of the next try.
    """

    status: Status
    copy: Examined | None
    is_changed: bool
    state: FeedState

    @property
    def reason(self) -> str | None:
        """Why the feed is not `ok`."""
        return self.state.reason


def examine(body: bytes, feed: Feed, previous: int | None, now: float) -> Examined:
    """Read and judge one copy of a feed; `previous` is how many entries the last good one had.

    Raises:
        FeedError: it is nothing that the format could be.
    """
    parsed = parse(feed.format, body, now=now)
    listed, removed = outside(joined([Listed(parsed.prefixes, parsed.until)]), feed.protected)
    reasons = judge(parsed, listed.prefixes, previous, feed.limits)
    count = len(listed.prefixes)
    if reasons:
        return Examined(parsed, listed, count, removed, tuple(reasons))
    listed, met = around(listed, feed.protected)
    if met:
        listed = joined([listed])
    return Examined(parsed, listed, count, (*removed, *met), ())


async def ask(feed: Feed, known: Validators, manners: Manners) -> Answer:
    """The feed's bytes from wherever they come.

    Raises:
        FeedError: they cannot be had.
    """
    match feed.source:
        case Url():
            return await _fetch(feed, feed.source, known, manners)
        case File():
            return Fetched(await asyncio.to_thread(read_file, feed.source))
        case Stdin():
            return Fetched(await asyncio.to_thread(read_stdin))
        case Command():
            return Fetched(await run_command(feed.source, longest_s=manners.longest_s))
        case _:
            assert_never(feed.source)


async def _fetch(feed: Feed, source: Url, known: Validators, manners: Manners) -> Answer:
    if feed.format != "stix":
        return await fetch(source, known, manners)
    wanted = replace(
        source, headers={"Accept": f"{taxii.MEDIA_TYPE}, application/json;q=0.9", **source.headers}
    )
    answer = await fetch(wanted, known, manners)
    if isinstance(answer, NotModified):
        return answer

    async def page(after: str) -> bytes:
        found = await fetch(replace(wanted, url=taxii.page_url(source.url, after)), Validators(), manners)
        assert isinstance(found, Fetched)
        return found.body

    return Fetched(await taxii.all_pages(answer.body, page), answer.validators)


Books = dict[str, Book]
"""Of feeds that tell what has changed since they were asked last: what they add up to, by name."""


async def refresh(
    feed: Feed,
    store: Store,
    *,
    now: float,
    manners: Manners = POLITE,
    random: Random | None = None,
    books: Books | None = None,
) -> Outcome:
    """Ask a feed's source, and keep its answer if that may be believed.

    With `books`, kept from one call to the next, a stream of decisions is asked for what has changed.

    Raises:
        FeedError: the state cannot be written; the old one is intact.
    """
    draw = random or SystemRandom()
    state = store.state(feed.name)
    kept = await asyncio.to_thread(store.body, feed.name, state)
    # Without the copy that they speak of, validators would get a 304 with nothing behind it.
    known = Validators() if kept is None else Validators(state.etag, state.last_modified)
    at = Moment(now, moment().boot_ns, boot_id())
    answer: Answer | None = None
    try:
        if books is not None and feed.format == "crowdsec" and isinstance(feed.source, Url):
            book = None if kept is None else _current(books.get(feed.name), state)
            answer = await _ask_stream(feed, feed.source, book, manners, books, now)
        else:
            answer = await ask(feed, known, manners)
        copy, is_changed = await asyncio.to_thread(_believed, answer, kept, feed, state, now)
    except FeedError as error:
        (books or {}).pop(feed.name, None)
        failed = msgspec.structs.replace(state, reason=error.message, has_answered=answer is not None)
        return await asyncio.to_thread(_failed, feed, store, failed, kept, error, at, draw)
    wait = schedule.after_success(feed.interval_s, feed.min_interval_s, draw)
    new = _succeeded(state, answer, known, copy.count, at, wait, is_changed=is_changed)
    body = answer.body if is_changed and isinstance(answer, Fetched) else None
    await asyncio.to_thread(store.write, feed.name, new, body)
    return Outcome(Status.OK, copy, is_changed, new)


def _succeeded(
    state: FeedState,
    answer: Answer,
    known: Validators,
    entries: int,
    at: Moment,
    wait_s: float,
    *,
    is_changed: bool,
) -> FeedState:
    found = known if isinstance(answer, NotModified) else answer.validators
    return FeedState(
        body=digest(answer.body) if isinstance(answer, Fetched) else state.body,
        entries=entries,
        fetched_at=at.wall if is_changed else state.fetched_at,
        checked_at=at.wall,
        etag=found.etag,
        last_modified=found.last_modified,
        next_at=at.wall + wait_s,
        fetched=at if is_changed else state.fetched,
        checked=at,
    )


def _current(book: Book | None, state: FeedState) -> Book | None:
    """The book, if nobody else has asked since: the API tells each change once to all that share a key."""
    return book if book is not None and book.asked_at == state.checked_at else None


async def _ask_stream(
    feed: Feed, source: Url, book: Book | None, manners: Manners, books: Books, now: float
) -> Answer:
    """The decisions in force: all of them without a book, else those in it with what has come and gone.

    Raises FeedError.
    """
    wanted = replace(source, url=stream_url(source.url, startup=book is None))
    answer = await fetch(wanted, Validators(), manners)
    assert isinstance(answer, Fetched)
    if book is None:
        books[feed.name] = fresh = Book()
        fresh.take(answer.body, now)
        fresh.asked_at = now
        return answer
    book.asked_at = now
    if is_empty(answer.body):
        return NotModified()
    book.take(answer.body, now)
    return Fetched(book.written(now))


def _believed(
    answer: Answer, kept: bytes | None, feed: Feed, state: FeedState, now: float
) -> tuple[Examined, bool]:
    """The copy that is to be used and whether it is another one.  Raises FeedError if it may not be believed."""
    body = kept if isinstance(answer, NotModified) else answer.body
    assert body is not None
    if body == kept and state.fetched_at is not None:
        same = _last_good(body, feed, state.fetched_at)
        # Durations count from when they were fetched: the same ones fetched again end later.
        if same is not None and (same.parsed.until is None or isinstance(answer, NotModified)):
            return same, False
    copy = examine(body, feed, state.entries if kept is not None else None, now)
    if copy.reasons:
        raise FeedError("; ".join(copy.reasons))
    return copy, True


def _last_good(body: bytes, feed: Feed, fetched_at: float) -> Examined | None:
    """The last good copy as it was read then; None if this version or configuration would not take it."""
    try:
        copy = examine(body, feed, None, fetched_at)
    except FeedError:
        return None
    return None if copy.reasons else copy


def _failed(
    feed: Feed,
    store: Store,
    state: FeedState,
    kept: bytes | None,
    error: FeedError,
    at: Moment,
    draw: Random,
) -> Outcome:
    copy = None if kept is None or state.fetched_at is None else _last_good(kept, feed, state.fetched_at)
    failures = state.failures + 1
    wait = schedule.after_failure(failures, feed.interval_s, feed.min_interval_s, error.retry_after_s, draw)
    new = msgspec.structs.replace(
        state,
        checked_at=at.wall,
        failures=failures,
        next_at=at.wall + wait,
        checked=at,
    )
    store.write(feed.name, new)
    return Outcome(_without_answer(new) if copy is None else Status.STALE, copy, False, new)


def _without_answer(state: FeedState) -> Status:
    return Status.REFUSED if state.has_answered or state.body is not None else Status.NEVER_FETCHED
