"""Two network namespaces joined by a veth pair, for as long as a block lasts.

    with world() as place:
        place.client, place.server              names of the namespaces
        place.interface                         the server's end, where the filter is attached

No interface of the host is touched: both ends of the pair are made inside the
new namespaces.  What is left by a demo that was killed is removed by the next.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from penstock.errors import ToolchainError

CLIENT_ADDRESS, SERVER_ADDRESS = "192.0.2.1", "192.0.2.2"
_PREFIX = "penstock-demo"
_NAMED = Path("/run/netns")


@dataclass(frozen=True, slots=True)
class World:
    """Names of the two namespaces and of the interface in each."""

    client: str
    server: str
    interface: str = "veth0"


@contextmanager
def world() -> Iterator[World]:
    """A client's and a server's namespace with a working link between them; both are gone afterwards.

    Raises:
        ToolchainError: `ip` is missing, or refused.
    """
    _remove_leftovers()
    place = World(f"{_PREFIX}-{os.getpid()}-client", f"{_PREFIX}-{os.getpid()}-server")
    try:
        _build(place)
        yield place
    finally:
        for name in (place.client, place.server):
            if (_NAMED / name).exists():
                _ip("netns", "delete", name)


def _build(place: World) -> None:
    for name in (place.client, place.server):
        _ip("netns", "add", name)
    pair = (
        "link",
        "add",
        place.interface,
        "type",
        "veth",
        "peer",
        "name",
        place.interface,
        "netns",
        place.server,
    )
    _ip("-n", place.client, *pair)
    for name, address in ((place.client, CLIENT_ADDRESS), (place.server, SERVER_ADDRESS)):
        _ip("-n", name, "address", "add", f"{address}/24", "dev", place.interface)
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "link", "set", place.interface, "up")


def _remove_leftovers() -> None:
    if not _NAMED.is_dir():
        return
    for path in _NAMED.glob(f"{_PREFIX}-*-*"):
        owner = path.name.removeprefix(f"{_PREFIX}-").partition("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            _ip("netns", "delete", path.name)


def _ip(*arguments: str) -> None:
    program = which("ip") or which("ip", path="/usr/sbin:/sbin")
    if program is None:
        raise ToolchainError(
            "the program `ip` is missing", hint="install iproute2 (Debian, Ubuntu) or iproute (Fedora)"
        )
    # In a session of its own, because Ctrl-C goes to the whole group of the terminal: half a `netns add` is none.
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, start_new_session=True
    )
    if done.returncode:
        raise ToolchainError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
