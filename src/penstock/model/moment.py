"""A moment that survives both a reboot and a wall clock that is set.

The wall clock may jump; the boot clock does not, but begins anew with every boot.  A
`Moment` has both and the boot that its boot clock is of.  So how long ago it was is told by
the boot clock while that boot lasts, and by the wall clock behind it, when nothing better
is left.

    noted = moment()                          kept on disk
    boot_ns_of(noted, end_ns, moment())       an end on the boot clock of then, on that of now
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from penstock.model.boot_clock import boot_clock_ns

_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Moment:
    """`wall` in seconds since 1970, `boot_ns` on the boot clock of the boot `boot_id`."""

    wall: float
    boot_ns: int
    boot_id: str

    def elapsed_s(self, now: Moment) -> float:
        """Seconds from this moment to `now`; never less than none, whatever was done to the wall clock."""
        if _is_one_boot(self, now):
            return max(now.boot_ns - self.boot_ns, 0) / _SECOND
        return max(now.wall - self.wall, 0.0)


def moment() -> Moment:
    """Now."""
    return Moment(time.time(), boot_clock_ns(), boot_id())


@cache
def boot_id() -> str:
    """What tells this boot from every other; nothing where /proc has only processes, and wall clocks have to do."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _is_one_boot(one: Moment, other: Moment) -> bool:
    return one.boot_id == other.boot_id != ""


def boot_ns_of(noted: Moment, end_ns: int, now: Moment) -> int:
    """An end on the boot clock of `noted`, on that of `now`; 0, which is never, stays so.

    An end that is over lies before `now`, and is at least 1.
    """
    if end_ns == 0 or _is_one_boot(noted, now):
        return end_ns
    left = end_ns - noted.boot_ns - int(noted.elapsed_s(now) * _SECOND)
    return max(now.boot_ns + left, 1)
