"""What rules can ask besides the packet, and what they change: the content of sets, and the time.

The reference evaluator's model of what the kernel keeps in maps.  An entry is a
key, one number for each part, of networks with a prefix's length; it is in
the set until its expiry on the boot clock, 0 for ever.

>>> stores = Stores({"threats": SetContent(("net",), {(0x0A000000, 8, 32): 0})})
>>> stores.holds("threats", (0x0A010203,), 32)
True

What rules add lies apart from what was there: they take away nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from penstock.compiler.ir.buckets import FULL, Buckets

#: Expiries are kept in steps of this many nanoseconds.
STEP_NS = 16


@dataclass(frozen=True, slots=True)
class Covering:
    """An entry that covers a key, as `SetContent` has it; whether a rule has added it."""

    key: tuple[int, ...]
    by_rule: bool


@dataclass(frozen=True, slots=True)
class SetContent:
    """The entries of a set with their expiries.

    A key is ``(part, …, bits)``, of a set of networks ``(address, length, bits)``: `bits`
    is 32 or 128 for keys with addresses and says the family, else 0.  `added` are
    those of rules, whose keys have no length; they stay for `timeout_ns` where a
    rule says nothing else.
    """

    kind: tuple[str, ...]
    entries: Mapping[tuple[int, ...], int] = field(default_factory=dict)
    timeout_ns: int | None = None
    added: dict[tuple[int, ...], int] = field(default_factory=dict)

    def has(self, key: tuple[int, ...], bits: int, now_ns: int) -> bool:
        """Whether an entry that has not expired covers the key."""
        return next(self.covering(key, bits, now_ns), None) is not None

    def covering(self, key: tuple[int, ...], bits: int, now_ns: int) -> Iterator[Covering]:
        """The entries that cover the key and have not expired, the narrowest first, those of rules last."""
        keys = [(*key, bits)]
        if self.kind == ("net",):
            (address,) = key
            keys = [
                (address >> bits - length << bits - length, length, bits) for length in range(bits, -1, -1)
            ]
        found = [(one, self.entries, False) for one in keys]
        for one, entries, by_rule in (*found, ((*key, bits), self.added, True)):
            expiry = entries.get(one)
            if expiry is not None and (expiry == 0 or now_ns < expiry):
                yield Covering(one, by_rule)

    def add(self, key: tuple[int, ...], bits: int, now_ns: int, stay_ns: int | None) -> None:
        """Let a key stay so long; one that is there already stays longer or as it is."""
        stay = self.timeout_ns if stay_ns is None else stay_ns
        end = 0 if stay is None else (now_ns + stay) // STEP_NS * STEP_NS
        before = self.added.get((*key, bits))
        if before is None or (before and (not end or before < end)):
            self.added[*key, bits] = end


@dataclass(frozen=True, slots=True)
class Stores:
    """The sets by name; one that is not there is empty, and stays so.  `now_ns` is the boot clock.

    `buckets` are those of limiters, with a clock of their own.
    """

    sets: Mapping[str, SetContent] = field(default_factory=dict)
    now_ns: int = 0
    buckets: Buckets = FULL

    def holds(self, name: str, key: tuple[int, ...], bits: int) -> bool:
        """Whether a set has the key."""
        content = self.sets.get(name)
        return content is not None and content.has(key, bits, self.now_ns)

    def add(self, name: str, key: tuple[int, ...], bits: int, stay_ns: int | None) -> None:
        """What a rule does that adds a packet's key."""
        if name in self.sets:
            self.sets[name].add(key, bits, self.now_ns, stay_ns)

    def remove(self, name: str, key: tuple[int, ...], bits: int) -> None:
        """Take away what a rule has added, and nothing else."""
        if name in self.sets:
            self.sets[name].added.pop((*key, bits), None)


EMPTY = Stores()
