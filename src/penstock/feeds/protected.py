"""Addresses that no feed may block, and how they are taken out of one.

In: the prefixes of a feed and the protected ones with the reason of each.  Out: the feed
without them, and for each protected prefix what it met.  A prefix that lies in a protected
one is left out (`outside`); one that is wider is split around it, so that the rest of it still
counts (`around`).  The feed is judged in between, by the entries that it has itself.

    split(ip_network("203.0.113.0/30"), [ip_network("203.0.113.2")])
        ->  203.0.113.0/31, 203.0.113.3
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

import numpy as np

from penstock.feeds.result import Listed, Until
from penstock.model.prefixes import MASKS32, MASKS64, Mask, Network, Prefixes, prefix_text

_LOW = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Protected:
    """A prefix that is never blocked, and why."""

    network: Network
    reason: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """How many entries a protected prefix took out of a feed whole, and how many were split around it."""

    protected: Protected
    removed: int
    split: int
    example: str


def _special(text: str, reason: str) -> Protected:
    return Protected(ip_network(text), reason)


#: What has no meaning as a source or destination in the Internet (RFC 6890 and its registries).
SPECIAL = (
    _special("0.0.0.0/8", "this network"),
    _special("10.0.0.0/8", "private"),
    _special("100.64.0.0/10", "shared by carriers"),
    _special("127.0.0.0/8", "loopback"),
    _special("169.254.0.0/16", "link-local"),
    _special("172.16.0.0/12", "private"),
    _special("192.168.0.0/16", "private"),
    _special("224.0.0.0/3", "multicast and reserved"),
    _special("::/127", "unspecified and loopback"),
    _special("fc00::/7", "private"),
    _special("fe80::/10", "link-local"),
    _special("ff00::/8", "multicast"),
)

#: What a list of one's own, for a network of one's own, may not block either.
NEVER = tuple(one for one in SPECIAL if one.reason not in ("private", "shared by carriers"))


def outside(entries: Listed, protected: Sequence[Protected]) -> tuple[Listed, tuple[LeftOut, ...]]:
    """The entries that do not lie in a protected prefix, and what that left out.

    An entry that lies in several is counted with the first of them.
    """
    left: list[LeftOut] = []
    for one in protected:
        inside, _ = _met(entries.prefixes, one.network)
        count = int(np.count_nonzero(inside[0]) + np.count_nonzero(inside[1]))
        if count:
            left.append(LeftOut(one, count, 0, _first(entries, inside)))
            entries = entries.take(~inside[0], ~inside[1])
    return entries, tuple(left)


def around(entries: Listed, protected: Sequence[Protected]) -> tuple[Listed, tuple[LeftOut, ...]]:
    """The entries, none of them in a protected prefix, with those that contain one split around it; and which.

    A protected prefix in another one is met with that.
    """
    left: list[LeftOut] = []
    for one in sorted(protected, key=lambda found: found.network.prefixlen):
        # Inside of one lie only pieces of what was split around its neighbours.
        inside, wider = _met(entries.prefixes, one.network)
        wide = entries.take(*wider)
        entries = entries.take(~(inside[0] | wider[0]), ~(inside[1] | wider[1]))
        if len(wide.prefixes):
            left.append(LeftOut(one, 0, len(wide.prefixes), prefix_text(next(wide.prefixes.networks()))))
            entries = _joined(entries, _pieces(wide, one.network))
    return entries, tuple(left)


def _pieces(wide: Listed, hole: Network) -> Listed:
    """What is left of entries that contain a prefix, each piece as long as its entry."""
    ends = wide.ends()
    found = [
        (piece, end)
        for network, end in zip(wide.prefixes.networks(), [*ends.v4, *ends.v6], strict=True)
        for piece in split(network, [hole])
    ]
    is_v4 = hole.version == 4
    until = np.array([end for _, end in found], np.float64)
    none = np.zeros(0, np.float64)
    return Listed(
        Prefixes.of(piece for piece, _ in found), Until(until if is_v4 else none, none if is_v4 else until)
    )


def _joined(a: Listed, b: Listed) -> Listed:
    prefixes = Prefixes.joined((a.prefixes, b.prefixes))
    if a.until is None:
        return Listed(prefixes)
    ends = b.ends()
    return Listed(prefixes, Until(np.append(a.until.v4, ends.v4), np.append(a.until.v6, ends.v6)))


def _first(entries: Listed, chosen: tuple[Mask, Mask]) -> str:
    return prefix_text(next(entries.prefixes.take(*chosen).networks()))


def _met(entries: Prefixes, network: Network) -> tuple[tuple[Mask, Mask], tuple[Mask, Mask]]:
    """Which entries lie in a network, and which contain it and are wider; each for both families."""
    no4, no6 = np.zeros(len(entries.v4), np.bool_), np.zeros(len(entries.v6_high), np.bool_)
    address, length = int(network.network_address), network.prefixlen
    if isinstance(network, IPv4Network):
        shared = np.minimum(entries.v4_length, np.uint8(length))
        same = ((entries.v4 ^ np.uint32(address)) & MASKS32[shared]) == 0
        is_in = entries.v4_length >= length
        return (same & is_in, no6), (same & ~is_in, no6)
    shared = np.minimum(entries.v6_length, np.uint8(length))
    high = (entries.v6_high ^ np.uint64(address >> 64)) & MASKS64[np.minimum(shared, np.uint8(64))]
    low = (entries.v6_low ^ np.uint64(address & _LOW)) & MASKS64[
        np.maximum(shared, np.uint8(64)) - np.uint8(64)
    ]
    same = (high | low) == 0
    is_in = entries.v6_length >= length
    return (no4, same & is_in), (no4, same & ~is_in)


def split(network: Network, holes: Iterable[Network]) -> list[Network]:
    """The network without the holes, as prefixes."""
    kept = [network]
    for hole in holes:
        kept = [piece for one in kept for piece in _around(one, hole)]
    return kept


def _around(network: Network, hole: Network) -> list[Network]:
    match network, hole:
        case (IPv4Network(), IPv4Network()) | (IPv6Network(), IPv6Network()):
            if network.subnet_of(hole):  # type: ignore[arg-type]
                return []
            if hole.subnet_of(network):  # type: ignore[arg-type]
                return sorted(network.address_exclude(hole))  # type: ignore[arg-type]
    return [network]
