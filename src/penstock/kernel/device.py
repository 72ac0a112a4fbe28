"""What a network driver says of itself: its name, its offloads, its queues, what XDP it has.  Nothing is changed.

    driver("eth0")                              ->  "virtio_net"
    offloads("eth0")["rx-vlan-hw-parse"]        ->  Offload(on=True, fixed=False)
    channels("eth0")                            ->  Channels(now=2, most=4)
    xdp_features(4)                             ->  {"basic", "redirect", "rx-sg"}; None before Linux 6.3

Interfaces are those of the calling thread's network namespace.  ethtool's ioctl is used, which every kernel has:
<linux/ethtool.h>.  What XDP a driver has is in the netdev family of generic netlink: <linux/netdev.h>.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from dataclasses import dataclass

from penstock.kernel import netlink
from penstock.kernel.libc import address_of

_SIOCETHTOOL = 0x8946
_IFREQ = struct.Struct("=16sQ16x")
_GDRVINFO, _GSTRINGS, _GSSET_INFO, _GFEATURES, _GCHANNELS = 0x3, 0x1B, 0x37, 0x3A, 0x3C
_FEATURE_NAMES = 4  # ETH_SS_FEATURES
_STRING_LENGTH = 32
_DRIVER_INFO_SIZE = 196
_BLOCK = struct.Struct("=IIII")  # available, requested, active, never_changed

_CONTROL_FAMILY, _GETFAMILY = 0x10, 3
_GENERIC_HEADER = struct.Struct("=BBxx")
_FAMILY_ID, _FAMILY_NAME = 1, 2
_DEV_GET, _DEV_IFINDEX, _DEV_XDP_FEATURES = 1, 1, 3
_XDP_FEATURES = ("basic", "redirect", "ndo-xmit", "xsk-zerocopy", "hw-offload", "rx-sg", "ndo-xmit-sg")


@dataclass(frozen=True, slots=True)
class Offload:
    """A feature that a driver can do in place of the stack; `fixed`: nobody can change it."""

    on: bool
    fixed: bool


@dataclass(frozen=True, slots=True)
class Channels:
    """Receive queues in use, and how many there can be."""

    now: int
    most: int


def driver(ifname: str) -> str | None:
    """The driver's name; None where it has none to tell."""
    answer = _ethtool(ifname, struct.pack("=I", _GDRVINFO).ljust(_DRIVER_INFO_SIZE, b"\0"))
    return answer[4:36].split(b"\0", 1)[0].decode("ascii", "replace") or None if answer else None


def offloads(ifname: str) -> dict[str, Offload]:
    """Every feature by its name, as `ethtool -k` shows them; none where the driver tells nothing."""
    names = _feature_names(ifname)
    blocks = -(-len(names) // 32)
    answer = _ethtool(ifname, struct.pack("=II", _GFEATURES, blocks) + bytes(_BLOCK.size * blocks))
    if answer is None:
        return {}
    found = {}
    for number, name in enumerate(names):
        available, _, active, never = _BLOCK.unpack_from(answer, 8 + number // 32 * _BLOCK.size)
        bit = 1 << number % 32
        found[name] = Offload(on=bool(active & bit), fixed=not available & bit or bool(never & bit))
    return found


def channels(ifname: str) -> Channels | None:
    """Queues that packets come in by; None where the driver has no say in it."""
    answer = _ethtool(ifname, struct.pack("=I", _GCHANNELS) + bytes(32))
    if answer is None:
        return None
    _, most_rx, _, _, most_both, rx, _, _, both = struct.unpack("=9I", answer)
    return Channels(rx + both, most_rx + most_both)


def xdp_features(ifindex: int) -> frozenset[str] | None:
    """What XDP the driver has, by its own account; None where the kernel does not tell (before Linux 6.3)."""
    try:
        family = _family("netdev")
        request = _GENERIC_HEADER.pack(_DEV_GET, 1) + netlink.attribute(
            _DEV_IFINDEX, struct.pack("=I", ifindex)
        )
        (answer,) = netlink.ask_generic(family, request)
    except (OSError, ValueError):
        return None
    said = dict(netlink.attributes(answer[_GENERIC_HEADER.size :]))
    bits = int.from_bytes(said.get(_DEV_XDP_FEATURES, b""), "little" if _is_little() else "big")
    return frozenset(name for at, name in enumerate(_XDP_FEATURES) if bits >> at & 1)


def _is_little() -> bool:
    return struct.pack("=H", 1) == b"\1\0"


def _family(name: str) -> int:
    request = _GENERIC_HEADER.pack(_GETFAMILY, 1) + netlink.attribute(_FAMILY_NAME, name.encode() + b"\0")
    (answer,) = netlink.ask_generic(_CONTROL_FAMILY, request)
    said = dict(netlink.attributes(answer[_GENERIC_HEADER.size :]))
    return int(struct.unpack("=H", said[_FAMILY_ID])[0])


def _feature_names(ifname: str) -> list[str]:
    sizes = _ethtool(ifname, struct.pack("=IIQI", _GSSET_INFO, 0, 1 << _FEATURE_NAMES, 0))
    count = struct.unpack_from("=I", sizes, 16)[0] if sizes else 0
    head = struct.pack("=III", _GSTRINGS, _FEATURE_NAMES, count)
    answer = _ethtool(ifname, head + bytes(_STRING_LENGTH * count))
    if answer is None:
        return []
    words = (answer[at : at + _STRING_LENGTH] for at in range(12, len(answer), _STRING_LENGTH))
    return [word.split(b"\0", 1)[0].decode("ascii", "replace") for word in words]


def _ethtool(ifname: str, command: bytes) -> bytes | None:
    """The command's structure as the driver filled it; None where it does not know the command."""
    held = bytearray(command)
    request = _IFREQ.pack(ifname.encode("utf-8", "surrogateescape"), address_of(held))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            fcntl.ioctl(channel, _SIOCETHTOOL, request)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM):
                raise
            return None
    return bytes(held)
