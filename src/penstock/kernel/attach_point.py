"""An interface's own place for programs, with a name that is good on disk.

In: an interface of the calling thread's network namespace.  Out: `AttachPoint`,
whose `name` tells it apart from every other on the machine:

    eth0                 in the initial network namespace
    eth0@4026532177      elsewhere; the number is the inode of the namespace
    eth0%2e100           VLAN interface eth0.100: bpffs allows no dot in a name

The kernel lets an interface name hold any byte but '/', ':' and white space, so
dots, '%' and '@' are written as in URLs, and the name reads back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from penstock.kernel import netns
from penstock.kernel.netlink import interface

_RESERVED = re.compile(rb"[^A-Za-z0-9_+-]")
_QUOTED = re.compile(rb"%([0-9a-f]{2})")
_NAME = re.compile(r"(?P<ifname>[^@]+)(@(?P<netns>\d+))?")


@dataclass(frozen=True, slots=True)
class AttachPoint:
    """`netns` is the inode of the network namespace, None for the initial one; `ifindex` holds within it."""

    ifname: str
    ifindex: int
    netns: int | None

    @property
    def name(self) -> str:
        """The name of its pin directory and its lock."""
        return encode(self.ifname, self.netns)


def attach_point(ifname: str) -> AttachPoint:
    """The attach point of an interface here.  Raises KernelError: there is no such interface."""
    found = interface(ifname)
    return AttachPoint(found.name, found.index, None if netns.is_initial() else netns.inode())


def encode(ifname: str, namespace: int | None) -> str:
    """The file name of an attach point."""
    quoted = _RESERVED.sub(lambda match: b"%%%02x" % match[0][0], ifname.encode("utf-8", "surrogateescape"))
    return quoted.decode() if namespace is None else f"{quoted.decode()}@{namespace}"


def decode(name: str) -> tuple[str, int | None]:
    """Interface name and namespace of a file name that `encode` made.  Raises ValueError for any other."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not the name of an attach point")
    quoted, namespace = match["ifname"].encode("utf-8", "surrogateescape"), match["netns"]
    ifname = _QUOTED.sub(lambda found: bytes.fromhex(found[1].decode()), quoted)
    return ifname.decode("utf-8", "surrogateescape"), int(namespace) if namespace else None
