"""Network namespaces and veth pairs for tests, removed with everything in them.

with Namespace("drops") as left, Namespace("peer") as right:
    veth(left, "v0", right, "v1")
    left.run("ping", "-c1", "10.0.0.2")
    with left.inside():                    # this thread, by setns(2)
        interface("v0")
"""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Self

from penstock.kernel import netns

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

_serial = itertools.count()


class Namespace:
    """A network namespace, named after the test's purpose; it exists within the `with`."""

    def __init__(self, purpose: str) -> None:
        self.name = f"ps-{purpose}-{os.getpid()}-{next(_serial)}"
        self.path = Path("/run/netns") / self.name

    def __enter__(self) -> Self:
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.ip("link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=True)

    def ip(self, *arguments: str) -> str:
        """What `ip` prints when run on this namespace."""
        done = subprocess.run(["ip", "-n", self.name, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def command(self, *argv: str) -> list[str]:
        """The argv that runs a command in this namespace, with the host's /sys and bpffs in sight."""
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in this namespace to its end."""
        done = subprocess.run(self.command(*argv), capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stderr
        return done

    def inside(self) -> AbstractContextManager[None]:
        """Move the calling thread here for a block."""
        return netns.inside(str(self.path))


def veth(left: Namespace, left_name: str, right: Namespace, right_name: str, *, mtu: int = 1500) -> None:
    """Join two namespaces by a veth pair, both ends up; it goes with either namespace."""
    ends = "link", "add", left_name, "mtu", str(mtu), "type", "veth", "peer", "name", right_name
    left.ip(*ends, "netns", right.name, "mtu", str(mtu))
    left.ip("link", "set", left_name, "up")
    right.ip("link", "set", right_name, "up")
