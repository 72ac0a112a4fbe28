"""The process that ends a probation: started by `apply --confirm` before anything changes, seen by nobody.

It has a session of its own, so that neither the end of the shell nor a lost
connection reaches it.  Should it be killed all the same, the next command of
penstock's that looks at policies does its work (`probation.end_overdue`).
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import click

from penstock.cli.expiry import Process, start_detached
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from penstock.pipeline.identity import Probation

_LONGEST_SLEEP_S = 5.0


def start_reverter(probation: Probation) -> Process:
    """Start the process, in the network namespace of this thread."""
    return start_detached("_revert", probation.token, str(probation.until_ns))


@click.command("_revert", hidden=True)
@click.argument("token")
@click.argument("until_ns", type=int)
def command(token: str, until_ns: int) -> None:
    """Undo a probation at its time, unless it was confirmed."""
    # Whatever is needed then is imported now: the disk may be full or gone later.
    from penstock.pipeline import probation

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    while (left := until_ns - probation.boot_clock_ns()) > 0:
        if _is_confirmed(token):
            return
        # The boot clock goes on while the machine sleeps and time.sleep does not: look again now and then.
        time.sleep(min(left / 1e9, _LONGEST_SLEEP_S))
    probation.remember(probation.end(token))


def _is_confirmed(token: str) -> bool:
    """Whether pins say so; what cannot be read, or is not there (yet), says nothing."""
    from penstock.pipeline import probation

    try:
        return probation.outcome(token) is True
    except PenstockError:
        return False
