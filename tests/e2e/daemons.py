"""A daemon in a namespace, with directories of its own, for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from penstock.control.client import Connection

PATIENCE_S = 30.0


def wait_until(is_so: Callable[[], bool], told: Callable[[], object] = str) -> None:
    """Return when it is so; a failure after half a minute."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, told()
        time.sleep(0.02)


@dataclass
class Daemon:
    """`penstock daemon`, its settings and policies in `etc`; it runs within the `with`."""

    place: Path
    root: Path
    prefix: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.etc, self.run, self.state = self.place / "etc", self.place / "run", self.place / "state"
        for directory in (self.etc, self.run, self.state):
            directory.mkdir(parents=True, exist_ok=True)
        self.log = self.place / "log"
        self.environment |= {
            "PENSTOCK_BPFFS": str(self.root),
            "PENSTOCK_CONFIG_DIR": str(self.etc),
            "PENSTOCK_RUN_DIR": str(self.run),
            "PENSTOCK_STATE_DIR": str(self.state),
        }
        self.settings("check_s = 0.1\n")

    def settings(self, text: str) -> None:
        """Write settings.toml, in one step."""
        self._write("settings.toml", text)

    def policy(self, name: str, text: str) -> Path:
        """Write a policy file, in one step."""
        return self._write(name, text)

    def built(self, name: str, content: bytes) -> Path:
        """Write what `penstock build` has made, in one step."""
        return self._write(name, content)

    def _write(self, name: str, content: str | bytes) -> Path:
        new = self.etc / f".{name}"
        new.write_bytes(content.encode() if isinstance(content, str) else content)
        return new.replace(self.etc / name)

    def start(self, *, is_ready: bool = True, fetches: bool = False) -> Self:
        """Start it, and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.prefix,
                    sys.executable,
                    "-m",
                    "penstock",
                    "daemon",
                    *([] if fetches else ["--no-fetch"]),
                ],
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
            )
        if is_ready:
            wait_until(self.answers, self.said)
        return self

    def answers(self) -> bool:
        """Whether somebody listens, who is this process."""
        assert self.process is not None
        assert self.process.poll() is None, self.said()
        try:
            return bool(self.ask("Ping")["pid"] == self.process.pid)
        except OSError:
            return False

    def ask(self, request: str, *, to_read: bool = False, **fields: object) -> dict[str, Any]:
        """What it answers."""
        import socket

        channel = socket.socket(socket.AF_UNIX)
        channel.settimeout(PATIENCE_S)
        channel.connect(str(self.run / ("read.sock" if to_read else "control.sock")))
        with Connection(channel) as connection:
            return connection.ask(request, **({"root": str(self.root)} | fields))

    def said(self) -> str:
        """Its log."""
        return self.log.read_text()

    def filters(self) -> list[tuple[str, str, str]]:
        """What it keeps: interface, policy, state."""
        return [(one["interface"], one["policy"], one["state"]) for one in self.ask("Status")["filters"]]

    def waits_for(self, words: str, times: int = 1) -> None:
        """Until its log has these words, so often."""
        wait_until(lambda: self.said().count(words) >= times, self.said)

    def kill(self) -> None:
        """As `kill -9`."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def stop(self) -> int:
        """As systemd stops it; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()
        assert "Traceback" not in self.said(), self.said()
