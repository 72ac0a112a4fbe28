"""Read the primitives that begin with a keyword, up to the value of those that take one.

tcp src or dst port …     Head(Qualifiers("tcp", "src or dst", "port"))
vlan 100                  Encapsulation("vlan", 100)
ip multicast              Cast("ip", "multicast")
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import cast

from penstock.compiler.lang.arithmetic import close
from penstock.compiler.lang.ast import (
    Accessor,
    AtInterface,
    Binary,
    Cast,
    Constant,
    Direction,
    Encapsulation,
    Expr,
    FieldValue,
    Kind,
    LengthTest,
    Llc,
    Number,
    Protocol,
    Qualifiers,
    Relation,
    Way,
)
from penstock.compiler.lang.lexer import Token
from penstock.compiler.lang.source import Span
from penstock.compiler.lang.tokens import TokenStream
from penstock.compiler.lang.words import (
    DIRECTIONS,
    ENCAPSULATIONS,
    KINDS,
    LLC_KINDS,
    PROTOCOLS,
    REFUSED,
    suggestion,
)
from penstock.model.action import device_name_fault


@dataclass(frozen=True, slots=True)
class Head:
    """Qualifiers that were written out; a value, or several in parentheses, must follow."""

    qualifiers: Qualifiers
    start: Span


_QUALIFYING = frozenset({*DIRECTIONS, *KINDS})
_STARTS = frozenset(
    [
        *(*PROTOCOLS, *DIRECTIONS, *KINDS, *ENCAPSULATIONS, *REFUSED),
        *(
            "less",
            "greater",
            "byte",
            "llc",
            "broadcast",
            "multicast",
            "inbound",
            "outbound",
            "ifindex",
            "ifname",
        ),
    ]
)


def starts_term(token: Token) -> bool:
    """Whether a primitive that `read_term` reads can begin with this token."""
    return token.kind == "word" and token.text in _STARTS


def read_term(stream: TokenStream) -> Head | Expr:
    """The primitive that comes next, or its head when a value has to follow.

    Raises:
        SyntaxFault: the words do not make a primitive.
    """
    token = stream.next
    if token.text in PROTOCOLS:
        return _behind_protocol(stream, stream.take())
    if token.text in DIRECTIONS or token.text in KINDS:
        return _head(stream, None, token.span)
    if token.text in {"broadcast", "multicast"}:
        return _cast(stream, None, token.span)
    if token.text in ENCAPSULATIONS:
        return _encapsulation(stream)
    match token.text:
        case "less" | "greater":
            return _length(stream)
        case "byte":
            return _byte(stream)
        case "llc":
            return _llc(stream)
        case "inbound" | "outbound":
            return Way(token.text, stream.take().span)
        case "ifindex":
            return _at_index(stream)
        case "ifname":
            return _at_interface(stream)
        case _:
            raise stream.unexpected("a primitive")


def _at_index(stream: TokenStream) -> Relation:
    """`ifindex N`, which is `ifindex == N`."""
    word = stream.take()
    if stream.next.kind not in {"number", "constant"}:
        raise stream.unexpected("the number of an interface", hint='or its name: `ifname "eth0"`')
    token = stream.take()
    number = (
        Number(token.value, token.text, token.span)
        if token.kind == "number"
        else Constant(token.text, token.span)
    )
    return Relation("==", FieldValue("ifindex", word.span), number, word.span.to(token.span))


def _at_interface(stream: TokenStream) -> AtInterface:
    """`ifname "eth0"`, with or without the quotes."""
    word, token = stream.take(), stream.next
    if token.kind not in {"string", "name"}:
        raise stream.unexpected("the name of an interface", hint='as in `ifname "eth0"`')
    stream.take()
    fault = device_name_fault(token.text)
    if fault is not None:
        stream.faults.error("PS105", fault, token.span)
    return AtInterface(token.text, token.span, word.span.to(token.span))


def _behind_protocol(stream: TokenStream, protocol: Token) -> Head | Expr:
    name = PROTOCOLS[protocol.text]
    token = stream.next
    if name == "radio":
        message = "`radio` is refused: only captures with a radio header have that"
        raise stream.faults.fail("PS106", message, protocol.span)
    if token.kind == "word" and token.text in _QUALIFYING:
        return _head(stream, name, protocol.span)
    if token.is_word("broadcast", "multicast"):
        return _cast(stream, name, protocol.span)
    if token.kind == "word" and token.text in REFUSED:
        raise stream.unexpected("a qualifier")
    if name == "ether":
        message = f"every frame here is an Ethernet frame; `{protocol.text}` alone says nothing"
        hint = "as in `ether host MAC` or `ether proto 0x0806`"
        raise stream.faults.fail("PS105", message, protocol.span, hint=hint)
    return Protocol(name, protocol.span)


# ── qualifiers ───────────────────────────────────────────────────────────────


def _head(stream: TokenStream, protocol: str | None, start: Span) -> Head:
    direction = _direction(stream)
    token = stream.next
    is_kind = token.kind == "word" and token.text in KINDS
    kind = cast("Kind", stream.take().text) if is_kind else None
    if direction is not None and kind in {"proto", "protochain", "gateway"}:
        message = f"`{kind}` has no direction"
        raise stream.faults.fail("PS105", message, token.span, hint=f"leave `{direction}` out")
    if kind == "gateway":
        message = "`gateway` is refused: it needs the capturing host's table of Ethernet addresses"
        hint = "write `ether host MAC and not host ADDRESS`"
        raise stream.faults.fail("PS106", message, token.span, hint=hint)
    return Head(_qualifiers(protocol, direction, kind), start)


@cache
def _qualifiers(protocol: str | None, direction: Direction | None, kind: Kind | None) -> Qualifiers:
    return Qualifiers(protocol, direction, kind)


def _direction(stream: TokenStream) -> Direction | None:
    first = stream.next
    if first.kind != "word" or first.text not in DIRECTIONS:
        return None
    stream.take()
    joint = stream.take_word("and", "or")
    if joint is None:
        return "src" if first.text == "src" else "dst"
    other = "dst" if first.text == "src" else "src"
    if not stream.take_word(other):
        raise stream.unexpected(f"`{other}`", hint=f"`{first.text}` needs an address or a port behind it")
    return "src or dst" if joint.text == "or" else "src and dst"


# ── primitives without a value behind them ───────────────────────────────────


def _cast(stream: TokenStream, protocol: str | None, start: Span) -> Cast:
    token = stream.take()
    kind = "broadcast" if token.text == "broadcast" else "multicast"
    allowed = {None, "ether", "ip"} if kind == "broadcast" else {None, "ether", "ip", "ip6"}
    if protocol not in allowed:
        stream.faults.error("PS105", f"`{protocol}` has no {kind} address of its own", start.to(token.span))
    return Cast(protocol, "broadcast" if kind == "broadcast" else "multicast", start.to(token.span))


def _plain_number(stream: TokenStream, wanted: str) -> Token:
    if stream.next.kind != "number":
        raise stream.unexpected(wanted, hint=_constant_hint(stream.next))
    return stream.take()


def _constant_hint(token: Token) -> str | None:
    return "a constant may stand in a comparison, as in `len <= $most`" if token.kind == "constant" else None


def _length(stream: TokenStream) -> LengthTest:
    word = stream.take()
    number = _plain_number(stream, "a length in bytes")
    return LengthTest("less" if word.text == "less" else "greater", number.value, word.span.to(number.span))


def _byte(stream: TokenStream) -> Relation:
    """`byte N = V`, which the manual no longer mentions: the frame's Nth byte."""
    word = stream.take()
    place = _plain_number(stream, "the place of the byte")
    operator = stream.take_mark("==", "<", ">", "&", "|")
    if operator is None:
        raise stream.unexpected("one of `=`, `<`, `>`, `&` and `|`")
    value = _plain_number(stream, "a number")
    number = Number(value.value, value.text, value.span)
    read = Accessor("ether", Number(place.value, place.text, place.span), 1, word.span.to(place.span))
    span = word.span.to(value.span)
    match operator.text:
        case "&":
            return Relation("!=", Binary("&", read, number, span), Number(0, "0", value.span), span)
        case "|":
            return Relation("!=", Binary("|", read, number, span), Number(0, "0", value.span), span)
        case "<":
            return Relation("<", read, number, span)
        case ">":
            return Relation(">", read, number, span)
        case _:
            return Relation("==", read, number, span)


def _encapsulation(stream: TokenStream) -> Encapsulation:
    word = stream.take()
    kind, most = ENCAPSULATIONS[word.text]
    token = stream.next
    if token.kind == "constant":
        hint = f"write `vlan and vlan.id == ${token.text}`" if kind == "vlan" else None
        raise stream.unexpected("a number", hint=hint)
    if most is None or not (token.kind == "number" or token.is_mark("(")):
        return Encapsulation(kind, None, word.span)
    number = _wrapped_number(stream)
    if number.value > most:
        stream.faults.error("PS104", f"{number.value} is too big: `{kind}` takes at most {most}", number.span)
    return Encapsulation(kind, number.value, word.span.to(stream.last.span))


def _wrapped_number(stream: TokenStream) -> Token:
    """A number, in as many parentheses as libpcap also allows."""
    opened = []
    while token := stream.take_mark("("):
        stream.nest(token)
        opened.append(token)
    number = _plain_number(stream, "one number")
    for token in reversed(opened):
        close(stream, token)
    stream.leave(len(opened))
    return number


def _llc(stream: TokenStream) -> Llc:
    word = stream.take()
    token = stream.next
    if token.is_word("rnr"):
        return Llc("rnr", word.span.to(stream.take().span))
    if token.kind != "name" or token.text == "xor":
        return Llc(None, word.span)
    if token.text.lower() not in LLC_KINDS:
        kinds = tuple(sorted(LLC_KINDS))
        hint = suggestion(token.text, kinds) or "one of " + ", ".join(kinds)
        message = f"`{token.text[:40]}` is not a type of LLC frame"
        raise stream.faults.fail("PS103", message, token.span, hint=hint)
    return Llc(token.text.lower(), word.span.to(stream.take().span))
