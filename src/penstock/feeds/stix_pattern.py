"""The part of the STIX 2.1 pattern language that names addresses (OASIS STIX 2.1, section 9).

    pattern     = observation { "OR" observation }
    observation = "[" comparison { "OR" comparison } "]"
    comparison  = path ( "=" | "ISSUBSET" ) string | path "IN" "(" string { "," string } ")"

Parentheses may stand around any of these.  Comparisons of other things than addresses
(domains, files) may stand in an OR and name none.

>>> addresses_of("[ipv4-addr:value = '192.0.2.7' OR ipv4-addr:value ISSUBSET '198.51.100.0/24']")
['192.0.2.7', '198.51.100.0/24']
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"\s*(?:(?P<string>'(?:[^'\\]|\\.)*')|(?P<path>[A-Za-z][\w-]*:[\w.\-\[\]*']+)"
    r"|(?P<word>[A-Za-z]+)|(?P<symbol>[<>!]?=|[\[\](),<>])|(?P<other>\S))",
    re.ASCII | re.DOTALL,
)
_ADDRESSES = frozenset(
    f"{name}:{part}"
    for name, part in (
        ("ipv4-addr", "value"),
        ("ipv6-addr", "value"),
        ("network-traffic", "src_ref.value"),
        ("network-traffic", "dst_ref.value"),
    )
)
_LONGEST = 1 << 16
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class NotAddressesError(Exception):
    """A pattern that cannot be applied as a list of addresses; its text says why."""


def addresses_of(pattern: str) -> list[str]:
    """The addresses and prefixes any of which is what the pattern asks for; none if it speaks of other things.

    Raises:
        NotAddressesError: it speaks of addresses and asks for more, or is no pattern.
    """
    if not any(path.partition(":")[0] in pattern for path in _ADDRESSES):
        return []
    if len(pattern) > _LONGEST:
        raise NotAddressesError("a pattern of more than 65536 characters")
    reading = _Reading(_tokens(pattern))
    reading.observations()
    return reading.found


def _tokens(pattern: str) -> list[tuple[str, str]]:
    matches = _TOKEN.finditer(pattern.rstrip())
    tokens = [(str(match.lastgroup), match[str(match.lastgroup)]) for match in matches]
    return [*tokens, ("end", "the end")]


@dataclass(slots=True)
class _Reading:
    tokens: list[tuple[str, str]]
    at: int = 0
    depth: int = 0
    found: list[str] = field(default_factory=list)

    def observations(self) -> None:
        self._open()
        while True:
            self._expect("[")
            self._comparisons()
            self._expect("]")
            self._close()
            if self._kind() == "end":
                break
            self._or()
            self._open()
        if self.depth:
            raise NotAddressesError("a parenthesis is not closed")

    def _comparisons(self) -> None:
        outside, self.depth = self.depth, 0
        self._open()
        while True:
            self._comparison()
            self._close()
            if self._word() == "]":
                break
            self._or()
            self._open()
        if self.depth:
            raise NotAddressesError("a parenthesis is not closed")
        self.depth = outside

    def _comparison(self) -> None:
        path = self._take("path")
        operator = self._word().upper()
        if operator not in ("=", "ISSUBSET", "IN"):
            raise NotAddressesError(f"`{self._shown()}` is not taken: =, IN and ISSUBSET are")
        self.at += 1
        values = self._list() if operator == "IN" else [self._value()]
        if path in _ADDRESSES:
            self.found.extend(values)

    def _list(self) -> list[str]:
        self._expect("(")
        values = [self._value()]
        while self._word() == ",":
            self.at += 1
            values.append(self._value())
        self._expect(")")
        return values

    def _value(self) -> str:
        return _ESCAPE.sub(r"\1", self._take("string")[1:-1])

    def _or(self) -> None:
        if self._word().upper() != "OR":
            raise NotAddressesError(f"`{self._shown()}` is not taken: it asks for more than an address")
        self.at += 1

    def _open(self) -> None:
        while self._word() == "(":
            self.at += 1
            self.depth += 1

    def _close(self) -> None:
        while self._word() == ")" and self.depth:
            self.at += 1
            self.depth -= 1

    def _expect(self, text: str) -> None:
        if self._word() != text:
            raise NotAddressesError(f"no pattern: `{text}` is expected, not `{self._shown()}`")
        self.at += 1

    def _take(self, kind: str) -> str:
        if self._kind() != kind:
            raise NotAddressesError(f"no pattern of addresses: a {kind} is expected, not `{self._shown()}`")
        self.at += 1
        return self.tokens[self.at - 1][1]

    def _kind(self) -> str:
        return self.tokens[self.at][0]

    def _word(self) -> str:
        """The symbol or word here; nothing if it is another thing, whose text could look like one."""
        kind, text = self.tokens[self.at]
        return text if kind in ("symbol", "word") else ""

    def _shown(self) -> str:
        return self.tokens[self.at][1][:20]
