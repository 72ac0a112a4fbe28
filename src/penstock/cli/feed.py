"""`penstock feed check|presets`: what a feed lists, before anything trusts it; the rest is in `feed_sets`."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from penstock.cli import feed_sets, output
from penstock.cli.options import Hinting, json_option, number_text
from penstock.errors import FeedError

if TYPE_CHECKING:
    from penstock.feeds.refresh import Examined, Feed

_SHOWN_ENTRIES = 10
_SHOWN_REJECTS = 20


_REMOVE = "`penstock feed remove SET SOURCE`"
_MEANT = {
    **dict.fromkeys(("del", "delete", "rm", "unsubscribe"), _REMOVE),
    **dict.fromkeys(("update", "pull", "sync"), "`penstock feed refresh [NAME…]`"),
    **dict.fromkeys(("show", "ls", "status"), "`penstock feed list`"),
    **dict.fromkeys(("test", "try"), "`penstock feed check SOURCE`"),
}


@click.group("feed", cls=Hinting, meant=_MEANT)
def command() -> None:
    """Look at threat feeds, lists of addresses that others publish, and fill sets from them."""


for _one in (feed_sets.add, feed_sets.remove, feed_sets.list_, feed_sets.refresh, feed_sets.fetch):
    command.add_command(_one)


@command.command("check")
@click.argument("source")
@click.option("--format", "format_", metavar="F", help="How it is written; `list` if nothing says otherwise.")
@click.option("--preset", metavar="P", help="As this preset is written and judged.")
@click.option(
    "--previous", type=click.IntRange(min=0), metavar="N", help="Judge it as if it had N entries before."
)
@click.option(
    "--max", "max_entries", type=click.IntRange(min=1), metavar="N", help="There is room for N entries."
)
@click.option("--all", "show_all", is_flag=True, help="Print every entry and every reject.")
@click.option("--allow-http", is_flag=True, help="Take http too: whoever is on the way can change the list.")
@click.option("--private", is_flag=True, help="Private addresses may be listed: it is a list of your own.")
@json_option
def check(
    source: str,
    format_: str | None,
    preset: str | None,
    previous: int | None,
    max_entries: int | None,
    show_all: bool,
    allow_http: bool,
    private: bool,
    as_json: bool,
) -> int:
    """Read SOURCE once and say what it lists and what would be refused.  Nothing is kept or changed.

    SOURCE is a preset's name, a URL, a file, `-` for standard input, or `exec:COMMAND` for what a command prints.
    PENSTOCK_FEED_KEY is the key of a preset that wants one.

    Exit code 1 if the feed would be refused.
    """
    from penstock.model.feeds import is_loopback

    feed = _feed(source, format_, preset, private=private)
    if max_entries is not None:
        feed = replace(feed, limits=replace(feed.limits, max_entries=max_entries))
    found = _examined(feed, previous, allow_http=allow_http or is_loopback(source))
    if as_json:
        output.record("penstock.feed.check/1", _record(feed, found, show_all=show_all))
    else:
        _show(found, show_all=show_all)
    return 1 if found.reasons else 0


def _feed(source: str, format_: str | None, preset: str | None, *, private: bool) -> Feed:
    from penstock.feeds.formats import check_format
    from penstock.feeds.presets import PRESETS, preset_named
    from penstock.feeds.protected import NEVER, SPECIAL
    from penstock.feeds.refresh import Feed
    from penstock.feeds.sources import Url, source_of
    from penstock.model.feeds import PRESET_RHYTHMS
    from penstock.pipeline.surroundings import surroundings

    known = preset_named(preset) if preset else PRESETS.get(source)
    where = source_of(known.url if known and source in PRESETS else source)
    if known and isinstance(where, Url):
        where = Url(where.url, {**known.headers, **_key(known.key_header)})
    rhythm = PRESET_RHYTHMS.get(preset or source)
    name = format_ or (rhythm.format if rhythm else "list")
    check_format(name)
    feed = Feed(source, where, name, protected=(*(NEVER if private else SPECIAL), *surroundings()))
    return replace(feed, limits=known.limits) if known else feed


def _key(header: str | None) -> dict[str, str]:
    key = os.environ.get("PENSTOCK_FEED_KEY")
    return {header: key} if header and key else {}


def _examined(feed: Feed, previous: int | None, *, allow_http: bool) -> Examined:
    from penstock.feeds.fetch import Fetched, Manners, Validators
    from penstock.feeds.refresh import ask, examine

    manners = Manners(allow_http=allow_http, contact=os.environ.get("PENSTOCK_CONTACT"))
    try:
        answer = asyncio.run(ask(feed, Validators(), manners))
        assert isinstance(answer, Fetched)
        return examine(answer.body, feed, previous, time.time())
    except FeedError as error:
        if error.feed is not None:
            raise
        raise FeedError(error.reason, feed=feed.name, line=error.line, hint=error.hint) from error


def _show(found: Examined, *, show_all: bool) -> None:
    parsed = found.parsed
    entries = found.listed.prefixes
    shown = len(entries) if show_all else _SHOWN_ENTRIES
    texts = entries.take(slice(shown), slice(max(shown - len(entries.v4), 0))).texts()
    for text in texts:
        output.answer(text)
    if len(entries) > len(texts):
        output.answer(f"… and {len(entries) - len(texts)} more (--all)")
    rejects = parsed.rejects if show_all else parsed.rejects[:_SHOWN_REJECTS]
    for bad in rejects:
        output.warn(f"line {bad.line}: `{bad.text}`: {bad.reason}")
    if parsed.rejected > len(rejects):
        output.warn(f"{parsed.rejected - len(rejects)} more entries are no addresses")
    for one in found.left_out:
        what = f"{one.removed} left out" if one.removed else f"{one.split} split around it"
        output.answer(f"protected {one.protected.network} ({one.protected.reason}): {what}, as {one.example}")
    for text in _asides(found):
        output.answer(text)
    for reason in found.reasons:
        output.warn(f"it would be refused: {reason}")


def _asides(found: Examined) -> list[str]:
    parsed = found.parsed
    every = len(parsed.prefixes)
    counts = (
        (parsed.normalised, "had bits behind their length, which were cleared"),
        (parsed.mapped, "were IPv4 written as IPv6"),
        (parsed.skipped, "are marked as not to be acted upon, or are over"),
        (every - found.count - sum(one.removed for one in found.left_out), "occur more than once"),
    )
    asides = [f"{count} {words}" for count, words in counts if count]
    declared = "" if parsed.declared is None else f", as it says: {parsed.declared}"
    families = f"{len(found.listed.prefixes.v4)} IPv4, {len(found.listed.prefixes.v6_high)} IPv6"
    asides.append(
        f"{number_text(parsed.entries, 'entry', 'entries')}{declared}; {families} prefixes would be used"
    )
    return asides


def _record(feed: Feed, found: Examined, *, show_all: bool) -> dict[str, object]:
    parsed = found.parsed
    entries = found.listed.prefixes
    return {
        "feed": feed.name,
        "format": feed.format,
        "refused": list(found.reasons),
        "entries": parsed.entries,
        "declared": parsed.declared,
        "v4": len(entries.v4),
        "v6": len(entries.v6_high),
        "rejected": parsed.rejected,
        "normalised": parsed.normalised,
        "mapped": parsed.mapped,
        "skipped": parsed.skipped,
        "rejects": [{"line": bad.line, "text": bad.text, "reason": bad.reason} for bad in parsed.rejects],
        "protected": [
            {
                "prefix": str(one.protected.network),
                "reason": one.protected.reason,
                "left_out": one.removed,
                "split": one.split,
                "example": one.example,
            }
            for one in found.left_out
        ],
        "prefixes": entries.texts() if show_all else None,
    }


@command.command("presets")
@json_option
def presets(as_json: bool) -> None:
    """List the feeds that are known by name, with their terms."""
    from penstock.feeds.presets import PRESETS
    from penstock.model.feeds import PRESET_RHYTHMS

    if as_json:
        for name, preset in PRESETS.items():
            rhythm = PRESET_RHYTHMS[name]
            output.record(
                "penstock.feed.preset/1",
                {
                    "name": name,
                    "url": preset.url,
                    "format": rhythm.format,
                    "interval_s": rhythm.interval_s,
                    "min_interval_s": rhythm.min_interval_s,
                    "licence": preset.licence,
                    "needs_key": preset.key_header is not None,
                },
            )
        return
    rows = []
    for name, preset in PRESETS.items():
        rhythm = PRESET_RHYTHMS[name]
        rows.append((name, rhythm.format, _hours(rhythm.interval_s), preset.url, preset.licence))
    titles = ("NAME", "FORMAT", "EVERY", "URL", "TERMS")
    lines = output.table_lines(titles, rows, right=(2,))
    if (width := output.width()) is None or max(map(len, lines)) <= width:
        output.table(titles, rows, right=(2,))
        return
    for line, row in zip(
        output.table_lines(titles[:3], [row[:3] for row in rows], right=(2,))[1:], rows, strict=True
    ):
        output.answer(line)
        output.answer(f"    {row[3]}")
        output.answer(f"    {row[4]}")


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:g} h"
