"""What rules can ask besides the packet: the content of sets, and the time.

The reference evaluator's model of what the kernel keeps in maps.  An entry is a
key, one number for each part, of networks with a prefix's length; it is in
the set until its expiry on the boot clock, 0 for ever.

>>> stores = Stores({"threats": SetContent(("net",), {(0x0A000000, 8, 32): 0})})
>>> stores.holds("threats", (0x0A010203,), 32)
True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.compiler.ir.buckets import FULL, Buckets


@dataclass(frozen=True, slots=True)
class SetContent:
    """The entries of a set with their expiries.

    A key is ``(part, …, bits)``, of a set of networks ``(address, length, bits)``: `bits`
    is 32 or 128 for keys with addresses and says the family, else 0.
    """

    kind: tuple[str, ...]
    entries: Mapping[tuple[int, ...], int] = field(default_factory=dict)

    def has(self, key: tuple[int, ...], bits: int, now_ns: int) -> bool:
        """Whether an entry that has not expired covers the key."""
        return any(expiry == 0 or now_ns < expiry for expiry in self._covering(key, bits))

    def _covering(self, key: tuple[int, ...], bits: int) -> list[int]:
        if self.kind != ("net",):
            found = self.entries.get((*key, bits))
            return [] if found is None else [found]
        (address,) = key
        networks = ((address >> bits - length << bits - length, length, bits) for length in range(bits + 1))
        return [self.entries[network] for network in networks if network in self.entries]


@dataclass(frozen=True, slots=True)
class Stores:
    """The sets by name; one that is not there is empty.  `now_ns` is the boot clock.

    `buckets` are those of limiters, with a clock of their own.
    """

    sets: Mapping[str, SetContent] = field(default_factory=dict)
    now_ns: int = 0
    buckets: Buckets = FULL

    def holds(self, name: str, key: tuple[int, ...], bits: int) -> bool:
        """Whether a set has the key."""
        content = self.sets.get(name)
        return content is not None and content.has(key, bits, self.now_ns)


EMPTY = Stores()
