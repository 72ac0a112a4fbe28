"""Read the test of a set, behind the qualifiers that say what is looked up.

    src in @threats
    src . dst port in @allowed          a part of a key, and another one

A part names one thing: `src` or `dst`, unless it is a protocol.
"""

from __future__ import annotations

from penstock.compiler.lang.ast import Membership, Qualifiers
from penstock.compiler.lang.faults import Faults
from penstock.compiler.lang.primitive import Head, read_term, starts_term
from penstock.compiler.lang.source import Span
from penstock.compiler.lang.spelling import spell_qualifiers
from penstock.compiler.lang.tokens import TokenStream

_KEY_HINT = "as in `src in @hosts`, `dst port in @ports`, `ether src in @macs`"
_PARTS_HINT = "as in `src . dst port in @allowed`"


def is_membership(stream: TokenStream) -> bool:
    """Whether `in @set` or the next part of a key follows qualifiers; `in` alone may be the name of a host."""
    return _is_in(stream) or stream.next.is_mark(".")


def _is_in(stream: TokenStream) -> bool:
    return stream.next.kind == "name" and stream.next.text == "in" and stream.following.kind == "set"


def read_membership(stream: TokenStream, first: Head) -> Membership:
    """`in @set` behind qualifiers, or behind several of them with dots between.

    Raises:
        SyntaxFault: something else stands there.  Keys that no set holds are noted in `stream.faults`.
    """
    keys = [first.qualifiers]
    while stream.take_mark("."):
        keys.append(_part(stream).qualifiers)
    if not _is_in(stream):
        raise stream.unexpected("`in @SET`", hint=_PARTS_HINT)
    stream.take()
    name = stream.take()
    span = first.start.to(name.span)
    _check(keys, span, stream.faults)
    return Membership(tuple(keys), name.text, name.span, span)


def _part(stream: TokenStream) -> Head:
    token = stream.next
    head = read_term(stream) if starts_term(token) else None
    if not isinstance(head, Head):
        message = "a part of a key should follow the dot"
        raise stream.faults.fail("PS102", message, token.span, hint=_PARTS_HINT)
    return head


def _check(keys: list[Qualifiers], span: Span, faults: Faults) -> None:
    """Report qualifiers that name nothing that a set can hold, and parts of a key that could be two."""
    for key in keys:
        if not _is_key(key):
            shown = spell_qualifiers(key)
            faults.error("PS105", f"`{shown}` is nothing that a set holds", span, hint=_KEY_HINT)
        elif len(keys) > 1 and key.kind != "proto" and key.direction not in ("src", "dst"):
            hint = "write `src` or `dst` before each part"
            faults.error("PS105", "a part of a key is one thing", span, hint=hint)


def _is_key(key: Qualifiers) -> bool:
    match key.kind:
        case None | "host" | "net":
            return key.protocol in (None, "ip", "ip6", "arp", "rarp", "ether") and not (
                key.protocol == "ether" and key.kind == "net"
            )
        case "port":
            return key.protocol in (None, "tcp", "udp", "sctp")
        case "proto":
            return key.protocol in (None, "ip", "ip6")
        case _:
            return False
