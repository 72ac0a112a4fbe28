"""Places where penstock means something other than tcpdump, told where a rule touches them.

One note per filter and place, at the first rule that touches it: a capture
filter that misses a packet loses a line, a drop rule that misses one is a hole.
"""

from __future__ import annotations

from collections.abc import Iterator

from penstock.compiler.lang.ast import (
    Accessor,
    And,
    Encapsulation,
    Expr,
    FieldValue,
    Filter,
    Leaf,
    Not,
    Or,
    Primitive,
    Protocol,
    Relation,
    Xor,
)
from penstock.compiler.lang.findings import Findings
from penstock.compiler.lang.walk import leaves, nodes, terms

_TRANSPORT = frozenset({"tcp", "udp", "sctp"})
_HEADERS = (
    "here ports and `tcp[…]` are also found behind IPv6 extension headers and VLAN tags, "
    "where tcpdump misses them"
)
_TAGS = "here addresses and protocols are also found behind VLAN tags, where tcpdump misses them"
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
            case Encapsulation(kind=kind) if reaches_out and kind != "pppoed":
                yield node
            case _:
                continue


def _negated_reads(expr: Expr) -> Iterator[Not]:
    """Negations of tests that a truncated packet cannot answer."""
    for node in nodes(expr):
        if isinstance(node, Not) and any(
            reads_transport(leaf) or _reads_bytes(leaf) for leaf in leaves(node)
        ):
            yield node


def _reads_bytes(leaf: Leaf) -> bool:
    return any(isinstance(term, Accessor) for term in terms(leaf))
