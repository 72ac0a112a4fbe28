"""Two namespaces with real sockets in them, and the command line run as a user would run it."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.netns import Namespace, veth
from tests.warm import COLD, Warm

from penstock.cli.start import main

CLIENT, SERVER = "10.9.0.1", "10.9.0.2"
MARKER = 9
PATIENCE_S = 10.0


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def record(self) -> dict[str, Any]:
        """The one line of JSON that it printed."""
        found: dict[str, Any] = json.loads(self.out)
        return found


@dataclass(frozen=True)
class Cli:
    """`penstock` with the pins of this test session; `prefix` goes before it (`nsenter …`)."""

    environment: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()

    def start(self, *arguments: str, **extra: Any) -> subprocess.Popen[str]:
        """The command, running."""
        argv = [*self.prefix, sys.executable, "-m", "penstock", *arguments]
        environment = {**os.environ, **self.environment}
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, env=environment, stdout=pipe, stderr=pipe, text=True, **extra)

    def __call__(self, *arguments: str, stdin: str | None = None) -> Done:
        """The command, run to its end: in a fork of a warm process where that makes no difference."""
        environment = {**os.environ, **self.environment}
        if stdin is None and self._is_plain() and COLD not in environment and warm().takes(environment):
            done = Done(*warm().run(arguments, environment, self._netns()))
            assert "Traceback" not in done.err, done.err
            return done
        running = self.start(*arguments, stdin=subprocess.PIPE)
        out, err = running.communicate(stdin, timeout=60)
        assert "Traceback" not in err, err
        return Done(running.returncode, out, err)

    def _is_plain(self) -> bool:
        """Whether `prefix` does no more than enter a network namespace."""
        return not self.prefix or (len(self.prefix) == 3 and self._netns() is not None)

    def _netns(self) -> str | None:
        entering = next((word for word in self.prefix if word.startswith("--net=")), None)
        return entering and entering.removeprefix("--net=")


@cache
def warm() -> Warm:
    """The process that commands are forks of; it ends with this one."""
    return Warm()


class Here(Cli):
    """The command in this process: its start is most of what it takes."""

    def __call__(self, *arguments: str, stdin: str | None = None) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main(arguments)
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class Wire:
    """A client's and a server's namespace; v0 is the client's end, v1 the server's."""

    client: Namespace
    server: Namespace

    def arrived(
        self,
        port: int,
        count: int = 5,
        size: int = 20,
        sport: int = 0,
        ends: tuple[str, str] = (CLIENT, SERVER),
    ) -> int:
        """How many of `count` datagrams from the client reach a socket of the server's.

        A datagram to another port is sent behind them: once it is there, they are or never will be.
        """
        source, destination = ends
        with self.server.inside():
            target, marker = _bound(destination, port), _bound(destination, MARKER)
        with self.client.inside():
            sender = _bound(source, sport)
        with target, marker, sender, _on_one_processor():
            for _ in range(count):
                sender.sendto(bytes(size), (destination, port))
            deadline = time.monotonic() + PATIENCE_S
            sender.sendto(b"marker", (destination, MARKER))
            while not _received(marker, 0.2):
                assert time.monotonic() < deadline, "the marker never came through"
                sender.sendto(b"marker", (destination, MARKER))
            return _drained(target)


@contextmanager
def _on_one_processor() -> Iterator[None]:
    """Packets are queued for each processor: what one sends is received in its order."""
    usual = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usual)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, usual)


def _bound(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    return made


def _received(made: socket.socket, patience_s: float) -> bool:
    made.settimeout(patience_s)
    try:
        made.recv(2048)
    except TimeoutError:
        return False
    return True


def _drained(made: socket.socket) -> int:
    count = 0
    made.setblocking(False)
    with suppress(BlockingIOError):
        while made.recv(2048):
            count += 1
    return count


@pytest.fixture
def cli() -> Cli:
    """The command line, for what needs no interface."""
    return Cli()


@pytest.fixture
def wire() -> Iterator[Wire]:
    """Two namespaces that can talk."""
    with Namespace("e2e-client") as client, Namespace("e2e-server") as server:
        veth(client, "v0", server, "v1")
        client.ip("address", "add", f"{CLIENT}/24", "dev", "v0")
        server.ip("address", "add", f"{SERVER}/24", "dev", "v1")
        yield Wire(client, server)


@pytest.fixture
def root(bpffs: Path) -> Path:
    """Where the pins of this test session are."""
    return bpffs / "penstock"


@pytest.fixture
def host(wire: Wire, root: Path) -> Iterator[Cli]:
    """The command line in the server's namespace; what it left is gone at the end."""
    made = Cli({"PENSTOCK_BPFFS": str(root)}, tuple(wire.server.command()))
    yield made
    if wire.server.path.exists():
        for one in json.loads(made("status", "--json").out).get("filters", []):
            made("detach", "-i", one["interface"])
    # What is known of a set outlives it.
    shutil.rmtree(Path(os.environ["PENSTOCK_STATE_DIR"], "sets"), ignore_errors=True)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A policy that drops DNS and NTP by labelled rules."""
    return write(
        tmp_path / "guard.policy",
        """
        filter guard at xdp {
            default pass
            dns: drop if udp dst port 53
            ntp: drop if udp dst port 123
        }
        """,
    )


def write(path: Path, text: str) -> Path:
    """A file with this text."""
    path.write_text(text)
    return path


def counters(done: Done) -> dict[str, int]:
    """Packets by name, from `status --json`."""
    (one,) = done.record["filters"]
    return {entry["name"]: entry["packets"] for entry in one["counters"]}
