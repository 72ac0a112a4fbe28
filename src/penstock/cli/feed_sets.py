"""`penstock feed add|remove|list|refresh|fetch`: the feeds that fill sets."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from penstock.cli import output
from penstock.cli.options import DURATION, duration_text, json_option, number_text
from penstock.control.client import ask_if_there
from penstock.errors import FeedError, PenstockError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from penstock.pipeline.feed_listing import FeedRow
    from penstock.pipeline.fetching import Fetched, Fetcher

_PARTLY = 8
_TIMED_FROM = 100_000
#: For sources that take their time, and sets of a million entries.
_PATIENCE_S = 600.0


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
    from penstock.kernel.capability import BPF, missing

    source = _whole(source)
    asked: dict[str, Any] = {"set": set_name, "source": source, "format": format_, "every": every}
    done = None
    if missing(BPF):
        done = ask_if_there("FeedAdd", **asked, allow_http=allow_http, is_private=private)
    if done is None:
        from penstock.pipeline.feed_commands import add_feed
        from penstock.pipeline.set_commands import who
        from penstock.pipeline.subscriptions import Subscription

        new = Subscription(
            source, format_, every, by=who(), at=time.time(), is_private=private, allow_http=allow_http
        )
        done = add_feed(set_name, new)
    _say_added(done, as_json)


def _say_added(done: dict[str, Any], as_json: bool) -> None:
    folded = done.pop("folded")
    if as_json:
        output.record("penstock.feed.add/1", done)
        return
    set_name, name = done["set"], done["feed"]
    if done["entries"] is None:
        output.note(f"@{set_name}: {name} fills it once `penstock feed refresh {name}` has fetched it")
        return
    output.note(f"@{set_name}: {name} fills it, by the copy that was kept")
    _say_folded(folded)


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


@click.command("remove")
@click.argument("set_name", metavar="SET")
@click.argument("source")
@json_option
def remove(set_name: str, source: str, as_json: bool) -> None:
    """Fill SET from SOURCE no more; what no other source lists goes.

    SOURCE is as in `feed add`, or the feed's name.  A policy that names the feed brings it back when it is applied.
    """
    from penstock.kernel.capability import BPF, missing
    from penstock.pipeline.subscriptions import from_the_root

    names = (source, from_the_root(source))
    done = ask_if_there("FeedRemove", set=set_name, sources=names) if missing(BPF) else None
    if done is None:
        from penstock.pipeline.feed_commands import remove_feed

        done = remove_feed(set_name, names)
    set_name, gone, folded = done["set"], done["feeds"], done["folded"]
    if as_json:
        output.record(
            "penstock.feed.remove/1",
            {"set": set_name, "feed": gone[0]["feed"], "removed": folded["removed"]},
        )
        return
    for one in gone:
        output.note(f"@{set_name}: {one['feed']} fills it no more")
    _say_folded(folded)
    for one in gone:
        if one["owner"] != "command":
            output.note(f"{one['owner']} names it: applying that brings it back")


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
@click.argument("names", nargs=-1, metavar="[NAME…]")
@json_option
def refresh(names: tuple[str, ...], as_json: bool) -> int:
    """Ask feeds now, all or those of these names, sources or sets, and fold what they list into their sets.

    A source that does not permit it yet is not asked.  Exit code 8 if some of them failed.
    """
    from penstock.kernel.capability import BPF, missing

    done = None
    if missing(BPF):
        done = ask_if_there("FeedRefresh", patience_s=_PATIENCE_S, names=names)
    if done is None:
        done = _refreshed(names)
    for one in done["fetched"]:
        _say_fetched(one, as_json)
    for one in done["folded"]:
        if "fault" in one:
            fault = one["fault"]
            output.fault(PenstockError(f"@{one['set']}: {fault['message']}", hint=fault["hint"]))
        elif as_json:
            output.record(
                "penstock.feed.fold/1", {key: value for key, value in one.items() if key != "left_out"}
            )
        else:
            _say_folded(one)
    has_failed = any(one["failed"] for one in done["fetched"])
    has_failed |= any("fault" in one or one["refused"] for one in done["folded"])
    return _PARTLY if has_failed or (not names and _say_damage()) else 0


def _refreshed(names: tuple[str, ...]) -> dict[str, Any]:
    """Ask feeds and fold them without a daemon."""
    from penstock.pipeline.feed_commands import fold_again

    found = asyncio.run(_watched(_asked(names)))
    folded = fold_again((place for one in found for place in one["sets"]), _progress)
    return {"fetched": found, "folded": folded}


async def _asked(names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Ask feeds, by a process of another user where one may write what is asked (fetch_user.py)."""
    from penstock.pipeline.fetch_user import fetches_as
    from penstock.pipeline.fetching import Fetcher, chosen_feeds, fetch_named, fetched_record

    if fetches_as() is None:
        return [fetched_record(one) for one in await fetch_named(Fetcher(), names)]
    from penstock.daemon.fetcher import fetch_now

    chosen = tuple(chosen_feeds(names))
    return await fetch_now(chosen) if chosen else []


async def _watched(asking: Awaitable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
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
    With `--once`, exit code 8 if some of them failed.  As root it becomes the user who has the copies.
    """
    from penstock.pipeline.fetch_user import become, fetches_as
    from penstock.pipeline.fetching import Fetcher, fetch_due, fetched_record

    if user := fetches_as():
        become(*user)
    if once:
        found = asyncio.run(fetch_due(Fetcher()))
        for one in found:
            _say_fetched(fetched_record(one), as_json)
        return _PARTLY if _say_damage() or any(one.has_failed for one in found) else 0
    asyncio.run(_until_told(Fetcher(), as_json))
    return 0


async def _until_told(fetcher: Fetcher, as_json: bool) -> None:
    from penstock.pipeline.fetching import fetched_record, keep_fetching

    def told(found: Fetched) -> None:
        _say_fetched(fetched_record(found), as_json)

    fetching = asyncio.ensure_future(keep_fetching(fetcher, told))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, fetching.cancel)
    with suppress(asyncio.CancelledError):
        await fetching


def _say_fetched(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        told = {key: value for key, value in found.items() if key not in ("sets", "failed")}
        output.record("penstock.feed.fetch/1", told)
        return
    if found["reason"] is not None:
        state = f"{found['state']}: " if found["state"] else ""
        output.warn(f"{found['feed']}: {state}{found['reason']}")
        return
    words = (
        number_text(found["entries"] or 0, "entry", "entries") if found["changed"] else "nothing has changed"
    )
    output.note(f"{found['feed']}: {words}")


def _say_folded(done: dict[str, Any]) -> None:
    parts = [(done[word], word) for word in ("added", "changed", "removed")]
    told = ", ".join(f"{count:,} {word}" for count, word in parts if count) or "nothing changed"
    set_name = done["set"]
    output.note(f"@{set_name}: {told}")
    for name, reason in done["refused"].items():
        output.warn(f"@{set_name}: {name} is not taken: {reason}")
    for name, count in done["left_out"].items():
        protected = number_text(count, "protected entry", "protected entries")
        output.note(f"@{set_name}: {protected} of {name} left out")


def _progress(done: int, total: int) -> None:
    if total >= _TIMED_FROM:
        filled = 30 * done // total
        bar = f"[{'#' * filled}{'.' * (30 - filled)}] {done:,} of {total:,} entries" if done < total else ""
        output.progress(bar)
