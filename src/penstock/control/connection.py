"""One connection to the daemon: its requests, one after the other, and what it owes.

    Connection(server, door, accepted).begin()

In: bytes of requests, and of texts behind them.  Out: a line for each request, in order.  What it
may cost and how long it is waited for is told by the server's limits (server.py).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from penstock.control.access import peer_of
from penstock.control.channel import Channel
from penstock.control.protocol import (
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
from penstock.model.run_directory import CONTROL_SOCKET

if TYPE_CHECKING:
    import socket

    from penstock.control.server import Door, Server


@dataclass(slots=True)
class _Text:
    """What has come of a request's text."""

    length: int
    whole: asyncio.Future[bytes]
    there: bytearray = field(default_factory=bytearray)


class Connection:
    """One connection: requests are taken one after the other, and each is answered before the next is looked at."""

    def __init__(self, server: Server, door: Door, accepted: socket.socket) -> None:
        self.door, self.uid = door, -1
        self._server, self._answer = server, server.answer
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._text: _Text | None = None
        self._is_writable = True
        self._is_over, self._has_ended = False, False
        self._loop = asyncio.get_running_loop()
        self._channel = Channel(self._loop, accepted, self)
        #: Since when the peer owes us the rest of a request, or the taking of a reply; and when it last did anything.
        self._owing: float | None = None
        self._seen = self._loop.time()

    def begin(self) -> None:
        """Let the peer in, or turn it away."""
        try:
            self._peer = peer_of(self._channel.socket)
        except OSError:
            self._turn_away("is gone", "it was gone before it was asked who it is")
            return
        self.uid = self._peer.uid
        if not self.door.access.admits(self._peer):
            words = f"user {self.uid} may not use {self.door.path.name}"
            self._turn_away("unknown user", words, "`access` in the daemon's settings says who may")
        elif (crowd := self._server.crowd(self.door, self.uid)) is not None:
            self._turn_away("too many connections", crowd)
        else:
            self._server.connections.add(self)
            self._channel.start()

    # ── what the channel calls ───────────────────────────────────────────────

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

    def eof_received(self) -> None:
        # Who has said all may still wait for replies.
        self._has_ended = True
        self._go_on()

    def connection_lost(self) -> None:
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
                self._channel.pause_reading()
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
        self._server.tally.requests += 1
        if (reply := self._at_once(line)) is None:
            self._task = self._loop.create_task(self._serve(line))
            return
        self._channel.write(reply)
        if self._buffer or self._has_ended:
            # Others first: there may be ten thousand requests in it.
            self._loop.call_soon(self._go_on)

    def _wait_for_more(self) -> None:
        if self._has_ended:
            self._channel.close()
            return
        if len(self._buffer) > self._server.limits.longest_request:
            self._turn_away("long request", self._too_long())
            return
        self._owing = (self._owing or self._seen) if self._buffer else None
        self._channel.resume_reading()

    async def _serve(self, line: bytes) -> None:
        reply = await self._reply(line)
        self._task = None
        self._seen = self._loop.time()
        if not self._is_over:
            self._channel.write(reply)
            self._go_on()

    def _at_once(self, line: bytes) -> bytes | None:
        """The reply, if there is one without waiting for anything."""
        if self._server.at_once is None or not self.door.can_change:
            return None
        try:
            content = self._server.at_once(decode(line), self._peer)
        except Exception as error:  # noqa: BLE001 - as in `_reply`
            return self._refused(error)
        return None if content is None else done(content)

    async def _reply(self, line: bytes) -> bytes:
        try:
            request = decode(line)
            if not self.door.can_change:
                if is_change(request):
                    raise PrivilegeError(
                        "ask at",
                        self.door.path.name,
                        0,
                        capability="the socket for changes; this one is for questions",
                        hint=f"ask at {self.door.path.with_name(CONTROL_SOCKET)}: root may, the daemon's user, "
                        "and whom `access.users` and `access.groups` of the settings name",
                    )
                await asyncio.sleep(self._server.wait_s(self.uid, weight(request), self._loop.time()))
            if isinstance(request, Texted):
                async with self._server.turns:
                    text = await self._text_of(request)
                    return done(await self._answer(WithText(request, text), self._peer))
            return done(await self._answer(request, self._peer))
        except Exception as error:  # noqa: BLE001 - the edge of a request: a bug ends it, not the daemon
            return self._refused(error)

    def _refused(self, error: Exception) -> bytes:
        if isinstance(error, PenstockError):
            return refused(error)
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
            self._channel.write(done({"send": request.length}))
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
            self._channel.resume_reading()

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
        self._channel.abort()

    def _turn_away(self, reason: str, words: str, hint: str | None = None) -> None:
        self._server.tally.turned_away[reason] += 1
        self._is_over = True
        self._forget(len(self._buffer))
        if self._is_writable:
            self._channel.write(refused(DaemonError(words, hint=hint)))
            self._channel.close()
        # What is not taken at once is not waited for.
        if self._channel.unsent or not self._is_writable:
            self._channel.abort()

    def _forget(self, count: int) -> None:
        del self._buffer[:count]
        self._server.held -= count

    def _too_long(self) -> str:
        return f"a request has at most {self._server.limits.longest_request:,} bytes"
