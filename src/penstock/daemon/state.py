"""What the daemon remembers across its own life: STATE/daemon.json.

    save(Memory(kept={…}, pid=4711))      in one step; a full disk leaves what was there
    load()                                 Memory() where nothing can be read

Nothing that filters depends on it.  Without it the daemon takes nothing off that
it does not know to be its own.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from penstock.daemon.reconcile import Kept
from penstock.errors import PenstockError
from penstock.model.state_directory import state_directory, write_atomically


class Counts(msgspec.Struct):
    """How often what has failed (failures.py)."""

    load: int = 0
    daemon: int = 0
    set_full: int = 0
    put_back: int = 0


class Memory(msgspec.Struct):
    """`kept` by interface and hook, joined by a blank; `is_over` when the daemon has ended as it should."""

    kept: dict[str, Kept] = {}
    counts: Counts = msgspec.field(default_factory=Counts)
    boot: str = ""
    pid: int = 0
    started_at: str = ""
    is_over: bool = True


def boot_id() -> str:
    """This boot of the machine; what is remembered of kernel objects ends with it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def load() -> Memory:
    """What was saved last; what cannot be read is as if it was not there."""
    try:
        found = msgspec.json.decode(_place().read_bytes(), type=Memory)
    except (OSError, msgspec.DecodeError):
        return Memory()
    if found.boot != boot_id():
        found.kept, found.is_over = {}, True
    return found


def save(memory: Memory) -> None:
    """Raises PenstockError: it cannot be written; what was saved before is there."""
    place = _place()
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(place, msgspec.json.format(msgspec.json.encode(memory)) + b"\n")
    except OSError as error:
        raise PenstockError(f"{place} cannot be written: {error.strerror}; it is as it was") from error


def _place() -> Path:
    return state_directory() / "daemon.json"
