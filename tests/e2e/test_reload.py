"""A policy replaced again and again while packets flow: none slips through, none is lost, each is counted once.

Where live frames cannot be had, or are not in the tests (test_torture.py): beside datagrams from sockets to sockets.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from tests.e2e.conftest import CLIENT, PATIENCE_S, SERVER, Wire

from penstock.kernel.netlink import GENERIC
from penstock.pipeline.apply import apply, detach
from penstock.pipeline.policy import load_policy
from penstock.pipeline.status import status

pytestmark = [pytest.mark.privileged, pytest.mark.check(12), pytest.mark.check(13), pytest.mark.check(19)]

OPEN = """filter guard at xdp {
    default pass
    dns: drop if udp dst port 53
    web: count if udp dst port 8000
}"""
CLOSED = """filter guard at xdp {
    default drop
    web: count if udp dst port 8000
    pass if udp dst port 8000 or arp
    dns: drop if udp dst port 53
}"""
RELOADS = 100
PORTS = DROPPED, PASSED = 53, 8000
HEADERS = 14 + 20 + 8
_BUFFER = 1 << 26


class Flood:
    """Numbered datagrams to both ports, from a thread for each CPU pinned to it, as fast as a veth ring takes them."""

    def __init__(self, wire: Wire) -> None:
        self.sent = dict.fromkeys(PORTS, 0)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        with wire.client.inside():
            pairs = [
                (cpu, socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for cpu in os.sched_getaffinity(0)
            ]
        self._threads = [threading.Thread(target=self._send, args=pair) for pair in pairs]

    def _send(self, cpu: int, sender: socket.socket) -> None:
        os.sched_setaffinity(0, {cpu})
        with sender:
            sender.bind((CLIENT, 0))
            while not self._stop.wait(0.001):
                for port in PORTS * 4:
                    sender.sendto(bytes(58), (SERVER, port))
                with self._lock:
                    for port in PORTS:
                        self.sent[port] += 4

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def sinks(wire: Wire) -> Iterator[dict[int, socket.socket]]:
    """The server's sockets, with room for all that comes."""
    with wire.server.inside():
        made = {port: socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for port in PORTS}
    for port, sink in made.items():
        sink.setsockopt(socket.SOL_SOCKET, 33, _BUFFER)  # SO_RCVBUFFORCE
        sink.bind((SERVER, port))
        sink.settimeout(0.2)
    yield made
    for sink in made.values():
        sink.close()


def received(sink: socket.socket, expected: int) -> int:
    """How many datagrams have come, once all expected are there or nothing comes any more."""
    count, deadline = 0, time.monotonic() + PATIENCE_S
    while count < expected and time.monotonic() < deadline:
        try:
            sink.recv(2048)
        except TimeoutError:
            break
        count += 1
    return count


PLACES = [
    ("xdp", GENERIC),
    ("tc ingress", "clsact"),
    ("tc egress", "tcx"),
    ("tc egress", "clsact"),
]


@pytest.mark.parametrize(("hook", "mode"), PLACES)
def test_under_traffic(
    wire: Wire,
    root: Path,
    sinks: dict[int, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    hook: str,
    mode: str,
) -> None:
    monkeypatch.setenv("PENSTOCK_BPFFS", str(root))
    policies = [load_policy(text.replace("at xdp", f"at {hook}")) for text in (OPEN, CLOSED)]
    # Datagrams meet the filter where they leave, or where they come in.
    side, name = (wire.client, "v0") if hook == "tc egress" else (wire.server, "v1")
    with side.inside():
        apply(name, policies[0], mode)
        with Flood(wire) as flood:
            for number in range(RELOADS):
                assert apply(name, policies[1 - number % 2]).kept >= 2
        assert min(flood.sent.values()) > RELOADS
        assert received(sinks[PASSED], flood.sent[PASSED]) == flood.sent[PASSED]
        assert received(sinks[DROPPED], 1) == 0
        (found,) = status(name)
        for rule, port in (("dns", DROPPED), ("web", PASSED)):
            sent = flood.sent[port]
            assert (found.counters[rule].packets, found.counters[rule].bytes) == (sent, sent * (HEADERS + 58))
        detach(name)


def test_detaching_and_attaching_lose_nothing_that_passes(
    wire: Wire, root: Path, sinks: dict[int, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In generic mode, which no driver is set up anew for."""
    monkeypatch.setenv("PENSTOCK_BPFFS", str(root))
    policy = load_policy("filter guard at xdp { drop if udp dst port 53 }")
    with wire.server.inside():
        with Flood(wire) as flood:
            for _ in range(RELOADS // 5):
                apply("v1", policy, GENERIC)
                detach("v1")
        assert received(sinks[PASSED], flood.sent[PASSED]) == flood.sent[PASSED]
