"""Where penstock keeps what must outlive it, and how a file there changes.

    state_directory()                         ->  Path("/var/lib/penstock")
    write_atomically(place / "a.json", b"…")  the file has the new content or, whatever happens, the old

Every process finds the same directory: $PENSTOCK_STATE_DIR, or /var/lib/penstock.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def state_directory() -> Path:
    """The directory; it need not be there yet."""
    return Path(os.environ.get("PENSTOCK_STATE_DIR") or "/var/lib/penstock")


def make_place(place: Path, mode: int = 0o755) -> None:
    """Make a directory and those above it; root's commands make them for whoever has the one that is there.

    Raises OSError.
    """
    if place.is_dir():
        return
    if place.parent != place:
        make_place(place.parent, mode)
    place.mkdir(mode=mode, exist_ok=True)
    if owner := _owner(place.parent):
        os.chown(place, *owner)


def _owner(place: Path) -> tuple[int, int] | None:
    """Whom root makes files in a directory for; None for everybody else, whose files are their own."""
    if os.geteuid() != 0:
        return None
    found = place.stat()
    return found.st_uid, found.st_gid


def write_atomically(path: Path, *parts: bytes | memoryview, mode: int = 0o600) -> None:
    """Put a file in place as a whole, on the disk before it has the name.

    Raises OSError; nothing has changed then.
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            if owner := _owner(path.parent):
                os.fchown(handle, *owner)
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
