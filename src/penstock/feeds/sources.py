"""Where a feed comes from: a URL, a file, standard input, the output of a command.

    source_of("https://feeds.example/list.txt")  ->  Url(…)
    source_of("/etc/penstock/ours.txt")          ->  File(…)
    source_of("exec:lister --all")               ->  Command(("lister", "--all"))
    source_of("-")                               ->  Stdin()

Promised of each: at most 32 MiB and at most 60 seconds, or a FeedError that says which.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeAlias

from penstock.errors import FeedError
from penstock.feeds.unpack import MOST_BYTES, unpacked

#: How long a source may take.
LONGEST_S = 60.0
_STDERR = 2
_KEPT_OF_STDERR = 1 << 12


@dataclass(frozen=True, slots=True)
class Url:
    """An address, and headers that go to its own server alone (a key, say)."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class File:
    """A file, or a pipe that has a name."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class Stdin:
    """Standard input."""

    def __str__(self) -> str:
        return "-"


@dataclass(frozen=True, slots=True)
class Command:
    """A program and its arguments, started without a shell; what it prints is the feed."""

    argv: tuple[str, ...]

    def __str__(self) -> str:
        return f"exec:{shlex.join(self.argv)}"


Source: TypeAlias = Url | File | Stdin | Command


def source_of(text: str) -> Source:
    """The source that a text names.

    Raises:
        FeedError: `exec:` without a command, or with a quote that does not end.
    """
    if text == "-":
        return Stdin()
    if text.lower().startswith(("http://", "https://")):
        return Url(text)
    if text.startswith("exec:"):
        try:
            argv = tuple(shlex.split(text.removeprefix("exec:")))
        except ValueError as error:
            raise FeedError(f"`{text}`: {error}") from error
        if not argv:
            raise FeedError("`exec:` names no command")
        return Command(argv)
    return File(Path(text.removeprefix("file://")))


def read_file(source: File) -> bytes:
    """What is in a file, unpacked.

    Raises:
        FeedError: it cannot be read, or is too large.
    """
    try:
        with source.path.open("rb") as file:
            return _limited(file)
    except (OSError, ValueError) as error:  # a path with a NUL in it
        raise FeedError(f"read {source.path}: {getattr(error, 'strerror', None) or error}") from error


def read_stdin() -> bytes:
    """What comes on standard input, unpacked.

    Raises:
        FeedError: it is too large, or cannot be read.
    """
    try:
        return _limited(sys.stdin.buffer)
    except OSError as error:
        raise FeedError(f"read standard input: {error.strerror}") from error


def _limited(file: BinaryIO) -> bytes:
    return unpacked(file.read(MOST_BYTES + 1))


async def run_command(source: Command, *, longest_s: float = LONGEST_S) -> bytes:
    """What a command prints, unpacked.  It and all that it has started are ended with its time.

    Raises:
        FeedError: it cannot be started, fails, or takes or prints too much.
    """
    pipe = asyncio.subprocess.PIPE
    try:
        transport, output = await asyncio.get_running_loop().subprocess_exec(
            _Output,
            *source.argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise FeedError(f"start {source.argv[0]}: {getattr(error, 'strerror', None) or error}") from error
    try:
        async with asyncio.timeout(longest_s):
            await output.ended
    except TimeoutError as error:
        raise FeedError(f"{source.argv[0]} has not ended within {longest_s:g} s") from error
    finally:
        # Its session is its process group; what is left of that has no one to read it.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(transport.get_pid(), signal.SIGKILL)
        await output.exited
        transport.close()
    if code := transport.get_returncode():
        words = output.said.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
        raise FeedError(f"{source.argv[0]} ended with {code}{': ' if words else ''}{words}")
    return unpacked(b"".join(output.parts))


class _Output(asyncio.SubprocessProtocol):
    """What a command prints, and the end of its words to standard error.

    Not asyncio's streams: there, waiting for a process whose pipes nobody reads to their end never ends.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.parts: list[bytes] = []
        self.said = b""
        self.ended: asyncio.Future[None] = loop.create_future()
        self.exited: asyncio.Future[None] = loop.create_future()
        self._left = MOST_BYTES

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == _STDERR:
            self.said = (self.said + data)[-_KEPT_OF_STDERR:]
            return
        self._left -= len(data)
        if self._left >= 0:
            self.parts.append(data)
        elif not self.ended.done():
            self.ended.set_exception(FeedError(f"prints more than {MOST_BYTES >> 20} MiB"))

    def process_exited(self) -> None:
        self.exited.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        if not self.ended.done():
            self.ended.set_result(None)
