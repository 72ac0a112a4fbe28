"""A policy as an nftables rule set.

In: plain rules, the device and the hook.  Out: text for `nft -f -`: one rule a
clause, values as anonymous sets, as one would write it.

    drop if udp dst port 53    ->    meta l4proto 17 th dport 53 drop
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, summarize_address_range
from itertools import islice
from typing import Literal

from penstock.model.net import IntervalSet
from penstock.model.verdict import Verdict
from penstock.price.peers.clauses import (
    ANY_PROTOCOL,
    CannotSayError,
    Clause,
    PlainRule,
    Refusal,
    UnsayableError,
    by_family,
    masks,
)

Hook = Literal["netdev", "inet"]
TABLE = "penstock_peer"

_MATCH = {
    "sport": "th sport",
    "dport": "th dport",
    "addr.src": "ip saddr",
    "addr.dst": "ip daddr",
    "ip.id": "ip id",
    "ip.len": "ip length",
    "ip6.src": "ip6 saddr",
    "ip6.dst": "ip6 daddr",
    "ip6.flow": "ip6 flowlabel",
    "tcp.seq": "tcp sequence",
    "tcp.ack": "tcp ackseq",
    "tcp.window": "tcp window",
    "udp.len": "udp length",
    "icmp.type": "icmp type",
    "icmp.code": "icmp code",
    "icmp6.type": "icmpv6 type",
    "icmp6.code": "icmpv6 code",
    "eth.src": "ether saddr",
    "eth.dst": "ether daddr",
}
#: What has another name in each family.
_OF_FAMILY = {
    "ttl": {4: "ip ttl", 6: "ip6 hoplimit"},
    "dscp": {4: "ip dscp", 6: "ip6 dscp"},
    "ecn": {4: "ip ecn", 6: "ip6 ecn"},
}
_VERDICTS = {Verdict.PASS: "accept", Verdict.DROP: "drop"}


def script(rules: Sequence[PlainRule], default: Verdict, hook: Hook, device: str) -> str:
    """The whole rule set.

    Raises:
        CannotSayError: naming the rules that nft cannot say.
    """
    body, refused = [], []
    for rule in rules:
        try:
            body += [line for clause in rule.clauses for line in _lines(clause, rule, hook)]
        except UnsayableError as error:
            refused.append(Refusal(rule.name, rule.line, str(error)))
    if default is Verdict.BOUNCE:
        refused.append(Refusal("default", 1, "sends packets back, which nft does not"))
    if refused:
        raise CannotSayError(refused)
    place = (
        f'type filter hook ingress device "{device}" priority 0'
        if hook == "netdev"
        else "type filter hook prerouting priority raw"
    )
    lines = [
        f"table {hook} {TABLE} {{",
        "\tchain filter {",
        f"\t\t{place}; policy {_VERDICTS[default]};",
        *(f"\t\t{line}" for line in body),
        "\t}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _lines(clause: Clause, rule: PlainRule, hook: Hook) -> Iterator[str]:
    if rule.action is Verdict.BOUNCE:
        raise UnsayableError("sends packets back, which nft does not")
    action = _VERDICTS[rule.action] if isinstance(rule.action, Verdict) else "counter"
    divided = any(name in _OF_FAMILY for name, _ in clause.tests)
    for part in by_family(clause) if divided else (clause,):
        for match in _matches(part, hook):
            yield f"{match} {action}"


def _matches(clause: Clause, hook: Hook) -> list[str]:
    """The clause's test; several where values of a bit field need them."""
    found = [" ".join([*_family(clause, hook), *_protocols(clause)])]
    for name, values in clause.tests:
        found = [f"{before} {test}".strip() for before in found for test in _tests(name, values, clause)]
    return found


def _family(clause: Clause, hook: Hook) -> Iterator[str]:
    if len(clause.families) == 1:
        (family,) = clause.families
        if hook == "inet":
            yield f"meta nfproto ipv{family}"
        else:
            yield f"meta protocol {'ip' if family == 4 else 'ip6'}"
    elif clause.protocols == ANY_PROTOCOL and hook == "netdev":
        yield "meta protocol { ip, ip6 }"


def _protocols(clause: Clause) -> Iterator[str]:
    if clause.protocols != ANY_PROTOCOL:
        yield f"meta l4proto {_values(clause.protocols, str)}"


def _tests(name: str, values: IntervalSet, clause: Clause) -> Iterator[str]:
    (family, *_) = clause.families
    match name:
        case "tcp.flags":
            for mask, value in masks(values):
                yield f"tcp flags & 0x{mask:02x} == 0x{value:02x}"
        case "ip.df":
            yield f"ip frag-off & 0x4000 {'!=' if 1 in values else '=='} 0"
        case "addr.src" | "addr.dst":
            yield f"{_MATCH[name]} {_addresses(values, IPv4Address)}"
        case "ip6.src" | "ip6.dst":
            yield f"{_MATCH[name]} {_addresses(values, IPv6Address)}"
        case "eth.src" | "eth.dst":
            yield f"{_MATCH[name]} {_values(values, _mac)}"
        case _:
            word = _OF_FAMILY[name][family] if name in _OF_FAMILY else _MATCH[name]
            yield f"{word} {_values(values, str)}"


def _addresses(values: IntervalSet, kind: type[IPv4Address | IPv6Address]) -> str:
    """A prefix is written as one: nft compares it under a mask, a range twice."""
    parts = []
    for low, high in values:
        prefixes = list(islice(summarize_address_range(kind(low), kind(high)), 2))
        if low == high:
            parts.append(str(kind(low)))
        else:
            parts.append(str(prefixes[0]) if len(prefixes) == 1 else f"{kind(low)}-{kind(high)}")
    return _listed(parts)


def _mac(number: int) -> str:
    return number.to_bytes(6, "big").hex(":")


def _values(values: IntervalSet, shown: Callable[[int], str]) -> str:
    return _listed([shown(low) if low == high else f"{shown(low)}-{shown(high)}" for low, high in values])


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{{ {', '.join(parts)} }}"
