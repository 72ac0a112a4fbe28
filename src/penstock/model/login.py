"""Who is at work behind sudo, as the kernel's audit subsystem knows.

login_uid()      ->  1000, or None where nobody has logged in
"""

from __future__ import annotations

import os

_NOBODY = 0xFFFFFFFF


def login_uid(process: int | str = "self") -> int | None:
    """The user who logged in and whose process this is, by default our own; None where nobody did."""
    try:
        # Not by `Path`, which would be most of what it costs: it is asked of whoever connects to the daemon.
        found = os.open(f"/proc/{process}/loginuid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            number = int(os.read(found, 16))
        finally:
            os.close(found)
    except (OSError, ValueError):
        return None
    return None if number == _NOBODY else number
