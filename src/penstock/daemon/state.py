"""What the daemon remembers across its own life: STATE/daemon.json.

    save(Memory(kept={…}, pid=4711))      in one step; a full disk leaves what was there
    load()                                 Memory() where nothing can be read
    count(Counts(set_full=1))              in STATE/failures.json, which commands write too

Nothing that filters depends on it.  Without it the daemon takes nothing off that
it does not know to be its own.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from penstock.daemon.reconcile import Kept
from penstock.errors import PenstockError
from penstock.kernel.lock import hold_directory
from penstock.model.moment import boot_id
from penstock.model.state_directory import make_place, read_kept, state_directory, write_atomically


class Counts(msgspec.Struct):
    """How often what has failed (failures.py)."""

    load: int = 0
    daemon: int = 0
    set_full: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.load + other.load, self.daemon + other.daemon, self.set_full + other.set_full)


class Memory(msgspec.Struct):
    """`kept` by interface and hook, joined by a blank; `released` are such names, of what a command has taken off.

    `is_over` when the daemon has ended as it should.
    """

    kept: dict[str, Kept] = {}
    released: list[str] = []
    boot: str = ""
    pid: int = 0
    started_at: str = ""
    is_over: bool = True


def load() -> Memory:
    """What was saved last; what cannot be read is as if it was not there."""
    try:
        content = read_kept(state_directory() / "daemon.json")
        found = msgspec.json.decode(content, type=Memory)
    except (OSError, ValueError):
        return Memory()
    # Programs and interfaces have other numbers after a boot.
    if not boot_id() or found.boot != boot_id():
        found.kept, found.released, found.is_over = {}, [], True
    return found


def save(memory: Memory) -> None:
    """Raises PenstockError: it cannot be written; what was saved before is there."""
    _write(state_directory() / "daemon.json", memory)


def is_there() -> bool:
    """Whether anything is saved: a state directory may be emptied while the daemon runs."""
    return (state_directory() / "daemon.json").exists()


def counts() -> Counts:
    """What was counted so far; nothing where it cannot be read."""
    try:
        return msgspec.json.decode(read_kept(state_directory() / "failures.json"), type=Counts)
    except (OSError, ValueError):
        return Counts()


def count(more: Counts) -> None:
    """Count something.  Raises PenstockError: it cannot be written; what was counted before is."""
    place = state_directory()
    try:
        place.mkdir(mode=0o755, parents=True, exist_ok=True)
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise PenstockError(f"{place} cannot be used: {error.strerror}") from error
    try:
        hold_directory(fd, "what is counted of failures")
        _write(place / "failures.json", counts() + more)
    finally:
        os.close(fd)


def _write(place: Path, content: msgspec.Struct) -> None:
    try:
        make_place(place.parent, 0o755)
        write_atomically(place, msgspec.json.format(msgspec.json.encode(content)) + b"\n", mode=0o644)
    except OSError as error:
        raise PenstockError(f"{place} cannot be written: {error.strerror}; it is as it was") from error
