"""A policy for xdp-filter: lists of ports, IP and Ethernet addresses, any of which decides alike.

In: plain rules.  Out: `Listed`, the features to load and the commands that fill
the lists.

    drop if udp dst port 53    ->    load -p allow -f udp, port 53 -m dst -p udp
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from penstock.model.net import IntervalSet
from penstock.model.verdict import Verdict
from penstock.price.peers.clauses import (
    ANY_PROTOCOL,
    CannotSayError,
    Clause,
    PlainRule,
    Refusal,
    UnsayableError,
)

#: Each entry is a call of the program.
MOST_ENTRIES = 2_000
_PORTS = {"tcp": 6, "udp": 17}


@dataclass(frozen=True, slots=True)
class Listed:
    """`policy` is allow or deny, `features` what the program has to be loaded with, `entries` its arguments in turn."""

    policy: str
    features: tuple[str, ...]
    entries: tuple[tuple[str, ...], ...]


def listed(rules: Sequence[PlainRule], default: Verdict) -> Listed:
    """The rules as lists.

    Raises:
        CannotSayError: naming the rules that are no list of single ports or addresses.
    """
    entries, refused = list[tuple[str, ...]](), []
    for rule in rules:
        try:
            _agree(rule, default)
            entries += [entry for clause in rule.clauses for entry in _entries(clause)]
            if len(entries) > MOST_ENTRIES:
                raise UnsayableError(f"goes beyond {MOST_ENTRIES} entries, each a call of xdp-filter")
        except UnsayableError as error:
            refused.append(Refusal(rule.name, rule.line, str(error)))
            entries.clear()
    if default is Verdict.BOUNCE:
        refused.append(Refusal("default", 1, "sends packets back, which xdp-filter does not"))
    if refused:
        raise CannotSayError(refused)
    features = dict.fromkeys(_feature(entry) for entry in entries)
    return Listed("allow" if default is Verdict.PASS else "deny", tuple(features), tuple(entries))


def _agree(rule: PlainRule, default: Verdict) -> None:
    """xdp-filter knows one verdict besides its policy; what decides first does not matter then."""
    wanted = Verdict.DROP if default is Verdict.PASS else Verdict.PASS
    if rule.action is not wanted:
        what = rule.action.value
        raise UnsayableError(f"is a {what} rule, xdp-filter has {wanted.value} lists over a default alone")


def _entries(clause: Clause) -> Iterator[tuple[str, ...]]:
    if len(clause.tests) != 1:
        raise UnsayableError("tests more or less than one list of values")
    ((name, values),) = clause.tests
    match name:
        case "sport" | "dport":
            words = [word for word, number in _PORTS.items() if number in clause.protocols]
            if (
                clause.families != {4, 6}
                or clause.protocols - IntervalSet.single(*_PORTS.values())
                or not words
            ):
                raise UnsayableError("tests ports of other protocols than TCP and UDP, or of one IP version")
            for number in _each(values):
                yield ("port", str(number), "-m", _mode(name), "-p", ",".join(words))
        case "addr.src" | "addr.dst" | "ip6.src" | "ip6.dst" if clause.protocols == ANY_PROTOCOL:
            kind = IPv4Address if name.startswith("addr") else IPv6Address
            for number in _each(values):
                yield ("ip", str(kind(number)), "-m", name[-3:])
        case "eth.src" | "eth.dst" if clause.families == {4, 6} and clause.protocols == ANY_PROTOCOL:
            for number in _each(values):
                yield ("ether", number.to_bytes(6, "big").hex(":"), "-m", name[-3:])
        case _:
            raise UnsayableError(f"tests {name} in a way for which xdp-filter has no list")


def _mode(name: str) -> str:
    return "src" if name == "sport" else "dst"


def _each(values: IntervalSet) -> Iterator[int]:
    if values.size() > MOST_ENTRIES:
        raise UnsayableError("asks for a range; xdp-filter lists single values")
    for low, high in values:
        yield from range(low, high + 1)


def _feature(entry: tuple[str, ...]) -> str:
    match entry[0]:
        case "port":
            return entry[-1]
        case "ip":
            return "ipv6" if ":" in entry[1] else "ipv4"
        case _:
            return "ethernet"
