"""What follows from a term, as keys that are quick to compare.

A key stands for the canonical text of a term: two terms have equal keys if
their texts are equal.  Host and network addresses are kept as numbers, so that
the networks around an address are found without spelling each:

    key_of(`tcp dst port 80`)       ("tcp", "dst", "port", "80")
    key_of(`src net 10.0.0.0/8`)    (None, "src", "net", 4, 8, 0x0a000000)
    key_of(`tcp`)                   "tcp"
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

Part = str | int | None
Key = str | tuple[Part, ...]
Qualified = tuple[str | None, Direction | None, Kind | None]

_IMPLIED_PROTOCOLS = frozenset({"tcp", "udp", "sctp", "ip", "ip6", "arp", "rarp"})
_HOST = -1
_WIDTHS = {4: 32, 6: 128}
_ADDRESS_KINDS = frozenset({None, "host", "net"})


def key_of(term: Expr) -> Key:
    """The key of a term of an `and` chain."""
    if not isinstance(term, Primitive):
        return format_expression(term)
    qualifiers = term.qualifiers
    return (qualifiers.protocol, qualifiers.direction, qualifiers.kind, *_value_key(term.value))


def _value_key(value: Value) -> tuple[str | int, ...]:
    """A host is a network of a length of its own: `net 10.0.0.1/32` is another text."""
    if isinstance(value, Prefix):
        network = value.network
        if isinstance(network, Address) and value.length is not None and value.mask is None:
            return network.address.version, value.length, int(network.address)
    elif isinstance(value, Address):
        return value.address.version, _HOST, int(value.address)
    return (spell_value(value),)


class Implications:
    """What a term implies, as far as somebody asked for it: of wider networks only those that were learnt."""

    def __init__(self) -> None:
        #: (protocol, direction, version) -> length -> (bits behind it, networks without these bits)
        self._networks: dict[tuple[Part, Part, int], dict[int, tuple[int, set[int]]]] = {}

    def learn(self, key: Key) -> None:
        """Find the network that a term names around addresses, from now on."""
        match key:
            case (protocol, direction, "net", int(version), int(length), int(network)) if length != _HOST:
                shift = max(
                    _WIDTHS[version] - length, 0
                )  # A length beyond the width is a fault told elsewhere.
                of_kind = self._networks.setdefault((protocol, direction, version), {})
                of_kind.setdefault(length, (shift, set()))[1].add(network >> shift)
            case _:
                pass

    def of(self, term: Expr, key: Key) -> Iterator[Key]:
        """The keys of terms that hold wherever this one does, its own among them."""
        yield key
        match term:
            case Primitive():
                yield from self._of_primitive(term.qualifiers, key[3:])
            case Relation():
                for part in terms(term):
                    # An accessor is only there in packets of its protocol; comparisons of what is absent are false.
                    if isinstance(part, Accessor) and part.protocol != "ether":
                        yield part.protocol
            case Protocol(name="icmp" | "igmp"):
                yield "ip"
            case Protocol(name="icmp6"):
                yield "ip6"
            case _:
                pass

    def _of_primitive(self, qualifiers: Qualifiers, value: Sequence[Part]) -> Iterator[Key]:
        protocol, kind = qualifiers.protocol, qualifiers.kind
        if protocol in _IMPLIED_PROTOCOLS:
            yield protocol
        qualified = (protocol, qualifiers.direction, kind)
        for wider in _wider_qualifiers(qualified):
            yield (*wider, *value)
        if kind in _ADDRESS_KINDS and protocol != "ether":
            yield from self._wider_networks(qualified, value)

    def _wider_networks(self, qualified: Qualified, value: Sequence[Part]) -> Iterator[Key]:
        """The networks around a host or network."""
        match value:
            case (int(version), int(length), int(address)):
                longest = _WIDTHS[version] if length == _HOST else length
            case _:
                return
        for protocol, direction in _protocols_and_directions(qualified):
            networks = self._networks.get((protocol, direction, version))
            for shorter, (shift, known) in networks.items() if networks else ():
                if address >> shift in known and shorter <= longest:
                    yield protocol, direction, "net", version, shorter, address >> shift << shift


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
