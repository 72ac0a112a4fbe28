"""A quiet place on a machine that does other things as well.

with alone():                   # one processor, ahead of what else wants it
    …
with undisturbed():             # waits where PENSTOCK_BENCH_LOCK names a file that several who measure share
    …
with unpreempted():             # keeps other processes off this processor
    …
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENVIRONMENT = "PENSTOCK_BENCH_LOCK"


@contextmanager
def alone() -> Iterator[None]:
    """Run the block, and what it starts, on one processor and ahead of all that does not ask for real time."""
    processors, niceness = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)
    os.sched_setaffinity(0, {max(processors)})
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
        os.sched_setaffinity(0, processors)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Run the block while nobody else holds the lock; at once where no lock file is named.  Not to be nested."""
    name = os.environ.get(ENVIRONMENT)
    if name is None:
        yield
        return
    with Path(name).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def unpreempted() -> Iterator[None]:
    """Run the block with the lowest real-time priority, so that nothing else has turns on this processor meanwhile.

    For seconds at most; and not for what needs ksoftirqd, which would have no turns either.
    """
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
