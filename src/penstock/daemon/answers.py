"""What the daemon answers to each request of control/protocol.py.

In: a request, and who asks.  Out: what becomes the reply's `ok`.  What blocks
runs in a thread: changes of sets in one, so that they never wait for each
other's locks, questions in others.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import lru_cache
from time import time
from typing import Any, assert_never

import msgspec

from penstock.control import protocol
from penstock.control.access import Peer
from penstock.control.protocol import Asked, ElsewhereError, WithText
from penstock.control.server import Tally
from penstock.daemon.feeding import Feeding
from penstock.daemon.fetcher import Fetcher, fetch_now
from penstock.daemon.journal import Journal
from penstock.daemon.keep import Keeper
from penstock.daemon.sets import OpenSets, entries, listed, tested
from penstock.errors import DaemonError, LimitError, PenstockError
from penstock.kernel import netns, pin
from penstock.pipeline.feed_commands import add_feed, fold_again, is_from_here, remove_feed
from penstock.pipeline.feed_listing import feed_rows
from penstock.pipeline.fetching import chosen_feeds
from penstock.pipeline.set_commands import who
from penstock.pipeline.status import Status, status
from penstock.pipeline.subscriptions import Subscription
from penstock.pipeline.why import why
from penstock.version import VERSION

InThread = Callable[..., Awaitable[Any]]
_Change = protocol.SetAdd | protocol.SetRemove | protocol.SetFlush | protocol.SetSweep | WithText
_Feeds = protocol.FeedAdd | protocol.FeedRemove | protocol.FeedRefresh
_Question = protocol.SetList | protocol.SetTest | protocol.Filters | protocol.FeedList | protocol.Why


class Answers:
    """The daemon's side of a conversation."""

    def __init__(
        self,
        keeper: Keeper,
        sets: OpenSets,
        journal: Journal,
        in_thread: InThread,
        reload: Callable[[], Awaitable[None]],
        feeding: Feeding,
        fetcher: Fetcher | None,
    ) -> None:
        self.tally = Tally()
        self._waiting = 0
        self._tidying: asyncio.Task[None] | None = None
        self._keeper, self._sets, self._journal = keeper, sets, journal
        self._in_thread, self._reload = in_thread, reload
        self._feeding, self._fetcher = feeding, fetcher

    async def answer(self, request: Asked | WithText, peer: Peer) -> object:
        """What to reply.

        Raises:
            PenstockError: it is not done; nothing was changed.
        """
        _require_root(request.request.root if isinstance(request, WithText) else request.root)
        match request:
            case protocol.Ping():
                return {"version": VERSION, "pid": os.getpid()}
            case protocol.Status():
                return self._status()
            case protocol.Reload():
                return await self._reloaded(peer)
            case protocol.Release():
                return await self._release(request, peer)
            case protocol.SetAdd() | protocol.SetRemove() | protocol.SetFlush() | protocol.SetSweep():
                return await self._change(request, request.set, peer)
            case WithText():
                return await self._change(request, request.request.set, peer)
            case protocol.SetWrite() | protocol.SetUpdate():
                raise DaemonError("a request with a text came without it")
            case (
                protocol.SetList()
                | protocol.SetTest()
                | protocol.Filters()
                | protocol.FeedList()
                | protocol.Why()
            ):
                return await self._in_thread("read", _read, request)
            case protocol.FeedAdd() | protocol.FeedRemove() | protocol.FeedRefresh():
                return await self._feeds(request, peer)
            case _ as never:
                assert_never(never)

    async def _feeds(self, request: _Feeds, peer: Peer) -> object:
        match request:
            case protocol.FeedAdd():
                return await self._in_thread("feed", _feed_added, request, peer)
            case protocol.FeedRemove():
                return await self._in_thread("feed", remove_feed, request.set, request.sources)
            case protocol.FeedRefresh():
                if request.names is not None:
                    return await self._refreshed(request.names)
                await self._in_thread("feed", self._feeding.look)
                return {"feeds": await self._in_thread("read", feeds)}
            case _ as never:
                assert_never(never)

    async def _refreshed(self, names: tuple[str, ...]) -> object:
        """Have feeds asked by a process without capabilities, and fold what they list."""
        chosen = await self._in_thread("read", chosen_feeds, names)
        fetched = await fetch_now(tuple(chosen)) if chosen else []
        places = [place for one in fetched for place in one["sets"]]
        return {"fetched": fetched, "folded": await self._in_thread("feed", fold_again, places)}

    async def _release(self, request: protocol.Release, peer: Peer) -> object:
        _require_netns(request.netns)
        if not self._keeper.keeps(request.interface):
            raise ElsewhereError(f"the daemon keeps nothing on {request.interface}")
        await self._in_thread("keep", self._keeper.release, request.interface, request.hook)
        self._journal.warn(
            f"{request.interface}: user {peer.uid} takes its filter off; a reload puts it back"
        )
        return {}

    async def _reloaded(self, peer: Peer) -> object:
        self._journal.note(f"user {peer.uid} asks for a reload")
        await self._reload()
        return self._status()

    def at_once(self, request: Asked, peer: Peer) -> object | None:
        """The reply to a change that keeps nobody waiting; None for all else.  Raises: as `answer`."""
        if self._waiting or not isinstance(request, protocol.SetAdd | protocol.SetRemove):
            return None
        _require_root(request.root)
        if not self._sets.is_quick(request.set, len(request.entries)):
            return None
        with self._fullness(request.set):
            done = self._changed(request, _by(peer))
        self._tidy_soon()
        return done

    async def _change(self, request: _Change, name: str, peer: Peer) -> object:
        self._waiting += 1
        try:
            with self._fullness(name):
                return await self._in_thread("change", self._changed, request, _by(peer))
        finally:
            self._waiting -= 1
            self._tidy_soon()

    def _tidy_soon(self) -> None:
        """Behind the answer; who changes a set meanwhile waits for it."""
        if self._sets.is_untidy and self._tidying is None:
            self._waiting += 1
            self._tidying = asyncio.get_running_loop().create_task(self._tidy())

    async def _tidy(self) -> None:
        try:
            await self._in_thread("change", self._sets.tidy)
        finally:
            self._waiting -= 1
            self._tidying = None

    @contextmanager
    def _fullness(self, name: str) -> Iterator[None]:
        """Count that a set was full, and say so until a change of it succeeds."""
        name = name.removeprefix("@")
        key = f"set @{name} full"
        try:
            yield
        except LimitError as error:
            self._keeper.counts.set_full += 1
            self._journal.alarm(key, error.message)
            raise
        self._journal.settle(key, f"@{name} has room again")

    def _changed(self, request: _Change, by: str) -> object:
        if isinstance(request, WithText):
            return self._sets.with_text(request.request, request.text, by=by)
        match request:
            case protocol.SetRemove():
                return self._sets.remove(request.set, request.entries, by=by)
            case protocol.SetFlush():
                return self._sets.flush(request.set, by=by)
            case protocol.SetSweep():
                return self._sets.sweep(request.set)
            case protocol.SetAdd():
                return self._sets.add(request, by=by)
            case _ as never:
                assert_never(never)

    def _status(self) -> dict[str, object]:
        memory = self._keeper.memory
        return {
            "version": VERSION,
            "pid": memory.pid,
            "started_at": memory.started_at,
            "filters": [asdict(one) for one in self._keeper.looks],
            "alarms": [asdict(one) for one in self._journal.alarms],
            "requests": self.tally.requests,
            "turned_away": dict(self.tally.turned_away),
            "fetcher": {"pid": self._fetcher.pid, "starts": self._fetcher.starts} if self._fetcher else None,
        }


def _require_root(root: str | None) -> None:
    """Refuse a request that means another directory of pins than ours."""
    if (root or str(pin.DEFAULT_ROOT)) != str(pin.pin_root()):
        raise ElsewhereError(
            f"the daemon keeps its pins in {pin.pin_root()}, and the command means {root or pin.DEFAULT_ROOT}"
        )


def _feed_added(request: protocol.FeedAdd, peer: Peer) -> object:
    """Subscribe a set; who may change sets may not have files read and commands run by the daemon's user."""
    if peer.uid not in (0, os.geteuid()) and is_from_here(request.source):
        raise PenstockError(
            f"`{request.source}` is a file or a command, and user {peer.uid} may not have the daemon use it",
            hint="root may; presets and URLs are for all who may change sets",
        )
    new = Subscription(
        request.source,
        request.format,
        request.every,
        by=_by(peer),
        at=time(),
        is_private=request.is_private,
        allow_http=request.allow_http,
    )
    return add_feed(request.set, new)


def _require_netns(inode: int) -> None:
    """Refuse a request that means another network namespace than ours."""
    if inode != netns.inode():
        raise ElsewhereError("the daemon is in another network namespace")


def _read(request: _Question) -> object:
    """What a question is answered that has to look into the kernel, or files."""
    match request:
        case protocol.SetList():
            return listed() if request.set is None else entries(request.set, request.limit)
        case protocol.SetTest():
            return tested(request.set, request.entries)
        case protocol.Filters():
            _require_netns(request.netns)
            return {"filters": filters(request.interface)}
        case protocol.FeedList():
            return {"feeds": feeds()}
        case protocol.Why():
            return asdict(why(request.address))
        case _ as never:
            assert_never(never)


def filters(interface: str | None) -> tuple[Status, ...]:
    """What is in place, without the text of whole policies: who asks sees no more than `status` shows."""
    found = status(interface)
    return tuple(replace(one, identity=msgspec.structs.replace(one.identity, text="")) for one in found)


def feeds() -> list[dict[str, object]]:
    """Every feed of every set, and how it stands."""
    return [asdict(row) for row in feed_rows()]


def _by(peer: Peer) -> str:
    return _name(peer.uid if peer.login_uid is None else peer.login_uid)


@lru_cache(maxsize=256)
def _name(uid: int) -> str:
    return who(uid)
