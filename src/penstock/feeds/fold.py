"""What several sources list, as the one set that the kernel looks addresses up in.

A map of prefixes answers with the most specific one (longest-prefix match), and an entry
that is over answers like none.  So an entry may hide a wider one behind it:

    feed A   203.0.113.0/24   for good
    feed B   203.0.113.9/32   for an hour      after that hour 203.0.113.9 would be free

`fold` gives every entry the latest end among itself and all that contain it, and leaves
out the entries that then say nothing of their own.  `Aggregate` counts which sources list
a prefix, so that one that takes it back does not free what another one still lists.

>>> both = Aggregate()
>>> _ = both.replace("a", Listed(Prefixes.of(["203.0.113.0/24", "198.51.100.7"])))
>>> _ = both.replace("b", Listed(Prefixes.of(["198.51.100.7"])))
>>> change = both.replace("b", Listed(Prefixes()))
>>> len(change.removed), both.sources_of("198.51.100.7")
(0, ['a'])
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network

import numpy as np

from penstock.feeds.result import F64, Listed, Until
from penstock.model.prefixes import MASKS32, MASKS64, Network, Prefixes


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done with a map: entries that are new or have another end, and entries that go."""

    written: Listed
    removed: Prefixes


def joined(parts: Iterable[Listed]) -> Listed:
    """All of them sorted, each prefix once, with the latest of its ends."""
    each = list(parts)
    prefixes = Prefixes.joined(part.prefixes for part in each)
    nothing = np.zeros(0, np.float64)
    ends = [part.ends() for part in each]
    v4 = np.concatenate([nothing, *(end.v4 for end in ends)])
    v6 = np.concatenate([nothing, *(end.v6 for end in ends)])
    # Sorted by end first, the latest of equal prefixes comes first and is the one that is kept.
    latest = Listed(prefixes, Until(v4, v6)).take(
        np.argsort(-v4, kind="stable"), np.argsort(-v6, kind="stable")
    )
    return latest.take(*latest.prefixes.first_of_each())


def fold(listed: Listed) -> Listed:
    """The same answers for every address and time from the fewest entries of a longest-prefix match."""
    once = joined([listed])
    p, ends = once.prefixes, once.ends()
    least4, least6 = np.full(len(p.v4), -math.inf), np.full(len(p.v6_high), -math.inf)
    for length in np.unique(p.v4_length).tolist():
        _cover4(p, length, ends.v4, least4)
    for length in np.unique(p.v6_length).tolist():
        _cover6(p, length, ends.v6, least6)
    # What a containing prefix blocks at least as long needs no entry of its own.
    return once.take(ends.v4 > least4, ends.v6 > least6)


def _cover4(p: Prefixes, length: int, ends: F64, least: F64) -> None:
    """Raise `least` of all longer IPv4 prefixes to the end of the one of `length` that contains them."""
    own, longer = np.flatnonzero(p.v4_length == length), np.flatnonzero(p.v4_length > length)
    if not len(own) or not len(longer):
        return
    keys, wanted = p.v4[own], p.v4[longer] & MASKS32[length]
    at = np.searchsorted(keys, wanted, side="right") - 1
    covered = (at >= 0) & (keys[at] == wanted)
    at, longer = own[at[covered]], longer[covered]
    least[longer] = np.maximum(least[longer], ends[at])


def _cover6(p: Prefixes, length: int, ends: F64, least: F64) -> None:
    """The same for IPv6, whose addresses are two columns, so that both kinds are sorted together."""
    own, longer = np.flatnonzero(p.v6_length == length), np.flatnonzero(p.v6_length > length)
    if not len(own) or not len(longer):
        return
    both = np.concatenate([own, longer])
    high = p.v6_high[both] & MASKS64[min(length, 64)]
    low = p.v6_low[both] & MASKS64[max(length, 64) - 64]
    # lexsort is stable: the containing prefix, of which there is one, stays before those in it.
    order = np.lexsort((low, high))
    last = np.maximum.accumulate(np.where(order < len(own), np.arange(len(order)), 0))
    cover = order[last]
    has = (order >= len(own)) & (cover < len(own))
    has &= (high[cover] == high[order]) & (low[cover] == low[order])
    inner = both[order[has]]
    least[inner] = np.maximum(least[inner], ends[both[cover[has]]])


@dataclass(slots=True)
class Aggregate:
    """What each source lists, and what the kernel should hold of all of it."""

    sources: dict[str, Listed] = field(default_factory=dict)
    held: Listed = field(default_factory=lambda: joined([]))

    def replace(self, source: str, listed: Listed) -> Change:
        """Let a source list exactly this from now on; gives what changes in the set.

        A source with the same content as before changes nothing.
        """
        self.sources[source] = joined([listed])
        return self._settle()

    def add(self, source: str, listed: Listed) -> Change:
        """Let a source list this too; an entry that it has keeps the later end."""
        return self.replace(source, joined([self.sources.get(source, joined([])), listed]))

    def remove(self, source: str, prefixes: Prefixes | None = None) -> Change:
        """Take back what a source lists, all of it or these prefixes; what others list stays."""
        if prefixes is None:
            self.sources.pop(source, None)
        elif source in self.sources:
            self.sources[source] = _less(self.sources[source], prefixes)
        return self._settle()

    def _settle(self) -> Change:
        old, self.held = self.held, fold(joined(self.sources.values()))
        return change(old, self.held)

    def references(self) -> Mapping[str, int]:
        """How many entries each source has."""
        return {name: len(listed.prefixes) for name, listed in self.sources.items()}

    def sources_of(self, address: str | Network) -> list[str]:
        """The sources that list a prefix which contains this one."""
        network = ip_network(address, strict=False) if isinstance(address, str) else address
        return [name for name, listed in self.sources.items() if any(containing(listed.prefixes, network))]


def _less(listed: Listed, prefixes: Prefixes) -> Listed:
    in4, in6 = listed.prefixes.occurring_in(prefixes)
    return listed.take(~in4, ~in6)


def containing(prefixes: Prefixes, network: Network) -> list[Network]:
    """The prefixes that contain a network or are it, the widest first."""
    address, length = int(network.network_address), network.prefixlen
    if network.version == 4:
        same = (prefixes.v4 ^ np.uint32(address)) & MASKS32[prefixes.v4_length] == 0
        chosen = same & (prefixes.v4_length <= length), np.zeros(len(prefixes.v6_high), np.bool_)
    else:
        high = prefixes.v6_high ^ np.uint64(address >> 64)
        low = prefixes.v6_low ^ np.uint64(address & (1 << 64) - 1)
        wide = prefixes.v6_length.astype(np.int64)
        same = (high & MASKS64[np.minimum(wide, 64)] | low & MASKS64[np.maximum(wide, 64) - 64]) == 0
        chosen = np.zeros(len(prefixes.v4), np.bool_), same & (prefixes.v6_length <= length)
    return sorted(prefixes.take(*chosen).networks(), key=lambda found: found.prefixlen)


def change(old: Listed, new: Listed) -> Change:
    """What turns one set into another: entries to write, new or with another end, and entries to remove."""
    kept4, kept6 = new.prefixes.occurring_in(old.prefixes)
    stays4, stays6 = old.prefixes.occurring_in(new.prefixes)
    ends, before = new.ends(), old.ends()
    # Both are sorted and have each prefix once, so those that stay have the same places on both sides.
    write4, write6 = ~kept4, ~kept6
    write4[kept4] = ends.v4[kept4] != before.v4[stays4]
    write6[kept6] = ends.v6[kept6] != before.v6[stays6]
    return Change(Listed(new.prefixes, ends).take(write4, write6), old.prefixes.take(~stays4, ~stays6))
