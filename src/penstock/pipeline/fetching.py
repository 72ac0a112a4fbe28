"""Ask the sources of all feeds that sets want, when it is time: no privilege, no kernel.

    asyncio.run(fetch_due(Fetcher()))        the feeds whose time has come, once
    asyncio.run(keep_fetching(Fetcher(), told))   for ever: sleeps until the next is due; ends when it is cancelled

In: STATE/sets/*/feeds.json, what is known of each feed.  Out: last good copies and states under
STATE/feeds, which `feeding` folds into sets.  Promised: no source is asked more often than it
permits, whoever asks; a failure of one feed is that feed's alone.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from penstock.errors import FeedError
from penstock.feeds.fetch import Manners
from penstock.feeds.refresh import Outcome, refresh
from penstock.feeds.store import Store
from penstock.model.feeds import is_loopback, least_interval_s
from penstock.model.moment import moment
from penstock.pipeline.damage import damaged_sets
from penstock.pipeline.feeding import feed_of
from penstock.pipeline.subscriptions import Wanted, from_the_root, wanted
from penstock.pipeline.surroundings import surroundings

if TYPE_CHECKING:
    from penstock.feeds.crowdsec import Book

#: Sets may want other feeds at any time: so long nobody looks.
LONGEST_SLEEP_S = 5.0
_LEFT_ALONE_S = 60.0
_SHORTEST_SLEEP_S = 0.05
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Fetched:
    """What asking a feed came to: `reason` is why its answer is not in use, or why it was not asked."""

    name: str
    sets: tuple[str, ...]
    outcome: Outcome | None
    reason: str | None
    was_asked: bool = True

    @property
    def has_failed(self) -> bool:
        """Whether it was asked in vain."""
        return self.was_asked and self.reason is not None


@dataclass(slots=True)
class Fetcher:
    """What is kept from one round to the next."""

    store: Store = field(default_factory=Store)
    books: dict[str, Book] = field(default_factory=dict)
    _broken: dict[str, int] = field(default_factory=dict)
    """Feeds of which nothing could even be remembered, and until when they are left alone."""

    async def ask(self, name: str, want: Wanted) -> Fetched:
        """Ask one feed now."""
        one = want.subscription
        try:
            feed = feed_of(one, surroundings(), want.interval_s)
            manners = Manners(
                allow_http=one.allow_http or is_loopback(one.source),
                contact=os.environ.get("PENSTOCK_CONTACT"),
            )
            outcome = await refresh(feed, self.store, now=moment().wall, manners=manners, books=self.books)
        except FeedError as error:
            self._broken[name] = moment().boot_ns + int(_LEFT_ALONE_S * 1e9)
            return Fetched(name, want.sets, None, error.message)
        return Fetched(name, want.sets, outcome, outcome.reason)

    async def ask_all(self, each: Iterable[tuple[str, Wanted]]) -> list[Fetched]:
        """Ask several, a few at a time."""
        room = asyncio.Semaphore(_AT_ONCE)

        async def one(name: str, want: Wanted) -> Fetched:
            async with room:
                return await self.ask(name, want)

        return list(await asyncio.gather(*(one(name, want) for name, want in each)))

    def due(self) -> tuple[list[tuple[str, Wanted]], float]:
        """The feeds whose time has come, and seconds until that of the next one comes."""
        ready: list[tuple[str, Wanted]] = []
        soonest = LONGEST_SLEEP_S
        for name, want in wanted().items():
            if self._broken.get(name, 0) > moment().boot_ns:
                continue
            wait = self.wait_s(name, want)
            if wait <= 0:
                ready.append((name, want))
            else:
                soonest = min(soonest, wait)
        return ready, max(soonest, _SHORTEST_SLEEP_S)

    def wait_s(self, name: str, want: Wanted) -> float:
        """Seconds until a feed is due; a shorter interval than that of its last answer counts at once."""
        state, now = self.store.state(name), moment()
        wait = state.wait_s(now)
        if state.failures or state.checked_at is None or state.next_at is None:
            return wait
        elapsed = state.next_at - state.checked_at - wait
        return min(wait, max(want.interval_s * 1.1 - elapsed, 0.0))

    def too_soon_s(self, name: str, want: Wanted) -> float:
        """Seconds for which the source does not permit to be asked again, whoever asks."""
        state = self.store.state(name)
        if state.checked is None:
            return 0.0
        return max(least_interval_s(want.subscription.source) - state.checked.elapsed_s(moment()), 0.0)


def fetched_record(found: Fetched) -> dict[str, object]:
    """What asking a feed came to, to be sent and printed."""
    copy = found.outcome.copy if found.outcome else None
    return {
        "feed": found.name,
        "state": found.outcome.status.value if found.outcome else None,
        "reason": found.reason,
        "entries": None if copy is None else copy.count,
        "changed": bool(found.outcome and found.outcome.is_changed),
        "sets": found.sets,
        "failed": found.has_failed,
    }


async def fetch_due(fetcher: Fetcher) -> list[Fetched]:
    """Ask every feed whose time has come, once."""
    ready, _ = fetcher.due()
    return await fetcher.ask_all(ready)


async def fetch_named(fetcher: Fetcher, names: Iterable[str]) -> list[Fetched]:
    """Ask feeds now, by their names, their sources or the sets that want them; all of them without names.

    One whose source does not permit it yet is not asked, and says so.

    Raises:
        FeedError: nothing is called so.
    """
    chosen = chosen_feeds(tuple(names))
    ready = [(name, want) for name, want in chosen.items() if fetcher.too_soon_s(name, want) <= 0]
    asked = {found.name: found for found in await fetcher.ask_all(ready)}
    return [asked.get(name) or _not_asked(fetcher, name, want) for name, want in chosen.items()]


def _not_asked(fetcher: Fetcher, name: str, want: Wanted) -> Fetched:
    state = fetcher.store.state(name)
    wait = fetcher.too_soon_s(name, want)
    words = f"not asked: its source permits that again in {wait:.0f} s"
    said = words if state.reason is None else f"{words}; {state.reason}"
    return Fetched(name, want.sets, None, said, was_asked=False)


def chosen_feeds(names: tuple[str, ...]) -> dict[str, Wanted]:
    """The feeds that these names mean, as in `fetch_named`.  Raises FeedError: nothing is called so."""
    every = wanted()
    if not names:
        return every
    found: dict[str, Wanted] = {}
    for one in names:
        some = {
            name: want
            for name, want in every.items()
            if want.subscription.source in (one, from_the_root(one))
            or one == name
            or one.removeprefix("@") in want.sets
        }
        if not some:
            for error in damaged_sets().get(one.removeprefix("@"), ()):
                raise error
            there = f"there are: {', '.join(every)}" if every else "`penstock feed add SET SOURCE` adds one"
            raise FeedError(f"no set wants a feed `{one}`", hint=there)
        found.update(some)
    return found


async def keep_fetching(fetcher: Fetcher, told: Callable[[Fetched], None]) -> None:
    """Ask feeds when they are due, until this is cancelled; each outcome is told."""
    while True:
        ready, wait = fetcher.due()
        for found in await fetcher.ask_all(ready):
            told(found)
        if not ready:
            await asyncio.sleep(wait)
