"""A daemon of a benchmark's own, in its network namespace and directories.

with serving(folder) as connection:       bench.sets.sets_place has made the folder
    connection.ask("Ping")
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.turns import unpreempted
from penstock.control.client import Connection, connect

_PATIENCE_S = 20.0


@contextmanager
def serving(folder: Path) -> Iterator[Connection]:
    """A connection to a daemon without policies, which ends with the block."""
    (folder / "etc").mkdir(exist_ok=True)
    environment = {**os.environ, "PENSTOCK_CONFIG_DIR": str(folder / "etc")}
    command = [sys.executable, "-m", "penstock", "-q", "daemon", "--no-fetch"]
    with unpreempted():
        # It keeps the priority that it was started with.
        started = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    with started as process:
        try:
            with _connected() as connection:
                yield connection
        finally:
            process.terminate()
            process.wait(_PATIENCE_S)


def _connected() -> Connection:
    until = time.monotonic() + _PATIENCE_S
    while (found := connect()) is None and time.monotonic() < until:
        time.sleep(0.05)
    assert found is not None
    return found
