"""Read the actions that change a set from the packet path.

add src to @scanners for 10m            ->  Change("src", "scanners", adds=True, stay_ns=600 * 10**9)
remove src . dst port from @pairs       ->  Change("src . dst port", "pairs", adds=False)

What is added is a key of the set, made of the packet's own fields: the words are
those that stand before `in @SET`, each with its direction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from penstock.compiler.lang.ast import Expr, Membership, Primitive, Protocol, Qualifiers
from penstock.compiler.lang.sets import read_time
from penstock.compiler.lang.source import Span
from penstock.compiler.lang.spelling import spell_qualifiers
from penstock.compiler.lang.walk import conjuncts
from penstock.model.action import Change

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.compiler.lang.ast import ActionWord, Direction, Kind
    from penstock.compiler.lang.cursor import Cursor
    from penstock.compiler.lang.faults import SyntaxFault
    from penstock.compiler.lang.findings import Findings

#: Each action with the word between the field and the set.
CHANGES = {"add": "to", "remove": "from"}
_PROTOCOLS = ("ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "ether")
_PORTED = ("tcp", "udp", "sctp")
_EXAMPLES = {"add": "add src to @scanners for 10m", "remove": "remove src from @scanners"}
#: Protocols that have no ports, and those whose packets have no addresses of one family.
_NO_PORTS = frozenset({"icmp", "icmp6", "igmp", "arp", "rarp"})
_ONLY = {
    "ip": {"ip6", "icmp6", "arp", "rarp"},
    "ip6": {"ip", "icmp", "igmp", "arp", "rarp"},
    "arp": {"ip", "ip6", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp"},
    "rarp": {"ip", "ip6", "arp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp"},
    "tcp": {"udp", "sctp"},
    "udp": {"tcp", "sctp"},
    "sctp": {"tcp", "udp"},
}


def read_change(cursor: Cursor) -> tuple[ActionWord, Change, Membership, Span]:
    """`add FIELD to @SET [for TIME]` or `remove FIELD from @SET`: the action, its target, and the place of all.

    Raises:
        SyntaxFault: it is neither.
    """
    word = cursor.peek_word()
    start = cursor.advance(len(word))
    cursor.skip_blanks()
    first = cursor.at
    keys = [_key(cursor, word)]
    while cursor.take_mark("."):
        keys.append(_key(cursor, word))
    if not cursor.take_word(CHANGES[word]):
        raise cursor.unexpected(f"`{CHANGES[word]}` and a set", hint=f"as in: {_EXAMPLES[word]}")
    cursor.expect_mark("@", f"behind `{CHANGES[word]}`")
    name, span = cursor.identifier("a set")
    end, stay = span, None
    if word == "add" and cursor.take_word("for"):
        stay, end = read_time(cursor)
    elif word == "remove" and cursor.peek_word() == "for":
        message = "`remove` is done at once, and has no time"
        raise cursor.faults.fail("PS102", message, cursor.here(), hint=_EXAMPLES[word])
    field = " . ".join(spell_qualifiers(key) for key in keys)
    target = Membership(tuple(keys), name, span, Span(first, span.end))
    change = Change(field, name, adds=word == "add", stay_ns=stay)
    return cast("ActionWord", word), change, target, start.to(end)


def _key(cursor: Cursor, action: str) -> Qualifiers:
    """One part of a key: `src`, `tcp dst port`, `ether src`, `proto`."""
    cursor.skip_blanks()
    start = cursor.at
    protocol = _taken(cursor, _PROTOCOLS)
    direction = _taken(cursor, ("src", "dst"))
    kind = _taken(cursor, ("port", "proto", "host"))
    if direction is None and kind != "proto":
        raise _no_field(cursor, Span(start, cursor.at), action)
    fits = {
        "port": protocol in (None, *_PORTED),
        "proto": direction is None and protocol in (None, "ip", "ip6"),
    }
    if not fits.get(kind or "", protocol not in _PORTED):
        shown = " ".join(filter(None, (protocol, direction, kind)))
        hint = f"{protocol} src port" if protocol in _PORTED else None
        raise cursor.faults.fail(
            "PS105", f"`{shown}` is nothing that a set holds", Span(start, cursor.at), hint=hint
        )
    return Qualifiers(protocol, cast("Direction | None", direction), cast("Kind | None", kind))


def _taken(cursor: Cursor, words: tuple[str, ...]) -> str | None:
    word = cursor.peek_word()
    return word if cursor.take_word(*words) else None


def _no_field(cursor: Cursor, span: Span, action: str) -> SyntaxFault:
    hint = (
        f"as in: {_EXAMPLES[action]}; fields are src, dst, src port, dst port, ether src, proto and the like"
    )
    if span.start == span.end:
        return cursor.unexpected("a field of the packet", f"behind `{action}`", hint=hint)
    return cursor.faults.fail(
        "PS105", f"`{action}` is about one thing: write `src` or `dst`", span, hint=hint
    )


# ── what no packet of a rule has ─────────────────────────────────────────────


def check_field(target: Membership, condition: Expr | None, findings: Findings) -> None:
    """Report a field that packets for which the condition holds cannot have."""
    named = {name: term for term in conjuncts(condition) for name in _protocols(term)} if condition else {}
    for key in target.keys:
        refused = set(_NO_PORTS) if key.kind == "port" else set()
        refused |= _ONLY.get(key.protocol or "", set())
        for name in sorted(refused & named.keys()):
            message = f"packets of `{name}` have no `{spell_qualifiers(key)}`"
            findings.error("PS119", message, target.span)
            return


def _protocols(term: Expr) -> Iterator[str]:
    match term:
        case Protocol(name=name):
            yield name
        case Primitive():
            if term.qualifiers.protocol:
                yield term.qualifiers.protocol
        case Membership(keys=keys):
            yield from (key.protocol for key in keys if key.protocol)
        case _:
            return
