"""Who is at work behind sudo, as the kernel's audit subsystem knows.

login_uid()      ->  1000, or None where nobody has logged in
"""

from __future__ import annotations

from pathlib import Path

_NOBODY = 0xFFFFFFFF


def login_uid(process: int | str = "self") -> int | None:
    """The user who logged in and whose process this is, by default our own; None where nobody did."""
    try:
        number = int(Path(f"/proc/{process}/loginuid").read_text())
    except (OSError, ValueError):
        return None
    return None if number == _NOBODY else number
