"""Policies replaced again and again under a full load of live frames: checks 12 and 13.

Frames of two flows leave a veth's end as fast as the kernel makes them (BPF_PROG_TEST_RUN in live mode,
some million a second), while the filter at the other end is replaced.  Both policies drop one flow and
pass the other.  None of the one may come through, all of the other must, and the rules must have counted
every frame exactly once over all replacements.

`make torture` replaces 1,000 times at each place; the tests replace 100 times at two of them, and at the others
beside datagrams of sockets (test_reload.py).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from tests.packets import UDP, Ether, IPv4

from penstock.kernel.netlink import GENERIC, NATIVE
from penstock.pipeline.apply import apply, detach
from penstock.pipeline.policy import LoadedPolicy, load_policy
from penstock.pipeline.status import status
from penstock.price.peers.wire import Wire, prepared

pytestmark = [pytest.mark.privileged, pytest.mark.check(12), pytest.mark.check(13), pytest.mark.check(19)]

TORTURE = "PENSTOCK_TORTURE"
RELOADS = int(os.environ.get(TORTURE, "100"))
DROPPED, PASSED = 53, 8000
#: Frames of one system call; it returns to see whether it is to end.
BURST = 1 << 14
PLACES = [("xdp", NATIVE), ("tc ingress", "tcx")]
if TORTURE in os.environ:
    PLACES += [("xdp", GENERIC), ("tc ingress", "clsact")]
_SIOCETHTOOL, _ETHTOOL_SGRO = 0x8946, 0x2C


def policies(hook: str) -> list[LoadedPolicy]:
    """Two that decide alike by other rules, other defaults and another order."""
    texts = (
        """filter guard at %s {
            default pass
            dns: drop if udp dst port 53
            web: count if udp dst port 8000
        }""",
        """filter guard at %s {
            default drop
            web: count if udp dst port 8000
            pass if udp dst port 8000 or arp
            dns: drop if udp dst port 53
        }""",
    )
    return [load_policy(text % hook) for text in texts]


class Load:
    """Frames of both flows in turn, from a thread with a processor of its own, until the block ends."""

    def __init__(self, wire: Wire) -> None:
        self.sent = self.delivered = 0
        self._wire = wire
        self._stop, self._begun = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        while not self._stop.is_set():
            self.delivered += self._wire.send(BURST).delivered
            self.sent += BURST
            self._begun.set()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._begun.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A wire that carries both flows, of many sources."""
    frames = prepared(
        [
            bytes(Ether() / IPv4(src=f"10.9.{number}.1", dst="10.9.0.2") / UDP(dport=port))
            for number in range(64)
            for port in (DROPPED, PASSED)
        ]
    )
    with Wire(len(frames[0])) as made:
        made.load(frames)
        with made.inside():
            _receive_in_turns(made.device)
        yield made


def _receive_in_turns(device: str) -> None:
    """Switch GRO on: with it veth takes whole frames at an end that has no XDP program of its own, too."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        value = bytearray(struct.pack("=II", _ETHTOOL_SGRO, 1))
        place = ctypes.addressof(ctypes.c_char.from_buffer(value))
        fcntl.ioctl(made, _SIOCETHTOOL, struct.pack("=16sQ", device.encode(), place))


@pytest.mark.parametrize(("hook", "mode"), PLACES)
def test_no_frame_is_decided_wrongly_while_policies_are_replaced(
    wire: Wire, root: Path, monkeypatch: pytest.MonkeyPatch, hook: str, mode: str
) -> None:
    monkeypatch.setenv("PENSTOCK_BPFFS", str(root))
    usual, other = policies(hook)
    with wire.inside():
        apply(wire.device, usual, mode)
        with Load(wire) as load:
            for number in range(RELOADS):
                assert apply(wire.device, usual if number % 2 else other).kept >= 2
        (found,) = status(wire.device)
        counted = {name: found.counters[name].packets for name in ("dns", "web")}
        detach(wire.device)
    print(f"{hook}, {mode}: {RELOADS} replacements, {load.sent:,} frames, {load.delivered:,} came through")
    assert load.sent > RELOADS * 1000
    assert load.delivered == counted["web"] == load.sent // 2
    assert counted["dns"] == load.sent // 2
