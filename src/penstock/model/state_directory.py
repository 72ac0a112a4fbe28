"""Where penstock keeps what must outlive it, and how a file there changes.

    state_directory()                         ->  Path("/var/lib/penstock")
    write_atomically(place / "a.json", b"…")  the file has the new content or, whatever happens, the old

Every process finds the same directory: $PENSTOCK_STATE_DIR, or /var/lib/penstock.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def state_directory() -> Path:
    """The directory; it need not be there yet."""
    return Path(os.environ.get("PENSTOCK_STATE_DIR") or "/var/lib/penstock")


def make_place(place: Path, mode: int = 0o755) -> None:
    """Make a directory with this mode, and those above it for all to read; root makes them for whoever has those there.

    Raises OSError.
    """
    if place.is_dir():
        return
    if place.parent != place:
        make_place(place.parent)
    place.mkdir(mode=mode, exist_ok=True)
    # Whoever has the directory above may have put a link there meanwhile.
    made = open_directory(place, follows_links=False)
    try:
        os.fchmod(made, mode)
        if owner := owner_of(place.parent):
            os.fchown(made, *owner)
    finally:
        os.close(made)


def owner_of(place: Path | int) -> tuple[int, int] | None:
    """Whom root makes things in a directory for; None for everybody else, who makes them their own.

    The daemon has a user of its own, and has to go on with what root's commands have begun.
    """
    if os.geteuid() != 0:
        return None
    found = os.stat(place)  # noqa: PTH116 - it may be open
    return found.st_uid, found.st_gid


def write_atomically(
    path: Path, *parts: bytes | memoryview, mode: int = 0o600, follows_links: bool = True
) -> None:
    """Put a file in place as a whole, on the disk before it has the name.

    Without `follows_links` its directory may be no link: it belongs to somebody who may do less.

    Raises OSError; nothing has changed then.
    """
    directory = open_directory(path.parent, follows_links=follows_links)
    try:
        _write(directory, path.name, parts, mode)
    finally:
        os.close(directory)


def open_directory(path: Path, *, follows_links: bool = True) -> int:
    """A descriptor of a directory.  Raises OSError: there is none, or it is a link that is not to be followed."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    return os.open(path, flags if follows_links else flags | os.O_NOFOLLOW)


def _write(directory: int, name: str, parts: Iterable[bytes | memoryview], mode: int) -> None:
    temporary = f".{name}-{os.urandom(8).hex()}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            if owner := owner_of(directory):
                os.fchown(handle, *owner)
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(handle)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise
    os.fsync(directory)
