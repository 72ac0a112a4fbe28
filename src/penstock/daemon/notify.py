"""Tell systemd how the daemon is: sd_notify(3), which is one datagram to a socket.

    Notifier().tell("READY=1", "STATUS=2 policies in place")

Without $NOTIFY_SOCKET nothing happens.
"""

from __future__ import annotations

import os
import socket
import time


class Notifier:
    """The way to the service manager, if there is one."""

    def __init__(self) -> None:
        self._path = os.environ.get("NOTIFY_SOCKET", "")

    @property
    def watchdog_s(self) -> float | None:
        """How often the manager wants to hear from this process; None if it does not."""
        said, meant = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID")
        if not self._path or not said.isdecimal() or meant not in (None, str(os.getpid())):
            return None
        return int(said) / 1e6

    def tell(self, *lines: str) -> None:
        """Send assignments, as `READY=1`.  That nobody takes them is no fault of ours."""
        if not self._path:
            return
        # A leading @ stands for the abstract namespace.
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            try:
                channel.setblocking(False)
                channel.sendto("\n".join(lines).encode(errors="replace"), address)
            except OSError:
                return

    def reloading(self) -> None:
        """A reload has begun; `tell("READY=1")` ends it."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
