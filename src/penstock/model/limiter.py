"""Token buckets: how fast, for whom, and how many are kept.

    Limiter("flood", 1000, "s", Key("src"), burst=2000)      1000 packets a second for each source address

A bucket holds up to `burst` tokens and is filled at the rate; a packet takes one
token, or one for each of its bytes.  All is counted in fractions of a nanosecond,
so that no rounding adds up: a token is worth `token_ns` / `share` nanoseconds.

A bucket is known by the time at which it is full again.  One that is full is as
good as none, so its place can be given away and nothing is lost by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Literal

Period = Literal["s", "m", "h"]
PERIODS_NS: dict[str, int] = {"s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
KeyKind = Literal["src", "dst", "sport", "dport", "proto", "flow", "rule"]
#: What each kind of key is made of: 64-bit words.
KEY_WORDS: dict[KeyKind, int] = {"src": 2, "dst": 2, "sport": 1, "dport": 1, "proto": 1, "flow": 5, "rule": 0}
#: Kinds of keys that can be cut to a prefix.
PREFIXED: tuple[KeyKind, ...] = ("src", "dst")

#: A packet takes no more tokens than this, however long it claims to be: an aggregate has half as many bytes.
MOST_COST = (1 << 20) - 1
#: Buckets that share a row.  A key has two rows: it looks for its own bucket there and nowhere else.
WAYS = 8
DEFAULT_SIZE, MOST_SIZE = 1 << 16, 1 << 22
#: Bounds of what the arithmetic holds: 32-bit shares, and bursts that come in less than fifty days.
MOST_SHARE, MOST_BURST_NS = (1 << 32) - 1, 1 << 52


@dataclass(frozen=True, slots=True)
class Key:
    """What packets of one bucket have in common; `lengths` are the prefixes of IPv4 and IPv6 that count."""

    kind: KeyKind
    lengths: tuple[int, int] = (32, 128)

    @property
    def text(self) -> str:
        """As policies spell it: `src/24,56`."""
        four, six = self.lengths
        if self.lengths == (32, 128):
            return self.kind
        return f"{self.kind}/{four}" + (f",{six}" if six != 128 else "")


@dataclass(frozen=True, slots=True)
class Limiter:
    """One `over …` of a policy.

    `name` is its rule's, with a number behind it from the rule's second on; a
    limiter that keeps its name and all else keeps its buckets over a reload.
    """

    name: str
    tokens: int
    period: Period
    key: Key
    burst: int
    bytes: bool = False
    size: int = DEFAULT_SIZE

    @property
    def _common(self) -> int:
        return gcd(self.tokens, PERIODS_NS[self.period])

    @property
    def share(self) -> int:
        """Into how many parts a nanosecond is divided."""
        return self.tokens // self._common

    @property
    def token_ns(self) -> int:
        """What a token takes to come, in these parts."""
        return PERIODS_NS[self.period] // self._common

    @property
    def burst_parts(self) -> int:
        """What an empty bucket takes to be full."""
        return self.burst * self.token_ns

    def pays(self, packets: int, octets: int) -> bool:
        """Whether a full bucket and what comes in a minute pay for so many packets of so many bytes each."""
        tokens = packets * (octets if self.bytes else 1)
        return tokens * self.token_ns <= self.burst_parts + PERIODS_NS["m"] * self.share

    @property
    def rows(self) -> int:
        """Rows of WAYS buckets; 0 where all packets have one bucket."""
        return self.size // WAYS if KEY_WORDS[self.key.kind] else 0

    @property
    def places(self) -> int:
        """How many keys have a bucket of their own at most."""
        return self.rows * WAYS

    @property
    def text(self) -> str:
        """As policies spell it."""
        return spelled_rate(self.tokens, self.period, of_bytes=self.bytes) + f" per {self.key.text}"


def default_burst(tokens: int, period: Period, *, of_bytes: bool) -> int:
    """What comes in a tenth of a second, so that ten seconds from the first packet on are exact to 1 %.

    One packet more, so that nothing is lost of a rate whose packets do not come just in time.
    """
    return tokens * 10**8 // PERIODS_NS[period] + (0 if of_bytes else 1) or 1


def spelled_rate(tokens: int, period: str, *, of_bytes: bool) -> str:
    """`1000/s`, `10M/s bytes`."""
    return f"{spelled_number(tokens)}/{period}{' bytes' if of_bytes else ''}"


def spelled_number(number: int) -> str:
    """With a suffix where that loses nothing and is shorter to read: 64000 is 64k, 1000 stays."""
    for suffix, unit in (("G", 10**9), ("M", 10**6), ("k", 1000)):
        if number >= 10 * unit // (1 if suffix == "k" else 10) and number % unit == 0:
            return f"{number // unit}{suffix}"
    return str(number)


#: The constant of a program that the hashes of its tables begin with.
SEED_VARIABLE = "ps_limit_seed"


def limiter_map(number: int) -> str:
    """The name of the map of a program's limiter."""
    return f"ps_limit{number}"
