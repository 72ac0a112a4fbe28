"""Where running processes of penstock's meet: sockets and what goes with a reboot.

run_directory()            ->  Path("/run/penstock"), or $PENSTOCK_RUN_DIR
socket_path(READ_SOCKET)   ->  "/run/penstock/read.sock"
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # `typing` takes long to import (cli/start.py)
if TYPE_CHECKING:
    from pathlib import Path

CONTROL_SOCKET, READ_SOCKET = "control.sock", "read.sock"


def run_directory() -> Path:
    """$PENSTOCK_RUN_DIR, or /run/penstock."""
    from pathlib import Path

    return Path(_place())


def socket_path(name: str) -> str:
    """Where a socket of the daemon's is, without what `pathlib` costs to import."""
    return f"{_place()}/{name}"


def _place() -> str:
    return os.environ.get("PENSTOCK_RUN_DIR") or "/run/penstock"
