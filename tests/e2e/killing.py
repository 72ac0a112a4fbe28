"""A process that does something real and kills itself before or after a call within it.

    killed(host, ("penstock.kernel.link", "Link", "update", "after"), "from … import detach; detach('v1')")

A point is a module, a class in it or nothing, what is called, and on which side of the call it is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.e2e.conftest import Cli
    from tests.e2e.daemons import Daemon

_BEGIN = """
import os, signal, sys
from importlib import import_module
module, owner, name, when, nth, *arguments = sys.argv[1:]
place = import_module(module)
place = getattr(place, owner) if owner else place
whole, calls = getattr(place, name), [0]

def killed(*given, **named):
    calls[0] += 1
    if calls[0] < int(nth):
        return whole(*given, **named)
    if when == "after":
        whole(*given, **named)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(place, name, killed)
"""


def killed(host: Cli | Daemon, point: Sequence[str], script: str, *arguments: str, nth: int = 1) -> None:
    """Run a script, which has `arguments`, until it is killed at the nth call."""
    argv = [*host.prefix, sys.executable, "-c", _BEGIN + script, *point, str(nth), *arguments]
    environment = {**os.environ, **host.environment}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
