"""Values, arithmetic and expressions as canonical text.

The text means what the tree means, to penstock and to libpcap.  Where `and` and
`or` meet, their order is made visible, because their equal precedence surprises
everybody; values that share their qualifiers keep sharing them:

    tcp dst port 23 or 2323 and ip     ->   tcp dst port (23 or 2323) and ip
    udp and port 53 or arp             ->   (udp and port 53) or arp

A chain of `and` and `or` is a tree that leans to the left, possibly thousands
deep, so nothing here recurses along a left operand.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import assert_never

from penstock.compiler.lang.arithmetic import PRECEDENCE
from penstock.compiler.lang.ast import (
    Accessor,
    Address,
    And,
    Arithmetic,
    AtInterface,
    Binary,
    Cast,
    Constant,
    Encapsulation,
    Expr,
    FieldFlag,
    FieldValue,
    Inner,
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
    Sample,
    Value,
    Way,
    Xor,
)
from penstock.compiler.lang.lexer import lex
from penstock.compiler.lang.words import (
    FLAG_FIELDS,
    FORM_WORDS,
    LATER_EVENT_FIELDS,
    NUMBER_FIELDS,
    OPERATOR_WORDS,
)
from penstock.model.limiter import spelled_number, spelled_rate

#: Trees nested deeper than this get no parentheses but those they need, so that
#: what is written stays within the parser's limit.
_PLAIN_FROM = 20
_MOST_CHANGES = 3

Joined = And | Or | Xor
_JOINED = (And, Or, Xor)


# ── values ───────────────────────────────────────────────────────────────────


def spell_value(value: Value) -> str:
    """The value as it is written behind qualifiers."""
    match value:
        case Number():
            return value.text or str(value.value)
        case Name(text=text):
            return spell_name(text)
        case Address(address=address):
            return str(address)
        case PartialAddress(octets=octets):
            return ".".join(map(str, octets))
        case Prefix(network=network, length=length, mask=None):
            return f"{spell_value(network)}/{length}"
        case Prefix(network=network, mask=mask):
            return f"{spell_value(network)} mask {mask}"
        case Mac(octets=octets):
            return octets.hex(":")
        case PortRange(low=low, high=high):
            return f"{_range_end(low)}-{_range_end(high)}"
        case Constant(name=name):
            return f"${name}"
        case _:
            assert_never(value)


def _range_end(end: Number | Name) -> str:
    return end.text if isinstance(end, Name) else end.text or str(end.value)


_SPECIAL = frozenset({*FLAG_FIELDS, *NUMBER_FIELDS, *OPERATOR_WORDS, *FORM_WORDS, *LATER_EVENT_FIELDS, "in"})


def spell_name(text: str) -> str:
    r"""The name, with a backslash where it would be read as something else: `\tcp`."""
    if text in _SPECIAL:
        return f"\\{text}"
    tokens = lex(text).tokens
    is_plain = len(tokens) == 2 and tokens[0].kind == "name" and tokens[0].text == text
    return text if is_plain else f"\\{text}"


def spell_qualifiers(qualifiers: Qualifiers) -> str:
    words = (qualifiers.protocol, qualifiers.direction, qualifiers.kind)
    return " ".join(word for word in words if word)


# ── arithmetic ───────────────────────────────────────────────────────────────


def spell_arithmetic(term: Arithmetic) -> str:
    """The term, with parentheses wherever two different operators meet, sums of products excepted."""
    return _Sums(plain=_height(term) > _PLAIN_FROM).text(term)


def _is_flags(term: Arithmetic) -> bool:
    """Whether the term is names joined by `|`, which are written together: `tcp-syn|tcp-ack`."""
    if isinstance(term, Binary):
        return term.operator == "|" and _is_flags(term.left) and isinstance(term.right, NamedNumber)
    return isinstance(term, NamedNumber)


def _right_side(term: Arithmetic) -> str:
    """The right side of a comparison: bit operations in parentheses, as everybody writes them."""
    text = spell_arithmetic(term)
    is_bits = isinstance(term, Binary) and term.operator in {"&", "|", "^"} and _height(term) <= _PLAIN_FROM
    return f"({text})" if is_bits else text


def _height(term: Arithmetic) -> int:
    match term:
        case Binary(left=left, right=right):
            return 1 + max(_height(left), _height(right))
        case Negate(operand=inner) | Accessor(offset=inner):
            return 1 + _height(inner)
        case _:
            return 0


@dataclass(frozen=True, slots=True)
class _Sums:
    plain: bool

    def text(self, term: Arithmetic) -> str:
        match term:
            case Number():
                return spell_value(term)
            case NamedNumber(name=name) | FieldValue(name=name):
                return name
            case Constant(name=name):
                return f"${name}"
            case Accessor(protocol=protocol, offset=offset, size=size):
                return f"{protocol}[{self.text(offset)}{'' if size == 1 else f':{size}'}]"
            case Negate(operand=inner):
                text = self.text(inner)
                return f"-({text})" if isinstance(inner, Binary) else f"-{text}"
            case Binary(operator=operator, left=left, right=right):
                sign = operator if _is_flags(term) else f" {operator} "
                return f"{self._side(operator, left, False)}{sign}{self._side(operator, right, True)}"
            case _:
                assert_never(term)

    def _side(self, operator: str, side: Arithmetic, is_right: bool) -> str:
        text = self.text(side)
        if isinstance(side, Negate):
            # `-a % b` is -(a % b): operators without precedence reach into what stands to their left.
            return text if is_right or PRECEDENCE[operator] is not None else f"({text})"
        if not isinstance(side, Binary) or self._is_clear(operator, side.operator, is_right):
            return text
        return f"({text})"

    def _is_clear(self, outer: str, inner: str, is_right: bool) -> bool:
        """Whether the inner operation may stand without parentheses."""
        out, within = PRECEDENCE[outer], PRECEDENCE[inner]
        if out is None or within is None:
            return False
        binds = within > out if is_right else within >= out
        return binds and (self.plain or out == within or outer in {"+", "-"})


# ── expressions ──────────────────────────────────────────────────────────────


def format_expression(expr: Expr | None) -> str:
    """The expression on one line; empty for None, which matches every packet."""
    return " ".join(expression_parts(expr)) if expr is not None else ""


def expression_parts(expr: Expr) -> list[str]:
    """The same text in parts; a line may end between two of them, for the next begins with an operator."""
    writer = _Writer(plain=_nesting(expr) > _PLAIN_FROM)
    return writer.parts(expr, None)[0]


def spine(expr: Expr) -> tuple[Expr, list[Joined]]:
    """The leftmost operand of a chain, and the joints above it from the innermost to the outermost."""
    joints: list[Joined] = []
    while isinstance(expr, _JOINED):
        joints.append(expr)
        expr = expr.left
    joints.reverse()
    return expr, joints


def _nesting(expr: Expr) -> int:
    """How many parentheses and `not` the expression needs, one inside the other."""
    first, joints = spine(expr)
    deepest = 1 + _nesting(first.operand) if isinstance(first, Not | Inner) else 0
    for joint in joints:
        right = joint.right
        if isinstance(right, Not | Inner):
            deepest = max(deepest, 1 + _nesting(right.operand))
        elif isinstance(right, And | Or | Xor):
            deepest = max(deepest, 1 + _nesting(right))
    return deepest


Inherited = Qualifiers | None


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes expressions, keeping track of the qualifiers that a bare value would inherit."""

    plain: bool

    def parts(self, expr: Expr, inherit: Inherited) -> tuple[list[str], Inherited]:
        first, joints = spine(expr)
        text, after = self._operand(first, inherit)
        parts = [text]
        grouped = self._is_grouped(first, joints, inherit)
        for at, joint in enumerate(joints):
            if grouped and at and type(joint) is not type(joints[at - 1]):
                parts, after = self._group(parts, joints[:at], inherit, after)
            text, after = self._operand(joint.right, after)
            parts.append(f"{_word(joint)} {text}")
        return parts, after

    def _is_grouped(self, first: Expr, joints: list[Joined], inherit: Inherited) -> bool:
        """Whether the order of the operators is shown by parentheses."""
        changes = sum(type(a) is not type(b) for a, b in pairwise(joints))
        is_list = isinstance(first, Primitive) and self._is_bare(first, inherit)
        return not self.plain and changes <= _MOST_CHANGES and not is_list

    def _group(
        self, parts: list[str], joints: list[Joined], inherit: Inherited, after: Inherited
    ) -> tuple[list[str], Inherited]:
        """What was written so far, as one operand."""
        shared = _shared_list(joints[-1])
        if shared is not None:
            return [shared], after
        return [f"({' '.join(parts)})"], inherit

    def _operand(self, expr: Expr, inherit: Inherited) -> tuple[str, Inherited]:
        match expr:
            case Not(operand=inner):
                text, after = self._operand(inner, inherit)
                return f"not {text}", after
            case And() | Or() | Xor():
                first = spine(expr)[0]
                if isinstance(first, Primitive) and not self._is_bare(first, inherit):
                    shared = _shared_list(expr)
                    if shared is not None:
                        return shared, first.qualifiers
                return f"({' '.join(self.parts(expr, inherit)[0])})", inherit
            case Primitive():
                value = spell_value(expr.value)
                text = (
                    value if self._is_bare(expr, inherit) else f"{spell_qualifiers(expr.qualifiers)} {value}"
                )
                return text, expr.qualifiers
            case _:
                return spell_leaf(expr), None

    def _is_bare(self, primitive: Primitive, inherit: Inherited) -> bool:
        return primitive.inherited and primitive.qualifiers == inherit


def _word(joint: Joined) -> str:
    match joint:
        case And():
            return "and"
        case Or():
            return "or"
        case Xor():
            return "xor"


def _shared_list(joined: Joined) -> str | None:
    """`port (80 or 443)`, when the operands are values with the first one's qualifiers; else None."""
    first, joints = spine(joined)
    if not isinstance(first, Primitive):
        return None
    values = [spell_value(first.value)]
    for joint in joints:
        right = joint.right
        is_value = isinstance(right, Primitive) and right.inherited and right.qualifiers == first.qualifiers
        if type(joint) is not type(joined) or not is_value:
            return None
        assert isinstance(right, Primitive)
        values.append(spell_value(right.value))
    return f"{spell_qualifiers(first.qualifiers)} ({f' {_word(joined)} '.join(values)})"


def _spell_question(leaf: Primitive | Membership) -> str:
    if isinstance(leaf, Membership):
        return f"{' . '.join(map(spell_qualifiers, leaf.keys))} in @{leaf.set}"
    return f"{spell_qualifiers(leaf.qualifiers)} {spell_value(leaf.value)}"


def spell_leaf(leaf: Leaf) -> str:
    """A primitive with its qualifiers written out."""
    match leaf:
        case Primitive() | Membership():
            return _spell_question(leaf)
        case Protocol(name=name) | FieldFlag(name=name):
            return name
        case Cast(protocol=protocol, kind=kind):
            return f"{protocol} {kind}" if protocol else kind
        case LengthTest(kind=kind, length=length):
            return f"{kind} {length}"
        case Encapsulation(kind=kind, number=number):
            return kind if number is None else f"{kind} {number}"
        case Llc(kind=kind):
            return f"llc {kind}" if kind else "llc"
        case Way(kind=kind):
            return kind
        case AtInterface(name=name):
            return f'ifname "{name}"'
        case Pcap() | Inner() | Over() | Sample():
            return _spell_form(leaf)
        case Relation(operator=operator, left=left, right=right):
            return f"{spell_arithmetic(left)} {operator} {_right_side(right)}"
        case _:
            assert_never(leaf)


def _spell_form(form: Pcap | Inner | Over | Sample) -> str:
    match form:
        case Inner(operand=inner):
            return f"inner({format_expression(inner)})"
        case Pcap(text=text):
            return f'pcap "{text}"'
        case Sample(one_in=count):
            return f"sample 1/{count}"
        case Over():
            rate = spelled_rate(form.tokens, form.period, of_bytes=form.bytes)
            options = {"burst": form.burst, "size": form.size}
            written = [f"{name} {spelled_number(value)}" for name, value in options.items() if value]
            return " ".join([f"over {rate} per {form.key.text}", *written])
        case _:
            assert_never(form)
