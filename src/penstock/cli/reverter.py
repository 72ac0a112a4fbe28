"""The process that ends a probation: started by `apply --confirm` before anything changes, seen by nobody.

It has a session of its own, so that neither the end of the shell nor a lost
connection reaches it.  Should it be killed all the same, the next command of
penstock's that looks at policies does its work (`probation.end_overdue`).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from penstock.cli.expiry import Process, start_detached
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from penstock.pipeline.identity import Probation

_FIRST_SLEEP_S, _LONGEST_SLEEP_S = 0.25, 5.0
#: Looks, one after the other, that must miss a policy which was there: pins have other names for a moment.
_MISSED = 2


def start_reverter(probation: Probation) -> Process:
    """Start the process, in the network namespace of this thread."""
    return start_detached("_revert", probation.token, str(probation.until_ns), is_told=True)


def tell(process: Process) -> None:
    """Tell the process that its policy is in place: it may end as soon as it is there no more."""
    if process.stdin is not None:
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(b"\n")


@click.command("_revert", hidden=True)
@click.argument("token")
@click.argument("until_ns", type=int)
def command(token: str, until_ns: int) -> None:
    """Undo a probation at its time, unless it was confirmed."""
    # Whatever is needed then is imported now: the disk may be full or gone later.
    from penstock.model.boot_clock import boot_clock_ns
    from penstock.pipeline import probation

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    watch, pause_s = _Watch(token), _FIRST_SLEEP_S
    while (left := until_ns - boot_clock_ns()) > 0:
        if watch.is_over():
            return
        # The boot clock goes on while the machine sleeps and time.sleep does not: look again now and then.
        time.sleep(min(left / 1e9, pause_s))
        pause_s = min(2 * pause_s, _LONGEST_SLEEP_S)
    probation.remember(probation.end(token))


@dataclass(slots=True)
class _Watch:
    """Whether there is still something to wait for; what cannot be read says nothing."""

    token: str
    is_in_place: bool = False
    missed: int = 0

    def is_over(self) -> bool:
        """Whether the policy was confirmed; or was put in place, and was taken back, replaced or detached."""
        from penstock.pipeline import probation

        self.is_in_place = self.is_in_place or _was_told()
        try:
            if probation.outcome(self.token) is True:
                return True
            is_gone = self.is_in_place and not probation.is_known(self.token)
        except PenstockError:
            is_gone = False
        self.missed = self.missed + 1 if is_gone else 0
        return self.missed >= _MISSED


def _was_told() -> bool:
    """Whether `tell` was called; a command that was killed before it has told nothing."""
    with suppress(OSError):
        os.set_blocking(sys.stdin.fileno(), False)
        return bool(os.read(sys.stdin.fileno(), 1))
    return False
