"""Single entries added through the daemon, as fail2ban does: how many a second.

ban_rows()     ->  [{"way": "one connection", "per_s": 2400}, {"way": "a connection each", …}]

A daemon of its own, with a ledger on disk; each add is answered before the next is asked.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.sets import sets_place
from bench.turns import undisturbed, unpreempted
from penstock.control.client import Connection, connect
from penstock.model.sets import SetSpec
from penstock.pipeline.set_store import delete, shared

_ADDS, _TURNS = 1000, 3
_PATIENCE_S = 20.0
_SET = "banned"
Row = dict[str, object]


def ban_rows() -> list[Row]:
    """A row a way of asking."""
    with sets_place() as folder, shared([SetSpec(_SET, ("host",), 100_000)]), _daemon(folder) as held:
        ways = {"one connection": [], "a connection each": []}
        for turn in range(_TURNS):
            with undisturbed(), unpreempted():
                ways["one connection"].append(_rate(held, 2 * turn))
                ways["a connection each"].append(_rate(None, 2 * turn + 1))
    return [{"way": way, "per_s": round(median(rates))} for way, rates in ways.items()]


def _rate(held: Connection | None, turn: int) -> float:
    begun = time.perf_counter()
    for number in range(_ADDS):
        entry = f"198.18.{16 * turn + (number >> 8)}.{number & 255}"
        if held is not None:
            done = held.ask("SetAdd", set=_SET, entries=[entry])
        else:
            asked = connect()
            assert asked is not None
            with asked:
                done = asked.ask("SetAdd", set=_SET, entries=[entry])
        assert done["added"] == 1, done
    return _ADDS / (time.perf_counter() - begun)


@contextmanager
def _daemon(folder: Path) -> Iterator[Connection]:
    (folder / "etc").mkdir()
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
            delete(_SET)


def _connected() -> Connection:
    until = time.monotonic() + _PATIENCE_S
    while (found := connect()) is None and time.monotonic() < until:
        time.sleep(0.05)
    assert found is not None
    return found
