"""A UDP echo server and its clients, each in a network namespace of the demo.

A socket belongs to the namespace in which it was made, so every socket is made
there and then served by one thread that never leaves its own.

    with Traffic(place) as traffic:
        traffic.counts()[53]                    ->  Flow(sent=40, echoed=40)
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from penstock.demo.world import CLIENT_ADDRESS, SERVER_ADDRESS, World
from penstock.kernel import netns

#: What the server answers on: port -> what people call it.
SERVICES = {53: "DNS", 123: "NTP", 8000: "echo"}
PACKETS_PER_S = 50
_MESSAGE = b"penstock demo".ljust(64, b".")


@dataclass(frozen=True, slots=True)
class Flow:
    """Packets to one port since the traffic began: sent by the client, answered by the server."""

    sent: int
    echoed: int


class Traffic:
    """Clients that send at a steady pace and a server that sends everything back."""

    def __init__(self, place: World) -> None:
        self._sent = dict.fromkeys(SERVICES, 0)
        self._echoed = dict.fromkeys(SERVICES, 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo traffic", daemon=True)
        self._selector = selectors.DefaultSelector()
        self._clients: dict[int, socket.socket] = {}
        with ExitStack() as opened:
            with netns.inside(place.server):
                for port in SERVICES:
                    self._add(opened, SERVER_ADDRESS, port, self._echo)
            with netns.inside(place.client):
                for port in SERVICES:
                    self._clients[port] = self._add(opened, CLIENT_ADDRESS, 0, self._hear)
            self._sockets = opened.pop_all()

    def counts(self) -> dict[int, Flow]:
        """Each port's packets up to now."""
        return {port: Flow(self._sent[port], self._echoed[port]) for port in SERVICES}

    def _add(self, opened: ExitStack, address: str, port: int, serve: object) -> socket.socket:
        made = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.setblocking(False)
        made.bind((address, port))
        self._selector.register(made, selectors.EVENT_READ, serve)
        return made

    def _run(self) -> None:
        gap = 1 / PACKETS_PER_S
        following = time.monotonic()
        while not self._stop.is_set():
            if time.monotonic() >= following:
                following += gap
                self._send()
            for key, _ in self._selector.select(max(0.0, following - time.monotonic())):
                key.data(key.fileobj)

    def _send(self) -> None:
        for port, client in self._clients.items():
            client.sendto(_MESSAGE, (SERVER_ADDRESS, port))
            self._sent[port] += 1

    def _echo(self, server: socket.socket) -> None:
        data, sender = server.recvfrom(2048)
        server.sendto(data, sender)

    def _hear(self, client: socket.socket) -> None:
        _, (_, port) = client.recvfrom(2048)
        self._echoed[port] += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=2)
        self._selector.close()
        self._sockets.close()
