"""Relations over arithmetic: `tcp[tcpflags] & tcp-syn != 0`, `ip[2:2] > 576`, `ttl < 5`, `len == 60`.

An accessor is absent in packets of another protocol, and the relation then
false.  That is spelled out: a relation is lowered to the tests of its accessors'
protocols, in the order written, followed by the comparison itself.

Arithmetic is unsigned and modulo 2**32.  What has only constants in it is
computed here, and a relation of one field with a constant becomes an interval
test of that field; an accessor of exactly a field's bytes is that field.
"""

from __future__ import annotations

from typing import assert_never

from penstock.compiler.ir.accessors import ACCESSED, MASKED
from penstock.compiler.ir.constants import IP_PROTOCOLS
from penstock.compiler.ir.evaluate import arithmetic
from penstock.compiler.ir.headers import IPV4
from penstock.compiler.ir.lower_protocol import abbreviation, ip_protocol
from penstock.compiler.ir.lowering import Lowering, Position, beside, nearest
from penstock.compiler.ir.ops import (
    Always,
    Base,
    Binary,
    Compare,
    FieldTerm,
    Literal32,
    Predicate,
    Read,
    Term,
)
from penstock.compiler.ir.simplify import all_of, equals, within
from penstock.compiler.lang import ast
from penstock.compiler.lang.words import NAMED_NUMBERS, NUMBER_FIELDS
from penstock.model.field import is_metadata
from penstock.model.net import IntervalSet

WORD = 0xFFFFFFFF
#: Accessors that count from the network header, if the frame carries that protocol.
NETWORK_ACCESSORS = frozenset(("ip", "ip6", "arp", "rarp", "atalk", "decnet", "sca", "lat", "moprc", "mopdl"))
#: Accessors that count from the transport header.
TRANSPORT_ACCESSORS = frozenset(
    ("tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "igrp", "pim", "vrrp", "carp")
)
#: Deeper arithmetic than this is refused.
MAX_DEPTH = 128

_FLIPPED: dict[str, ast.RelationOperator] = {
    "<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!=",
}  # fmt: skip


def relation(lowering: Lowering, node: ast.Relation, position: Position) -> Predicate:
    """`left OPERATOR right`."""
    arithmetic_of = _Arithmetic(lowering, position)
    left, right = arithmetic_of.term(node.left), arithmetic_of.term(node.right)
    return all_of((*arithmetic_of.needed, comparison(node.operator, left, right)))


def comparison(operator: ast.RelationOperator, left: Term, right: Term) -> Predicate:
    """The comparison in its simplest form."""
    match left, right:
        case Literal32(a), Literal32(b):
            return Always(_truth(operator, a, b))
        case FieldTerm(ref), Literal32(value):
            return within(ref, _interval(operator, value, ref.field.bits))
        case Binary(">>", FieldTerm(ref), Literal32(shift)), Literal32(value) if shift < ref.field.bits:
            return within(ref, _widened(_interval(operator, value, ref.field.bits - shift), shift))
        case Literal32(), FieldTerm() | Binary():
            return comparison(_FLIPPED[operator], right, left)
        case _:
            return Compare(operator, left, right)


def _widened(values: IntervalSet, shift: int) -> IntervalSet:
    """The numbers that are in `values` when shifted right."""
    return IntervalSet.of(*((low << shift, (high + 1 << shift) - 1) for low, high in values))


def _truth(operator: str, left: int, right: int) -> bool:
    return left in _interval(operator, right, 32)


def _interval(operator: str, value: int, bits: int) -> IntervalSet:
    """The numbers of `bits` bits that are in this relation to `value`."""
    top = (1 << bits) - 1
    below = IntervalSet.of((0, min(value - 1, top))) if value else IntervalSet()
    here = IntervalSet.single(value) if value <= top else IntervalSet()
    match operator:
        case "<":
            return below
        case "<=":
            return below | here
        case "==":
            return here
        case "!=":
            return here.complement(bits)
        case ">":
            return (below | here).complement(bits)
        case ">=":
            return below.complement(bits)
        case _:
            raise ValueError(operator)


class _Arithmetic:
    """One relation's arithmetic: terms, and in `needed` the tests that its accessors depend on."""

    def __init__(self, lowering: Lowering, position: Position) -> None:
        self.lowering = lowering
        self.position = position
        self.needed: list[Predicate] = []
        self._depth = 0

    def term(self, node: ast.Arithmetic) -> Term:
        """A node's term; after a fault, some term."""
        self._depth += 1
        try:
            return self._term(node) if self._depth <= MAX_DEPTH else self._too_deep(node)
        finally:
            self._depth -= 1

    def _too_deep(self, node: ast.Arithmetic) -> Term:
        self.lowering.fault("PS313", f"arithmetic nested deeper than {MAX_DEPTH}", node.span)
        return Literal32(0)

    def _term(self, node: ast.Arithmetic) -> Term:
        match node:
            case ast.Number(value):
                return Literal32(value & WORD)
            case ast.NamedNumber(name):
                return self._named(name, node)
            case ast.FieldValue(name):
                return self._field(name, node)
            case ast.Accessor():
                return self._accessor(node)
            case ast.Binary():
                return self._binary(node)
            case ast.Negate(operand):
                return folded("-", Literal32(0), self.term(operand))
            case ast.Constant():
                return self._constant(node)
            case _:
                assert_never(node)

    def _named(self, name: str, node: ast.NamedNumber) -> Term:
        if name in NAMED_NUMBERS:
            return Literal32(NAMED_NUMBERS[name])
        close = nearest(name, NAMED_NUMBERS)
        hint = f"did you mean {close}?" if close else None
        self.lowering.fault("PS312", f"no number is named `{name}`", node.span, hint=hint)
        return Literal32(0)

    def _field(self, name: str, node: ast.FieldValue) -> Term:
        if is_metadata(name):
            return FieldTerm(beside(self.lowering, name, node.span))
        if name in NUMBER_FIELDS:
            return FieldTerm(self.position.field(name))
        close = nearest(name, NUMBER_FIELDS)
        hint = f"did you mean {close}?" if close else None
        self.lowering.fault("PS312", f"no field is named `{name}`", node.span, hint=hint)
        return Literal32(0)

    def _constant(self, node: ast.Constant) -> Term:
        values = self.lowering.values(node)
        if len(values) == 1 and isinstance(values[0], ast.Number):
            return Literal32(values[0].value & WORD)
        if values:
            message = f"${node.name} is not a single number, which arithmetic needs"
            self.lowering.fault("PS302", message, node.span)
        return Literal32(0)

    def _binary(self, node: ast.Binary) -> Term:
        left = self.term(node.left)
        right = self.term(node.right)
        if node.operator == "&" and (part := self._part(node.left, left, right)) is not None:
            return part
        if isinstance(right, Literal32):
            if node.operator in ("/", "%") and right.value == 0:
                word = "division" if node.operator == "/" else "the remainder of a division"
                self.lowering.fault("PS307", f"{word} by zero", node.right.span)
            written = not isinstance(left, Literal32) or isinstance(node.right, ast.Number | ast.NamedNumber)
            if node.operator in ("<<", ">>") and right.value > 31 and written:
                message = f"a shift by {right.value} bits; 31 is the most"
                self.lowering.fault("PS307", message, node.right.span)
        return folded(node.operator, left, right)

    def _part(self, node: ast.Arithmetic, left: Term, right: Term) -> Term | None:
        """`left & right` when it is part of a field; `node` is what `left` was."""
        match node, left, right:
            case ast.Accessor(protocol), Read(_, Literal32(offset), size), Literal32(mask):
                found = MASKED.get((protocol, offset, size, mask))
                if found is not None:
                    name, operator, operand = found
                    return folded(operator, FieldTerm(self.position.field(name)), Literal32(operand))
        return None

    # ── accessors ────────────────────────────────────────────────────────────

    def _accessor(self, node: ast.Accessor) -> Term:
        if node.size not in (1, 2, 4):
            self.lowering.fault("PS308", f"an accessor reads 1, 2 or 4 bytes, not {node.size}", node.span)
            return Literal32(0)
        offset = self.term(node.offset)
        scope = self.position.scope
        if node.protocol == "ether":
            return Read(Base.FRAME, offset, node.size, scope)
        if node.protocol in NETWORK_ACCESSORS:
            self._need(abbreviation(self.lowering, node.protocol, self.position, node.span))
            return self._bytes(node, Base.NETWORK, offset)
        if node.protocol in TRANSPORT_ACCESSORS:
            self._need_transport(node.protocol)
            return self._bytes(node, Base.TRANSPORT, offset)
        message = f"`{node.protocol}` packets cannot be read by {node.protocol}[…]"
        self.lowering.fault("PS308", message, node.span, hint="ether[…] reads any byte of the frame")
        return Literal32(0)

    def _bytes(self, node: ast.Accessor, base: Base, offset: Term) -> Term:
        """Bytes of a protocol that is needed already."""
        if isinstance(offset, Literal32) and (node.protocol, offset.value, node.size) in ACCESSED:
            return FieldTerm(self.position.field(ACCESSED[node.protocol, offset.value, node.size]))
        return Read(base, offset, node.size, self.position.scope)

    def _need(self, predicate: Predicate) -> None:
        if predicate not in self.needed:
            self.needed.append(predicate)

    def _need_transport(self, protocol: str) -> None:
        family, number = IP_PROTOCOLS[protocol]
        if family == 4:
            self._need(equals(self.position.field("eth.type"), IPV4))
        self._need(ip_protocol(number, family, self.position))


def folded(operator: str, left: Term, right: Term) -> Term:
    """`left OPERATOR right`, computed if it can be."""
    if isinstance(left, Literal32) and isinstance(right, Literal32):
        value = arithmetic(operator, left.value, right.value)
        return Literal32(value or 0)
    return Binary(operator, left, right)  # type: ignore[arg-type]
