"""Rule sets that look like real ones: access lists, firewalls, IP chains.

In goes a flavour, a number of rules and a seed; out comes the same rule set
every time, as numpy columns (one box a rule, inclusive ends) and, on request,
as policy text.  The distributions are in the spirit of what ClassBench (Taylor
and Turner, 2007) published about filter sets: pairs of prefix lengths, the five
port classes WC, HI, LO, AR, EM, the mix of protocols, and nesting of prefixes.

    acl   specific destinations, many sources, exact destination ports
    fw    one side is often a wildcard, /1 and /2 smears, source ports matter
    ipc   between the two: host pairs, all port classes

At 10,000 rules, seed 1, beside sets that ClassBench's own generator made of its seeds (7,300 to 10,000
rules).  Classes are what a field's values fall into if told apart by nothing but the rules; pairs are
of prefix lengths; applications are distinct tests of protocol and ports.

                      acl    acl1 acl2 acl3 acl4 acl5     fw    fw1      ipc    ipc1 ipc2
    classes, dst     5240     703 6480  960 1698 1834   4768   6700     5364    2827 8886
    classes, src     5893    3979 5821  824  871  560   3905            5244    1516 4831
    protocols           7       4    5    5    7    5      7               7       7    4
    classes, dport    193     106   27  188  227   40    197             200      53    3
    classes, sport     57       1    1    3    3    1    183             192      33    3
    pairs             143     147                         49    130       66
    applications      505     162                       1276            1740    3333   10

So the addresses are as many and as different as in the harder seeds of each flavour, and ports
are more mixed than in any; fw has fewer pairs of prefix lengths.  Destination ports of acl: 30 % WC, 5 % HI,
0.4 % LO, 15 % AR, 49 % EM; source ports are wildcards in 98 %, 82 % and 73 %; the source is a wildcard
in 12 %, 43 % and 10 % of the rules of acl, fw and ipc, the destination in 1 %, 27 % and 8 %.  A packet
drawn from a rule lies in 1.9, 7.5 and 4.4 rules on the average and in 5, 29 and 8 at most.

>>> rules = generate("acl", 1000, seed=7)
>>> len(rules), rules.low["dport"].dtype.name
(1000, 'uint64')
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

import numpy as np
import numpy.typing as npt

Flavour = Literal["acl", "fw", "ipc"]
Column = npt.NDArray[np.uint64]

WIDTHS = {"proto": 8, "sport": 16, "dport": 16}
NAMES = ("src", "dst", "proto", "sport", "dport")
PORT_PROTOCOLS = (6, 17, 132)
TOP32 = (1 << 32) - 1
ALL_ONES = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """n boxes with inclusive ends; columns are uint64 of shape (n,), IPv6 addresses (n, 2): high half, low half.

    A field that covers its whole domain is not tested at all.  `source_bits`
    and `target_bits` are the prefix lengths, `drops` the rules' verdicts.
    """

    flavour: str
    ipv6: bool
    low: dict[str, Column]
    high: dict[str, Column]
    source_bits: npt.NDArray[np.int64]
    target_bits: npt.NDArray[np.int64]
    drops: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.drops)


@dataclass(frozen=True, slots=True)
class Profile:
    """The statistics of one flavour."""

    pairs: tuple[tuple[tuple[int, int], tuple[int, int], float], ...]
    """(source prefix lengths from-to, destination prefix lengths from-to, weight)."""
    protocols: tuple[tuple[int, float], ...]
    """(number, weight); 256 is any."""
    source_ports: tuple[float, float, float, float, float]
    target_ports: tuple[float, float, float, float, float]
    """Weights of WC, HI, LO, AR, EM."""
    sources: float
    targets: float
    """How many distinct addresses there are to choose from, as a share of the rules."""


PROFILES: dict[str, Profile] = {
    "acl": Profile(
        pairs=(
            ((0, 0), (32, 32), 8),
            ((8, 16), (32, 32), 12),
            ((17, 24), (32, 32), 16),
            ((25, 31), (32, 32), 9),
            ((32, 32), (32, 32), 20),
            ((24, 24), (24, 24), 9),
            ((32, 32), (21, 28), 9),
            ((30, 32), (25, 30), 5),
            ((0, 0), (21, 28), 4),
            ((14, 20), (14, 24), 5),
            ((32, 32), (0, 0), 0.8),
            ((24, 28), (0, 0), 0.5),
            ((1, 2), (32, 32), 0.5),
            ((0, 0), (0, 0), 0.3),
        ),
        protocols=((6, 78), (17, 14), (1, 3), (256, 4.5), (47, 0.3), (50, 0.2)),
        source_ports=(98.5, 0.5, 0.2, 0.3, 0.5),
        target_ports=(24, 6, 0.5, 17, 52.5),
        sources=0.45,
        targets=0.30,
    ),
    "fw": Profile(
        pairs=(
            ((0, 0), (32, 32), 27),
            ((32, 32), (0, 0), 17),
            ((24, 28), (0, 0), 6),
            ((0, 0), (22, 29), 13),
            ((32, 32), (32, 32), 12),
            ((20, 28), (32, 32), 7),
            ((32, 32), (20, 28), 6),
            ((1, 2), (32, 32), 2.5),
            ((32, 32), (1, 2), 1.5),
            ((12, 16), (0, 0), 3),
            ((0, 0), (12, 16), 3),
            ((0, 0), (0, 0), 1),
        ),
        protocols=((6, 62), (17, 22), (1, 5), (256, 9), (47, 1), (50, 1)),
        source_ports=(78, 12, 1, 1, 8),
        target_ports=(33, 9, 2, 8, 48),
        sources=0.40,
        targets=0.40,
    ),
    "ipc": Profile(
        pairs=(
            ((32, 32), (32, 32), 40),
            ((20, 28), (32, 32), 11),
            ((32, 32), (20, 28), 11),
            ((0, 0), (32, 32), 7),
            ((32, 32), (0, 0), 5),
            ((12, 19), (30, 32), 6),
            ((24, 24), (24, 24), 9),
            ((29, 31), (29, 31), 6),
            ((0, 0), (22, 26), 2),
            ((22, 26), (0, 0), 2),
            ((0, 0), (0, 0), 0.6),
        ),
        protocols=((6, 50), (17, 34), (1, 5), (256, 10), (47, 0.6), (89, 0.4)),
        source_ports=(68, 12, 3, 5, 12),
        target_ports=(46, 8, 3, 12, 31),
        sources=0.30,
        targets=0.30,
    ),
}
WELL_KNOWN = (
    80,
    443,
    53,
    22,
    25,
    21,
    23,
    110,
    143,
    161,
    123,
    389,
    445,
    139,
    135,
    1433,
    1521,
    3306,
    3389,
    5060,
    8080,
    514,
)


def generate(flavour: Flavour, count: int, seed: int = 1, *, ipv6: bool = False) -> Rules:
    """`count` distinct rules of a flavour; specific rules tend to come before wide ones, as people write them."""
    rng = np.random.default_rng([seed, count, list(PROFILES).index(flavour), int(ipv6)])
    found = _draw(rng, flavour, count * 5 // 4 + 32, count, ipv6)
    while len(found) < count:
        found = _distinct(_concatenate(found, _draw(rng, flavour, count, count, ipv6)))
    return _ordered(rng, _take(found, np.arange(count)))


def _draw(rng: np.random.Generator, flavour: Flavour, amount: int, scale: int, ipv6: bool) -> Rules:
    profile = PROFILES[flavour]
    weights = np.array([weight for _, _, weight in profile.pairs])
    pair = rng.choice(len(weights), amount, p=weights / weights.sum())
    bits: list[npt.NDArray[np.int64]] = []
    low: dict[str, Column] = {}
    high: dict[str, Column] = {}
    ends_of = [[row[0] for row in profile.pairs], [row[1] for row in profile.pairs]]
    for side, name, share in ((0, "src", profile.sources), (1, "dst", profile.targets)):
        least = np.array([ends[0] for ends in ends_of[side]])[pair]
        most = np.array([ends[1] for ends in ends_of[side]])[pair]
        length = rng.integers(least, most + 1)
        address = _addresses(rng, amount, max(4, int(scale * share)))
        low[name], high[name] = _prefix6(address, length) if ipv6 else _prefix4(address, length)
        bits.append(np.minimum(length * 2, 64) if ipv6 else length)
    protocol = _protocols(rng, profile, amount)
    low["proto"] = np.where(protocol == 256, 0, protocol).astype(np.uint64)
    high["proto"] = np.where(protocol == 256, 255, protocol).astype(np.uint64)
    has_ports = np.isin(protocol, (6, 17))
    for name, mix in (("sport", profile.source_ports), ("dport", profile.target_ports)):
        low[name], high[name] = _ports(rng, mix, has_ports, scale)
    drops = rng.random(amount) < 0.3
    return _distinct(Rules(flavour, ipv6, low, high, bits[0], bits[1], drops))


def _addresses(rng: np.random.Generator, amount: int, distinct: int) -> Column:
    """IPv4-sized addresses out of a pool with sites and subnets, so that prefixes nest; some are popular."""
    sites = max(3, int(distinct**0.5))
    site = rng.integers(0x0B00, 0xDF00, sites)
    of_site = (sites * rng.random(distinct) ** 2).astype(np.int64)
    subnet = (256 * rng.random(distinct) ** 2).astype(np.int64) ^ (of_site * 37 & 0xFF)
    host = rng.integers(0, 256, distinct)
    pool = (site[of_site] << 16 | subnet << 8 | host).astype(np.uint64)
    return pool[(distinct * rng.random(amount) ** 1.3).astype(np.int64)]


def _prefix4(address: Column, length: npt.NDArray[np.int64]) -> tuple[Column, Column]:
    mask = (np.uint64(TOP32) << (32 - length).astype(np.uint64)) & np.uint64(TOP32)
    return address & mask, (address & mask) | (mask ^ np.uint64(TOP32))


def _prefix6(address: Column, length: npt.NDArray[np.int64]) -> tuple[Column, Column]:
    """The IPv4-like address spread over an IPv6 one's site, subnet and interface; a length of 32 becomes 64 or 128."""
    site, subnet, host = (
        address >> np.uint64(16),
        (address >> np.uint64(8)) & np.uint64(255),
        address & np.uint64(255),
    )
    upper = np.uint64(0x2001 << 48) | site << np.uint64(32) | subnet << np.uint64(16) | host
    lower = np.where(address % np.uint64(3) == 0, host + np.uint64(1), np.uint64(0))
    bits = np.where(length == 0, 0, np.where(length <= 16, 16 + length, 24 + length + (length - 16) // 2))
    host_route = (length == 32) & (lower > 0)
    bits = np.where(length == 32, 64, np.minimum(bits, 64))
    shift = np.minimum(64 - bits, 63).astype(np.uint64)
    mask = np.where(bits == 0, np.uint64(0), ALL_ONES << shift)
    low = np.stack([upper & mask, np.where(host_route, lower, np.uint64(0))], axis=1)
    high = np.stack([(upper & mask) | ~mask, np.where(host_route, lower, ALL_ONES)], axis=1)
    return low, high


def _protocols(rng: np.random.Generator, profile: Profile, amount: int) -> npt.NDArray[np.int64]:
    weights = np.array([weight for _, weight in profile.protocols])
    return np.array([number for number, _ in profile.protocols])[
        rng.choice(len(weights), amount, p=weights / weights.sum())
    ]


def _ports(
    rng: np.random.Generator, mix: tuple[float, ...], has_ports: npt.NDArray[np.bool_], scale: int
) -> tuple[Column, Column]:
    amount = len(has_ports)
    kind = rng.choice(5, amount, p=np.array(mix) / sum(mix))
    exact = np.unique(np.concatenate([WELL_KNOWN, rng.integers(1, 65535, int(12 + scale**0.5))]))
    exact = rng.permutation(exact)
    chosen = exact[(len(exact) * rng.random(amount) ** 2.2).astype(np.int64)]
    ranges = int(6 + scale**0.42)
    start = rng.integers(1, 60000, ranges)
    length = np.minimum(np.exp(rng.uniform(0.7, 8, ranges)).astype(np.int64), 65535 - start)
    which = (ranges * rng.random(amount) ** 1.7).astype(np.int64)
    low = np.select([kind == 1, kind == 2, kind == 3, kind == 4], [1024, 0, start[which], chosen], 0)
    high = np.select(
        [kind == 1, kind == 2, kind == 3, kind == 4], [65535, 1023, (start + length)[which], chosen], 65535
    )
    return np.where(has_ports, low, 0).astype(np.uint64), np.where(has_ports, high, 65535).astype(np.uint64)


def _table(rules: Rules) -> Column:
    columns = [part for name in NAMES for part in (rules.low[name], rules.high[name])]
    return np.column_stack(columns)


def _distinct(rules: Rules) -> Rules:
    _, first = np.unique(_table(rules), axis=0, return_index=True)
    return _take(rules, np.sort(first))


def _take(rules: Rules, index: npt.NDArray[np.intp]) -> Rules:
    return Rules(
        rules.flavour,
        rules.ipv6,
        {name: column[index] for name, column in rules.low.items()},
        {name: column[index] for name, column in rules.high.items()},
        rules.source_bits[index],
        rules.target_bits[index],
        rules.drops[index],
    )


def _concatenate(left: Rules, right: Rules) -> Rules:
    return Rules(
        left.flavour,
        left.ipv6,
        {name: np.concatenate([left.low[name], right.low[name]]) for name in NAMES},
        {name: np.concatenate([left.high[name], right.high[name]]) for name in NAMES},
        np.concatenate([left.source_bits, right.source_bits]),
        np.concatenate([left.target_bits, right.target_bits]),
        np.concatenate([left.drops, right.drops]),
    )


def _ordered(rng: np.random.Generator, rules: Rules) -> Rules:
    specific = rules.source_bits + rules.target_bits + rng.normal(0, 14, len(rules))
    wide = (rules.source_bits == 0) & (rules.target_bits == 0)
    return _take(rules, np.lexsort((-specific, wide)))


# ── policy text ──────────────────────────────────────────────────────────────


def policy_text(rules: Rules, name: str = "bench", default: str = "pass") -> str:
    """The rule set in penstock's language, one rule a line, for a filter at xdp."""
    lines = [f"filter {name} at xdp {{", f"    default {default}"]
    lines += [f"    {line}" for line in rule_lines(rules)]
    return "\n".join([*lines, "}", ""])


def rule_lines(rules: Rules) -> Iterator[str]:
    """Each rule's text: ``drop if src net 10.0.0.0/8 and tcp dst port 80``."""
    columns = {name: (rules.low[name].tolist(), rules.high[name].tolist()) for name in NAMES}
    lengths = (rules.source_bits.tolist(), rules.target_bits.tolist())
    for at, drop in enumerate(rules.drops.tolist()):
        row = {name: (low[at], high[at]) for name, (low, high) in columns.items()}
        parts = [*_address_text(rules.ipv6, "src", row["src"], lengths[0][at])]
        parts += _address_text(rules.ipv6, "dst", row["dst"], lengths[1][at])
        parts += _transport_text(rules.ipv6, row)
        yield ("drop" if drop else "pass") + (" if " + " and ".join(parts) if parts else "")


def _address_text(ipv6: bool, side: str, ends: tuple[object, object], length: int) -> Iterator[str]:
    if length == 0:
        return
    low, high = ends
    if not ipv6:
        yield f"{side} net {IPv4Address(low)}/{length}"
    else:
        first, last = (part[0] << 64 | part[1] for part in (low, high))  # type: ignore[index]
        yield f"{side} net {IPv6Address(first)}/{128 - (last - first).bit_length()}"


def _transport_text(ipv6: bool, row: dict[str, tuple[int, int]]) -> Iterator[str]:
    protocol = row["proto"][0] if row["proto"][0] == row["proto"][1] else None
    word = {6: "tcp", 17: "udp", None: ""}.get(protocol, "other")
    sides = [("src", row["sport"]), ("dst", row["dport"])]
    tested = [(side, ends) for side, ends in sides if ends != (0, 65535)]
    for side, (low, high) in tested:
        yield f"{word} {side} " + (f"port {low}" if low == high else f"portrange {low}-{high}")
    if not tested and protocol is not None:
        yield word if word != "other" else f"{'ip6' if ipv6 else 'ip'} proto {protocol}"


# ── packets ──────────────────────────────────────────────────────────────────


def packets(rules: Rules, count: int, seed: int = 1, *, zipf: bool = False) -> dict[str, Column]:
    """Packets that exercise the rules: drawn from inside them (corners 30 %), fields swapped 12 %, noise 3 %.

    Uniform over the rules, or with `zipf` a few rules get most packets.  Ports of
    protocols without ports have the value 2**16: absent.
    """
    rng = np.random.default_rng([seed, 77])
    chosen = _chosen(rng, len(rules), count, zipf)
    swapped = rng.random(count) < 0.12
    noise = rng.random(count) < 0.03
    found: dict[str, Column] = {}
    for name in NAMES:
        of = np.where(swapped & (rng.random(count) < 0.5), rng.integers(0, len(rules), count), chosen)
        found[name] = _inside(rng, rules.low[name][of], rules.high[name][of])
        anything = rng.integers(0, 1 << WIDTHS.get(name, 32), found[name].shape, dtype=np.uint64)
        mask = noise if found[name].ndim == 1 else noise[:, None]
        found[name] = np.where(mask, anything, found[name])
    without = ~np.isin(found["proto"], PORT_PROTOCOLS)
    for name in ("sport", "dport"):
        found[name] = np.where(without, np.uint64(1 << 16), found[name])
    return found


def _chosen(rng: np.random.Generator, rules: int, count: int, zipf: bool) -> npt.NDArray[np.int64]:
    if not zipf:
        return rng.integers(0, rules, count)
    weights = 1 / np.arange(1, rules + 1)
    return rng.permutation(rules)[rng.choice(rules, count, p=weights / weights.sum())]


def _inside(rng: np.random.Generator, low: Column, high: Column) -> Column:
    corner = rng.random(len(low))
    if low.ndim == 2:
        mask = low ^ high
        value = low | (rng.integers(0, ALL_ONES, low.shape, dtype=np.uint64, endpoint=True) & mask)
        corner = corner[:, None]
    else:
        value = low + (rng.random(len(low)) * (high - low + np.uint64(1))).astype(np.uint64)
    return np.where(corner < 0.15, low, np.where(corner < 0.30, high, value))
