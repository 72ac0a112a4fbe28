"""What names in a policy stand for: hosts, networks, services, protocols, Ethernet addresses.

Names are looked up once, when a policy is compiled; the program that runs knows
numbers only.  `Names` is what the compiler asks, `SystemNames` asks the
machine's own tables and resolver, and tests bring a table of their own.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

IPAddress = IPv4Address | IPv6Address

TCP, UDP = 6, 17


@dataclass(frozen=True, slots=True)
class Service:
    """A service's port; `protocol` is 6 or 17 if it is that one's only, None if it is both's."""

    port: int
    protocol: int | None


class Names(Protocol):
    """Whatever can turn names into numbers.  An unknown name is None or ()."""

    def host(self, name: str) -> tuple[IPAddress, ...]:
        """Every address of a host."""

    def network(self, name: str) -> int | None:
        """A network's number, as /etc/networks has it, padded to four octets."""

    def service(self, name: str) -> Service | None:
        """A service's port and protocol."""

    def protocol(self, name: str) -> int | None:
        """An IP protocol's number."""

    def ether_host(self, name: str) -> bytes | None:
        """A host's Ethernet address."""


class SystemNames:
    """The machine's tables (services, protocols, networks, ethers) and its resolver."""

    def host(self, name: str) -> tuple[IPAddress, ...]:
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return ()
        addresses = (str(entry[4][0]).partition("%")[0] for entry in found)
        return tuple(dict.fromkeys(ip_address(address) for address in addresses))

    def network(self, name: str) -> int | None:
        for fields in _table("/etc/networks"):
            if len(fields) > 1 and name in (fields[0], *fields[2:]):
                octets = [*fields[1].split("."), "0", "0", "0"][:4]
                return int(IPv4Address(".".join(octets)))
        return None

    def service(self, name: str) -> Service | None:
        tcp, udp = _service_port(name, "tcp"), _service_port(name, "udp")
        if tcp is not None:
            return Service(tcp, None if tcp == udp else TCP)
        return None if udp is None else Service(udp, UDP)

    def protocol(self, name: str) -> int | None:
        try:
            return socket.getprotobyname(name)
        except OSError:
            return None

    def ether_host(self, name: str) -> bytes | None:
        for fields in _table("/etc/ethers"):
            if len(fields) > 1 and fields[1] == name:
                return bytes(int(part, 16) for part in fields[0].split(":"))
        return None


def missing_table(path: str) -> str | None:
    """A hint where a table of names is not there at all, as in small containers."""
    return None if Path(path).exists() else f"there is no {path} on this machine; the package is netbase"


def _service_port(name: str, protocol: str) -> int | None:
    try:
        return socket.getservbyname(name, protocol)
    except OSError:
        return None


def _table(path: str) -> Iterator[list[str]]:
    """The lines of a table of names, in words, without comments; none when there is no such file."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        fields = line.partition("#")[0].split()
        if fields:
            yield fields
