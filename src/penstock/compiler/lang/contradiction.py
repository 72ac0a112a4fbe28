"""Terms that cannot hold together, or not at all: `tcp and udp`, two ports in one field, `ip proto 300`.

Only what one `and` chain says plainly is looked at.  Behind an encapsulation
(`vlan`, `mpls`, …) the terms may speak of different headers, so expressions
with one are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from penstock.compiler.lang.ast import (
    Accessor,
    Address,
    Encapsulation,
    Expr,
    FieldValue,
    Number,
    Prefix,
    Primitive,
    Protocol,
    Relation,
)
from penstock.compiler.lang.findings import Findings
from penstock.compiler.lang.spelling import spell_leaf, spell_qualifiers, spell_value
from penstock.compiler.lang.walk import chains, inner_leaves, terms

_NETWORK = frozenset({"ip", "ip6", "arp", "rarp"})
_TRANSPORT = frozenset({"tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "pim"})
#: Transport protocols that only one network protocol carries.
_CARRIED_BY = {"icmp": "ip", "igmp": "ip", "icmp6": "ip6"}
_EXCLUSIVE_KINDS = {"port": "port", "host": "address", None: "address"}

#: What a term demands of a packet: (which property, its value).
Demand = tuple[str, str]


def check_contradictions(expr: Expr | None, findings: Findings) -> None:
    """Warn of chains that no packet can satisfy and of numbers that no field can hold."""
    if expr is None:
        return
    found = list(inner_leaves(expr))
    if not any(isinstance(leaf, Encapsulation) for leaf in found):
        for chain in chains(expr):
            _check_chain(chain, findings)
    for leaf in found:
        if isinstance(leaf, Primitive):
            _check_number(leaf, findings)


def _check_chain(chain: list[Expr], findings: Findings) -> None:
    demanded: dict[str, tuple[str, Expr]] = {}
    for operand in chain:
        for what, value in demands(operand):
            before = demanded.setdefault(what, (value, operand))
            if before[0] != value:
                message = f"no packet has both: {what} {before[0]} and {what} {value}"
                hint = "join them with `or`" if what.endswith(("port", "address", "protocol")) else None
                findings.warning("PS204", message, operand.span, hint=hint)
                return


def demands(expr: Expr) -> Iterator[Demand]:
    """What the packet must have for this one term to hold."""
    match expr:
        case Protocol(name=name):
            yield from _protocol(name)
        case Primitive():
            yield from _protocol(expr.qualifiers.protocol)
            yield from _value(expr)
        case Relation():
            for term in terms(expr):
                match term:
                    case Accessor(protocol=protocol):
                        yield from _protocol(protocol)
                    case FieldValue(name=name):
                        yield from _protocol(name.partition(".")[0])
                    case _:
                        pass
        case _:
            return


def _protocol(name: str | None) -> Iterator[Demand]:
    if name in _NETWORK:
        yield "network protocol", name
    if name in _TRANSPORT:
        yield "transport protocol", name
        if name in _CARRIED_BY:
            yield "network protocol", _CARRIED_BY[name]


def _value(primitive: Primitive) -> Iterator[Demand]:
    qualifiers, value = primitive.qualifiers, primitive.value
    network = value.network if isinstance(value, Prefix) else value
    if isinstance(network, Address) and network.address.version == 6:
        yield "network protocol", "ip6"
    what = _EXCLUSIVE_KINDS.get(qualifiers.kind)
    if what is None or qualifiers.direction not in {"src", "dst"}:
        return
    way = "source" if qualifiers.direction == "src" else "destination"
    if isinstance(value, Number) and what == "port":
        yield f"{way} port", str(value.value)
    elif isinstance(value, Address):
        yield f"{way} address", spell_value(value)


def _check_number(leaf: Primitive, findings: Findings) -> None:
    if leaf.qualifiers.kind not in {"proto", "protochain"} or not isinstance(leaf.value, Number):
        return
    most = {"ether": 0xFFFF, "isis": 0x1F}.get(leaf.qualifiers.protocol or "", 0xFF)
    if leaf.value.value > most:
        message = (
            f"`{spell_leaf(leaf)}` never matches: `{spell_qualifiers(leaf.qualifiers)}` goes up to {most}"
        )
        findings.warning("PS205", message, leaf.span)
