"""The feeds that a policy names, when it is put in place: its sets want them from then on.

In: the policies of one text that run now.  Out: sentences for whoever put them in place.  The last
good copies come into the sets at once; nothing is fetched.  A feed that an earlier version of the
text named, and this one does not, is taken back, with what it alone listed.
"""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from penstock.errors import KernelError, PenstockError
from penstock.kernel import pin
from penstock.model.feeds import SetFeed
from penstock.pipeline.damage import damage
from penstock.pipeline.feeding import fold
from penstock.pipeline.set_commands import who
from penstock.pipeline.set_store import spec_of
from penstock.pipeline.slot import read_identity
from penstock.pipeline.subscriptions import (
    Subscription,
    owned,
    owner_of,
    settle_policy,
    subscription_of,
    subscriptions,
    want,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from penstock.pipeline.identity import Identity
    from penstock.pipeline.policy import LoadedPolicy


#: So many feeds that were not fetched yet are told one by one.
_MOST_NAMED = 3


def settle_feeds(policies: Sequence[LoadedPolicy], replaced: Sequence[Identity] = ()) -> tuple[str, ...]:
    """Let the sets want what the policies name and hold what there is of it; gives what there is to say.

    What those named that they have replaced is wanted no more.  Whatever fails is said and no reason to
    take the policies back: a filter whose feeds are old is better than none.
    """
    try:
        return tuple(_settled(policies, replaced))
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
                _refold(name)
    except PenstockError as error:
        return (f"feeds: {error.message}",)
    return ()


def _take_back(name: str, gone: Sequence[Identity], restored: Sequence[Identity]) -> bool:
    """Of one set; whether that has changed what it wants."""
    since = min((datetime.fromisoformat(one.applied_at).timestamp() for one in gone), default=0.0)
    brought = _named(gone) - _named(_running())
    old = tuple(owned(name))
    new = [one for one in old if one.at < since or (one.owner, _fed(name, one)) not in brought]
    there = {(one.owner, _fed(name, one)) for one in new}
    for one in restored:
        wanted = (feed for feed in one.feeds if feed.set == name and (owner_of(one.place), feed) not in there)
        new += [subscription_of(feed, one.place, who(), time.time()) for feed in wanted]
    if tuple(new) == old:
        return False
    want(name, tuple(new))
    return True


def _named(identities: Iterable[Identity]) -> set[tuple[str, SetFeed]]:
    """The feeds that policies name, with their owners."""
    return {(owner_of(one.place), feed) for one in identities for feed in one.feeds}


def _fed(name: str, one: Subscription) -> SetFeed:
    return SetFeed(name, one.source, one.format, one.every_s, one.is_private)


def _settled(policies: Sequence[LoadedPolicy], replaced: Sequence[Identity]) -> Iterator[str]:
    new, running = [policy.identity for policy in policies], tuple(_running())
    feeds = tuple(dict.fromkeys(feed for one in new for feed in one.feeds))
    place = new[0].place
    changed = _settle_file(place, new, running)
    for name in sorted({*changed, *(feed.set for feed in feeds)}):
        yield from _folded(name)
    for name in dict.fromkeys(spec.name for one in new for spec in one.sets):
        yield from (f"@{name}: {fault.message} ({fault.hint})" for fault in damage(name))
    old = {owner_of(one.place): one.place for one in replaced if one.feeds}
    for owner in old.keys() - {owner_of(place)}:
        for name in sorted(_settle_file(old[owner], (), running)):
            yield f"@{name}: no more filled by what {old[owner]} names, which was replaced"
            _refold(name)


def _settle_file(place: str, new: Sequence[Identity], running: Sequence[Identity]) -> tuple[str, ...]:
    """Let sets want what new policies of a file name, and those of it that run elsewhere; the sets that changes."""
    each = (*new, *(one for one in running if owner_of(one.place) == owner_of(place)))
    feeds = tuple(dict.fromkeys(feed for one in each for feed in one.feeds))
    sets = {spec.name for one in new for spec in one.sets}
    return settle_policy(place, sets, feeds, who() if feeds else "", time.time())


def _running() -> Iterator[Identity]:
    """The policies that are in place, in any network namespace; pins that cannot be read name no feeds."""
    root = pin.pin_root()
    for point in pin.attach_points(root):
        with suppress(KernelError):
            yield read_identity(root / point)


def _refold(name: str) -> None:
    """Of a set that is there; one that is not is filled when it is made."""
    if spec_of(name) is not None:
        fold(name)


def _folded(name: str) -> Iterator[str]:
    if spec_of(name) is None:
        return
    try:
        done = fold(name)
    except PenstockError as error:
        yield f"@{name}: its feeds are as they were: {error.message}"
        return
    wanted = subscriptions(name)
    missing = [one.name for one in wanted if one.name not in done.notes]
    if len(missing) > _MOST_NAMED:
        yield f"@{name}: {len(missing)} feeds were not fetched yet: `penstock feed refresh @{name}` does"
    else:
        for feed in missing:
            yield f"@{name}: {feed} was not fetched yet: `penstock feed refresh {feed}` does"
    for one in wanted:
        note = done.notes.get(one.name)
        if note is not None and note.refused:
            yield f"@{name}: {one.name} is not taken: {note.refused}"
