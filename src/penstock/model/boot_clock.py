"""The boot clock that programs in the kernel read: it goes on during suspend, and does not jump when the date is set.

    boot_clock_ns()      what bpf_ktime_get_boot_ns gives at this moment

A process in a time namespace is told another boot clock than programs are (time_namespaces(7)):
what it was given is taken off again, so that an end means the same wherever it was written.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

_PROCESS = Path("/proc/self")
_SECOND = 1_000_000_000


def boot_clock_ns() -> int:
    """Now, in nanoseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - _given_ns()


@cache
def _given_ns() -> int:
    """What this process's time namespace adds to the boot clock; a process never changes it while it runs."""
    try:
        # The offsets that are shown are those of the namespace that children are in.
        if (_PROCESS / "ns/time").readlink() != (_PROCESS / "ns/time_for_children").readlink():
            return 0
        return offset_ns((_PROCESS / "timens_offsets").read_text())
    except OSError:
        return 0


def offset_ns(text: str) -> int:
    """The boot clock's offset of a timens_offsets file; `boottime -1 999999999` is a nanosecond less."""
    for line in text.splitlines():
        if line.startswith(("boottime", str(time.CLOCK_BOOTTIME))):
            _, seconds, rest = line.split()
            return int(seconds) * _SECOND + int(rest)
    return 0
