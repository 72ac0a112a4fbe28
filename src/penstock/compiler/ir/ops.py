"""What a policy means: predicates over packet fields, rules that decide, and their order.

This is the only form that the reference evaluator and the code generator see.
It has no names left to resolve and no precedence left to remember; every
implicit precondition of pcap-filter (`port` implies "first fragment of TCP, UDP
or SCTP") is either spelled out or part of when a field is present.

A `Scope` says whose headers are meant: () is the packet itself, ("mpls",) what
lies behind one MPLS label, ("geneve",) the frame in it, ("inner",) the packet that
a tunnel of any kind carries, and so on, outermost step first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from msgspec import Struct

from penstock.compiler.lang.source import Source, Span
from penstock.model.action import Argument, Device, spelled
from penstock.model.classic import Program
from penstock.model.feeds import SetFeed
from penstock.model.field import Field, Layer, field_of
from penstock.model.hook import Hook
from penstock.model.limiter import Limiter
from penstock.model.net import IntervalSet
from penstock.model.sets import SetSpec
from penstock.model.verdict import Condition, Verdict

Step = Literal["mpls", "pppoes", "geneve", "inner"]
Scope = tuple[Step, ...]


class FieldRef(Struct, frozen=True):
    """A field of one scope's headers; `index` is the tag's depth for the `vlan.*` fields, else 0.

    A Struct, because it is the key of nearly every mapping, and hashed without a line of Python.
    """

    name: str
    scope: Scope = ()
    index: int = 0

    @property
    def field(self) -> Field:
        return field_of(self.name)


class Base(Enum):
    """Where an accessor's offset is counted from, within a scope."""

    FRAME = "frame"
    """The scope's link header: byte 0 of the frame; inner Ethernet behind Geneve; the PPP protocol behind PPPoE."""
    NETWORK = "network"
    """What follows the scope's link header and VLAN tags; behind MPLS, what follows the label."""
    TRANSPORT = "transport"
    """What follows IPv4 options or IPv6 extension headers; absent in later fragments."""


# ── terms: unsigned 32-bit numbers, or absent ────────────────────────────────


@dataclass(frozen=True, slots=True)
class Literal32:
    """A constant, already reduced modulo 2**32."""

    value: int


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """A field's value; only of fields of at most 32 bits."""

    ref: FieldRef


@dataclass(frozen=True, slots=True)
class Read:
    """`size` (1, 2, 4) bytes at `base` + `offset`, big-endian; absent unless every byte is in the packet.

    For FRAME and NETWORK the sum must not wrap.  For TRANSPORT the offset is
    added modulo 2**32 to the distance between network and transport header, and
    the result counted from the network header: so `tcp[0 - 4]` reads the last
    four bytes of the IPv4 header, as libpcap's programs do.
    """

    base: Base
    offset: Term
    size: int
    scope: Scope = ()


@dataclass(frozen=True, slots=True)
class Binary:
    """Arithmetic modulo 2**32; absent if an operand is, or on division by zero; shifts of 32 or more give 0."""

    operator: Literal["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>"]
    left: Term
    right: Term


Term = Literal32 | FieldTerm | Read | Binary

# ── predicates: true or false, never absent ──────────────────────────────────


@dataclass(frozen=True, slots=True)
class Always:
    """True, or false, of every packet."""

    value: bool


@dataclass(frozen=True, slots=True)
class Within:
    """The field is present and its value is in `values`."""

    ref: FieldRef
    values: IntervalSet


@dataclass(frozen=True, slots=True)
class Compare:
    """Both terms are present and `left OPERATOR right` holds (unsigned)."""

    operator: Literal["<", "<=", ">", ">=", "==", "!="]
    left: Term
    right: Term


@dataclass(frozen=True, slots=True)
class HeaderWalked:
    """The IPv6 extension header `number` (a key of EXTENSION_HEADERS) is among those walked over in this scope.

    The header's first byte need not be in the packet: its number was read from
    the header before it.  With `ipv4` the IPv4 chain is asked for an
    authentication header (51) instead.
    """

    number: int
    scope: Scope = ()
    ipv4: bool = False


@dataclass(frozen=True, slots=True)
class Classic:
    """A classic BPF program matches the frame itself; see `classic.py`.

    It reads what it likes, whatever the headers say.  A read beyond the packet
    makes it false as a whole, and so does a division by zero.  `text` is what
    libpcap compiled, and plays no part in what it means.
    """

    program: Program
    text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Member:
    """The fields are all present, and the key that they make is in the set at this moment.

    Of addresses among them all have one family, which is that of the map that is
    asked.  A set that counts counts the packet in the entry that was found.
    `moment` is how many rules may have changed the set before: what was true of it
    then need not be true now.
    """

    set: str
    keys: tuple[FieldRef, ...]
    counted: bool = False
    moment: int = 0

    @property
    def bits(self) -> int:
        """32 or 128 for keys with addresses, 0 for others."""
        return max((ref.field.bits for ref in self.keys if ref.name in _ADDRESSES), default=0)


_ADDRESSES = frozenset(("addr.src", "addr.dst", "ip.src", "ip.dst", "ip6.src", "ip6.dst"))


@dataclass(frozen=True, slots=True)
class Over:
    """The bucket of the packet's key cannot pay for it; else the packet pays.  False of packets without the key.

    Asking is an event: a packet asks it once, where it stands and when all
    before it has been asked.  `refs` are the fields that the key is made of
    (`lower_rate.KEY_FIELDS`).
    """

    limiter: Limiter
    refs: tuple[FieldRef, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """True of one packet in `one_in`, by chance; those of two names are independent of each other."""

    name: str
    one_in: int


@dataclass(frozen=True, slots=True)
class Negation:
    operand: Predicate


@dataclass(frozen=True, slots=True)
class All:
    """Every operand holds; () is true.  Operands are asked in order."""

    operands: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Any:
    """Some operand holds; () is false."""

    operands: tuple[Predicate, ...]


Predicate = Always | Within | Compare | HeaderWalked | Classic | Member | Over | Sample | Negation | All | Any

# ── rules ────────────────────────────────────────────────────────────────────


class Effect(Enum):
    """What a matching rule does besides being counted when it does not decide.

    MARK, DSCP and MIRROR are asked for here and carried out once the decision
    has fallen (`outcome.asked`): every rule sees the packet as it arrived.  ADD and REMOVE
    change a set at once: the rules behind see what it holds then.
    """

    COUNT = "count"
    AUDIT = "audit"
    MARK = "mark"
    DSCP = "dscp"
    MIRROR = "mirror"
    ADD = "add"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Redirection:
    """The decision to send a packet out of another device."""

    device: str
    verdict = Verdict.REDIRECT

    @property
    def value(self) -> str:
        """The decision as policies spell it."""
        return spelled(Verdict.REDIRECT.value, Device(self.device))


#: What decides alike is equal.
Decision = Verdict | Redirection


@dataclass(frozen=True, slots=True)
class Rule:
    """`name` is the label, or ``filter:line`` where the policy gave none; unique within its rule set.

    `until_ns` is a boot-clock time (CLOCK_BOOTTIME, ns) from which on the rule
    never matches; None for rules of a policy file.  `argument` is what a device,
    a mark, a DSCP or a set is needed for; other actions have none.  `target` is the
    test of a set of which the first `Member` that the packet has the fields of is the
    key that ADD and REMOVE are about; it asks nothing.
    """

    name: str
    action: Verdict | Effect
    condition: Predicate
    span: Span
    line: int
    labelled: bool = False
    until_ns: int | None = None
    argument: Argument | None = None
    target: Predicate | None = None

    @property
    def asked(self) -> tuple[Predicate, ...]:
        """Everything that is read of a packet for the rule's sake."""
        return (self.condition,) if self.target is None else (self.condition, self.target)

    @property
    def decides(self) -> bool:
        return isinstance(self.action, Verdict)

    @property
    def decision(self) -> Decision | None:
        """What the rule decides, with the device of a redirection; None if it does not."""
        if isinstance(self.argument, Device) and self.action is Verdict.REDIRECT:
            return Redirection(self.argument.name)
        return self.action if isinstance(self.action, Verdict) else None

    @property
    def doing(self) -> str:
        """The action with its argument, as policies spell it: `mark 0x10`."""
        return spelled(self.action.value, self.argument)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """One filter, ready to evaluate or to emit.

    `conditions` has one entry for every Condition: the verdict, or None to go on.
    `depth` is the deepest layer that the filter looks at: `malformed` judges
    headers down to that layer and no further, so that nothing is parsed on
    account of a counter alone.  An explicit `on malformed` makes it TRANSPORT.
    """

    name: str
    hook: Hook
    default: Verdict
    conditions: tuple[tuple[Condition, Verdict | None], ...]
    rules: tuple[Rule, ...]
    depth: Layer
    source: Source
    #: The sets that its rules ask, in the order of the text.
    sets: tuple[SetSpec, ...] = ()
    #: The feeds that fill these sets.
    feeds: tuple[SetFeed, ...] = ()

    def verdict_on(self, condition: Condition) -> Verdict | None:
        """The filter's verdict on an odd packet, None to go on with the rules."""
        return dict(self.conditions)[condition]


#: Counter slots of a rule set: the default's, one a condition, then the rules in order.
DEFAULT_SLOT = 0
FIRST_CONDITION_SLOT = 1
FIRST_RULE_SLOT = FIRST_CONDITION_SLOT + len(Condition)


def counter_names(rule_set: RuleSet) -> tuple[str, ...]:
    """What each counter slot counts, in slot order: ``default``, ``on malformed`` …, then the rules' names."""
    conditions = (f"on {condition.word}" for condition in Condition)
    return ("default", *conditions, *(rule.name for rule in rule_set.rules))
