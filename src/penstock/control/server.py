"""The sockets of the daemon: who comes in, how much of them, how long.

    async with Server([Door(path, Access(), can_change=True)], answer):
        …                # await answer(request, peer) gives what is sent back

Promised, whoever connects: a connection costs at most `longest_request` bytes
and one reply, and at most `texts` of them a text of `longest_text` bytes beside;
there are at most `connections` of them at a door and a part of those from one
user; who sends half a request, or does not take a reply, is turned away after
`patience_s`; who may only read is answered at most `reads_per_s` times a second
for each user, so that asking cannot eat the processor; a request that changes
something is refused at a door for reading before it is looked at.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock.control.access import Access, Peer
from penstock.control.channel import Listener
from penstock.control.connection import Connection
from penstock.control.protocol import Asked, WithText
from penstock.errors import DaemonError

Answer = Callable[[Asked | WithText, Peer], Awaitable[object]]
AtOnce = Callable[[Asked, Peer], object | None]
_BACKLOG = 128
_SWEEP_S = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one may cost the daemon who connects to it."""

    connections: int = 128
    connections_of_user: int = 96
    longest_request: int = 1 << 20
    held: int = 32 << 20
    longest_text: int = 512 << 20
    texts: int = 2
    patience_s: float = 10.0
    idle_s: float = 300.0
    reads_per_s: float = 100.0


@dataclass(frozen=True, slots=True)
class Door:
    """A socket: its path, who may come in, whether they may change anything; `group` and `mode` are its file's."""

    path: Path
    access: Access
    can_change: bool
    mode: int = 0o600
    group: int | None = None


@dataclass(slots=True)
class Tally:
    """What has happened at the sockets since the start."""

    requests: int = 0
    turned_away: Counter[str] = field(default_factory=Counter)


class Server:
    """All doors of a daemon, and the connections that came in by them."""

    def __init__(
        self,
        doors: Sequence[Door],
        answer: Answer,
        limits: Limits | None = None,
        at_once: AtOnce | None = None,
    ) -> None:
        """`at_once` is asked first by who may change something; what it gives None for is for `answer`."""
        self.limits = limits or Limits()
        self.tally = Tally()
        self.connections: set[Connection] = set()
        self.held = 0
        #: Who sends a text waits until it is one of so many, and is one until it is answered.
        self.turns = asyncio.Semaphore(self.limits.texts)
        self.answer, self.at_once = answer, at_once
        self._doors = doors
        self._listeners: list[Listener] = []
        self._paces: dict[int, _Pace] = {}

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for door in self._doors:
            self._listeners.append(self._open(loop, door))
        self._sweeping = loop.create_task(self._sweep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._sweeping.cancel()
        for listener, door in zip(self._listeners, self._doors, strict=True):
            listener.close()
            with suppress(FileNotFoundError):
                door.path.unlink()
        for connection in tuple(self.connections):
            connection.end()
        with suppress(asyncio.CancelledError):
            await self._sweeping

    def _open(self, loop: asyncio.AbstractEventLoop, door: Door) -> Listener:
        """A listening socket that nobody can connect to before its file has its owner and mode.

        Raises DaemonError: there cannot be one.
        """
        before = os.umask(0o177)
        try:
            door.path.unlink(missing_ok=True)
            listener = Listener(
                loop,
                os.fspath(door.path),
                _BACKLOG,
                lambda accepted: Connection(self, door, accepted).begin(),
            )
            door.path.chmod(_mode(door))
        except OSError as error:
            raise DaemonError(f"listen at {door.path}: {error.strerror or error}") from error
        finally:
            os.umask(before)
        return listener

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = loop.time()
            for connection in tuple(self.connections):
                connection.end_if_late(now)
            self._paces = {uid: pace for uid, pace in self._paces.items() if not pace.is_rested(now)}

    def crowd(self, door: Door, uid: int) -> str | None:
        """Why one more connection of a user's cannot be had."""
        there = [one for one in self.connections if one.door is door]
        if len(there) >= self.limits.connections:
            return "the daemon has too many connections"
        if sum(one.uid == uid for one in there) >= self.limits.connections_of_user:
            return "the daemon has too many connections of this user"
        return None

    def wait_s(self, uid: int, weight: int, now: float) -> float:
        """How long an answer to a reader is held back."""
        return self._paces.setdefault(uid, _Pace(self.limits.reads_per_s)).wait_s(weight, now)


def _mode(door: Door) -> int:
    """Give a door's file its group; the mode that it gets then."""
    if door.group is not None:
        try:
            os.chown(door.path, -1, door.group)
        except PermissionError:
            # Without CAP_CHOWN a file goes to own groups alone: all may knock, and the kernel says who it is.
            return door.mode | 0o006
    return door.mode


class _Pace:
    """Answers to one user, so many a second; a second's worth at once."""

    def __init__(self, per_s: float) -> None:
        self._per_s, self._next = per_s, 0.0

    def wait_s(self, weight: int, now: float) -> float:
        self._next = max(self._next, now - 1.0) + weight / self._per_s
        return max(0.0, self._next - now)

    def is_rested(self, now: float) -> bool:
        return self._next < now - 1.0
