"""`penstock feed add|remove|list|refresh|fetch`: the feeds that fill sets."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.options import DURATION, duration_text, json_option
from penstock.errors import FeedError, PenstockError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from penstock.pipeline.feed_listing import FeedRow
    from penstock.pipeline.feeding import Folded
    from penstock.pipeline.fetching import Fetched, Fetcher
    from penstock.pipeline.subscriptions import Subscription

_PARTLY = 8
_TIMED_FROM = 100_000


@click.command("add")
@click.argument("set_name", metavar="SET")
@click.argument("source")
@click.option("--format", "format_", metavar="F", help="How it is written; `list` if nothing says otherwise.")
@click.option("--every", type=DURATION, metavar="TIME", help="How often it is asked: 30m, 6h, 1d.")
@click.option("--allow-http", is_flag=True, help="Take http too: whoever is on the way can change the list.")
@click.option("--private", is_flag=True, help="Private addresses may be listed: it is a list of your own.")
@json_option
def add(
    set_name: str,
    source: str,
    format_: str | None,
    every: float | None,
    allow_http: bool,
    private: bool,
    as_json: bool,
) -> None:
    """Fill SET from SOURCE too: a preset's name, a URL, a file, or `exec:COMMAND`.

    Its last good copy comes in at once if there is one; `penstock feed refresh` fetches it.
    """
    from penstock.pipeline.feeding import fold
    from penstock.pipeline.set_commands import who
    from penstock.pipeline.set_store import open_set
    from penstock.pipeline.subscriptions import Subscription, subscribe

    set_name = set_name.removeprefix("@")
    new = Subscription(
        _whole(source), format_, every, by=who(), at=time.time(), is_private=private, allow_http=allow_http
    )
    with open_set(set_name) as found:
        _check(new, found.spec.kind, set_name)
    subscribe(set_name, new)
    done = fold(set_name)
    if as_json:
        note = done.notes.get(new.name)
        entries = note.entries if note else None
        output.record("penstock.feed.add/1", {"set": set_name, "feed": new.name, "entries": entries})
        return
    if new.name not in done.notes:
        output.note(
            f"@{set_name}: {new.name} fills it once `penstock feed refresh {new.name}` has fetched it"
        )
        return
    output.note(f"@{set_name}: {new.name} fills it, by the copy that was kept")
    _say_folded(set_name, done)


def _whole(source: str) -> str:
    """The source as any process finds it; a path from here on is one from the root."""
    from penstock.feeds.sources import File, source_of
    from penstock.model.feeds import PRESET_RHYTHMS, preset_hint
    from penstock.pipeline.subscriptions import from_the_root

    if source in PRESET_RHYTHMS:
        return source
    where = source_of(source)
    if source == "-":
        raise FeedError(
            "standard input is gone when the feed is asked again", hint="`set import SET -` reads it once"
        )
    if not isinstance(where, File):
        return source
    if "/" not in source and not where.path.exists():
        raise FeedError(f"`{source}` is no preset and no file", hint=preset_hint(source))
    return from_the_root(where.path)


def _check(new: Subscription, kind: tuple[str, ...], set_name: str) -> None:
    from penstock.feeds.formats import check_format
    from penstock.model.feeds import FED_KINDS, least_interval_s

    check_format(new.read_as)
    if kind not in FED_KINDS:
        raise PenstockError(
            f"@{set_name} is a set of {' . '.join(kind)}, and feeds list addresses",
            hint="a set of `net` or `host` can have feeds",
        )
    least = least_interval_s(new.source)
    if new.every_s is not None and new.every_s < least:
        raise PenstockError(
            f"{new.source} may be asked every {duration_text(least)} at most",
            hint=f"--every {duration_text(least)}, or leave it out",
        )


@click.command("remove")
@click.argument("set_name", metavar="SET")
@click.argument("source")
@json_option
def remove(set_name: str, source: str, as_json: bool) -> None:
    """Fill SET from SOURCE no more; what no other source lists goes.

    SOURCE is as in `feed add`, or the feed's name.  A policy that names the feed brings it back when it is applied.
    """
    from penstock.feeds.store import Store
    from penstock.pipeline.damage import damaged_sets
    from penstock.pipeline.feeding import fold
    from penstock.pipeline.subscriptions import from_the_root, subscriptions, unsubscribe, wanted

    set_name = set_name.removeprefix("@")
    there = [one.name for one in subscriptions(set_name)]
    gone = unsubscribe(set_name, source) or unsubscribe(set_name, from_the_root(source))
    if not gone:
        listed = f"there are: {', '.join(there)}" if there else "it has none"
        raise FeedError(f"@{set_name} has no feed `{source}`", hint=listed)
    done = fold(set_name)
    for one in gone:
        # Of a set whose file is damaged nobody knows what it wants.
        if one.name not in wanted() and not damaged_sets():
            Store().forget(one.name)
    if as_json:
        output.record(
            "penstock.feed.remove/1", {"set": set_name, "feed": gone[0].name, "removed": done.removed}
        )
        return
    for one in gone:
        output.note(f"@{set_name}: {one.name} fills it no more")
    _say_folded(set_name, done)
    for one in gone:
        if one.owner != "command":
            output.note(f"{one.owner} names it: applying that brings it back")


@click.command("list")
@json_option
def list_(as_json: bool) -> int:
    """Show the feeds of all sets: how old their copies are, how they stand, when they are asked next.

    Exit code 8 if of some set it cannot be read what feeds it has.
    """
    from penstock.pipeline.feed_listing import DAMAGED, feed_rows

    rows = list(feed_rows())
    damaged = [row for row in rows if row.state == DAMAGED]
    if as_json:
        for row in rows:
            output.record("penstock.feed/1", _record(row))
        return _PARTLY if damaged else 0
    titles = ("SET", "FEED", "STATE", "ENTRIES", "AGE", "NEXT", "EVERY")
    output.table(titles, [_cells(row) for row in rows], right=(3,))
    for row in rows:
        if row.reason and row not in damaged:
            output.warn(f"{row.name} (@{row.set}): {row.reason}")
    return _say_damage()


def _say_damage() -> int:
    """Name what of the sets' files cannot be read; the exit code that it makes."""
    from penstock.pipeline.damage import damaged_sets

    found = damaged_sets()
    for name, errors in found.items():
        for error in errors:
            output.fault(PenstockError(f"@{name}: {error.message}", hint=error.hint))
    return _PARTLY if found else 0


def _record(row: FeedRow) -> dict[str, object]:
    return {
        "set": row.set,
        "feed": row.name,
        "source": row.source,
        "format": row.format,
        "every_s": row.every_s,
        "owner": row.owner,
        "state": row.state,
        "reason": row.reason,
        "entries": row.entries,
        "protected": row.left_out,
        "age_s": row.age_s,
        "checked_s": row.checked_s,
        "next_s": row.next_s,
    }


def _cells(row: FeedRow) -> tuple[str, ...]:
    return (
        f"@{row.set}",
        row.name,
        row.state,
        "" if row.entries is None else f"{row.entries:,}",
        _time(row.age_s),
        _time(row.next_s),
        _time(row.every_s),
    )


def _time(seconds: float | None) -> str:
    return "" if seconds is None else duration_text(round(seconds))


@click.command("refresh")
@click.argument("names", nargs=-1, metavar="NAME…")
@json_option
def refresh(names: tuple[str, ...], as_json: bool) -> int:
    """Ask feeds now, all or those of these names, sources or sets, and fold what they list into their sets.

    A source that does not permit it yet is not asked.  Exit code 8 if some of them failed.
    """
    from penstock.pipeline.feeding import fold
    from penstock.pipeline.fetching import Fetcher, fetch_named

    found = asyncio.run(_watched(fetch_named(Fetcher(), names)))
    has_failed = any(one.has_failed for one in found)
    for one in found:
        _say_fetched(one, as_json)
    for set_name in dict.fromkeys(place for one in found for place in one.sets):
        try:
            done = fold(set_name, progress=_progress, again=True)
        except PenstockError as error:
            has_failed = True
            output.fault(PenstockError(f"@{set_name}: {error.message}", hint=error.hint))
            continue
        has_failed |= any(note.refused for note in done.notes.values())
        if as_json:
            counts = {"added": done.added, "changed": done.changed, "removed": done.removed}
            refused = {name: note.refused for name, note in done.notes.items() if note.refused}
            output.record("penstock.feed.fold/1", {"set": set_name, **counts, "refused": refused})
        else:
            _say_folded(set_name, done)
    return _PARTLY if has_failed or (not names and _say_damage()) else 0


async def _watched(asking: Awaitable[list[Fetched]]) -> list[Fetched]:
    """With a word on the terminal while sources are asked."""
    output.progress("asking feeds …")
    try:
        return await asking
    finally:
        output.progress("")


@click.command("fetch")
@click.option("--once", is_flag=True, help="Those whose time has come, then end.")
@json_option
def fetch(once: bool, as_json: bool) -> int:
    """Ask feeds when they are due and keep their last good copies, until it is told to end.

    It needs no privilege and changes no set: the daemon or `penstock feed refresh` does that with what it keeps.
    With `--once`, exit code 8 if some of them failed.
    """
    from penstock.pipeline.fetching import Fetcher, fetch_due

    if once:
        found = asyncio.run(fetch_due(Fetcher()))
        for one in found:
            _say_fetched(one, as_json)
        return _PARTLY if _say_damage() or any(one.has_failed for one in found) else 0
    asyncio.run(_until_told(Fetcher(), as_json))
    return 0


async def _until_told(fetcher: Fetcher, as_json: bool) -> None:
    from penstock.pipeline.fetching import keep_fetching

    fetching = asyncio.ensure_future(keep_fetching(fetcher, lambda found: _say_fetched(found, as_json)))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, fetching.cancel)
    with suppress(asyncio.CancelledError):
        await fetching


def _say_fetched(found: Fetched, as_json: bool) -> None:
    copy = found.outcome.copy if found.outcome else None
    entries = None if copy is None else copy.count
    is_changed = bool(found.outcome and found.outcome.is_changed)
    if as_json:
        state = found.outcome.status.value if found.outcome else None
        content = {"feed": found.name, "state": state, "reason": found.reason, "entries": entries}
        output.record("penstock.feed.fetch/1", {**content, "changed": is_changed})
        return
    if found.reason is not None:
        output.warn(f"{found.name}: {found.reason}")
        return
    words = f"{entries or 0:,} entries" if is_changed else "nothing has changed"
    output.note(f"{found.name}: {words}")


def _say_folded(set_name: str, done: Folded) -> None:
    parts = [(done.added, "added"), (done.changed, "changed"), (done.removed, "removed")]
    told = ", ".join(f"{count:,} {word}" for count, word in parts if count) or "nothing changed"
    output.note(f"@{set_name}: {told}")
    for name, note in done.notes.items():
        if note.refused:
            output.warn(f"@{set_name}: {name} is not taken: {note.refused}")
        elif note.left_out:
            output.note(f"@{set_name}: {note.left_out} protected addresses of {name} are left out")


def _progress(done: int, total: int) -> None:
    if total >= _TIMED_FROM:
        filled = 30 * done // total
        bar = f"[{'#' * filled}{'.' * (30 - filled)}] {done:,} of {total:,} entries" if done < total else ""
        output.progress(bar)
