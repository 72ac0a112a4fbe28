"""What `penstock status` looks like on a terminal and in a file."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.conftest import Cli, Wire, write

pytestmark = pytest.mark.privileged

LONG = " or ".join(f"udp dst port {port}" for port in range(1, 20))
POLICY = f"filter guard at xdp {{\n    dns: drop if udp dst port 53\n    many: drop if {LONG}\n}}\n"


@pytest.fixture
def guarded(wire: Wire, host: Cli, tmp_path: Path) -> Cli:
    assert host("apply", str(write(tmp_path / "guard.policy", POLICY)), "-i", "v1").code == 0
    return host


def test_no_row_is_wider_than_the_terminal(guarded: Cli) -> None:
    rows = on_terminal(guarded, "status", "-i", "v1", columns=80).splitlines()[1:]
    assert [len(row) for row in rows if "many" in row] == [80]
    assert max(map(len, rows)) == 80
    # What is decided for the day on which something fails stands below all filters, and has no place to be cut.
    decisions = on_terminal(guarded, "status", columns=80).partition("WHEN ")[2].splitlines()
    assert len(decisions) == 7
    assert max(map(len, decisions)) < 80
    assert not any("…" in line for line in decisions)


def test_rates_are_shown_where_they_were_measured(guarded: Cli) -> None:
    assert guarded("status").out.splitlines()[1].split() == ["RULE", "ACTION", "PACKETS", "BYTES", "IF"]
    measured = guarded("status", "--interval", "100ms").out.splitlines()
    assert measured[1].split() == ["RULE", "ACTION", "PACKETS", "BYTES", "PPS", "BIT/S", "IF"]
    assert measured[2].split() == ["dns", "drop", "0", "0", "0", "0", "udp", "dst", "port", "53"]


def on_terminal(cli: Cli, *arguments: str, columns: int) -> str:
    """What the command writes to a terminal of that width, without colours."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, **cli.environment, "COLUMNS": str(columns), "NO_COLOR": "1"}
    argv = [*cli.prefix, sys.executable, "-m", "penstock", *arguments]
    with subprocess.Popen(argv, stdout=theirs, env=environment) as running:
        os.close(theirs)
        parts = []
        while part := _read(ours):
            parts.append(part)
    os.close(ours)
    assert running.returncode == 0
    return b"".join(parts).decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # EIO is how a terminal ends
        return b""
