"""What somebody may have meant who wrote no expression: the words of the reader's diagnostics.

wanted(Qualifiers(kind="port"))    ->  "a port"
misspelt(Token("name", "prot"))    ->  "did you mean `proto`?"
"""

from __future__ import annotations

from penstock.compiler.lang.ast import Qualifiers
from penstock.compiler.lang.lexer import Token
from penstock.compiler.lang.words import EXPRESSION_WORDS, suggestion


def wanted(inherit: Qualifiers | None) -> str:
    """What should stand here, behind qualifiers that go on or without any."""
    if inherit is None:
        return "a primitive such as `tcp` or `host 10.0.0.1`"
    match inherit.kind:
        case "port" | "portrange":
            return "a port"
        case "proto" | "protochain":
            return "a protocol's number or `\\name`"
        case "net":
            return "a network"
        case _:
            return "an address"


def misspelt(token: Token) -> str | None:
    """`src prot 53`: the last value may have been meant for a keyword."""
    return suggestion(token.text, EXPRESSION_WORDS) if token.kind == "name" else None


def joining_hint(token: Token) -> str | None:
    """Of two primitives side by side."""
    if token.kind in {"number", "name", "ipv4", "ipv6", "mac", "constant"}:
        return "join two primitives with `and` or `or`"
    return None
