"""A connected unix socket in an event loop, with next to nothing between it and who owns it.

    channel = Channel(loop, connection, owner)       owner.data_received(…), eof_received(), connection_lost(), …

As asyncio's transports, of which it has the methods that a server of short requests needs; who has
been told of the end closes it.  Those take a task, a future and four turns of the loop to accept a
connection, which is more than answering what comes by it; here what has been sent already is read when
the connection is accepted.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

_PART = 1 << 18
_AT_ONCE = 16
#: Nothing to accept with: it is tried again a little later.
_SHORT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_LATER_S = 1.0


class Owner(Protocol):
    """Who is told of what happens at a channel, as by asyncio.Protocol."""

    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self) -> None: ...


class Channel:
    """One end of a connection; `start` begins to read."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: socket.socket, owner: Owner) -> None:
        self.socket = connection
        self._number = connection.fileno()
        self._loop, self._owner = loop, owner
        self._rest = bytearray()
        self._is_reading = self._is_ending = self._has_ended = self._is_closed = False

    def start(self) -> None:
        """Read what is there, and then what comes."""
        self._read()
        if not self._has_ended:
            self.resume_reading()

    def write(self, data: bytes) -> None:
        """Send as much as goes, and the rest when it does; the owner is told in between."""
        if self._is_closed or self._is_ending:
            return
        if not self._rest:
            data = data[self._sent(data) :]
            if not data or self._is_closed:
                return
            self._loop.add_writer(self._number, self._write)
            self._rest += data
            self._owner.pause_writing()
        else:
            self._rest += data

    @property
    def unsent(self) -> int:
        """The bytes that are still to be sent."""
        return len(self._rest)

    def pause_reading(self) -> None:
        """Leave what comes to the kernel's queue."""
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._number)

    def resume_reading(self) -> None:
        """Read on; nothing if it is being read, or has ended."""
        if not (self._is_reading or self._has_ended or self._is_ending or self._is_closed):
            self._is_reading = True
            self._loop.add_reader(self._number, self._read)

    def close(self) -> None:
        """Read no more, send what is to be sent, and end."""
        self.pause_reading()
        self._is_ending = True
        if not self._rest:
            self.abort()

    def abort(self) -> None:
        """End at once; the owner is told behind what it does now."""
        if self._is_closed:
            return
        self.pause_reading()
        self._is_closed = True
        if self._rest:
            self._loop.remove_writer(self._number)
            self._rest.clear()
        self.socket.close()
        self._loop.call_soon(self._owner.connection_lost)

    def _read(self) -> None:
        try:
            data = self.socket.recv(_PART)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.abort()
            return
        if data:
            self._owner.data_received(data)
            return
        self._has_ended = True
        self.pause_reading()
        self._owner.eof_received()

    def _write(self) -> None:
        del self._rest[: self._sent(self._rest)]
        if self._rest or self._is_closed:
            return
        self._loop.remove_writer(self._number)
        if self._is_ending:
            self.abort()
        else:
            self._owner.resume_writing()

    def _sent(self, data: bytes | bytearray) -> int:
        try:
            return self.socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self.abort()
            return len(data)


class Listener:
    """A listening socket whose connections are given to `accepted`, not blocking."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        path: str,
        backlog: int,
        accepted: Callable[[socket.socket], None],
    ) -> None:
        """Raises OSError: the path cannot be bound to."""
        self._loop, self._accepted = loop, accepted
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.bind(path)
            self._socket.listen(backlog)
        except OSError:
            self._socket.close()
            raise
        self._later: asyncio.TimerHandle | None = None
        self._listen()

    def close(self) -> None:
        """Listen no more."""
        if self._later is not None:
            self._later.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _listen(self) -> None:
        self._later = None
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _SHORT:
                    raise
                self._loop.remove_reader(self._socket)
                self._later = self._loop.call_later(_LATER_S, self._listen)
                return
            connection.setblocking(False)
            with suppress(OSError):
                self._accepted(connection)
