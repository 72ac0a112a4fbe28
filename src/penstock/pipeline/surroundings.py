"""What this machine must go on reaching, whatever a feed lists.

In: the network namespace of this thread, /etc/resolv.conf, the environment.  Out: prefixes
with the reason of each: own addresses, gateways, resolvers, and the peer of the SSH
connection that this command was called over.

    surroundings()  ->  (Protected(192.0.2.1/32, "gateway"), …)

Message layouts: rtnetlink(7), <linux/if_addr.h>, <linux/rtnetlink.h>.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

from penstock.feeds.protected import Protected
from penstock.kernel.netlink import ask

_RTM_GETADDR, _RTM_GETROUTE = 22, 26
_IFA_ADDRESS, _IFA_LOCAL, _RTA_GATEWAY = 1, 2, 5
_IFADDRMSG, _RTMSG = struct.Struct("=BBBBI"), struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF
_RESOLVERS = Path("/etc/resolv.conf")


def surroundings() -> tuple[Protected, ...]:
    """Each address once, with the first reason for it.

    Raises:
        KernelError: the kernel cannot be asked for addresses and routes.
    """
    found = [*_own(), *_gateways(), *_resolvers(), *_ssh_peer(os.environ)]
    first: dict[str, Protected] = {}
    for text, reason in found:
        first.setdefault(text, Protected(ip_network(text), reason))
    return tuple(first.values())


def _own() -> Iterator[tuple[str, str]]:
    for _, body in ask(_RTM_GETADDR, _IFADDRMSG.pack(0, 0, 0, 0, 0)):
        found = dict(_attributes(body, _IFADDRMSG.size))
        # Of a point-to-point link IFA_ADDRESS is the peer's (rtnetlink(7)).
        packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
        if packed:
            yield str(ip_address(packed)), "own address"


def _gateways() -> Iterator[tuple[str, str]]:
    for _, body in ask(_RTM_GETROUTE, _RTMSG.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)):
        packed = dict(_attributes(body, _RTMSG.size)).get(_RTA_GATEWAY)
        if packed:
            yield str(ip_address(packed)), "gateway"


def _attributes(body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, body[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3


def _resolvers() -> Iterator[tuple[str, str]]:
    try:
        lines = _RESOLVERS.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        match line.split():
            case ["nameserver", text, *_] if address := _address(text):
                yield address, "resolver"


def _ssh_peer(environment: os._Environ[str] | dict[str, str]) -> Iterator[tuple[str, str]]:
    # sshd(8): client address, client port, server address, server port.
    match environment.get("SSH_CONNECTION", "").split():
        case [text, _, _, _] if address := _address(text):
            yield address, "peer of this SSH connection"


def _address(text: str) -> str | None:
    try:
        return str(ip_address(text.partition("%")[0]))
    except ValueError:
        return None
