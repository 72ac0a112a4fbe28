"""Arithmetic of pcap-filter: numbers, accessors `proto[offset:size]`, fields and operators.

The grammar of libpcap gives `|`, `&`, shifts, sums and products the precedence
of that order, loosest first, and each associates to the left.  It gives `%` and
`^` none, and its parser generator then lets whatever follows bind first:

    1 + 7 % 4     is   1 + (7 % 4)
    7 % 4 * 2     is   7 % (4 * 2)
    - 7 % 4       is   -(7 % 4)

That is an accident, but every filter ever written was read this way.
"""

from __future__ import annotations

from typing import cast

from penstock.compiler.lang.ast import (
    Accessor,
    Arithmetic,
    Binary,
    BinaryOperator,
    Constant,
    FieldValue,
    NamedNumber,
    Negate,
    Number,
)
from penstock.compiler.lang.lexer import Token
from penstock.compiler.lang.tokens import MAX_NESTING, TokenStream
from penstock.compiler.lang.words import NAMED_NUMBERS, NUMBER_FIELDS, PROTOCOLS

#: Operator -> how tightly it binds; None for those whose right side always binds first.
PRECEDENCE: dict[str, int | None] = {
    "|": 1, "&": 2, "<<": 3, ">>": 3, "+": 4, "-": 4, "*": 5, "/": 5, "%": None, "^": None,
}  # fmt: skip
UNARY_PRECEDENCE = 6
RELATIONS = ("<", "<=", ">", ">=", "==", "!=")

#: Protocols whose bytes an accessor can read.
INDEXED = frozenset(
    [
        "ether",
        "ip",
        "ip6",
        "arp",
        "rarp",
        "tcp",
        "udp",
        "sctp",
        "icmp",
        "icmp6",
        "igmp",
        "igrp",
        "pim",
        "vrrp",
        "carp",
        "atalk",
        "decnet",
        "lat",
        "sca",
        "moprc",
        "mopdl",
    ]
)
_SIZES = (1, 2, 4)


def is_operator(token: Token) -> bool:
    return token.kind == "mark" and token.text in PRECEDENCE


def is_arithmetic_word(token: Token) -> bool:
    """Whether a word stands for a number by itself: `len`, or a named field of penstock's."""
    return token.is_word("len", "length", "ifindex") or (token.kind == "name" and token.text in NUMBER_FIELDS)


def read_arithmetic(stream: TokenStream, first: Arithmetic | None = None) -> Arithmetic:
    """An arithmetic term; when its first operand was read already, it is given as `first`.

    Raises:
        SyntaxFault: what follows is not arithmetic, or nested too deep.
    """
    return _Reduction(stream).run(first)


class _Reduction:
    """Operands and operators not yet joined, and how deep the tree of each operand is."""

    def __init__(self, stream: TokenStream) -> None:
        self.stream = stream
        self.operands: list[tuple[Arithmetic, int]] = []
        self.operators: list[tuple[Token, int | None, bool]] = []

    def run(self, first: Arithmetic | None) -> Arithmetic:
        self._operand(first)
        while is_operator(self.stream.next):
            token = self.stream.take()
            self._reduce(PRECEDENCE[token.text])
            self.operators.append((token, PRECEDENCE[token.text], False))
            self._operand(None)
        while self.operators:
            self._join()
        return self.operands[0][0]

    def _operand(self, first: Arithmetic | None) -> None:
        if first is not None:
            self.operands.append((first, _depth(first)))
            return
        while minus := self.stream.take_mark("-"):
            self.operators.append((minus, UNARY_PRECEDENCE, True))
            self._limit(len(self.operators), minus)
        value = _primary(self.stream)
        self.operands.append((value, _depth(value)))

    def _reduce(self, incoming: int | None) -> None:
        """Join what binds tighter than the operator that comes now, or as tight."""
        while self.operators:
            held = self.operators[-1][1]
            if held is None or incoming is None or incoming > held:
                return
            self._join()

    def _join(self) -> None:
        token, _, is_unary = self.operators.pop()
        right, right_depth = self.operands.pop()
        if is_unary:
            span = token.span.to(right.span)
            self._push(Negate(right, span), right_depth + 1, token)
            return
        left, left_depth = self.operands.pop()
        operator = cast("BinaryOperator", token.text)
        _check_operation(self.stream, operator, right)
        node = Binary(operator, left, right, left.span.to(right.span))
        self._push(node, max(left_depth, right_depth) + 1, token)

    def _push(self, node: Arithmetic, depth: int, token: Token) -> None:
        self._limit(depth, token)
        self.operands.append((node, depth))

    def _limit(self, depth: int, token: Token) -> None:
        if depth > MAX_NESTING:
            message = f"this arithmetic has more than {MAX_NESTING} operators in a row"
            raise self.stream.faults.fail("PS108", message, token.span, hint="add the constants up by hand")


def _depth(node: Arithmetic) -> int:
    """How many operators deep a finished operand is; it is within the limit already."""
    deepest, pending = 0, [(node, 0)]
    while pending:
        current, depth = pending.pop()
        deepest = max(deepest, depth)
        match current:
            case Binary(left=left, right=right):
                pending += [(left, depth + 1), (right, depth + 1)]
            case Negate(operand=inner) | Accessor(offset=inner):
                pending.append((inner, depth + 1))
            case _:
                pass
    return deepest


def _check_operation(stream: TokenStream, operator: str, right: Arithmetic) -> None:
    value = literal(right)
    if value is None:
        return
    if operator in {"/", "%"} and value == 0:
        stream.faults.error("PS110", "this divides by zero", right.span)
    elif operator in {"<<", ">>"} and value > 31:
        stream.faults.error("PS110", "this shifts a 32-bit number by more than 31 bits", right.span)


def literal(term: Arithmetic) -> int | None:
    """The value of a plain number, whichever way it is spelled."""
    match term:
        case Number(value=value):
            return value
        case NamedNumber(name=name):
            return NAMED_NUMBERS[name]
        case _:
            return None


def number_term(token: Token) -> Number | NamedNumber:
    if token.text in NAMED_NUMBERS:
        return NamedNumber(token.text, token.span)
    return Number(token.value, token.text, token.span)


def _primary(stream: TokenStream) -> Arithmetic:
    token = stream.next
    if token.kind == "number":
        return number_term(stream.take())
    if token.kind == "constant":
        return Constant(token.text, stream.take().span)
    if is_arithmetic_word(token):
        return read_word(stream)
    if token.kind == "word" and token.text in PROTOCOLS and stream.following.is_mark("["):
        return read_accessor(stream)
    if token.is_mark("("):
        return _parenthesised(stream)
    raise stream.unexpected("a number", hint=_dash_hint(token))


def _dash_hint(token: Token) -> str | None:
    if token.kind == "name" and "-" in token.text:
        return "a dash inside a word belongs to the word; put blanks around a minus"
    return None


def _parenthesised(stream: TokenStream) -> Arithmetic:
    opening = stream.take()
    stream.nest(opening)
    inner = read_arithmetic(stream)
    stream.leave()
    close(stream, opening)
    return inner


def close(stream: TokenStream, opening: Token) -> Token:
    """Take the parenthesis or bracket that closes `opening`.

    Raises:
        SyntaxFault: something else comes next.
    """
    mark = ")" if opening.text == "(" else "]"
    closing = stream.take_mark(mark)
    if closing is not None:
        return closing
    if stream.next.kind == "end":
        raise stream.faults.fail("PS102", f"this `{opening.text}` is never closed", opening.span)
    raise stream.unexpected(f"`{mark}`")


def read_word(stream: TokenStream) -> FieldValue:
    token = stream.take()
    name = "len" if token.text == "length" else token.text
    return FieldValue(name, token.span)


def read_accessor(stream: TokenStream) -> Accessor:
    """`proto[offset]` or `proto[offset:size]`; the protocol comes next and `[` behind it.

    Raises:
        SyntaxFault: the brackets do not hold an offset and at most a size.
    """
    protocol = stream.take()
    opening = stream.take()
    stream.nest(opening)
    offset = read_arithmetic(stream)
    size = _size(stream) if stream.take_mark(":") else 1
    stream.leave()
    closing = close(stream, opening)
    name = PROTOCOLS[protocol.text]
    if name not in INDEXED:
        message = f"the bytes of `{protocol.text}` cannot be read like this"
        stream.faults.error("PS105", message, protocol.span, hint="count from `ether[…]` instead")
    return Accessor(name, offset, size, protocol.span.to(closing.span))


def _size(stream: TokenStream) -> int:
    if stream.next.kind != "number":
        raise stream.unexpected("a size (1, 2 or 4)")
    token = stream.take()
    if token.value not in _SIZES:
        stream.faults.error("PS110", "1, 2 or 4 bytes can be read at once", token.span)
        return 1
    return token.value
