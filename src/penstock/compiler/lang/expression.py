"""Read one pcap-filter expression, with penstock's additions, from its tokens.

    expression = operand { ("and" | "or" | "xor") operand }      left to right, equal precedence
    operand    = { "not" } ( primitive | relation | value | "(" expression ")" )
    primitive  = [protocol] [direction] [kind] value | protocol | vlan … | less … | form | …
    form       = pcap "EXPR" | inner(expression) | over RATE per KEY … | sample 1/N
    relation   = arithmetic ("<" | "<=" | ">" | ">=" | "=" | "==" | "!=") arithmetic

A value alone takes the qualifiers of the primitive to its left.  libpcap hands
them through parentheses, too: `port 80 and (udp) or 443` means `… or port 443`,
while `(port 80) or 443` is refused, because before the parenthesis stood none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from penstock.compiler.lang.arithmetic import (
    RELATIONS,
    close,
    is_arithmetic_word,
    is_operator,
    number_term,
    read_arithmetic,
)
from penstock.compiler.lang.ast import (
    And,
    Arithmetic,
    Constant,
    Expr,
    FieldFlag,
    Inner,
    Name,
    NamedNumber,
    Not,
    Number,
    Or,
    Pcap,
    Primitive,
    Qualifiers,
    Relation,
    RelationOperator,
    Value,
    Xor,
)
from penstock.compiler.lang.faults import Faults, SyntaxFault
from penstock.compiler.lang.hints import joining_hint, misspelt, wanted
from penstock.compiler.lang.lexer import Token
from penstock.compiler.lang.membership import is_membership, read_membership
from penstock.compiler.lang.primitive import Head, read_term, starts_term
from penstock.compiler.lang.qualification import check_value
from penstock.compiler.lang.rate import is_amount, read_over, read_sample
from penstock.compiler.lang.source import Span
from penstock.compiler.lang.tokens import TokenStream
from penstock.compiler.lang.values import BadValue, read_value
from penstock.compiler.lang.words import (
    FLAG_FIELDS,
    FORM_WORDS,
    KINDS,
    LATER_EVENT_FIELDS,
    NAMED_NUMBERS,
    NUMBER_FIELDS,
    OPERATOR_WORDS,
    PROTOCOLS,
    later,
    suggestion,
)

_JOINTS: dict[str, type[And | Or | Xor]] = {"and": And, "or": Or, "xor": Xor}
_BARE_HINT = "as in `host 10.0.0.1`, `net 10.0.0.0/8` or `port 53`"


@dataclass(frozen=True, slots=True)
class _Number:
    """A number whose place is not known yet: a value (`port 80`) or the start of arithmetic."""

    term: Number | NamedNumber | Constant


@dataclass(frozen=True, slots=True)
class _Sum:
    """Arithmetic in parentheses, still waiting for its relation."""

    term: Arithmetic


@dataclass(frozen=True, slots=True)
class _Read:
    """A finished expression; `inherit` are the qualifiers that a bare value to its right takes."""

    node: Expr
    inherit: Qualifiers | None
    is_value: bool = False


_Operand = _Number | _Sum | _Read


def read_expression(stream: TokenStream) -> Expr | None:
    """The expression that the tokens are, or None when there are none: it matches everything.

    Raises:
        SyntaxFault: the tokens are no expression.  Lesser faults are noted in `stream.faults`.
    """
    if stream.at_end():
        return None
    reader = _Reader(stream)
    found = reader.sequence(None, values_only=False)
    if not stream.at_end():
        raise reader.misplaced()
    return reader.finished(found, None).node


class _Reader:
    def __init__(self, stream: TokenStream) -> None:
        self.stream = stream
        self.head: Head | None = None

    @property
    def faults(self) -> Faults:
        return self.stream.faults

    # ── operands joined by and, or, xor ──────────────────────────────────────

    def sequence(self, inherit: Qualifiers | None, *, values_only: bool) -> _Operand:
        found = self.operand(inherit, values_only=values_only)
        if self._operator() is None:
            return found
        left = self.finished(found, inherit)
        while (word := self._operator()) is not None:
            self.stream.take()
            # libpcap: what begins with a value is a list of values up to its parenthesis.
            only = values_only or left.is_value
            right = self.finished(self.operand(left.inherit, values_only=only), left.inherit)
            span = left.node.span.to(right.node.span)
            left = _Read(_JOINTS[word](left.node, right.node, span), right.inherit, left.is_value)
        return left

    def _operator(self) -> str | None:
        token = self.stream.next
        if token.text in OPERATOR_WORDS and token.kind in {"word", "name"}:
            return OPERATOR_WORDS[token.text]
        return None

    def finished(self, found: _Operand, inherit: Qualifiers | None) -> _Read:
        """The operand as an expression: a number becomes a bare value."""
        match found:
            case _Read():
                return found
            case _Number(term=term):
                return self._bare(_as_value(term), inherit)
            case _Sum(term=term):
                message = "this is a number; a comparison such as `= 1` should follow"
                raise self.faults.fail("PS102", message, term.span)

    def misplaced(self) -> SyntaxFault:
        token = self.stream.next
        if token.is_mark(")"):
            return self.faults.fail("PS102", "this `)` closes nothing", token.span)
        hint = misspelt(self.stream.last) or joining_hint(token)
        return self.stream.unexpected("`and`, `or` or the end of the expression", hint=hint)

    # ── one operand ──────────────────────────────────────────────────────────

    def operand(self, inherit: Qualifiers | None, *, values_only: bool) -> _Operand:
        nots: list[Token] = []
        while token := self.stream.take_word("not"):
            self.stream.nest(token)
            nots.append(token)
        found = self._arithmetic(self._first(inherit, values_only), values_only)
        if not nots:
            return found
        self.stream.leave(len(nots))
        read = self.finished(found, inherit)
        node = read.node
        for token in reversed(nots):
            node = Not(node, token.span.to(node.span))
        return _Read(node, read.inherit, read.is_value)

    def _first(self, inherit: Qualifiers | None, values_only: bool) -> _Operand:
        stream = self.stream
        token = stream.next
        if token.kind == "mark" and token.text == "(":
            return self._parenthesised(inherit, values_only)
        if token.kind == "number" and not (values_only and stream.following.is_mark("/")):
            return _Number(number_term(stream.take()))
        if token.kind == "constant":
            return _Number(Constant(token.text, stream.take().span))
        if values_only:
            return self._value(inherit)
        if token.is_mark("-") or self._is_arithmetic(token):
            return _Sum(read_arithmetic(stream))
        if token.kind == "name" and token.text in FLAG_FIELDS:
            return _Read(FieldFlag(token.text, stream.take().span), None)
        if starts_term(token):
            return self._term()
        if self._is_form(token, inherit):
            return self._form(token)
        if token.kind == "name" and token.text == "in" and stream.following.kind == "set":
            message = "what is looked up should stand before `in`"
            raise self.faults.fail(
                "PS105", message, token.span, hint=f"as in `src in @{stream.following.text}`"
            )
        self._refuse_later(token)
        return self._value(inherit)

    def _is_arithmetic(self, token: Token) -> bool:
        """Whether arithmetic begins here; a field's name only does where a comparison can follow."""
        if token.kind not in {"word", "name"}:
            return False
        follows = self.stream.following
        if token.kind == "word" and follows.is_mark("["):
            return token.text in PROTOCOLS
        if token.is_word("ifindex") and follows.kind in {"number", "constant"}:
            return False
        if token.kind == "name" and not (is_operator(follows) or follows.is_mark(*RELATIONS, ")")):
            return False
        return is_arithmetic_word(token)

    def _parenthesised(self, inherit: Qualifiers | None, values_only: bool) -> _Operand:
        opening = self.stream.take()
        self.stream.nest(opening)
        found = self.sequence(inherit, values_only=values_only)
        self.stream.leave()
        close(self.stream, opening)
        if isinstance(found, _Read) and not found.is_value:
            return _Read(found.node, inherit)
        return found

    def _term(self) -> _Read:
        found = read_term(self.stream)
        if not isinstance(found, Head):
            return _Read(found, None)
        if is_membership(self.stream):
            return _Read(read_membership(self.stream, found), None)
        self.head = found
        values = self.finished(self.operand(found.qualifiers, values_only=True), found.qualifiers)
        return _Read(values.node, values.inherit)

    def _pcap(self) -> _Read:
        """`pcap "EXPR"`; what the quotes hold is libpcap's to read."""
        word, token = self.stream.take(), self.stream.next
        if token.kind != "string":
            raise self.stream.unexpected("an expression in double quotes", hint='as in `pcap "udp port 53"`')
        self.stream.take()
        inside = Span(token.span.start + 1, token.span.end - 1)
        return _Read(Pcap(token.text, inside, word.span.to(token.span)), None)

    def _is_form(self, token: Token, inherit: Qualifiers | None) -> bool:
        """Whether one of the FORM_WORDS begins its form here; what only looks like one may be the name of a host."""
        if token.kind != "name" or token.text not in FORM_WORDS:
            return False
        follows = self.stream.following
        match token.text:
            case "pcap":
                return inherit is None or follows.kind == "string"
            case "inner":
                return inherit is None or follows.is_mark("(")
            case _:
                return inherit is None or is_amount(follows)

    def _form(self, token: Token) -> _Read:
        match token.text:
            case "pcap":
                return self._pcap()
            case "inner":
                return self._inner()
            case "over":
                return _Read(read_over(self.stream), None)
            case _:
                return _Read(read_sample(self.stream), None)

    def _inner(self) -> _Read:
        """`inner(EXPR)`; qualifiers go neither into the parentheses nor out of them."""
        word, opening = self.stream.take(), self.stream.next
        if not opening.is_mark("("):
            raise self.stream.unexpected(
                "an expression in parentheses", hint="as in `inner(tcp dst port 80)`"
            )
        self.stream.nest(self.stream.take())
        found = self.finished(self.sequence(None, values_only=False), None)
        self.stream.leave()
        close(self.stream, opening)
        return _Read(Inner(found.node, word.span.to(self.stream.last.span)), None)

    # ── values ───────────────────────────────────────────────────────────────

    def _value(self, inherit: Qualifiers | None) -> _Read:
        token = self.stream.next
        if inherit is None and token.kind == "name":
            raise self._unknown(token)
        kind = inherit.kind if inherit else None
        return self._bare(read_value(self.stream, kind, wanted(inherit)), inherit)

    def _unknown(self, token: Token) -> SyntaxFault:
        if token.text in NUMBER_FIELDS:
            message = f"`{token.text}` is a number; a comparison such as `{token.text} == 1` should follow"
            return self.faults.fail("PS102", message, token.span)
        return self.stream.unknown(token, "a primitive such as `tcp` or `host NAME`", _BARE_HINT)

    def _bare(self, value: Value, inherit: Qualifiers | None) -> _Read:
        if inherit is None:
            message = "a value needs a qualifier before it that says what it is"
            raise self.faults.fail("PS105", message, value.span, hint=_BARE_HINT)
        try:
            check_value(inherit, value)
        except BadValue as fault:
            self._refuse(inherit, value, fault)
        # The first value behind qualifiers owns them; the others inherit them.
        head, self.head = self.head, None
        span = head.start.to(value.span) if head else value.span
        return _Read(Primitive(inherit, value, head is None, span), inherit, is_value=True)

    def _refuse(self, inherit: Qualifiers, value: Value, fault: BadValue) -> None:
        """Note that the value cannot stand there; a name may be meant for the keyword that is missing."""
        meant = suggestion(value.text, KINDS) if isinstance(value, Name) and inherit.kind is None else None
        if meant is not None:
            raise self.faults.fail("PS103", f"`{inherit.protocol}` has no hosts", value.span, hint=meant)
        self.faults.error("PS105", str(fault), value.span, hint=fault.hint)

    # ── relations ────────────────────────────────────────────────────────────

    def _arithmetic(self, found: _Operand, values_only: bool) -> _Operand:
        """The operand itself, or with the operators and the relation that follow it."""
        stream = self.stream
        if isinstance(found, _Read) or values_only:
            return found
        term = found.term
        if is_operator(stream.next):
            term = read_arithmetic(stream, term)
            found = _Sum(term)
        relation = stream.take_mark(*RELATIONS)
        if relation is None:
            return found
        right = read_arithmetic(stream)
        if stream.next.is_mark(*RELATIONS):
            message = "comparisons cannot be chained"
            raise self.faults.fail("PS102", message, stream.next.span, hint="join two of them with `and`")
        operator = cast("RelationOperator", relation.text)
        return _Read(Relation(operator, term, right, term.span.to(right.span)), None)

    def _refuse_later(self, token: Token) -> None:
        follows = self.stream.following
        if token.kind == "name" and token.text in LATER_EVENT_FIELDS and follows.is_mark(*RELATIONS):
            raise self.faults.fail("PS107", later(token.text, "filtering events"), token.span)


def _as_value(term: Number | NamedNumber | Constant) -> Number | Constant:
    if isinstance(term, NamedNumber):
        return Number(NAMED_NUMBERS[term.name], term.name, term.span)
    return term
