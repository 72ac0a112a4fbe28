"""What follows from a term, as keys that are quick to compare.

A key stands for the canonical text of a term: two terms have equal keys if
their texts are equal.  Host and network addresses are kept as numbers, so that
the networks around an address are found without spelling each:

    key_of(`tcp dst port 80`)       ("tcp", "dst", "port", "80")
    key_of(`src net 10.0.0.0/8`)    (None, "src", "net", 4, 8, 0x0a000000)
    key_of(`tcp`)                   "tcp"
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from penstock.compiler.lang.ast import (
    Accessor,
    Address,
    Direction,
    Expr,
    Kind,
    Prefix,
    Primitive,
    Protocol,
    Qualifiers,
    Relation,
    Value,
)
from penstock.compiler.lang.spelling import format_expression, spell_value
from penstock.compiler.lang.walk import terms

Key = str | tuple[str | int | None, ...]
Qualified = tuple[str | None, Direction | None, Kind | None]

_IMPLIED_PROTOCOLS = frozenset({"tcp", "udp", "sctp", "ip", "ip6", "arp", "rarp"})
_CARRIED_BY = {"icmp": "ip", "igmp": "ip", "icmp6": "ip6"}


def key_of(term: Expr) -> Key:
    """The key of a term of an `and` chain."""
    if not isinstance(term, Primitive):
        return format_expression(term)
    qualifiers = term.qualifiers
    return (qualifiers.protocol, qualifiers.direction, qualifiers.kind, *_value_key(term.value))


def _value_key(value: Value) -> tuple[str | int, ...]:
    """A host is a network of length -1: `net 10.0.0.1/32` is another text."""
    match value:
        case Address(address=address):
            return address.version, -1, int(address)
        case Prefix(network=Address(address=address), length=int(length), mask=None):
            return address.version, length, int(address)
        case _:
            return (spell_value(value),)


class Implications:
    """What a term implies, as far as somebody asked for it: of wider networks only those that were learnt."""

    def __init__(self) -> None:
        self._networks: dict[tuple[str | None, Direction | None, int], dict[int, set[int]]] = {}

    def learn(self, term: Expr) -> Key:
        """The term's key; networks that it names will be found around addresses."""
        match term:
            case Primitive(
                qualifiers=Qualifiers(kind="net") as qualifiers,
                value=Prefix(network=Address(address=address), length=int(length), mask=None),
            ):
                kind = (qualifiers.protocol, qualifiers.direction, address.version)
                self._networks.setdefault(kind, {}).setdefault(length, set()).add(int(address))
            case _:
                pass
        return key_of(term)

    def of(self, term: Expr) -> Iterator[Key]:
        """The keys of terms that hold wherever this one does, its own among them."""
        match term:
            case Primitive():
                yield from self._of_primitive(term)
            case Relation():
                yield key_of(term)
                for part in terms(term):
                    # An accessor is only there in packets of its protocol; comparisons of what is absent are false.
                    if isinstance(part, Accessor) and part.protocol != "ether":
                        yield part.protocol
            case Protocol(name=name):
                yield name
                if name in _CARRIED_BY:
                    yield _CARRIED_BY[name]
            case _:
                yield key_of(term)

    def _of_primitive(self, primitive: Primitive) -> Iterator[Key]:
        qualifiers = primitive.qualifiers
        if qualifiers.protocol in _IMPLIED_PROTOCOLS:
            yield qualifiers.protocol
        value = _value_key(primitive.value)
        qualified = (qualifiers.protocol, qualifiers.direction, qualifiers.kind)
        for wider in _wider_qualifiers(qualified):
            yield (*wider, *value)
        if qualifiers.kind in {None, "host", "net"} and qualifiers.protocol != "ether":
            yield from self._wider_networks(qualified, value)

    def _wider_networks(self, qualified: Qualified, value: tuple[str | int, ...]) -> Iterator[Key]:
        """The networks around a host or network."""
        match value:
            case (int(version), int(length), int(address)):
                width = 32 if version == 4 else 128
            case _:
                return
        for protocol, direction in _protocols_and_directions(qualified):
            networks = self._networks.get((protocol, direction, version))
            for shorter, known in networks.items() if networks else ():
                kept = address >> (width - shorter) << (width - shorter)
                if kept in known and (shorter <= length or length < 0):
                    yield protocol, direction, "net", version, shorter, kept


@cache
def _wider_qualifiers(qualified: Qualified) -> tuple[Qualified, ...]:
    """The qualifiers, and those under which the same value is found in more packets, or as many."""
    kind = qualified[2]
    found = [qualified]
    for protocol, direction in _protocols_and_directions(qualified):
        is_host = direction is not None and kind in {None, "host"}
        found += [(protocol, direction, same) for same in (("host", None) if is_host else (kind,))]
    return tuple(dict.fromkeys(found))


@cache
def _protocols_and_directions(qualified: Qualified) -> tuple[tuple[str | None, Direction | None], ...]:
    protocol, direction, kind = qualified
    protocols = [protocol]
    if kind not in {"proto", "protochain"} and protocol not in {"ether", "decnet"}:
        protocols.append(None)
    return tuple(dict.fromkeys((one, wider) for one in protocols for wider in _directions(direction)))


def _directions(direction: Direction | None) -> tuple[Direction | None, ...]:
    match direction:
        case None | "src or dst":
            return None, "src or dst"
        case "src and dst":
            return "src and dst", "src", "dst", None, "src or dst"
        case "src" | "dst":
            return direction, None, "src or dst"
