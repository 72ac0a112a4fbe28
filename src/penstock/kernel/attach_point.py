"""An interface's own place for programs, with a name that is good on disk.

In: an interface of the calling thread's network namespace, and a hook.  Out:
`AttachPoint`, whose `name` tells it apart from every other on the machine:

    eth0                            XDP, in the initial network namespace
    eth0:tc-ingress                 another hook of the same interface
    eth0@4026532177                 elsewhere; the number is the inode of the namespace
    eth0:tc-egress@4026532177
    eth0%2e100                      VLAN interface eth0.100: bpffs allows no dot in a name

The kernel lets an interface name hold any byte but '/', ':' and white space, so
dots, '%' and '@' are written as in URLs, and the name reads back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from penstock.kernel import netns
from penstock.kernel.netlink import interface
from penstock.model.hook import Hook

_RESERVED = re.compile(rb"[^A-Za-z0-9_+-]")
_QUOTED = re.compile(rb"%([0-9a-f]{2})")
# '~' is in the names of pins whose interface has lost its name to another (pipeline.whereabouts).
_NAME = re.compile(
    r"(?P<ifname>([A-Za-z0-9_+~-]|%[0-9a-f]{2})+)(:(?P<hook>[a-z-]+))?(@(?P<netns>\d+))?", re.ASCII
)
_HOOKS = {hook.value.replace(" ", "-"): hook for hook in Hook if hook is not Hook.XDP}
_WORDS = {hook: word for word, hook in _HOOKS.items()}


class PinName(NamedTuple):
    """What the name of an attach point says."""

    ifname: str
    netns: int | None
    hook: Hook


@dataclass(frozen=True, slots=True)
class AttachPoint:
    """`netns` is the inode of the network namespace, None for the initial one; `ifindex` holds within it."""

    ifname: str
    ifindex: int
    netns: int | None
    hook: Hook = Hook.XDP

    @property
    def name(self) -> str:
        """The name of its pin directory and its lock."""
        return encode(self.ifname, self.netns, self.hook)

    def __str__(self) -> str:
        return place_words(self.ifname, self.hook)


def attach_point(ifname: str, hook: Hook = Hook.XDP) -> AttachPoint:
    """The attach point of an interface here.  Raises KernelError: there is no such interface."""
    found = interface(ifname)
    return AttachPoint(found.name, found.index, here(), hook)


def here() -> int | None:
    """This network namespace as names tell it: None for the initial one."""
    return None if netns.is_initial() else netns.inode()


def place_words(ifname: str, hook: Hook) -> str:
    """An attach point as messages call it: `eth0` at XDP, `eth0 (tc ingress)` elsewhere."""
    return ifname if hook is Hook.XDP else f"{ifname} ({hook.value})"


def encode(ifname: str, namespace: int | None, hook: Hook = Hook.XDP) -> str:
    """The file name of an attach point."""
    quoted = _RESERVED.sub(lambda match: b"%%%02x" % match[0][0], ifname.encode("utf-8", "surrogateescape"))
    where = "" if hook is Hook.XDP else f":{_WORDS[hook]}"
    return quoted.decode() + where + ("" if namespace is None else f"@{namespace}")


def decode(name: str) -> PinName:
    """What a file name that `encode` made says.  Raises ValueError for any other."""
    match = _NAME.fullmatch(name)
    if match is None or match["hook"] not in (None, *_HOOKS):
        raise ValueError(f"{name!r} is not the name of an attach point")
    quoted, namespace = match["ifname"].encode("utf-8", "surrogateescape"), match["netns"]
    ifname = _QUOTED.sub(lambda found: bytes.fromhex(found[1].decode()), quoted)
    hook = _HOOKS[match["hook"]] if match["hook"] else Hook.XDP
    return PinName(ifname.decode("utf-8", "surrogateescape"), int(namespace) if namespace else None, hook)
