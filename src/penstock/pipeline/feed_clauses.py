"""The feeds that a policy names, when it is put in place: its sets want them from then on.

In: the policies of one text that run now.  Out: sentences for whoever put them in place.  The last
good copies come into the sets at once; nothing is fetched.  A feed that an earlier version of the
text named, and this one does not, is taken back, with what it alone listed.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

from penstock.errors import PenstockError
from penstock.model.feeds import SetFeed
from penstock.pipeline.feeding import fold
from penstock.pipeline.set_commands import who
from penstock.pipeline.subscriptions import (
    BY_COMMAND,
    Subscription,
    owned,
    settle_policy,
    subscription_of,
    subscriptions,
    want,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from penstock.pipeline.identity import Identity
    from penstock.pipeline.policy import LoadedPolicy


def settle_feeds(policies: Sequence[LoadedPolicy]) -> tuple[str, ...]:
    """Let the sets want what the policies name and hold what there is of it; gives what there is to say.

    Whatever fails is said and no reason to take the policies back: a filter whose feeds are old is better than none.
    """
    try:
        return tuple(_settled(policies))
    except PenstockError as error:
        return (f"feeds: {error.message}",)


def take_back_feeds(gone: Sequence[Identity], restored: Sequence[Identity]) -> tuple[str, ...]:
    """Let sets want what they did before policies that were on probation; gives what there is to say.

    Feeds of commands and of other policies stay.
    """
    if not any(identity.feeds for identity in (*gone, *restored)):
        return ()
    try:
        for name in {feed.set for identity in (*gone, *restored) for feed in identity.feeds}:
            if _take_back(name, gone, restored):
                fold(name)
    except PenstockError as error:
        return (f"feeds: {error.message}",)
    return ()


def _take_back(name: str, gone: Sequence[Identity], restored: Sequence[Identity]) -> bool:
    """Of one set; whether that has changed what it wants."""
    since = min((datetime.fromisoformat(one.applied_at).timestamp() for one in gone), default=0.0)
    before = {feed for one in restored for feed in one.feeds if feed.set == name}
    brought = {feed for one in gone for feed in one.feeds if feed.set == name} - before
    old = tuple(owned(name))
    new = [one for one in old if not (_is_of_policy(one) and one.at >= since and _fed(name, one) in brought)]
    there = {_fed(name, one) for one in new if _is_of_policy(one)}
    for one in restored:
        wanted = (feed for feed in one.feeds if feed.set == name and feed not in there)
        new += [subscription_of(feed, one.path, who(), time.time()) for feed in wanted]
    if tuple(new) == old:
        return False
    want(name, tuple(new))
    return True


def _is_of_policy(one: Subscription) -> bool:
    return one.owner != BY_COMMAND


def _fed(name: str, one: Subscription) -> SetFeed:
    return SetFeed(name, one.source, one.format, one.every_s)


def _settled(policies: Sequence[LoadedPolicy]) -> Iterator[str]:
    feeds = tuple(dict.fromkeys(feed for policy in policies for feed in policy.identity.feeds))
    sets = {spec.name for policy in policies for spec in policy.identity.sets}
    by, path = (who(), policies[0].identity.path) if feeds else ("", policies[0].identity.path)
    changed = settle_policy(path, sets, feeds, by, time.time())
    for name in sorted({*changed, *(feed.set for feed in feeds)}):
        yield from _folded(name)


def _folded(name: str) -> Iterator[str]:
    done = fold(name)
    for one in subscriptions(name):
        note = done.notes.get(one.name)
        if note is None:
            yield f"@{name}: {one.name} was not fetched yet: `penstock feed refresh {one.name}` does"
        elif note.refused:
            yield f"@{name}: {one.name} is not taken: {note.refused}"
