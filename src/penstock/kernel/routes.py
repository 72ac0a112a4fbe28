"""Where packets go: routes, addresses, neighbours and devices of this network namespace, by rtnetlink.

In: addresses and interface indexes.  Out: frozen values; nothing is changed.

    route_to(ip_address("192.0.2.9"))   ->  Route(ifindex=4, source=192.0.2.1, gateway=None)
    gateways(4)                         ->  (IPv4Address("192.0.2.254"),)

Message layouts: rtnetlink(7), <linux/rtnetlink.h>, <linux/if_addr.h>, <linux/neighbour.h>.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from penstock.kernel.netlink import ask_route, attribute, attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

Address = IPv4Address | IPv6Address

_GETLINK, _GETADDR, _GETROUTE, _GETNEIGH = 18, 22, 26, 30
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct(
    "=BBBBBBBBI"
)  # family, lengths of dst and src, tos, table, protocol, scope, type, flags
_HOP = struct.Struct("=HBBi")  # length, flags, hops, index
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_IFLA_ADDRESS, _IFLA_MASTER = 1, 10
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO = 1, 2, 6
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_MULTIPATH, _RTA_VIA = 1, 4, 5, 7, 9, 18
_NDA_DST, _NDA_LLADDR = 1, 2
_UNICAST = 1
_BY_ROUTER = 9  # RTPROT_RA
_FOREVER = 0xFFFFFFFF
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_ETHER_SIZE = 6
_ARPHRD_LOOPBACK = 772


@dataclass(frozen=True, slots=True)
class Device:
    """An interface as packets see it: its MAC, and the bridge or bond that it is a part of (0: of none)."""

    index: int
    is_loopback: bool
    mac: bytes | None
    master: int


@dataclass(frozen=True, slots=True)
class Route:
    """How this host sends to an address."""

    ifindex: int
    source: Address | None
    gateway: Address | None


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address of an interface; `is_leased` where it ends unless somebody (DHCP, SLAAC) renews it."""

    address: Address
    prefix_length: int
    is_leased: bool


def devices() -> dict[int, Device]:
    """Every device by its index."""
    found = map(_device, ask_route(_GETLINK, _LINK.pack(0, 0, 0, 0, 0)))
    return {one.index: one for one in found}


def _device(body: bytes) -> Device:
    _, kind, index, _, _ = _LINK.unpack_from(body)
    found = dict(attributes(body[_LINK.size :]))
    mac = found.get(_IFLA_ADDRESS, b"")
    return Device(
        index,
        kind == _ARPHRD_LOOPBACK,
        mac if len(mac) == _ETHER_SIZE else None,
        _number(found.get(_IFLA_MASTER)),
    )


def route_to(address: Address) -> Route | None:
    """The route that a packet of this host's to `address` takes; None where there is none."""
    head = _ROUTE.pack(_FAMILIES[address.version], address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    try:
        answers = ask_route(_GETROUTE, head + attribute(_RTA_DST, address.packed), is_dump=False)
    except OSError:  # ENETUNREACH and the like: it is sent nowhere.
        return None
    for body in answers:
        found = dict(attributes(body[_ROUTE.size :]))
        gateway = next(_hops(found), (0, None))[1]
        return Route(_number(found.get(_RTA_OIF)), _address(found.get(_RTA_PREFSRC)), gateway)
    return None


def gateways(ifindex: int, *, is_advertised: bool = False) -> tuple[Address, ...]:
    """The default gateways that are reached by an interface, of every routing table, each once.

    With `is_advertised` only those that IPv6 routers have told of themselves.
    """
    found: dict[Address, None] = {}
    for family in _FAMILIES.values():
        head = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        for body in ask_route(_GETROUTE, head):
            _, prefix_length, _, _, _, protocol, _, kind, _ = _ROUTE.unpack_from(body)
            if prefix_length == 0 and kind == _UNICAST and (protocol == _BY_ROUTER or not is_advertised):
                hops = _hops(dict(attributes(body[_ROUTE.size :])))
                found |= {gateway: None for index, gateway in hops if index == ifindex and gateway}
    return tuple(found)


def _hops(found: dict[int, bytes]) -> Iterator[tuple[int, Address | None]]:
    """(interface, gateway) of each way that a route has."""
    if _RTA_MULTIPATH not in found:
        yield _number(found.get(_RTA_OIF)), _gateway(found)
        return
    rest = found[_RTA_MULTIPATH]
    while len(rest) >= _HOP.size:
        length, _, _, index = _HOP.unpack_from(rest)
        yield index, _gateway(dict(attributes(rest[_HOP.size : length])))
        rest = rest[max((length + 3) & ~3, _HOP.size) :]


def _gateway(found: dict[int, bytes]) -> Address | None:
    # RTA_VIA: an IPv6 gateway of an IPv4 route, behind two bytes of its family.
    return _address(found.get(_RTA_GATEWAY)) or _address(found.get(_RTA_VIA, b"")[2:])


def addresses() -> dict[int, list[InterfaceAddress]]:
    """The addresses of every interface, by its index."""
    every: dict[int, list[InterfaceAddress]] = {}
    for body in ask_route(_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0)):
        _, prefix_length, _, _, index = _ADDRESS.unpack_from(body)
        found = dict(attributes(body[_ADDRESS.size :]))
        own = _address(found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS))
        if own is not None:
            every.setdefault(index, []).append(InterfaceAddress(own, prefix_length, _is_leased(found)))
    return every


def _is_leased(found: dict[int, bytes]) -> bool:
    times = found.get(_IFA_CACHEINFO, b"")
    return len(times) >= 8 and struct.unpack_from("=II", times)[1] != _FOREVER


def neighbours(ifindex: int) -> dict[Address, bytes]:
    """The MAC addresses that the host knows on an interface."""
    known: dict[Address, bytes] = {}
    for family in _FAMILIES.values():
        for body in ask_route(_GETNEIGH, _NEIGHBOUR.pack(family, 0, 0, 0, 0)):
            found = dict(attributes(body[_NEIGHBOUR.size :]))
            address, mac = _address(found.get(_NDA_DST)), found.get(_NDA_LLADDR, b"")
            if _NEIGHBOUR.unpack_from(body)[1] == ifindex and address and len(mac) == _ETHER_SIZE:
                known[address] = mac
    return known


def _address(octets: bytes | None) -> Address | None:
    return ip_address(octets) if octets else None


def _number(octets: bytes | None) -> int:
    return int(struct.unpack("=I", octets)[0]) if octets else 0
