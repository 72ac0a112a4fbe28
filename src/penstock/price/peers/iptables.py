"""A policy as iptables and ip6tables rules, with ipset for lists of addresses.

In: plain rules and the device.  Out: `Tables`: text for `ipset restore`,
`iptables-restore` and `ip6tables-restore`, all in raw PREROUTING, the first
place that iptables has.

    drop if udp dst port 53    ->    -A PREROUTING -i b -p 17 -m udp --dport 53 -j DROP
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, summarize_address_range
from itertools import product

from penstock.model.net import Interval, IntervalSet
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

#: Rules that one clause may become.
MOST_RULES = 256
#: xt_multiport: this many ports, a range counting for two.
_MULTIPORT = 15
_TARGETS = {Verdict.PASS: "-j ACCEPT", Verdict.DROP: "-j DROP"}
_MODULES = {6: "tcp", 17: "udp", 132: "sctp"}
_GROUPED = {f"-m {name}" for name in _MODULES.values()}
_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG")


@dataclass(frozen=True, slots=True)
class Tables:
    """What the three programs read."""

    sets: str
    ipv4: str
    ipv6: str


@dataclass(slots=True)
class _Sets:
    """The address sets made so far, equal ones shared, and how many chains."""

    chains: int = 0
    names: dict[tuple[int, IntervalSet], str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def name(self, family: int, values: IntervalSet, prefixes: Sequence[str]) -> str:
        known = self.names.get((family, values))
        if known is None:
            known = self.names[family, values] = f"ps{len(self.names)}"
            kind = "inet" if family == 4 else "inet6"
            room = max(65536, 2 * len(prefixes))
            self.lines.append(f"create {known} hash:net family {kind} maxelem {room}")
            self.lines += [f"add {known} {prefix}" for prefix in prefixes]
        return known


def tables(rules: Sequence[PlainRule], default: Verdict, device: str) -> Tables:
    """The rules for both families.

    Raises:
        CannotSayError: naming the rules that iptables cannot say.
    """
    sets, body, refused = _Sets(), {4: list[str](), 6: list[str]()}, []
    for rule in rules:
        try:
            for clause in rule.clauses:
                for part in by_family(clause):
                    (family,) = part.families
                    body[family] += _lines(part, family, rule, device, sets)
        except UnsayableError as error:
            refused.append(Refusal(rule.name, rule.line, str(error)))
    if default is Verdict.BOUNCE:
        refused.append(Refusal("default", 1, "sends packets back, which iptables does not"))
    if refused:
        raise CannotSayError(refused)
    return Tables(
        "".join(f"{line}\n" for line in sets.lines),
        _table(body[4], default, device),
        _table(body[6], default, device),
    )


def _table(lines: Sequence[str], default: Verdict, device: str) -> str:
    last = f"-A PREROUTING -i {device} {_TARGETS[default]}"
    chains = [line for line in lines if line.startswith(":")]
    rules = [line for line in lines if not line.startswith(":")]
    return "\n".join(["*raw", ":PREROUTING ACCEPT [0:0]", *chains, *rules, last, "COMMIT", ""])


def _lines(clause: Clause, family: int, rule: PlainRule, device: str, sets: _Sets) -> list[str]:
    if rule.action is Verdict.BOUNCE:
        raise UnsayableError("sends packets back, which iptables does not")
    target = _TARGETS[rule.action] if isinstance(rule.action, Verdict) else ""
    found, protocols = list[str](), clause.protocols
    others = ANY_PROTOCOL - protocols
    if 0 in protocols and 1 < others.size() <= _MULTIPORT:
        # `-p 0` would be any protocol: a chain of its own turns back what is not meant.
        chain, protocols, sets.chains = f"ps{sets.chains}", ANY_PROTOCOL, sets.chains + 1
        found += [f":{chain} - [0:0]", *(f"-A {chain} -p {number} -j RETURN" for number in _each(others))]
        found.append(f"-A {chain} {target}".rstrip())
        target = f"-j {chain}"
    for protocol in _protocols(protocols):
        tests = [list(_tests(name, values, family, protocol, sets)) for name, values in clause.tests]
        for choice in product(*tests):
            parts = ["-A PREROUTING -i", device, protocol, *_once(choice), target]
            found.append(" ".join(part for part in parts if part))
    if len(found) > MOST_RULES:
        raise UnsayableError(f"would be {len(found)} rules of iptables")
    return found


def _once(tests: Sequence[str]) -> list[str]:
    """The tests; what is said of one protocol's ports and flags stands behind one `-m`."""
    plain, grouped = list[str](), dict[str, list[str]]()
    for test in tests:
        module = " ".join(test.split()[:2])
        if module in _GROUPED:
            grouped.setdefault(module, []).append(test.removeprefix(module).strip())
        else:
            plain.append(test)
    return [*plain, *(f"{module} {' '.join(rests)}" for module, rests in grouped.items())]


def _protocols(protocols: IntervalSet) -> Iterator[str]:
    """`-p` for each; a protocol that is left out is `! -p`."""
    if protocols == ANY_PROTOCOL:
        yield ""
        return
    others = ANY_PROTOCOL - protocols
    if 0 in protocols and others.size() == 1:
        yield f"! -p {others.intervals[0][0]}"
        return
    if 0 in protocols or protocols.size() > MOST_RULES // 4:
        raise UnsayableError("asks for protocols that iptables cannot list")
    yield from (f"-p {number}" for number in _each(protocols))


def _tests(name: str, values: IntervalSet, family: int, protocol: str, sets: _Sets) -> Iterator[str]:
    match name:
        case "sport" | "dport":
            yield from _ports(name, values, int(protocol.removeprefix("-p ")))
        case "addr.src" | "addr.dst" | "ip6.src" | "ip6.dst":
            yield _addresses(name[-3:], values, family, sets)
        case "tcp.flags":
            yield from _flags(values)
        case "ttl":
            yield from _ttl(values, family)
        case "icmp.type" | "icmp6.type":
            module, option = ("icmp", "icmp-type") if family == 4 else ("icmp6", "icmpv6-type")
            for number in _each(values):
                yield f"-m {module} --{option} {number}"
        case "ip.len":
            yield from (f"-m length --length {low}:{high}" for low, high in values)
        case "dscp":
            yield from (f"-m dscp --dscp {number}" for number in _each(values))
        case "eth.src":
            for number in _each(values):
                yield f"-m mac --mac-source {number.to_bytes(6, 'big').hex(':')}"
        case _:
            raise UnsayableError(f"asks for {name}, which iptables cannot compare")


def _ttl(values: IntervalSet, family: int) -> Iterator[str]:
    module, option = ("ttl", "ttl") if family == 4 else ("hl", "hl")
    for low, high in values:
        if low == high:
            yield f"-m {module} --{option}-eq {low}"
            continue
        # xt_ttl and xt_hl make one comparison each, but may be asked twice.
        above = [f"-m {module} --{option}-gt {low - 1}"] if low else []
        below = [f"-m {module} --{option}-lt {high + 1}"] if high < 255 else []
        yield " ".join([*above, *below])


def _each(values: IntervalSet) -> Iterator[int]:
    if values.size() > MOST_RULES:
        raise UnsayableError("lists more values than iptables can")
    for low, high in values:
        yield from range(low, high + 1)


def _ports(name: str, values: IntervalSet, protocol: int) -> Iterator[str]:
    side = "source" if name == "sport" else "destination"
    if len(values.intervals) == 1:
        yield f"-m {_MODULES[protocol]} --{side}-port {_port(values.intervals[0])}"
        return
    room, part = _MULTIPORT, list[str]()
    for interval in values:
        needed = 1 if interval[0] == interval[1] else 2
        if needed > room:
            yield f"-m multiport --{side}-ports {','.join(part)}"
            room, part = _MULTIPORT, []
        part.append(_port(interval))
        room -= needed
    yield f"-m multiport --{side}-ports {','.join(part)}"


def _port(interval: Interval) -> str:
    low, high = interval
    return str(low) if low == high else f"{low}:{high}"


def _addresses(side: str, values: IntervalSet, family: int, sets: _Sets) -> str:
    kind = IPv4Address if family == 4 else IPv6Address
    prefixes = [
        str(prefix) for low, high in values for prefix in summarize_address_range(kind(low), kind(high))
    ]
    if len(prefixes) == 1:
        return f"-{side[0]} {prefixes[0]}"
    return f"-m set --match-set {sets.name(family, values, prefixes)} {side}"


def _flags(values: IntervalSet) -> Iterator[str]:
    for mask, value in masks(values):
        if mask & ~0x3F:
            raise UnsayableError("asks for ECE or CWR, which iptables' --tcp-flags cannot")
        yield f"-m tcp --tcp-flags {_names(mask)} {_names(value)}"


def _names(bits: int) -> str:
    return ",".join(name for at, name in enumerate(_FLAGS) if bits >> at & 1) or "NONE"
