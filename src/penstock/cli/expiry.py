"""The process that removes emergency rules whose time is over: started by `drop` and `try`, seen by nobody.

It is a convenience: the rules lapse in the data path at their time whatever
becomes of this process.  It ends when no rule is left on its interface.
"""

from __future__ import annotations

import errno
import subprocess
import sys
import time

import click

from penstock.errors import KernelError

Process = subprocess.Popen[bytes]

_BUSY_S = 0.2
_MOST_ATTEMPTS = 300
_LONGEST_SLEEP_S = 60.0
_SPARE_NS = 50_000_000


def start_expiry(ifname: str, hook: str = "xdp") -> Process:
    """Start the process, in the network namespace of this thread."""
    return start_detached("_expire", ifname, hook)


def start_detached(*arguments: str, is_told: bool = False) -> Process:
    """Start a command of penstock's that outlives this one and its terminal; `is_told`: with a pipe to it."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "penstock", *arguments],
        stdin=subprocess.PIPE if is_told else subprocess.DEVNULL,
        bufsize=0,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
        close_fds=True,
    )


@click.command("_expire", hidden=True)
@click.argument("interface")
@click.argument("hook", default="xdp")
def command(interface: str, hook: str) -> None:
    """Remove the emergency rules of an interface when their time is over, until none is left."""
    from penstock.model.boot_clock import boot_clock_ns
    from penstock.pipeline.emergency import expire

    attempts = 0
    while True:
        try:
            until = expire(interface, hook=hook)
        except KernelError as error:
            attempts += 1
            if error.errno not in (errno.EBUSY, errno.ENOENT) or attempts > _MOST_ATTEMPTS:
                raise
            time.sleep(_BUSY_S)
            continue
        attempts = 0
        if until is None:
            return
        # The boot clock goes on while the machine sleeps and time.sleep does not: look again once a minute.
        left = (until + _SPARE_NS - boot_clock_ns()) / 1e9
        time.sleep(min(max(left, 0.01), _LONGEST_SLEEP_S))
