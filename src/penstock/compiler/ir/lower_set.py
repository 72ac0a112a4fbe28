"""Membership: `src in @threats`, `tcp dst port in @web`, `src . dst port in @allowed`.

It means what a list of the set's entries would mean in its place: `src in @s`
is true of the packets of which `src host A` is for an address A of a host set,
or `src net N` for a network N of a net set; so addresses of ARP are asked too.
A test of a set is of one family, IPv4 or IPv6, so that each is one lookup.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from penstock.compiler.ir.headers import ARP, RARP
from penstock.compiler.ir.lower_address import by_direction
from penstock.compiler.ir.lower_port import PROTOCOLS
from penstock.compiler.ir.lower_protocol import link_type
from penstock.compiler.ir.ops import FieldRef, Member, Predicate
from penstock.compiler.ir.simplify import FALSE, all_of, any_of, equals
from penstock.compiler.lang.ast import Membership, Qualifiers
from penstock.compiler.lang.sets import fits, misfit, undefined

if TYPE_CHECKING:
    from penstock.compiler.ir.lowering import Lowering, Position
    from penstock.model.sets import SetSpec


def membership(lowering: Lowering, node: Membership, at: Position) -> Predicate:
    """What a test of a set means at a place."""
    spec = lowering.sets.get(node.set)
    if spec is None:
        message, span, hint = undefined(node, lowering.sets)
        return lowering.fault("PS301", message, span, hint=hint)
    if not fits(node.keys, spec.kind):
        return lowering.fault("PS302", misfit(node, spec), node.span)
    if at.on_ppp and "mac" in spec.kind:
        return lowering.fault("PS309", "behind PPPoE there are no Ethernet addresses", node.span)
    moment = lowering.changes[spec.name]
    if len(node.keys) == 1:
        (key,) = node.keys
        test = by_direction(key.direction, lambda side: _asked(spec, ((key, side),), at, moment))
        return all_of((*_condition(lowering, key, at, node), test))
    conditions = [one for key in node.keys for one in _condition(lowering, key, at, node)]
    return all_of(
        (*conditions, _asked(spec, tuple((key, key.direction or "") for key in node.keys), at, moment))
    )


def _asked(spec: SetSpec, keys: tuple[tuple[Qualifiers, str], ...], at: Position, moment: int) -> Predicate:
    """The lookup in each family that all of the key's parts can have."""
    tests = []
    for family in spec.families:
        fields = [
            _fields(key, side, part, family, at) for (key, side), part in zip(keys, spec.kind, strict=True)
        ]
        tests += [Member(spec.name, refs, spec.counters, moment) for refs in product(*fields)]
    return any_of(tests) if tests else FALSE


def _fields(key: Qualifiers, side: str, part: str, family: str, at: Position) -> tuple[FieldRef, ...]:
    """The field that a part of a key is in packets of a family; none where it cannot be."""
    match part:
        case "port":
            prefix = f"{key.protocol}." if key.protocol in ("tcp", "udp") else ""
            return (at.field(f"{prefix}{side[0]}port"),)
        case "mac":
            return (at.field(f"eth.{side}"),)
        case "proto":
            names = {None: "proto", "ip": "ip.proto", "ip6": "ip6.proto"}
            return (at.field(names[key.protocol]),)
        case _:
            return _addresses(key, side, family, at)


def _addresses(key: Qualifiers, side: str, family: str, at: Position) -> tuple[FieldRef, ...]:
    if family == "v6":
        return (at.field(f"ip6.{side}"),) if key.protocol in (None, "ip6") else ()
    if key.protocol == "ip6":
        return ()
    is_ip = key.protocol == "ip" or (key.protocol is None and at.in_mpls)
    return (at.field(f"{'ip' if is_ip else 'addr'}.{side}"),)


def _condition(lowering: Lowering, key: Qualifiers, at: Position, node: Membership) -> tuple[Predicate, ...]:
    """What a protocol before a part asks besides the field."""
    match key.protocol:
        case "arp" | "rarp":
            return (link_type(lowering, ARP if key.protocol == "arp" else RARP, at, node.span),)
        case "sctp":
            return (equals(at.field("proto"), PROTOCOLS["sctp"]),)
        case _:
            return ()
