"""The feeds that a policy names, when it is put in place: its sets want them from then on.

In: the policies of one text that run now.  Out: sentences for whoever put them in place.  The last
good copies come into the sets at once; nothing is fetched.  A feed that an earlier version of the
text named, and this one does not, is taken back, with what it alone listed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from penstock.errors import PenstockError
from penstock.pipeline.feeding import fold
from penstock.pipeline.set_commands import who
from penstock.pipeline.subscriptions import settle_policy, subscriptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from penstock.pipeline.policy import LoadedPolicy


def settle_feeds(policies: Sequence[LoadedPolicy]) -> tuple[str, ...]:
    """Let the sets want what the policies name and hold what there is of it; gives what there is to say.

    Whatever fails is said and no reason to take the policies back: a filter whose feeds are old is better than none.
    """
    try:
        return tuple(_settled(policies))
    except PenstockError as error:
        return (f"feeds: {error.message}",)


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
