"""Where penstock keeps what must outlive it, and how a file there changes.

    state_directory()                         ->  Path("/var/lib/penstock")
    write_atomically(place / "a.json", b"…")  the file has the new content or, whatever happens, the old

Every process finds the same directory: $PENSTOCK_STATE_DIR, or /var/lib/penstock.  It belongs to the
daemon's user, who may do less than root: what root's commands open, make, write and remove there is
found without following any link, or whoever is that user would have them write elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MOST_KEPT = 64 << 20


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
    above = open_directory(place.parent)
    try:
        with suppress(FileExistsError):
            os.mkdir(place.name, mode, dir_fd=above)
        # Whoever has the directory above may have put a link there meanwhile.
        made = os.open(place.name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        try:
            os.fchmod(made, mode)
            if owner := owner_of(above):
                os.fchown(made, *owner)
        finally:
            os.close(made)
    finally:
        os.close(above)


def owner_of(place: Path | int) -> tuple[int, int] | None:
    """Whom root makes things in a directory for; None for everybody else, who makes them their own.

    The daemon has a user of its own, and has to go on with what root's commands have begun.
    """
    if os.geteuid() != 0:
        return None
    found = os.stat(place)  # noqa: PTH116 - it may be open
    return found.st_uid, found.st_gid


def foreign_owner(*names: str) -> int | None:
    """Another user who has the state directory or one of these in it; None for root alone, and whoever is not root."""
    if os.geteuid() != 0:
        return None
    root = state_directory()
    for place in (root, *(root / name for name in names)):
        with suppress(FileNotFoundError):
            if owner := os.lstat(place).st_uid:
                return owner
    return None


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
    """A descriptor of a directory; below the state directory no link is followed anywhere on the way.

    Raises OSError: there is none, or there is a link that is not to be followed.
    """
    root = state_directory()
    if path != root and path.is_relative_to(root):
        return _open_below(root, path.relative_to(root).parts)
    return os.open(path, _DIRECTORY if follows_links else _DIRECTORY | os.O_NOFOLLOW)


def _open_below(root: Path, parts: tuple[str, ...]) -> int:
    if ".." in parts:
        raise OSError(errno.EXDEV, "it leads out of the state directory")
    found = os.open(root, _DIRECTORY)
    for part in parts:
        above = found
        try:
            found = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        finally:
            os.close(above)
    return found


def open_file(path: Path, flags: int) -> int:
    """A descriptor of a regular file that is there, in a directory found as by `open_directory`; it is no link.

    Raises OSError: there is none, or it is something else.
    """
    directory = open_directory(path.parent)
    try:
        # A pipe would keep the opener waiting.
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handle = os.open(path.name, flags, dir_fd=directory)
    finally:
        os.close(directory)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no regular file")
    return handle


def read_kept(path: Path, most: int = _MOST_KEPT) -> bytes:
    """What a file has that is kept in the state directory.  Raises OSError: as `open_file`, or it is larger."""
    with os.fdopen(open_file(path, os.O_RDONLY), "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return content


def remove_files(place: Path, is_over: Callable[[str], bool]) -> None:
    """Remove the files of a directory whose names are over.  Raises OSError; it may be no link."""
    directory = open_directory(place, follows_links=False)
    try:
        for name in os.listdir(directory):  # noqa: PTH208 - it is open
            if is_over(name):
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory)
    finally:
        os.close(directory)


def remove_tree(place: Path) -> None:
    """Remove a directory and all that is in it.  Raises OSError: there is none, or it is a link."""
    from shutil import rmtree

    above = open_directory(place.parent)
    try:
        rmtree(place.name, dir_fd=above)
    finally:
        os.close(above)


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
