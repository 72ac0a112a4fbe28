"""What a filter that drops by default must not forget, or the host falls off its network.

Each warning comes with the line that would mend it.  A `pass` rule that speaks
of the service at all is enough: somebody has thought about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from penstock.compiler.lang.ast import (
    Accessor,
    Constant,
    Expr,
    FieldValue,
    Filter,
    Leaf,
    Name,
    Number,
    Policy,
    PortRange,
    Primitive,
    Protocol,
    Relation,
    Value,
)
from penstock.compiler.lang.findings import Findings
from penstock.compiler.lang.walk import leaves, terms
from penstock.model.verdict import DENYING

_ARP, _IP6_ICMP = 0x0806, 58
_DHCP_PORTS = (67, 68, 546, 547)
_DHCP_NAMES = frozenset({"bootps", "bootpc", "dhcpv6-client", "dhcpv6-server"})


@dataclass(frozen=True, slots=True)
class _Service:
    code: str
    name: str
    consequence: str
    line: str
    is_meant: Callable[[Leaf, tuple[Value, ...]], bool]


def check_denial(item: Filter, policy: Policy, findings: Findings) -> None:
    """Warn of each service that a deny-by-default filter has no rule for."""
    if item.default not in DENYING or any(
        _passes_everything(rule.action, rule.condition) for rule in item.rules
    ):
        return
    constants = {let.name: let.values for let in policy.constants}
    found = [leaf for rule in item.rules if rule.action == "pass" for leaf in leaves(rule.condition)]
    for service in _SERVICES:
        if not any(service.is_meant(leaf, _values(leaf, constants)) for leaf in found):
            denies = f"`{item.name}` {item.default.value}s by default"
            message = f"{denies} and has no rule for {service.name}: {service.consequence}"
            findings.warning(service.code, message, item.default_span, hint=f"to let it in: {service.line}")


def _passes_everything(action: str, condition: Expr | None) -> bool:
    return action == "pass" and condition is None


def _values(leaf: Leaf, constants: dict[str, tuple[Value, ...]]) -> tuple[Value, ...]:
    """The values of a primitive, with a constant's in its place."""
    if not isinstance(leaf, Primitive):
        return ()
    if isinstance(leaf.value, Constant):
        return constants.get(leaf.value.name, ())
    return (leaf.value,)


def _reads(leaf: Leaf, protocol: str) -> bool:
    """Whether the leaf is the protocol, or compares something of its header."""
    if isinstance(leaf, Protocol):
        return leaf.name == protocol
    if not isinstance(leaf, Relation):
        return False
    for term in terms(leaf):
        if isinstance(term, Accessor) and term.protocol == protocol:
            return True
        if isinstance(term, FieldValue) and term.name.startswith(f"{protocol}."):
            return True
    return False


def _is_number(value: Value, numbers: Iterable[int], names: Iterable[str]) -> bool:
    match value:
        case Number(value=number):
            return number in numbers
        case Name(text=text):
            return text in names
        case PortRange(low=Number(value=low), high=Number(value=high)):
            return any(min(low, high) <= number <= max(low, high) for number in numbers)
        case _:
            return False


def _is_arp(leaf: Leaf, values: tuple[Value, ...]) -> bool:
    if isinstance(leaf, Primitive):
        is_type = leaf.qualifiers.protocol == "ether" and leaf.qualifiers.kind == "proto"
        return leaf.qualifiers.protocol == "arp" or (
            is_type and any(_is_number(v, (_ARP,), ("arp",)) for v in values)
        )
    return _reads(leaf, "arp") or _compares(leaf, "eth.type", _ARP)


def _is_discovery(leaf: Leaf, values: tuple[Value, ...]) -> bool:
    if isinstance(leaf, Primitive):
        names = ("icmp6", "ipv6-icmp")
        is_proto = leaf.qualifiers.kind in {"proto", "protochain"}
        return is_proto and any(_is_number(value, (_IP6_ICMP,), names) for value in values)
    return _reads(leaf, "icmp6") or (isinstance(leaf, Protocol) and leaf.name == "ip6")


def _is_dhcp(leaf: Leaf, values: tuple[Value, ...]) -> bool:
    if isinstance(leaf, Primitive) and leaf.qualifiers.kind in {"port", "portrange"}:
        of_udp = leaf.qualifiers.protocol in {None, "udp"}
        return of_udp and any(_is_number(value, _DHCP_PORTS, _DHCP_NAMES) for value in values)
    return isinstance(leaf, Protocol) and leaf.name == "udp"


def _is_reply(leaf: Leaf, _values: tuple[Value, ...]) -> bool:
    if isinstance(leaf, Primitive):
        is_port = leaf.qualifiers.kind in {"port", "portrange"}
        return is_port and leaf.qualifiers.direction == "src" and leaf.qualifiers.protocol in {None, "tcp"}
    return _reads(leaf, "tcp")


def _compares(leaf: Leaf, field: str, number: int) -> bool:
    if not isinstance(leaf, Relation):
        return False
    found = list(terms(leaf))
    has_field = any(isinstance(term, FieldValue) and term.name == field for term in found)
    return has_field and any(isinstance(term, Number) and term.value == number for term in found)


_SERVICES = (
    _Service("PS210", "ARP", "IPv4 neighbours cannot be found", "pass if arp", _is_arp),
    _Service(
        "PS211",
        "IPv6 neighbour discovery",
        "IPv6 neighbours and routers cannot be found",
        "pass if icmp6[icmp6type] >= 133 and icmp6[icmp6type] <= 137",
        _is_discovery,
    ),
    _Service(
        "PS212",
        "DHCP",
        "the host's address cannot be renewed",
        "pass if udp dst port (68 or 546)",
        _is_dhcp,
    ),
    _Service(
        "PS213",
        "the replies to its own connections",
        "what the host asks is never answered",
        "pass if tcp[tcpflags] & tcp-ack != 0 and dst portrange 32768-60999",
        _is_reply,
    ),
)
