"""What is known of every feed of every set: how old its copy is, how it stands, when it is asked next.

    for row in feed_rows():
        row.set, row.name, row.state, row.reason, row.age_s, row.next_s

Nothing but files is read: it needs no privilege beyond reading these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.errors import PenstockError
from penstock.feeds.store import FeedState, Store
from penstock.model.moment import Moment, moment
from penstock.pipeline.feeding import Note, notes
from penstock.pipeline.ledger import ledgers
from penstock.pipeline.subscriptions import Subscription, subscriptions

if TYPE_CHECKING:
    from collections.abc import Iterator


DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class FeedRow:
    """A feed of a set.

    `state` is ``new`` before it was asked, ``ok``, ``stale`` while the last good copy is used though the
    source has failed, ``never fetched`` where it has failed from the first, and ``refused`` where what it
    has answered was never good, or the set cannot take it; `reason` says why.
    It is ``damaged`` in a row without a name for a set of which it cannot be read what feeds it has.
    `entries` is how many the set holds of it, `age_s` how old its copy is.
    """

    set: str
    name: str
    source: str
    format: str
    every_s: float
    owner: str
    state: str
    reason: str | None
    entries: int | None
    left_out: int
    age_s: float | None
    checked_s: float | None
    next_s: float | None


def feed_rows() -> Iterator[FeedRow]:
    """Every feed of every set.  Raises PenstockError: what is known cannot be read."""
    store, now = Store(), moment()
    for name in ledgers():
        known = notes(name)
        try:
            each = subscriptions(name)
        except PenstockError as error:
            yield _damaged(name, error)
            continue
        for one in each:
            yield _row(name, one, store.state(one.name), known.get(one.name), now)


def _damaged(set_name: str, error: PenstockError) -> FeedRow:
    reason = f"{error.message} ({error.hint})" if error.hint else error.message
    return FeedRow(set_name, "", "", "", 0.0, "", DAMAGED, reason, None, 0, None, None, None)


def _row(set_name: str, one: Subscription, state: FeedState, note: Note | None, now: Moment) -> FeedRow:
    refused = note.refused if note else None
    return FeedRow(
        set_name,
        one.name,
        one.source,
        one.read_as,
        one.interval_s,
        one.owner,
        "refused" if refused else state.status,
        refused or state.reason,
        None if note is None else note.entries,
        note.left_out if note else 0,
        _ago(state.fetched, state.fetched_at, now),
        _ago(state.checked, state.checked_at, now),
        None if state.next_at is None else state.wait_s(now),
    )


def _ago(noted: Moment | None, wall: float | None, now: Moment) -> float | None:
    if noted is not None:
        return noted.elapsed_s(now)
    return None if wall is None else max(now.wall - wall, 0.0)
