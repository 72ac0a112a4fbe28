"""Ask the daemon, from any process: a blocking socket and nothing else.

    daemon = connect()                       None where no daemon runs
    daemon.ask("SetAdd", set="banned", entries=["203.0.113.9"])     ->  {"added": 1, …}

Imports neither asyncio nor numpy nor msgspec nor pathlib: it is the better part of what
`penstock set add` costs.  The requests are those of protocol.py.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import time

from penstock.errors import DaemonError, PenstockError
from penstock.model.run_directory import CONTROL_SOCKET, READ_SOCKET, run_directory, socket_path

TYPE_CHECKING = False  # `typing` takes long to import (cli/start.py)
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

VERSION = 1
_PATIENCE_S = 120.0
#: Who is silent for so long is asked whether it lives: others may be before us, and take long.
_SILENCE_S = 10.0
_PART = 1 << 16
_LONGEST_REPLY = 64 << 20
_TIME = struct.Struct("@ll")  # struct timeval
_ROOT = "PENSTOCK_BPFFS"
_TOO_LATE = {errno.EAGAIN, errno.ETIMEDOUT}
#: Nobody listens: no such file or directory, a socket that a killed daemon has left, no way in.
_NOBODY = {errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR}


class RefusedError(PenstockError):
    """The daemon said no; `exit_code` as if the command had done it itself."""

    def __init__(self, message: str, *, hint: str | None, exit_code: int) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class ElsewhereError(DaemonError):
    """The daemon is one of another directory of pins than this process means."""


class Connection:
    """A connection to the daemon.  Close it, or use it as a context.

    With the `path` of its socket a reply is waited for as long as the daemon lives, for `patience_s` at most.
    """

    def __init__(
        self, channel: socket.socket, path: str | None = None, patience_s: float = _PATIENCE_S
    ) -> None:
        self._channel = channel
        self._path, self._patience_s = path, patience_s
        self._rest = b""

    def ask(self, request: str, **fields: object) -> dict[str, Any]:
        """What the daemon answers to a request of protocol.py.

        Raises:
            RefusedError: it does not do it, and says why.
            DaemonError: it does not answer, or not as a daemon of this version does.
        """
        for value in fields.values():
            _require_text(value)
        root = os.environ.get(_ROOT)
        envelope = {"ask": request, "penstock": VERSION, **({"root": root} if root else {})}
        line = json.dumps({**envelope, **{key: value for key, value in fields.items() if value is not None}})
        try:
            self._channel.sendall(line.encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            # Turned away: the reason may lie in the socket already.
            pass
        except OSError as error:
            raise _away(error) from error
        return _content(self._line())

    def ask_with(self, request: str, text: bytes, **fields: object) -> dict[str, Any]:
        """As `ask`, of a request with a text, which is sent once the daemon has said that it takes it."""
        self.ask(request, length=len(text), **fields)
        try:
            self._channel.sendall(text)
        except (BrokenPipeError, ConnectionResetError):
            pass
        except OSError as error:
            raise _away(error) from error
        return _content(self._line())

    def _line(self) -> bytes:
        parts, length = [self._rest], len(self._rest)
        end = time.monotonic() + self._patience_s
        while b"\n" not in parts[-1]:
            try:
                part = self._channel.recv(_PART)
            except OSError as error:
                if error.errno in _TOO_LATE and time.monotonic() < end and self._lives():
                    continue
                raise _away(error) from error
            if not part:
                raise DaemonError("the daemon has closed the connection", hint=_HINT)
            parts.append(part)
            length += len(part)
            if length > _LONGEST_REPLY:
                raise DaemonError("what answers at the daemon's socket does not end its reply", hint=_HINT)
        line, _, self._rest = b"".join(parts).partition(b"\n")
        return line

    def _lives(self) -> bool:
        """Whether the daemon says anything, to somebody who asks it nothing but that."""
        if self._path is None:
            return False
        with _patient(min(_SILENCE_S, self._patience_s)) as other:
            try:
                other.connect(self._path)
                other.sendall(b'{"ask": "Ping"}\n')
                return bool(other.recv(1))
            except OSError:
                return False

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()


_HINT = "`penstock status` says whether it runs; its log is in `journalctl -u penstock`"
_LATE_HINT = f"what it was asked for it may still do, when it goes on; {_HINT}"


def connect(*, to_read: bool = False, patience_s: float = _PATIENCE_S) -> Connection | None:
    """A connection to the daemon, at the socket for reading or the one for changes; None where none runs.

    Raises:
        DaemonError: there is one, and this user may not talk to it.
    """
    path = socket_path(READ_SOCKET if to_read else CONTROL_SOCKET)
    channel = _patient(min(_SILENCE_S, patience_s))
    try:
        channel.connect(path)
    except OSError as error:
        channel.close()
        if error.errno in _NOBODY:
            return None
        raise _unreachable(path, error) from error
    return Connection(channel, path, patience_s)


def _patient(patience_s: float) -> socket.socket:
    """A socket that waits for so long for whatever it does."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    # Not `settimeout`: a socket that does not block is turned away where one that does waits in the queue (unix(7)).
    patience = _TIME.pack(int(patience_s), int(patience_s % 1 * 1e6))
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
    return channel


def ask_if_there(
    request: str,
    *,
    to_read: bool = False,
    patience_s: float = _PATIENCE_S,
    text: bytes | None = None,
    **fields: object,
) -> dict[str, Any] | None:
    """What the daemon answers; None where none runs that could, so that the command does it itself.

    `text` goes with the request.

    Raises:
        PenstockError: as `Connection.ask`.
    """
    try:
        found = connect(to_read=to_read, patience_s=patience_s)
    except DaemonError:
        # Who may not talk to it may still be allowed to do it; the kernel decides.
        return None
    if found is None:
        return None
    with found:
        try:
            return found.ask(request, **fields) if text is None else found.ask_with(request, text, **fields)
        except ElsewhereError:
            return None


def connect_surely(*, to_read: bool = False, patience_s: float = _PATIENCE_S) -> Connection:
    """As `connect`, for what only the daemon can do.  Raises DaemonError: none runs."""
    found = connect(to_read=to_read, patience_s=patience_s)
    if found is None:
        raise DaemonError(
            f"no daemon answers in {run_directory()}",
            hint="`penstock daemon` starts one, or its systemd unit",
        )
    return found


def _require_text(value: object) -> None:
    """Raises UnicodeEncodeError: an argument is no UTF-8, which is shown as if no daemon were asked."""
    for one in value if isinstance(value, (tuple, list)) else (value,):
        if isinstance(one, str):
            one.encode()


def _content(line: bytes) -> dict[str, Any]:
    try:
        reply = json.loads(line)
        if "ok" in reply:
            content: dict[str, Any] = reply["ok"]
            return content
        fault = reply["error"]
        message, hint, code = str(fault["message"]), fault.get("hint"), int(fault["exit"])
    except (ValueError, KeyError, TypeError) as error:
        raise DaemonError(
            "what answers at the daemon's socket is no daemon of this version", hint=_HINT
        ) from error
    if fault.get("is_elsewhere"):
        raise ElsewhereError(message, hint=hint)
    if code == DaemonError.exit_code:
        raise DaemonError(message, hint=hint)
    raise RefusedError(message, hint=hint, exit_code=code)


def _away(error: OSError) -> DaemonError:
    if error.errno in _TOO_LATE:
        return DaemonError("the daemon does not answer", hint=_LATE_HINT)
    return DaemonError(f"the daemon has gone away: {error.strerror}", hint=_HINT)


def _unreachable(path: str, error: OSError) -> DaemonError:
    if error.errno in _TOO_LATE:
        return _away(error)
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = "the group that owns the socket may use it; `groups` in the settings says which"
        return DaemonError(f"this user may not talk to the daemon at {path}", hint=hint)
    return DaemonError(f"the daemon at {path} cannot be reached: {error.strerror or error}", hint=_HINT)
