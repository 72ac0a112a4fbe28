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
from typing import Literal

from penstock.compiler.lang.expr import (
    NOWHERE,
    Accessor,
    Address,
    And,
    Arithmetic,
    AtInterface,
    Binary,
    BinaryOperator,
    Cast,
    Constant,
    Direction,
    Encapsulation,
    Expr,
    FieldFlag,
    FieldValue,
    Inner,
    Kind,
    Leaf,
    LengthTest,
    Llc,
    Mac,
    Membership,
    Name,
    NamedNumber,
    Negate,
    Not,
    Number,
    Or,
    Over,
    PartialAddress,
    Pcap,
    PortRange,
    Prefix,
    Primitive,
    Protocol,
    Qualifiers,
    Relation,
    RelationOperator,
    Sample,
    Value,
    Way,
    Xor,
    no_span,
)
from penstock.compiler.lang.source import Source, Span
from penstock.model.action import Argument, spelled
from penstock.model.feeds import SetFeed
from penstock.model.packet import LayerSpec
from penstock.model.sets import DEFAULT_SIZE, SetSpec
from penstock.model.verdict import Condition, Verdict

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
    name_span: Span = no_span()
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class FeedClause:
    """`feed SOURCE [format F] [every TIME] [private]` of a set; a preset is written as a bare word."""

    source: str
    is_preset: bool
    format: str | None = None
    every_ns: int | None = None
    span: Span = no_span()
    is_private: bool = False

    @property
    def every_s(self) -> float | None:
        """How often it is to be asked, in seconds."""
        return None if self.every_ns is None else self.every_ns / 1e9


@dataclass(frozen=True, slots=True)
class SetDefinition:
    """`set NAME : KIND [size N] [timeout TIME] [counters] [dynamic] [as trie|flat]`; None where nothing was written."""

    name: str
    kind: tuple[str, ...]
    size: int | None = None
    timeout_ns: int | None = None
    counters: bool = False
    dynamic: bool = False
    name_span: Span = no_span()
    span: Span = no_span()
    feeds: tuple[FeedClause, ...] = ()
    structure: str | None = None

    @property
    def fed_by(self) -> tuple[SetFeed, ...]:
        """The feeds that fill it."""
        return tuple(
            SetFeed(self.name, one.source, one.format, one.every_s, one.is_private) for one in self.feeds
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
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Rule:
    """`[LABEL:] ACTION [ARGUMENT] [if EXPR]`; `action_span` is that of the word and its argument.

    `target` are the keys and the set of a rule that changes one.
    """

    action: ActionWord
    condition: Expr | None
    label: str | None = None
    label_span: Span = no_span()
    span: Span = no_span()
    argument: Argument | None = None
    action_span: Span = no_span()
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
    name_span: Span = no_span()
    default_span: Span = no_span()
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a test line demands: the verdict, by which rule (a label or `default` or a condition's word), and,
    for captures, of which share: `>= 90%` is (">=", 90.0).  Without a share every packet must comply."""

    verdict: Verdict
    rule: str | None = None
    comparison: RelationOperator | None = None
    percent: float | None = None
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class PacketTest:
    """`packet Ether/IPv4(…)/UDP(…) -> drop by dns`"""

    layers: tuple[LayerSpec, ...]
    text: str = field(compare=False)
    expect: Expectation
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class CaptureTest:
    """`pcap "file" ['EXPR'] -> drop >= 90%`; the expression selects packets of the capture."""

    path: str
    condition: Expr | None
    expect: Expectation
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Given:
    """`with @SET ENTRY, ENTRY …`, or `with @SET "FILE"`: what a set contains besides from here to the test's end."""

    set: str
    entries: tuple[str, ...] = ()
    path: str | None = None
    set_span: Span = no_span()
    entry_spans: tuple[Span, ...] = field(default=(), compare=False, repr=False)
    span: Span = no_span()


Step = PacketTest | CaptureTest | Given


@dataclass(frozen=True, slots=True)
class Test:
    """`test "title" { … }`.  Packets are tried against the policy's first filter unless `filter` names another."""

    title: str
    steps: tuple[Step, ...]
    filter: str | None = None
    title_span: Span = no_span()
    span: Span = no_span()


@dataclass(frozen=True, slots=True)
class Comment:
    """A `#` comment with its offset, kept for `format`; `own_line` when nothing but blanks stands before it."""

    text: str
    own_line: bool
    span: Span = no_span()


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


__all__ = [
    "Accessor",
    "ActionWord",
    "Address",
    "And",
    "Arithmetic",
    "AtInterface",
    "Binary",
    "BinaryOperator",
    "CaptureTest",
    "Cast",
    "Comment",
    "Constant",
    "Direction",
    "Encapsulation",
    "Expectation",
    "Expr",
    "FeedClause",
    "FieldFlag",
    "FieldValue",
    "Filter",
    "Given",
    "Inner",
    "Item",
    "Kind",
    "Leaf",
    "LengthTest",
    "Let",
    "Llc",
    "Mac",
    "Membership",
    "NOWHERE",
    "Name",
    "NamedNumber",
    "Negate",
    "Not",
    "Number",
    "OnCondition",
    "Or",
    "Over",
    "PacketTest",
    "PartialAddress",
    "Pcap",
    "Policy",
    "PortRange",
    "Prefix",
    "Primitive",
    "Protocol",
    "Qualifiers",
    "Relation",
    "RelationOperator",
    "Rule",
    "Sample",
    "SetDefinition",
    "Step",
    "Test",
    "Value",
    "Way",
    "Xor",
]
