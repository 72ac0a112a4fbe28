"""One change at a time: an advisory lock for each attach point.

    with lock("eth0"):
        …                 # a second process hears: busy, process 4711 is changing it

The lock is flock(2) on a file in /run/penstock, or $PENSTOCK_LOCK_DIR, which is
no part of $PENSTOCK_RUN_DIR: daemons of two network namespaces, each with a run
directory of its own, share the machine's sets.  The kernel drops it with its
holder, however that ends, so it is never stale and the file is never removed
(removing it would let two processes lock two files of one name).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import KernelError
from penstock.kernel.capability import kernel_errors
from penstock.model.state_directory import owner_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARIABLE = "PENSTOCK_LOCK_DIR"
_PAUSE_S = 0.01


@contextmanager
def lock(attach_point: str, words: str | None = None, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of an attach point, or of what `words` call, by its name for the block.

    Waits up to `wait_s` for another holder.

    Raises:
        KernelError: another process holds it (errno EBUSY, the message has its
            process id), or no directory for locks is writable.
    """
    fd = _opened(attach_point)
    try:
        _take(fd, attach_point, words, time.monotonic() + wait_s)
        yield
    finally:
        os.close(fd)


def hold_directory(fd: int, words: str, wait_s: float = 10.0) -> None:
    """Hold an open directory of the state directory, called `words`, until it is closed.

    Raises:
        KernelError: another process holds it for longer than that (errno EBUSY).
    """
    deadline = time.monotonic() + wait_s
    while not _taken(fd):
        if time.monotonic() >= deadline:
            raise _busy(words, holder_of(fd))
        time.sleep(_PAUSE_S)


def holder_of(fd: int) -> str:
    """The process that holds what is open there, as proc(5) has it in /proc/locks; nothing if that does not tell."""
    found = os.fstat(fd)
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[1] == "FLOCK" and words[5] == place:
                return words[4]
    return ""


def is_free(name: str) -> bool:
    """Whether nobody holds that lock at the moment.  Raises: as `lock`."""
    fd = _opened(name)
    try:
        return _taken(fd)
    finally:
        os.close(fd)


def _opened(name: str) -> int:
    asker = os.geteuid(), os.environ.get(_VARIABLE), os.environ.get("XDG_RUNTIME_DIR")
    with kernel_errors("lock", name, needs=()):
        try:
            return open_lock(f"{_directory_of(asker)}/{name}.lock")
        except FileNotFoundError:
            # The directory was taken away since it was looked at.
            _directory_of.cache_clear()
            return open_lock(f"{_directory_of(asker)}/{name}.lock")


def open_lock(path: str) -> int:
    """The file of a lock, made if it is not there, for whoever has its directory.  Raises OSError."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    with suppress(FileNotFoundError):
        return os.open(path, flags)
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, flags)
    if owner := owner_of(Path(path).parent):
        os.fchown(fd, *owner)
    return fd


@cache
def _directory_of(_asker: tuple[int, str | None, str | None]) -> str:
    return str(lock_directory())


def lock_directory() -> Path:
    """Where the locks are: /run/penstock, or for a user who may not write there a directory of their own."""
    place = Path(os.environ.get(_VARIABLE) or "/run/penstock")
    if _is_usable(place, owners={os.geteuid(), _owner(place)}):
        return place
    from tempfile import gettempdir

    runtime = os.environ.get("XDG_RUNTIME_DIR")
    private = Path(runtime) / "penstock" if runtime else Path(gettempdir()) / f"penstock-{os.geteuid()}"
    if _is_usable(private, owners={os.geteuid()}):
        return private
    raise KernelError(
        "lock in", str(private), errno.EACCES, hint=f"make {place} or XDG_RUNTIME_DIR writable for this user"
    )


def _place_words(name: str) -> str:
    from penstock.kernel.attach_point import decode, place_words

    place = decode(name)
    return place_words(place.ifname, place.hook)


def _take(fd: int, name: str, words: str | None, deadline: float) -> None:
    while not _taken(fd):
        if time.monotonic() < deadline:
            time.sleep(_PAUSE_S)
            continue
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        raise _busy(words or _place_words(name), holder)
    # As long for every number, so that nothing of the last holder's is left: truncating costs a disk access.
    os.pwrite(fd, f"{os.getpid():<10}\n".encode(), 0)


def _busy(words: str, holder: str) -> KernelError:
    who = f"process {holder}" if holder else "another process"
    return KernelError(
        "change",
        words,
        errno.EBUSY,
        meaning=f"busy: {who} is changing it",
        hint="try again when it is done",
    )


def _taken(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(place: Path) -> int:
    # /run is root's alone, so whoever owns a directory there was given it: a daemon's own user.
    try:
        return os.lstat(place).st_uid
    except OSError:
        return 0


def _is_usable(place: Path, owners: set[int]) -> bool:
    """Whether `place` is, or could be made, a directory of these owners that nobody else can write to."""
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        state = os.lstat(place)
    except OSError:
        return False
    trusted = stat.S_ISDIR(state.st_mode) and state.st_uid in owners and not state.st_mode & 0o022
    return trusted and os.access(place, os.W_OK)
