"""Keys and values of maps as people write them: from text to nodes, and from plain values to text.

    value  = "{" [ NAME ":" value { "," … } ] "}" | "[" [ value { "," value } ] "]" | STRING | WORD
    WORD   = whatever has no space and none of  , { } [ ] "

A word is a number (`-1`, `0x1f`), an address (`10.0.0.0/8`), the name of a
constant, or bytes (`hex:00ff`).  What `penstock map dump` prints, and JSON, can be
written back.

    parse(Source("key", "{port: 53, from: 10.0.0.1}"))   ->  Record(…)
    render({"port": 53, "from": Word("10.0.0.1")})       ->  "{port: 53, from: 10.0.0.1}"
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.compiler.lang.faults import Faults, SyntaxFault
from penstock.compiler.lang.source import Source, Span
from penstock.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable

_DEEPEST = 64
_TOKEN = re.compile(
    r'\s*(?:(?P<mark>[{}\[\],])|(?P<string>"(?:[^"\\]|\\.)*")|(?P<word>[^\s,{}\[\]"]+)|(?P<odd>\S))',
    re.DOTALL,
)
_NAMED = re.compile(r"(?P<name>[A-Za-z_$][\w.$]*):(?P<rest>.*)", re.DOTALL)


class Word(str):
    """Text that is written without quotes: an address, a constant's name, bytes."""

    __slots__ = ()


#: What is left of a value when the types have been applied: what JSON can say, and `Word`.
Plain = int | float | bool | str | list["Plain"] | dict[str, "Plain"]


@dataclass(frozen=True, slots=True)
class Atom:
    """A word or, if `is_quoted`, the contents of a string."""

    text: str
    span: Span
    is_quoted: bool = False


@dataclass(frozen=True, slots=True)
class Sequence:
    """`[ … ]`."""

    items: tuple[Node, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Record:
    """`{ … }`: names and what they are given, in order."""

    entries: tuple[tuple[Atom, Node], ...]
    span: Span


Node = Atom | Sequence | Record


def render(value: Plain) -> str:
    """The value as text that `parse` reads."""
    match value:
        case Word():
            return str(value)
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case list():
            return f"[{', '.join(map(render, value))}]"
        case dict():
            inner = ", ".join(f"{name}: {render(below)}" for name, below in value.items())
            return f"{{{inner}}}"
        case _:
            return str(value)


def parse(source: Source) -> Node:
    """The text as nodes.

    Raises:
        PolicyError: it is no value; the diagnostic has the place.
    """
    parser = _Parser(source)
    try:
        found = parser.value(0)
        parser.end()
    except SyntaxFault as fault:
        raise PolicyError((fault.diagnostic,)) from fault
    return found


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    span: Span


class _Parser:
    def __init__(self, source: Source) -> None:
        self._faults = Faults(source)
        self._tokens = list(_tokens(source.text))
        self._at = 0

    def value(self, depth: int) -> Node:
        token = self._next()
        if depth > _DEEPEST:
            raise self._wrong(token, f"more than {_DEEPEST} brackets in one another")
        match token:
            case _Token("mark", "{"):
                return self._record(token, depth)
            case _Token("mark", "["):
                return self._sequence(token, depth)
            case _Token("string"):
                return Atom(self._unquoted(token), token.span, is_quoted=True)
            case _Token("word"):
                return Atom(token.text, token.span)
            case _Token("end"):
                raise self._wrong(token, "a value is missing here")
            case _Token("odd", '"'):
                raise self._wrong(token, "this string is not closed")
            case _:
                raise self._wrong(token, f"a value was expected, not `{token.text}`")

    def end(self) -> None:
        token = self._next()
        if token.kind != "end":
            hint = "an array is written [1, 2], a struct {name: 1, other: 2}; quote text with spaces"
            raise self._wrong(token, "the value has ended before this", hint)

    def _record(self, opening: _Token, depth: int) -> Node:
        entries: list[tuple[Atom, Node]] = []

        def entry() -> None:
            name = self._name()
            entries.append((name, self.value(depth + 1)))

        last = self._separated("}", entry)
        return Record(tuple(entries), opening.span.to(last.span))

    def _sequence(self, opening: _Token, depth: int) -> Node:
        items: list[Node] = []
        last = self._separated("]", lambda: items.append(self.value(depth + 1)))
        return Sequence(tuple(items), opening.span.to(last.span))

    def _separated(self, closing: str, item: Callable[[], None]) -> _Token:
        if self._peek().text == closing and self._peek().kind == "mark":
            return self._next()
        while True:
            item()
            token = self._next()
            if token.kind == "mark" and token.text == closing:
                return token
            if token.kind != "mark" or token.text != ",":
                shown = "the text ends" if token.kind == "end" else f"`{token.text}`"
                raise self._wrong(token, f"`,` or `{closing}` was expected, not {shown}")

    def _name(self) -> Atom:
        """A member's name and its colon; a value that stands at the colon is left for the next call."""
        token = self._next()
        if token.kind == "string" and self._peek().text.startswith(":"):
            colon = self._next()
            self._put_back(colon, 1)
            return Atom(self._unquoted(token), token.span)
        found = _NAMED.fullmatch(token.text) if token.kind == "word" else None
        if found is not None:
            self._put_back(token, found.start("rest"))
            return Atom(found["name"], Span(token.span.start, token.span.start + found.end("name")))
        if token.kind == "word" and self._peek().text.startswith(":"):
            self._put_back(self._next(), 1)
            return Atom(token.text, token.span)
        raise self._wrong(token, "a member's name and a colon were expected", "{name: value, other: value}")

    def _put_back(self, token: _Token, used: int) -> None:
        if rest := token.text[used:]:
            self._at -= 1
            self._tokens[self._at] = _Token(token.kind, rest, Span(token.span.start + used, token.span.end))

    def _unquoted(self, token: _Token) -> str:
        try:
            return str(json.loads(token.text))
        except ValueError as error:
            hint = r"a quote inside is \", a backslash \\, a byte that cannot be typed \u0007"
            raise self._wrong(token, "this string is not one as JSON has them", hint) from error

    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        self._at += token.kind != "end"
        return token

    def _wrong(self, token: _Token, message: str, hint: str | None = None) -> SyntaxFault:
        return self._faults.fail("PS501", message, token.span, hint=hint)


def _tokens(text: str) -> list[_Token]:
    found = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "odd"
        found.append(_Token(kind, match[kind], Span(match.start(kind), match.end(kind))))
    return [*found, _Token("end", "", Span(len(text), len(text)))]
