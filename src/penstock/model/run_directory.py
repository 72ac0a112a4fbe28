"""Where running processes of penstock's meet: sockets and what goes with a reboot.

run_directory()   ->  Path("/run/penstock"), or $PENSTOCK_RUN_DIR
"""

from __future__ import annotations

import os
from pathlib import Path

CONTROL_SOCKET, READ_SOCKET = "control.sock", "read.sock"


def run_directory() -> Path:
    """$PENSTOCK_RUN_DIR, or /run/penstock."""
    return Path(os.environ.get("PENSTOCK_RUN_DIR") or "/run/penstock")
