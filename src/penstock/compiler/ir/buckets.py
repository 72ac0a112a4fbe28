"""The reference's model of token buckets: exact, with room for every key.

    buckets = Buckets(now_ns=1)
    buckets.is_over(limiter, (0, 0xFFFF_0A00_0001), 1)     ->  False; the packet has paid

A bucket is the time at which it is full again, in parts of a nanosecond
(`Limiter.share`), so that all of it is whole numbers.  The kernel has no more
places than `Limiter.places`, and a common bucket for keys that find none.

`FULL` are buckets that are never asked to remember: each packet finds its own
full.  That is what analyses and single packets are shown.  `SPENT` are their opposite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.compiler.ir.headers import Packet, weight
from penstock.model.limiter import MOST_COST, Key, Limiter

if TYPE_CHECKING:
    from penstock.compiler.ir.ops import Over, Sample

#: IPv4 addresses are keys as their IPv4-mapped IPv6 addresses (RFC 4291, 2.5.5.2).
_MAPPED = 0xFFFF << 32
#: `sample 1/N` is true where 32 random bits are below 2**32 / N.
CHANCES = 1 << 32

KeyWords = tuple[int, ...]


class Buckets:
    """What limiters remember.  `now_ns` is the boot clock and `chance` 32 random bits: the caller sets both."""

    def __init__(self, now_ns: int = 0, chance: int = CHANCES - 1) -> None:
        self.now_ns, self.chance = now_ns, chance
        self._full_at: dict[tuple[Limiter, KeyWords], int] = {}

    def asks(self, test: Over, packet: Packet) -> bool:
        """Whether a packet's bucket cannot pay for it; one that can has paid.  False of a packet without the key."""
        key = key_of(test, packet)
        return key is not None and self.is_over(test.limiter, key, cost_of(test.limiter, packet))

    def is_over(self, limiter: Limiter, key: KeyWords, cost: int) -> bool:
        """Whether the key's bucket has less than `cost` tokens, if so nothing is taken.

        A bucket that is full pays for any packet: what costs more than the burst
        is owed, and paid back before the next.
        """
        now = self.now_ns * limiter.share
        full_at = max(self._full_at.get((limiter, key), 0), now)
        after = full_at + min(cost, MOST_COST) * limiter.token_ns
        if full_at > now and after - now > limiter.burst_parts:
            return True
        self._full_at[limiter, key] = after
        return False

    def samples(self, test: Sample) -> bool:
        """Whether chance takes the packet."""
        return self.chance < CHANCES // test.one_in


class _AlwaysFull(Buckets):
    def asks(self, test: Over, packet: Packet) -> bool:
        """False: a full bucket pays for any packet."""
        del test, packet
        return False


class _AlwaysSpent(Buckets):
    def asks(self, test: Over, packet: Packet) -> bool:
        """True of each packet that has the key."""
        return key_of(test, packet) is not None


FULL = _AlwaysFull()
SPENT = _AlwaysSpent()


def cost_of(limiter: Limiter, packet: Packet) -> int:
    """The tokens that a packet takes: itself or its bytes, an aggregate's those of its segments."""
    segments, octets = weight(packet)
    return octets if limiter.bytes else segments


def key_of(test: Over, packet: Packet) -> KeyWords | None:
    """The words of a packet's key; None for one that has none."""
    values = dict(zip((ref.name for ref in test.refs), map(packet.value, test.refs), strict=True))
    key = test.limiter.key
    match key.kind:
        case "rule":
            return ()
        case "src" | "dst":
            return _address(key, values[f"addr.{key.kind}"], values[f"ip6.{key.kind}"])
        case "flow":
            return _flow(values)
        case kind:
            value = values[kind]
            return None if value is None else (value,)


def _flow(values: dict[str, int | None]) -> KeyWords | None:
    """Addresses, protocol and ports; ports are 0 where there are none."""
    whole = Key("flow")
    source, target = (_address(whole, values[f"addr.{way}"], values[f"ip6.{way}"]) for way in ("src", "dst"))
    proto = values["proto"]
    if source is None or target is None or proto is None:
        return None
    return (*source, *target, proto << 32 | (values["sport"] or 0) << 16 | (values["dport"] or 0))


def _address(key: Key, four: int | None, six: int | None) -> KeyWords | None:
    if four is not None:
        address = _MAPPED | _cut(four, 32, key.lengths[0])
    elif six is not None:
        address = _cut(six, 128, key.lengths[1])
    else:
        return None
    return address >> 64, address & (1 << 64) - 1


def _cut(address: int, bits: int, length: int) -> int:
    return address >> bits - length << bits - length
