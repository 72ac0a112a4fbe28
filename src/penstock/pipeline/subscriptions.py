"""Which feeds fill which sets: what `apply` read in policies and `feed add` was told.

    STATE/sets/threats/feeds.json     the feeds of that set, and who wants each
    subscriptions("threats")          ->  (Subscription("spamhaus-drop", owner="policy edge.policy"), …)
    wanted()                          ->  {"spamhaus-drop": Wanted(sets=("threats",), …)}

Two sets that want the same feed in the same format share its copy: it is asked once, as often as the
more eager of both says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from penstock.errors import PenstockError
from penstock.model.feeds import PRESET_RHYTHMS, USUAL_INTERVAL_S, SetFeed, least_interval_s
from penstock.model.state_directory import read_kept, state_directory, write_atomically
from penstock.pipeline.ledger import Ledger, ledgers

BY_COMMAND = "command"
_PLAIN = re.compile(r"[^A-Za-z0-9_]+")


class Subscription(msgspec.Struct, frozen=True, omit_defaults=True):
    """One feed of one set; `owner` is ``command`` or the policy that names it.

    `is_private` lets it name private addresses, `allow_http` be asked over plain http.
    """

    source: str
    format: str | None = None
    every_s: float | None = None
    owner: str = BY_COMMAND
    by: str = ""
    at: float = 0.0
    is_private: bool = False
    allow_http: bool = False

    @property
    def name(self) -> str:
        """What the feed is called: its preset's name, or words of its source and a digest."""
        if self.source in PRESET_RHYTHMS and not (self.format or self.is_private or self.allow_http):
            return self.source
        told = repr((self.source, self.read_as, self.is_private, self.allow_http))
        words = _PLAIN.sub("-", self.source.removeprefix("https://").removeprefix("http://")).strip("-.")
        return f"{words[:40] or 'feed'}-{sha256(told.encode()).hexdigest()[:8]}"

    @property
    def read_as(self) -> str:
        """The format that it is read in."""
        rhythm = PRESET_RHYTHMS.get(self.source)
        return self.format or (rhythm.format if rhythm else "list")

    @property
    def interval_s(self) -> float:
        """How often it is to be asked."""
        rhythm = PRESET_RHYTHMS.get(self.source)
        usual = rhythm.interval_s if rhythm else USUAL_INTERVAL_S
        return max(self.every_s or usual, least_interval_s(self.source))


def from_the_root(path: str | Path) -> str:
    """A file's path as any process finds it, in whatever directory that is."""
    return os.path.normpath(Path(path).absolute())


class _File(msgspec.Struct, frozen=True):
    schema: str
    subscriptions: tuple[Subscription, ...]


_SCHEMA = "penstock.subscriptions/1"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A feed that is wanted: how it is asked, and for which sets."""

    subscription: Subscription
    interval_s: float
    sets: tuple[str, ...]


def subscriptions(set_name: str) -> tuple[Subscription, ...]:
    """The feeds of a set, each once.  Raises PenstockError: the file cannot be read."""
    first: dict[str, Subscription] = {}
    for one in owned(set_name):
        first.setdefault(one.name, one)
    return tuple(first.values())


def owned(set_name: str) -> tuple[Subscription, ...]:
    """The feeds of a set, once for each owner.  Raises PenstockError: the file cannot be read."""
    path = _path(set_name)
    try:
        return msgspec.json.decode(read_kept(path), type=_File).subscriptions
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise PenstockError(
            f"read {path}: {error}",
            hint=f"take it away, and `penstock feed add {set_name} SOURCE`, and `penstock apply` of what names feeds, "
            "write it anew",
        ) from error


def wanted() -> dict[str, Wanted]:
    """All feeds that any set wants, by name; a set of which that cannot be read wants none (damage.py)."""
    found: dict[str, list[tuple[str, Subscription]]] = {}
    for name in ledgers():
        with suppress(PenstockError):
            for one in subscriptions(name):
                found.setdefault(one.name, []).append((name, one))
    return {
        name: Wanted(each[0][1], min(one.interval_s for _, one in each), tuple(place for place, _ in each))
        for name, each in found.items()
    }


def subscribe(set_name: str, new: Subscription) -> None:
    """Let a set want a feed too; one that it wants already is wanted so from now on.

    Raises:
        PenstockError: it cannot be written; what was wanted before is.
    """
    _change(set_name, lambda old: (*(one for one in old if not _is_same(one, new)), new))


def unsubscribe(set_name: str, source: str) -> tuple[Subscription, ...]:
    """Let a set want a feed no more, named by its source or its name; gives what was taken back.

    Raises: as `subscribe`.
    """
    gone = tuple(one for one in owned(set_name) if source in (one.source, one.name))
    if gone:
        _change(set_name, lambda old: tuple(one for one in old if source not in (one.source, one.name)))
    return gone


def settle_policy(
    path: str, sets: Iterable[str], feeds: Iterable[SetFeed], by: str, at: float
) -> tuple[str, ...]:
    """Let the sets of a policy want what it says, and no more what an earlier version of it said.

    Gives the sets of which that has changed anything; those of which it cannot be read stay as they are (damage.py).
    """
    owner = owner_of(path)
    each = [(feed.set, subscription_of(feed, path, by, at)) for feed in feeds]
    changed = []
    for name in {*sets, *ledgers()}:
        new = tuple(one for place, one in each if place == name)
        with suppress(PenstockError):
            if _settle_owner(name, owner, new):
                changed.append(name)
    return tuple(changed)


def subscription_of(feed: SetFeed, path: str, by: str, at: float) -> Subscription:
    """What a policy's clause asks for."""
    return Subscription(feed.source, feed.format, feed.every_s, owner_of(path), by, at, feed.is_private)


def want(set_name: str, new: tuple[Subscription, ...]) -> None:
    """Let a set want these feeds and no others.  Raises: as `subscribe`."""
    _change(set_name, lambda _old: new)


def owner_of(path: str) -> str:
    """What a policy is called as the owner of subscriptions."""
    return f"policy {os.path.abspath(path)}" if path else "policy"  # noqa: PTH100 - a path that is not there yet


def _settle_owner(name: str, owner: str, new: tuple[Subscription, ...]) -> bool:
    old = tuple(one for one in owned(name) if one.owner == owner)
    if [_told(one) for one in new] == [_told(one) for one in old]:
        return False
    _change(name, lambda before: (*(one for one in before if one.owner != owner), *new))
    return True


def _told(one: Subscription) -> tuple[object, ...]:
    return one.source, one.format, one.every_s, one.is_private


def _is_same(one: Subscription, new: Subscription) -> bool:
    return (one.name, one.owner) == (new.name, new.owner)


def _change(set_name: str, change: Callable[[tuple[Subscription, ...]], tuple[Subscription, ...]]) -> None:
    path = _path(set_name)
    with Ledger(set_name) as ledger, ledger.changing():
        content = msgspec.json.encode(_File(_SCHEMA, change(owned(set_name))))
        try:
            write_atomically(path, msgspec.json.format(content), b"\n", mode=0o644)
        except OSError as error:
            raise PenstockError(f"write {path}: {error.strerror}", hint="nothing was changed") from error


def _path(set_name: str) -> Path:
    return state_directory() / "sets" / set_name / "feeds.json"
