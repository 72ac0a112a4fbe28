"""Many prefixes at once, IPv4 and IPv6, as numpy arrays.

In: addresses and lengths, as arrays or as text.  Out: a `Prefixes` value: five
arrays, the addresses in host order (IPv4 as uint32, IPv6 as two uint64), which
is what set algebra and the batch system calls of maps want.  Promised: host
bits are zero, the arrays of a family have one length, and nothing here costs
Python a step for each prefix except `networks` and `of`.

>>> few = Prefixes.of(["203.0.113.0/24", "2001:db8::1", "198.51.100.7"])
>>> len(few), few.unique().texts()
(3, ['198.51.100.7', '203.0.113.0/24', '2001:db8::1'])
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Network: TypeAlias = IPv4Network | IPv6Network
U8: TypeAlias = npt.NDArray[np.uint8]
U32: TypeAlias = npt.NDArray[np.uint32]
U64: TypeAlias = npt.NDArray[np.uint64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Chosen: TypeAlias = "Mask | npt.NDArray[np.intp] | slice"

_LOW = (1 << 64) - 1
#: The masks of all prefix lengths, to be indexed by an array of lengths.
MASKS32: U32 = np.array([(0xFFFFFFFF << 32 - length) & 0xFFFFFFFF for length in range(33)], np.uint32)
MASKS64: U64 = np.array([(_LOW << 64 - length) & _LOW for length in range(65)], np.uint64)


@dataclass(frozen=True, slots=True, eq=False)
class Prefixes:
    """Prefixes in the order in which they were given, duplicates and all; `unique` sorts them."""

    v4: U32 = field(default_factory=lambda: np.zeros(0, np.uint32))
    v4_length: U8 = field(default_factory=lambda: np.zeros(0, np.uint8))
    v6_high: U64 = field(default_factory=lambda: np.zeros(0, np.uint64))
    v6_low: U64 = field(default_factory=lambda: np.zeros(0, np.uint64))
    v6_length: U8 = field(default_factory=lambda: np.zeros(0, np.uint8))

    @classmethod
    def of(cls, texts: Iterable[str | Network]) -> Prefixes:
        """From addresses and prefixes as text or as `ipaddress` objects; host bits are cleared.

        Raises:
            ValueError: one of them is neither, as `ipaddress` says it.
        """
        networks = [ip_network(text, strict=False) if isinstance(text, str) else text for text in texts]
        v4 = [network for network in networks if isinstance(network, IPv4Network)]
        v6 = [int(network.network_address) for network in networks if isinstance(network, IPv6Network)]
        return cls(
            np.array([int(network.network_address) for network in v4], np.uint32),
            np.array([network.prefixlen for network in v4], np.uint8),
            np.array([address >> 64 for address in v6], np.uint64),
            np.array([address & _LOW for address in v6], np.uint64),
            np.array([net.prefixlen for net in networks if isinstance(net, IPv6Network)], np.uint8),
        )

    @classmethod
    def joined(cls, parts: Iterable[Prefixes]) -> Prefixes:
        """All of them, one behind the other."""
        each = [cls(), *parts]
        return cls(
            np.concatenate([part.v4 for part in each]),
            np.concatenate([part.v4_length for part in each]),
            np.concatenate([part.v6_high for part in each]),
            np.concatenate([part.v6_low for part in each]),
            np.concatenate([part.v6_length for part in each]),
        )

    def __len__(self) -> int:
        return len(self.v4) + len(self.v6_high)

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same prefixes, in whatever order and however often."""
        if not isinstance(other, Prefixes):
            return NotImplemented
        a, b = self.unique(), other.unique()
        return len(a.v4) == len(b.v4) and len(a) == len(b) and len(a.without(b)) == 0

    __hash__ = None  # type: ignore[assignment]

    def networks(self) -> Iterator[Network]:
        """Each prefix as an `ipaddress` object, IPv4 first."""
        for address, length in zip(self.v4.tolist(), self.v4_length.tolist(), strict=True):
            yield IPv4Network((address, length))
        columns = zip(self.v6_high.tolist(), self.v6_low.tolist(), self.v6_length.tolist(), strict=True)
        for high, low, length in columns:
            yield IPv6Network((high << 64 | low, length))

    def texts(self) -> list[str]:
        """Each prefix as text; a single address without its length."""
        return [prefix_text(network) for network in self.networks()]

    def take(self, v4: Chosen, v6: Chosen) -> Prefixes:
        """Those that two masks, arrays of indexes or slices choose."""
        return Prefixes(
            self.v4[v4], self.v4_length[v4], self.v6_high[v6], self.v6_low[v6], self.v6_length[v6]
        )

    def unique(self) -> Prefixes:
        """Sorted by family, address and length (so that a prefix is behind all that contain it), each once."""
        return self.take(*self.first_of_each())

    def first_of_each(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """The indexes by which `take` gives `unique`: of equal ones the first."""
        keys = self.v4_keys()
        order4 = np.argsort(keys, kind="stable")
        order6 = np.lexsort((self.v6_length, self.v6_low, self.v6_high))
        return order4[_differs(keys[order4])], order6[
            _differs(*(column[order6] for column in self.v6_columns()))
        ]

    def v4_keys(self) -> U64:
        """Address and length of each IPv4 prefix in one number that sorts as they do."""
        keys: U64 = self.v4.astype(np.uint64) << np.uint64(8) | self.v4_length
        return keys

    def v6_columns(self) -> tuple[U64, U64, U8]:
        """The three columns of the IPv6 prefixes."""
        return self.v6_high, self.v6_low, self.v6_length

    def without(self, other: Prefixes) -> Prefixes:
        """Those that `other` does not have, compared as prefixes and not as the addresses in them."""
        in4, in6 = self.occurring_in(other)
        return self.take(~in4, ~in6)

    def occurring_in(self, other: Prefixes) -> tuple[Mask, Mask]:
        """Which of them `other` has too, compared as prefixes."""
        both = Prefixes.joined((self, other)).v6_columns()
        # Equal ones get one number: their rank among all that occur.
        order = np.lexsort(both[::-1])
        rank = np.empty(len(order), np.int64)
        rank[order] = np.cumsum(_differs(*(column[order] for column in both)))
        mine = len(self.v6_high)
        return np.isin(self.v4_keys(), other.v4_keys()), np.isin(rank[:mine], rank[mine:])


def _differs(*columns: npt.NDArray[np.unsignedinteger]) -> Mask:
    """Of sorted rows, whether each differs from the one before it; the first does."""
    found = np.zeros(len(columns[0]), np.bool_)
    found[:1] = True
    for column in columns:
        found[1:] |= column[1:] != column[:-1]
    return found


def prefix_text(network: Network) -> str:
    """A prefix as text; a single address without its length."""
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)
