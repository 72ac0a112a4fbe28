"""The abstract syntax of an expression: values, arithmetic, primitives and what joins them.

    tcp dst port 80 or 443      Or(Primitive(Qualifiers("tcp", "dst", "port"), Number(80)),
                                   Primitive(Qualifiers("tcp", "dst", "port"), Number(443), inherited=True))

Every node has a `span` that plays no part in equality; names are kept as written.
`lang.ast` has the statements around it, and gives all of these too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from penstock.compiler.lang.source import Span
from penstock.model.limiter import Key, Period

NOWHERE = Span(0, 0)


def no_span() -> Span:
    """A field for a node's span, which tells no two nodes apart."""
    return field(default=NOWHERE, compare=False, repr=False)


# ── values: what stands behind qualifiers, or in a `let` ─────────────────────


@dataclass(frozen=True, slots=True)
class Number:
    """`80`, `0x50`, `0120` (octal, as in pcap-filter).  `text` keeps the spelling."""

    value: int
    text: str = field(default="", compare=False)
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Name:
    """A host, network, service, protocol or address-list name: `domain`, `www.example.org`."""

    text: str
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Address:
    """A full IPv4 or IPv6 address."""

    address: IPv4Address | IPv6Address
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class PartialAddress:
    """One to three octets of an IPv4 network, as `net 10.1` or `net 192.168.0`; missing octets are host bits."""

    octets: tuple[int, ...]
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Prefix:
    """`10.0.0.0/8`, `10/8`, `2001:db8::/32`, or `net 10.0.0.0 mask 255.0.0.0` (then `mask` is kept)."""

    network: Address | PartialAddress
    length: int | None = None
    mask: IPv4Address | None = None
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Mac:
    """An Ethernet address, six bytes."""

    octets: bytes
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class PortRange:
    """`8000-8100`, `ftp-data-ssh`; the ends are numbers or service names."""

    low: Number | Name
    high: Number | Name
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Constant:
    """`$office`: every value of that `let`, one after the other, joined by `or`."""

    name: str
    span: Span = no_span()


Value = Number | Name | Address | PartialAddress | Prefix | Mac | PortRange | Constant

# ── arithmetic ───────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class NamedNumber:
    """A pcap-filter constant inside arithmetic: `tcp-syn`, `icmp-echo`, `tcpflags` (an offset)."""

    name: str
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class FieldValue:
    """A named field inside arithmetic: `ttl`, `tcp.flags`, `len` (the wire length)."""

    name: str
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Accessor:
    """`proto[offset:size]`: bytes of the packet as an unsigned number in network order."""

    protocol: str
    offset: Arithmetic
    size: int = 1
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Binary:
    """`left OPERATOR right` in unsigned 32-bit arithmetic."""

    operator: BinaryOperator
    left: Arithmetic
    right: Arithmetic
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Negate:
    """Unary minus."""

    operand: Arithmetic
    span: Span = no_span()


BinaryOperator = Literal["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>"]
Arithmetic = Number | NamedNumber | FieldValue | Accessor | Binary | Negate | Constant

# ── expressions ──────────────────────────────────────────────────────────────

Direction = Literal["src", "dst", "src or dst", "src and dst"]
Kind = Literal["host", "net", "port", "portrange", "proto", "protochain", "gateway"]
RelationOperator = Literal["<", "<=", ">", ">=", "==", "!="]


@dataclass(frozen=True, slots=True)
class Qualifiers:
    """What stands before a value; None where nothing was written (or inherited)."""

    protocol: str | None = None
    direction: Direction | None = None
    kind: Kind | None = None


@dataclass(frozen=True, slots=True)
class Primitive:
    """Qualifiers and a value; `inherited` when the qualifiers were those of the primitive to the left."""

    qualifiers: Qualifiers
    value: Value
    inherited: bool = field(default=False, compare=False)
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Protocol:
    """A protocol's bare name: `tcp`, `ip6`, `arp`, `stp`, `isis`, `l1` …"""

    name: str
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Cast:
    """`[ether|ip|ip6] broadcast|multicast`."""

    protocol: str | None
    kind: Literal["broadcast", "multicast"]
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class LengthTest:
    """`less N` (length <= N) and `greater N` (length >= N)."""

    kind: Literal["less", "greater"]
    length: int
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Encapsulation:
    """`vlan [ID]`, `mpls [LABEL]`, `pppoed`, `pppoes [SESSION]`, `geneve [VNI]`, `vxlan [VNI]`."""

    kind: Literal["vlan", "mpls", "pppoed", "pppoes", "geneve", "vxlan"]
    number: int | None = None
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Llc:
    """`llc [TYPE]`; the type is `i`, `s`, `u`, or a frame name such as `rr` or `sabme`."""

    kind: str | None = None
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Way:
    """`inbound` or `outbound`."""

    kind: Literal["inbound", "outbound"]
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class AtInterface:
    """`ifname "eth0"`: the interface that the packet is at; `name_span` is the name's place."""

    name: str
    name_span: Span = no_span()
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class FieldFlag:
    """A Boolean named field standing alone: `frag`, `frag.first`, `frag.later`."""

    name: str
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Pcap:
    """`pcap "EXPR"`: libpcap's own meaning of the text, which `text_span` is the place of, without its quotes."""

    text: str
    text_span: Span = no_span()
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Over:
    """`over RATE [bytes] per KEY [burst B] [size N]`; None where nothing was written."""

    tokens: int
    period: Period
    key: Key
    bytes: bool = False
    burst: int | None = None
    size: int | None = None
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Sample:
    """`sample 1/N`: true of one packet in N, by chance."""

    one_in: int
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Relation:
    """`left OPERATOR right` over arithmetic; `=` is read as `==`."""

    operator: RelationOperator
    left: Arithmetic
    right: Arithmetic
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Not:
    operand: Expr
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class And:
    left: Expr
    right: Expr
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Or:
    left: Expr
    right: Expr
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Xor:
    """Exactly one of the two; same precedence as `and` and `or` (a penstock extension)."""

    left: Expr
    right: Expr
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Inner:
    """`inner(EXPR)`: the expression holds of the packet that this one carries."""

    operand: Expr
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Membership:
    """`src in @threats`, `src . dst port in @allowed`: what the qualifiers name is in a set."""

    keys: tuple[Qualifiers, ...]
    set: str
    set_span: Span = no_span()
    span: Span = no_span()


Leaf = (
    Primitive
    | Protocol
    | Cast
    | LengthTest
    | Encapsulation
    | Llc
    | Way
    | AtInterface
    | FieldFlag
    | Relation
    | Pcap
    | Over
    | Sample
    | Inner
    | Membership
)
Expr = And | Or | Xor | Not | Leaf
