"""Places where penstock means something other than tcpdump, told where a rule touches them.

One note per filter and place, at the first rule that touches it: a capture
filter that misses a packet loses a line, a drop rule that misses one is a hole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from penstock.compiler.lang.ast import (
    Accessor,
    And,
    Arithmetic,
    Binary,
    Constant,
    Encapsulation,
    Expr,
    FieldValue,
    Filter,
    Leaf,
    NamedNumber,
    Negate,
    Not,
    Number,
    Or,
    Primitive,
    Protocol,
    Relation,
    Xor,
)
from penstock.compiler.lang.findings import Findings
from penstock.compiler.lang.walk import leaves, terms

_TRANSPORT = frozenset({"tcp", "udp", "sctp"})
_HEADERS = (
    "here ports are also found behind IPv6 extension headers and VLAN tags, and `tcp[…]` over IPv6 at all, "
    "where tcpdump misses them"
)
_TAGS = (
    "here addresses and protocols are also found behind VLAN tags, and protocols behind IPv6 extension "
    "headers, where tcpdump misses them"
)
_CHAIN = (
    "here `protochain` walks at most eight headers, mobility headers too, and never the payload of a later "
    "fragment; in tcpdump any number, but not those"
)
_DIVISION = (
    "here a test that divides by zero is false by itself; in tcpdump the whole expression would be false"
)
_OPERANDS = (
    "here every packet field of the arithmetic must be there; tcpdump asks that of the leftmost operand only"
)
_SHIFT = (
    "here `{}` shifts what stands to its right within its `and` chain only; in tcpdump also beyond `or`, "
    "parentheses and `not`"
)
_SHORT = (
    "here a packet too short for the test is matched, because the test is false and `not` makes it true; "
    "in tcpdump the whole expression would be false"
)
_SHORT_HINT = "`on malformed drop` decides such packets before the rules"


def check_differences(item: Filter, findings: Findings) -> None:
    """Note each place of the documented table that the filter's rules touch, once."""
    conditions = [rule.condition for rule in item.rules if rule.condition is not None]
    _note_headers(conditions, findings)
    shifted = next((found for condition in conditions for found in _shifts_beyond_or(condition)), None)
    if shifted is not None:
        findings.note("PS222", _SHIFT.format(shifted.kind), shifted.span)
    negated = next((found for condition in conditions for found in _negated_reads(condition)), None)
    if negated is not None:
        findings.note("PS223", _SHORT, negated.span, hint=_SHORT_HINT)
    found = [leaf for condition in conditions for leaf in leaves(condition)]
    for code, message, touches in _OF_LEAVES:
        touching = next(filter(touches, found), None)
        if touching is not None:
            findings.note(code, message, touching.span)


def _walks_chain(leaf: Leaf) -> bool:
    return isinstance(leaf, Primitive) and leaf.qualifiers.kind == "protochain"


def _may_divide_by_zero(leaf: Leaf) -> bool:
    """Whether a divisor comes from the packet; a constant 0 is refused elsewhere."""
    return any(
        isinstance(term, Binary)
        and term.operator in {"/", "%"}
        and not isinstance(term.right, Number | NamedNumber | Constant)
        for term in terms(leaf)
    )


def _reads_behind_the_leftmost(leaf: Leaf) -> bool:
    """Whether bytes of a protocol are read that the leftmost operand does not ask for."""
    operands = list(_operands(leaf.left)) + list(_operands(leaf.right)) if isinstance(leaf, Relation) else []
    first = operands[0].protocol if operands and isinstance(operands[0], Accessor) else None
    return any(isinstance(term, Accessor) and term.protocol not in {first, "ether"} for term in operands[1:])


def _operands(term: Arithmetic) -> Iterator[Arithmetic]:
    """What is computed with, from left to right; not what an offset is computed from."""
    pending = [term]
    while pending:
        match pending.pop():
            case Binary(left=left, right=right):
                pending += [right, left]
            case Negate(operand=inner):
                pending.append(inner)
            case operand:
                yield operand


_OF_LEAVES: tuple[tuple[str, str, Callable[[Leaf], bool]], ...] = (
    ("PS225", _CHAIN, _walks_chain),
    ("PS226", _DIVISION, _may_divide_by_zero),
    ("PS227", _OPERANDS, _reads_behind_the_leftmost),
)


def _note_headers(conditions: list[Expr], findings: Findings) -> None:
    tagged = None
    for condition in conditions:
        for leaf in leaves(condition):
            if reads_transport(leaf):
                findings.note("PS221", _HEADERS, leaf.span)
                return
            tagged = tagged or (leaf if _reads_network(leaf) else None)
    if tagged is not None:
        findings.note("PS224", _TAGS, tagged.span)


def reads_transport(leaf: Leaf) -> bool:
    """Whether the leaf looks at ports or at bytes of TCP, UDP or SCTP."""
    if isinstance(leaf, Primitive):
        return leaf.qualifiers.kind in {"port", "portrange"}
    for term in terms(leaf):
        if isinstance(term, Accessor) and term.protocol in _TRANSPORT:
            return True
        if isinstance(term, FieldValue) and term.name.partition(".")[0] in {*_TRANSPORT, "sport", "dport"}:
            return True
    return False


def _reads_network(leaf: Leaf) -> bool:
    match leaf:
        case Primitive(qualifiers=qualifiers):
            return qualifiers.protocol != "ether"
        case Protocol():
            return True
        case Relation():
            return any(isinstance(term, Accessor) and term.protocol != "ether" for term in terms(leaf))
        case _:
            return False


def _shifts_beyond_or(expr: Expr) -> Iterator[Encapsulation]:
    """Encapsulations whose shift reaches further in tcpdump: something stands to their right behind `or`."""
    pending = [(expr, False)]
    while pending:
        node, reaches_out = pending.pop()
        match node:
            case Or(left=left, right=right) | Xor(left=left, right=right):
                pending += [(right, reaches_out), (left, True)]
            case And(left=left, right=right):
                confined = isinstance(left, Or | Xor | Not)
                pending += [(right, reaches_out), (left, reaches_out or confined)]
            case Not(operand=operand):
                pending.append((operand, reaches_out))
            case Encapsulation(kind=kind) if reaches_out and kind not in {"pppoed", "vxlan"}:
                yield node
            case _:
                continue


def _negated_reads(expr: Expr) -> Iterator[Not]:
    """Negations of tests that a truncated packet cannot answer; what a negation holds is looked at once."""
    pending = [expr]
    while pending:
        node = pending.pop()
        match node:
            case And(left=left, right=right) | Or(left=left, right=right) | Xor(left=left, right=right):
                pending += [right, left]
            case Not() if any(reads_transport(leaf) or _reads_bytes(leaf) for leaf in leaves(node)):
                yield node
            case _:
                pass


def _reads_bytes(leaf: Leaf) -> bool:
    return any(isinstance(term, Accessor) for term in terms(leaf))
