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

from penstock.control.access import Access, Peer, peer_of
from penstock.control.protocol import (
    Asked,
    Ping,
    Texted,
    WithText,
    decode,
    done,
    is_change,
    refused,
    weight,
)
from penstock.errors import DaemonError, InternalError, PenstockError, PrivilegeError

Answer = Callable[[Asked | WithText, Peer], Awaitable[object]]
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

    def __init__(self, doors: Sequence[Door], answer: Answer, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.tally = Tally()
        self.connections: set[_Connection] = set()
        self.held = 0
        #: Who sends a text waits until it is one of so many, and is one until it is answered.
        self.turns = asyncio.Semaphore(self.limits.texts)
        self._doors, self._answer = doors, answer
        self._servers: list[asyncio.Server] = []
        self._paces: dict[int, _Pace] = {}

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for door in self._doors:
            self._servers.append(await self._open(loop, door))
        self._sweeping = loop.create_task(self._sweep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._sweeping.cancel()
        for server, door in zip(self._servers, self._doors, strict=True):
            server.close()
            with suppress(FileNotFoundError):
                door.path.unlink()
        for connection in tuple(self.connections):
            connection.end()
        with suppress(asyncio.CancelledError):
            await self._sweeping

    async def _open(self, loop: asyncio.AbstractEventLoop, door: Door) -> asyncio.Server:
        """A listening socket that nobody can connect to before its file has its owner and mode.

        Raises DaemonError: there cannot be one.
        """
        before = os.umask(0o177)
        try:
            door.path.unlink(missing_ok=True)
            server = await loop.create_unix_server(
                lambda: _Connection(self, door, self._answer), os.fspath(door.path), backlog=_BACKLOG
            )
            door.path.chmod(_mode(door))
        except OSError as error:
            raise DaemonError(f"listen at {door.path}: {error.strerror or error}") from error
        finally:
            os.umask(before)
        return server

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


@dataclass(slots=True)
class _Text:
    """What has come of a request's text."""

    length: int
    whole: asyncio.Future[bytes]
    there: bytearray = field(default_factory=bytearray)


class _Connection(asyncio.Protocol):
    """One connection: requests are taken one after the other, and each is answered before the next is looked at."""

    def __init__(self, server: Server, door: Door, answer: Answer) -> None:
        self.door, self.uid = door, -1
        self._server, self._answer = server, answer
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._text: _Text | None = None
        self._is_writable = True
        self._is_over, self._has_ended = False, False
        self._loop = asyncio.get_running_loop()
        #: Since when the peer owes us the rest of a request, or the taking of a reply; and when it last did anything.
        self._owing: float | None = None
        self._seen = self._loop.time()

    # ── what asyncio calls ───────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=0)
        try:
            self._peer = peer_of(transport.get_extra_info("socket"))
        except OSError:
            self._turn_away("is gone", "it was gone before it was asked who it is")
            return
        self.uid = self._peer.uid
        if not self.door.access.admits(self._peer):
            self._turn_away("unknown user", f"user {self.uid} may not use {self.door.path.name}")
        elif (crowd := self._server.crowd(self.door, self.uid)) is not None:
            self._turn_away("too many connections", crowd)
        else:
            self._server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        self._seen = self._loop.time()
        self._buffer += data
        self._server.held += len(data)
        if self._server.held > self._server.limits.held:
            self._turn_away("too much at once", "the daemon is being sent too much at once")
            return
        self._go_on()

    def pause_writing(self) -> None:
        self._is_writable = False
        self._owing = self._loop.time()

    def resume_writing(self) -> None:
        self._is_writable, self._owing = True, None
        self._seen = self._loop.time()
        self._go_on()

    def eof_received(self) -> bool:
        # Who has said all may still wait for replies.
        self._has_ended = True
        self._go_on()
        return self._task is not None

    def connection_lost(self, _error: Exception | None) -> None:
        self._is_over = True
        self._server.connections.discard(self)
        self._forget(len(self._buffer))
        if self._task is not None:
            self._task.cancel()

    # ── one request after the other ──────────────────────────────────────────

    def _go_on(self) -> None:
        """Take the next request, if the last is answered and there is a whole one; or more of a request's text."""
        if self._text is not None and not self._is_over:
            self._take(self._text)
            return
        if self._is_over or self._task is not None or not self._is_writable:
            if len(self._buffer) > self._server.limits.longest_request:
                self._transport.pause_reading()
            return
        end = self._buffer.find(b"\n")
        if end < 0:
            self._wait_for_more()
            return
        line = bytes(self._buffer[:end])
        self._forget(end + 1)
        self._owing = None
        if len(line) > self._server.limits.longest_request:
            self._turn_away("long request", self._too_long())
            return
        self._task = self._loop.create_task(self._serve(line))

    def _wait_for_more(self) -> None:
        if self._has_ended:
            self._transport.close()
            return
        if len(self._buffer) > self._server.limits.longest_request:
            self._turn_away("long request", self._too_long())
            return
        self._owing = (self._owing or self._seen) if self._buffer else None
        self._transport.resume_reading()

    async def _serve(self, line: bytes) -> None:
        self._server.tally.requests += 1
        reply = await self._reply(line)
        self._task = None
        self._seen = self._loop.time()
        if not self._is_over:
            self._transport.write(reply)
            self._go_on()

    async def _reply(self, line: bytes) -> bytes:
        try:
            request = decode(line)
            if not self.door.can_change:
                if is_change(request):
                    raise PrivilegeError(
                        "ask at",
                        self.door.path.name,
                        0,
                        capability="the socket for changes; this one is for reading",
                    )
                await asyncio.sleep(self._server.wait_s(self.uid, weight(request), self._loop.time()))
            if isinstance(request, Texted):
                async with self._server.turns:
                    text = await self._text_of(request)
                    return done(await self._answer(WithText(request, text), self._peer))
            return done(await self._answer(request, self._peer))
        except PenstockError as error:
            return refused(error)
        except Exception as error:  # noqa: BLE001 - the edge of a request: a bug ends it, not the daemon
            self._loop.call_exception_handler({"message": "answering a request", "exception": error})
            return refused(InternalError(f"{type(error).__name__}: {error}"))

    # ── texts ────────────────────────────────────────────────────────────────

    async def _text_of(self, request: Texted) -> bytes:
        """The text of a request, which is asked for here."""
        longest = self._server.limits.longest_text
        if request.length > longest:
            raise DaemonError(f"a text has at most {longest:,} bytes")
        await self._answer(Ping(root=request.root), self._peer)
        try:
            self._text = _Text(request.length, self._loop.create_future())
            self._transport.write(done({"send": request.length}))
            self._take(self._text)
            return await self._text.whole
        finally:
            self._text, self._owing = None, None

    def _take(self, text: _Text) -> None:
        """Move what has come of a text to the rest of it."""
        count = min(len(self._buffer), text.length - len(text.there))
        text.there += self._buffer[:count]
        self._forget(count)
        if text.whole.done():
            return
        self._owing = self._loop.time()
        if len(text.there) == text.length:
            self._owing = None
            text.whole.set_result(bytes(text.there))
        elif self._has_ended:
            text.whole.set_exception(DaemonError("the text has ended before its length"))
        else:
            self._transport.resume_reading()

    # ── the end ──────────────────────────────────────────────────────────────

    def end_if_late(self, now: float) -> None:
        """Turn away who owes us something for too long, or has nothing to say."""
        limits = self._server.limits
        if self._owing is not None and now - self._owing > limits.patience_s:
            self._turn_away("too slow", "the daemon has waited too long")
        elif self._task is None and now - self._seen > limits.idle_s:
            self._turn_away("idle", "the daemon has heard nothing for too long")

    def end(self) -> None:
        """Close the connection; a reply that is under way is dropped."""
        self._is_over = True
        self._transport.abort()

    def _turn_away(self, reason: str, words: str) -> None:
        self._server.tally.turned_away[reason] += 1
        self._is_over = True
        self._forget(len(self._buffer))
        if self._is_writable:
            self._transport.write(refused(DaemonError(words)))
            self._transport.close()
        # What is not taken at once is not waited for.
        if self._transport.get_write_buffer_size() or not self._is_writable:
            self._transport.abort()

    def _forget(self, count: int) -> None:
        del self._buffer[:count]
        self._server.held -= count

    def _too_long(self) -> str:
        return f"a request has at most {self._server.limits.longest_request:,} bytes"
