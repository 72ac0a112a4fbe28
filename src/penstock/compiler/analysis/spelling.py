"""A class of packets with its opaque predicates, as text.

    proto 6, dport 22; transport[20:2] > 7      ->  tcp dst port 22 and tcp[20:2] > 7     exact
    proto 6; malformed                          ->  tcp and malformed                     not an expression

What no expression can say (odd packets, tests behind an encapsulation) is told in
the words of `build --emit ir`, and then the text is not exact: it is for people,
not for the parser.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from penstock.compiler.analysis.expression import Text, expression, is_untold
from penstock.compiler.analysis.listing import Atom, Literal, Odd
from penstock.compiler.ir.dump import dump_predicate
from penstock.compiler.ir.ops import (
    Base,
    Binary,
    Classic,
    Compare,
    FieldRef,
    FieldTerm,
    Literal32,
    Read,
    Term,
)
from penstock.model.field import Layer
from penstock.model.net import IntervalSet
from penstock.model.verdict import Condition

Fields = Mapping[FieldRef, IntervalSet]

_NETWORKS = {0x0800: "ip", 0x86DD: "ip6", 0x0806: "arp", 0x8035: "rarp"}
_TRANSPORTS = {6: "tcp", 17: "udp", 132: "sctp", 1: "icmp", 58: "icmp6"}


def condition_of(fields: Fields, literals: Iterable[Literal], depths: Collection[Layer]) -> tuple[str, bool]:
    """The class, and whether the text is an expression that holds of exactly its packets.

    `depths` are those down to which packets are judged where the class comes from:
    which one is meant is said only if there are several.
    """
    told = sorted(_literal(one, fields, len(depths) > 1) for one in literals)
    text = expression(fields)
    if told:
        text = Text(text).chained
    parts = [text] * bool(text) + [part for part, _ in told]
    if text.endswith("vlan"):
        # What stands to the right of `vlan` would be looked for behind the tag.
        parts = [*parts[1:], text]
    return " and ".join(parts), not is_untold(text) and all(exact for _, exact in told)


def _literal(literal: Literal, fields: Fields, with_depth: bool) -> tuple[str, bool]:
    text, exact = _atom(literal.atom, fields, with_depth)
    if literal.holds:
        return text, exact
    return f"not ({text})" if " " in text else f"not {text}", exact


def _atom(atom: Atom, fields: Fields, with_depth: bool) -> tuple[str, bool]:
    match atom:
        case Odd(Condition.MALFORMED, depth) if with_depth:
            return f"malformed (down to {depth.name.lower()})", False
        case Odd(condition):
            return condition.word, False
        case Classic():
            return dump_predicate(atom), True
        case Compare(operator, left, right):
            sides = _term(left, fields), _term(right, fields)
            if sides[0] is not None and sides[1] is not None:
                return f"{sides[0]} {operator} {sides[1]}", True
    return dump_predicate(atom), False


def _term(term: Term, fields: Fields) -> str | None:
    """The term as it is written; None if it cannot be, in packets of this class."""
    match term:
        case Literal32(value):
            return str(value)
        case FieldTerm(ref):
            return ref.name if ref.field.word and not ref.scope and not ref.index else None
        case Read(base, offset, size, ()):
            word, place = _protocol(base, fields), _term(offset, fields)
            return f"{word}[{place}:{size}]" if word and place else None
        case Binary(operator, left, right):
            first, second = _term(left, fields), _term(right, fields)
            return f"({first} {operator} {second})" if first and second else None
        case _:
            return None


def _protocol(base: Base, fields: Fields) -> str | None:
    """The protocol whose header begins there, if all packets of the class have the same."""
    match base:
        case Base.FRAME:
            return "ether"
        case Base.NETWORK:
            return _named(fields.get(FieldRef("eth.type")), _NETWORKS)
        case Base.TRANSPORT:
            return _named(fields.get(FieldRef("proto")), _TRANSPORTS)


def _named(held: IntervalSet | None, names: Mapping[int, str]) -> str | None:
    return names.get(held.intervals[0][0]) if held is not None and held.size() == 1 else None
