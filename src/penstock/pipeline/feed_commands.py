"""Adding feeds to sets, taking them back, folding what was fetched: the one way for commands and the daemon.

    add_feed("threats", Subscription("tor-exits", by="alice"))
        ->  {"set": "threats", "feed": "tor-exits", "entries": None, "folded": {"set": "threats", "added": 0, …}}

In: sets and subscriptions.  Out: records of what was done, which can be sent and printed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.errors import FeedError, PenstockError
from penstock.model.feeds import (
    FED_KINDS,
    PRESET_RHYTHMS,
    is_open_http,
    least_interval_s,
    preset_hint,
    source_fault,
)
from penstock.model.sets import time_text
from penstock.pipeline.damage import damaged_sets
from penstock.pipeline.feeding import fold
from penstock.pipeline.subscriptions import Subscription, subscribe, subscriptions, unsubscribe, wanted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.pipeline.feeding import Folded
    from penstock.pipeline.live_set import Progress


#: How a source begins that is the same to every process.
_WHOLE = ("https://", "http://", "exec:", "/", "file:///")


def add_feed(set_name: str, new: Subscription) -> dict[str, Any]:
    """Fill a set from a feed too; its last good copy comes in at once if there is one.

    Raises:
        PenstockError: there is no such set, or none that this feed could fill.
    """
    from penstock.pipeline.set_store import open_set

    set_name = set_name.removeprefix("@")
    with open_set(set_name) as found:
        _check(new, found.spec.kind, set_name)
    subscribe(set_name, new)
    done = fold(set_name)
    note = done.notes.get(new.name)
    entries = note.entries if note else None
    return {"set": set_name, "feed": new.name, "entries": entries, "folded": folded(set_name, done)}


def _check(new: Subscription, kind: tuple[str, ...], set_name: str) -> None:
    from penstock.feeds.formats import check_format

    if fault := source_fault(new.source):
        raise FeedError(fault)
    if new.source not in PRESET_RHYTHMS and not new.source.lower().startswith(_WHOLE):
        raise FeedError(
            f"`{new.source[:60]}` is no preset and no file from the root", hint=preset_hint(new.source)
        )
    check_format(new.read_as)
    if kind not in FED_KINDS:
        raise PenstockError(
            f"@{set_name} is a set of {' . '.join(kind)}, and feeds list addresses",
            hint="a set of `net` or `host` can have feeds",
        )
    if is_open_http(new.source) and not new.allow_http:
        raise PenstockError(
            f"{new.source}: http is not taken: https is",
            hint="`--allow-http`, if the list may be changed on its way",
        )
    least = least_interval_s(new.source)
    if new.every_s is not None and new.every_s < least:
        words = time_text(int(least) * 1_000_000_000)
        raise PenstockError(
            f"{new.source} may be asked every {words} at most", hint=f"--every {words}, or leave it out"
        )


def is_from_here(source: str) -> bool:
    """Whether a source is a file or a command of this machine, and not something that is asked of others."""
    from penstock.feeds.sources import Url, source_of

    return source not in PRESET_RHYTHMS and not isinstance(source_of(source), Url)


def remove_feed(set_name: str, sources: Iterable[str]) -> dict[str, Any]:
    """Fill a set no more from a feed; `sources` are what it may be called, the first that is one counts.

    Raises:
        FeedError: the set has no such feed.
    """
    from penstock.feeds.store import Store

    set_name, names = set_name.removeprefix("@"), tuple(sources)
    there = [one.name for one in subscriptions(set_name)]
    gone = next((some for one in names if (some := unsubscribe(set_name, one))), ())
    if not gone:
        listed = f"there are: {', '.join(there)}" if there else "it has none"
        raise FeedError(f"@{set_name} has no feed `{names[0]}`", hint=listed)
    done = fold(set_name)
    for one in gone:
        # Of a set whose file is damaged nobody knows what it wants.
        if one.name not in wanted() and not damaged_sets():
            Store().forget(one.name)
    feeds = [{"feed": one.name, "owner": one.owner} for one in gone]
    return {"set": set_name, "feeds": feeds, "folded": folded(set_name, done)}


def fold_again(set_names: Iterable[str], progress: Progress | None = None) -> list[dict[str, Any]]:
    """Fold what was fetched into these sets, each once; one that fails has a `fault`."""
    return [_folded_again(name, progress) for name in dict.fromkeys(set_names)]


def _folded_again(set_name: str, progress: Progress | None) -> dict[str, Any]:
    try:
        return folded(set_name, fold(set_name, progress=progress, again=True))
    except PenstockError as error:
        return {"set": set_name, "fault": {"message": error.message, "hint": error.hint}}


def folded(set_name: str, done: Folded) -> dict[str, Any]:
    """What folding did to a set: which copies are not taken, and how many addresses of others are protected."""
    refused = {name: note.refused for name, note in done.notes.items() if note.refused}
    left_out = {
        name: note.left_out for name, note in done.notes.items() if note.left_out and not note.refused
    }
    counts = {"added": done.added, "changed": done.changed, "removed": done.removed}
    return {"set": set_name, **counts, "refused": refused, "left_out": left_out}
