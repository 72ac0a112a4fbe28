"""The abstract syntax of a policy: what was written, before it means anything.

Every node has a `span` that plays no part in equality, so that
``parse(format(policy)) == policy`` can be stated.  Names are kept as written
(`Name("domain")`, `Constant("office")`): resolving them is `ir.lower`'s work,
complaining about them is `check`'s.

    tcp dst port 80 or 443      Or(Primitive(Qualifiers("tcp", "dst", "port"), Number(80)),
                                   Primitive(Qualifiers("tcp", "dst", "port"), Number(443), inherited=True))
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from penstock.compiler.lang.source import Source, Span
from penstock.model.action import Argument, spelled
from penstock.model.feeds import SetFeed
from penstock.model.limiter import Key, Period
from penstock.model.packet import LayerSpec
from penstock.model.sets import DEFAULT_SIZE, SetSpec
from penstock.model.verdict import Condition, Verdict

NOWHERE = Span(0, 0)


def _span() -> Span:
    return field(default=NOWHERE, compare=False, repr=False)


# ── values: what stands behind qualifiers, or in a `let` ─────────────────────


@dataclass(frozen=True, slots=True)
class Number:
    """`80`, `0x50`, `0120` (octal, as in pcap-filter).  `text` keeps the spelling."""

    value: int
    text: str = field(default="", compare=False)
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Name:
    """A host, network, service, protocol or address-list name: `domain`, `www.example.org`."""

    text: str
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Address:
    """A full IPv4 or IPv6 address."""

    address: IPv4Address | IPv6Address
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class PartialAddress:
    """One to three octets of an IPv4 network, as `net 10.1` or `net 192.168.0`; missing octets are host bits."""

    octets: tuple[int, ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Prefix:
    """`10.0.0.0/8`, `10/8`, `2001:db8::/32`, or `net 10.0.0.0 mask 255.0.0.0` (then `mask` is kept)."""

    network: Address | PartialAddress
    length: int | None = None
    mask: IPv4Address | None = None
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Mac:
    """An Ethernet address, six bytes."""

    octets: bytes
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class PortRange:
    """`8000-8100`, `ftp-data-ssh`; the ends are numbers or service names."""

    low: Number | Name
    high: Number | Name
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Constant:
    """`$office`: every value of that `let`, one after the other, joined by `or`."""

    name: str
    span: Span = _span()


Value = Number | Name | Address | PartialAddress | Prefix | Mac | PortRange | Constant

# ── arithmetic ───────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class NamedNumber:
    """A pcap-filter constant inside arithmetic: `tcp-syn`, `icmp-echo`, `tcpflags` (an offset)."""

    name: str
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class FieldValue:
    """A named field inside arithmetic: `ttl`, `tcp.flags`, `len` (the wire length)."""

    name: str
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Accessor:
    """`proto[offset:size]`: bytes of the packet as an unsigned number in network order."""

    protocol: str
    offset: Arithmetic
    size: int = 1
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Binary:
    """`left OPERATOR right` in unsigned 32-bit arithmetic."""

    operator: BinaryOperator
    left: Arithmetic
    right: Arithmetic
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Negate:
    """Unary minus."""

    operand: Arithmetic
    span: Span = _span()


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
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Protocol:
    """A protocol's bare name: `tcp`, `ip6`, `arp`, `stp`, `isis`, `l1` …"""

    name: str
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Cast:
    """`[ether|ip|ip6] broadcast|multicast`."""

    protocol: str | None
    kind: Literal["broadcast", "multicast"]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class LengthTest:
    """`less N` (length <= N) and `greater N` (length >= N)."""

    kind: Literal["less", "greater"]
    length: int
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Encapsulation:
    """`vlan [ID]`, `mpls [LABEL]`, `pppoed`, `pppoes [SESSION]`, `geneve [VNI]`, `vxlan [VNI]`."""

    kind: Literal["vlan", "mpls", "pppoed", "pppoes", "geneve", "vxlan"]
    number: int | None = None
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Llc:
    """`llc [TYPE]`; the type is `i`, `s`, `u`, or a frame name such as `rr` or `sabme`."""

    kind: str | None = None
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Way:
    """`inbound` or `outbound`."""

    kind: Literal["inbound", "outbound"]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class AtInterface:
    """`ifname "eth0"`: the interface that the packet is at; `name_span` is the name's place."""

    name: str
    name_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class FieldFlag:
    """A Boolean named field standing alone: `frag`, `frag.first`, `frag.later`."""

    name: str
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Pcap:
    """`pcap "EXPR"`: libpcap's own meaning of the text, which `text_span` is the place of, without its quotes."""

    text: str
    text_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Over:
    """`over RATE [bytes] per KEY [burst B] [size N]`; None where nothing was written."""

    tokens: int
    period: Period
    key: Key
    bytes: bool = False
    burst: int | None = None
    size: int | None = None
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Sample:
    """`sample 1/N`: true of one packet in N, by chance."""

    one_in: int
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Relation:
    """`left OPERATOR right` over arithmetic; `=` is read as `==`."""

    operator: RelationOperator
    left: Arithmetic
    right: Arithmetic
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Not:
    operand: Expr
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class And:
    left: Expr
    right: Expr
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Or:
    left: Expr
    right: Expr
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Xor:
    """Exactly one of the two; same precedence as `and` and `or` (a penstock extension)."""

    left: Expr
    right: Expr
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Inner:
    """`inner(EXPR)`: the expression holds of the packet that this one carries."""

    operand: Expr
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Membership:
    """`src in @threats`, `src . dst port in @allowed`: what the qualifiers name is in a set."""

    keys: tuple[Qualifiers, ...]
    set: str
    set_span: Span = _span()
    span: Span = _span()


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

# ── statements ───────────────────────────────────────────────────────────────

ActionWord = Literal[
    "pass",
    "drop",
    "bounce",
    "redirect",
    "reject",
    "audit",
    "count",
    "mark",
    "dscp",
    "mirror",
    "add",
    "remove",
]


@dataclass(frozen=True, slots=True)
class Let:
    """`let NAME = VALUE, VALUE …`"""

    name: str
    values: tuple[Value, ...]
    name_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class FeedClause:
    """`feed SOURCE [format F] [every TIME]` of a set; a preset is written as a bare word."""

    source: str
    is_preset: bool
    format: str | None = None
    every_ns: int | None = None
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class SetDefinition:
    """`set NAME : KIND [size N] [timeout TIME] [counters] [dynamic] [as trie|flat]`; None where nothing was written."""

    name: str
    kind: tuple[str, ...]
    size: int | None = None
    timeout_ns: int | None = None
    counters: bool = False
    dynamic: bool = False
    name_span: Span = _span()
    span: Span = _span()
    feeds: tuple[FeedClause, ...] = ()
    structure: str | None = None

    @property
    def fed_by(self) -> tuple[SetFeed, ...]:
        """The feeds that fill it."""
        return tuple(
            SetFeed(self.name, one.source, one.format, None if one.every_ns is None else one.every_ns / 1e9)
            for one in self.feeds
        )

    @property
    def spec(self) -> SetSpec:
        """What it defines, with what was left out filled in."""
        size, structure = self.size or DEFAULT_SIZE, self.structure or ""
        return SetSpec(self.name, self.kind, size, self.timeout_ns, self.counters, self.dynamic, structure)


@dataclass(frozen=True, slots=True)
class OnCondition:
    """`on CONDITION pass|drop|continue`; verdict None means continue."""

    condition: Condition
    verdict: Verdict | None
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Rule:
    """`[LABEL:] ACTION [ARGUMENT] [if EXPR]`; `action_span` is that of the word and its argument.

    `target` are the keys and the set of a rule that changes one.
    """

    action: ActionWord
    condition: Expr | None
    label: str | None = None
    label_span: Span = _span()
    span: Span = _span()
    argument: Argument | None = None
    action_span: Span = _span()
    target: Membership | None = None

    @property
    def doing(self) -> str:
        """The action with its argument, as in canonical form."""
        return spelled(self.action, self.argument)


@dataclass(frozen=True, slots=True)
class Filter:
    """`filter NAME at HOOK { … }`.  `default` is None where the filter has no `default` line (it then passes)."""

    name: str
    hook: str
    default: Verdict | None
    conditions: tuple[OnCondition, ...]
    rules: tuple[Rule, ...]
    name_span: Span = _span()
    default_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a test line demands: the verdict, by which rule (a label or `default` or a condition's word), and,
    for captures, of which share: `>= 90%` is (">=", 90.0).  Without a share every packet must comply."""

    verdict: Verdict
    rule: str | None = None
    comparison: RelationOperator | None = None
    percent: float | None = None
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class PacketTest:
    """`packet Ether/IPv4(…)/UDP(…) -> drop by dns`"""

    layers: tuple[LayerSpec, ...]
    text: str = field(compare=False)
    expect: Expectation
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class CaptureTest:
    """`pcap "file" ['EXPR'] -> drop >= 90%`; the expression selects packets of the capture."""

    path: str
    condition: Expr | None
    expect: Expectation
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Test:
    """`test "title" { … }`.  Packets are tried against the policy's first filter unless `filter` names another."""

    title: str
    steps: tuple[PacketTest | CaptureTest, ...]
    filter: str | None = None
    title_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Comment:
    """A `#` comment with its offset, kept for `format`; `own_line` when nothing but blanks stands before it."""

    text: str
    own_line: bool
    span: Span = _span()


Item = Let | SetDefinition | Filter | Test


@dataclass(frozen=True, slots=True)
class Policy:
    """A whole file, in the order written."""

    items: tuple[Item, ...]
    source: Source = field(compare=False, repr=False)
    comments: tuple[Comment, ...] = field(default=(), compare=False, repr=False)

    @property
    def filters(self) -> tuple[Filter, ...]:
        return tuple(item for item in self.items if isinstance(item, Filter))

    @property
    def constants(self) -> tuple[Let, ...]:
        return tuple(item for item in self.items if isinstance(item, Let))

    @property
    def sets(self) -> tuple[SetDefinition, ...]:
        return tuple(item for item in self.items if isinstance(item, SetDefinition))

    @property
    def tests(self) -> tuple[Test, ...]:
        return tuple(item for item in self.items if isinstance(item, Test))
