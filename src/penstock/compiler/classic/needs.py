"""What of each scope's headers the rules ask for, so that nothing else is parsed.

needs_of([Within(FieldRef("dport"), …)])   ->  {(): {"transport", "proto", "type", "network"}}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, assert_never

from penstock.compiler.ir.depth import leaves
from penstock.compiler.ir.fields import FIXED
from penstock.compiler.ir.ops import (
    Always,
    Base,
    Binary,
    Compare,
    FieldRef,
    FieldTerm,
    HeaderWalked,
    Literal32,
    Predicate,
    Read,
    Scope,
    Term,
    Within,
)

Part = Literal["frame", "network", "type", "transport", "proto", "frag", "headers", "chain", "exists"]
Needs = dict[Scope, set[Part]]

_WALKED: frozenset[Part] = frozenset(("transport", "proto", "frag", "headers", "chain"))
_FIELDS: dict[str, tuple[Part, ...]] = {
    "len": ("exists",),
    "mark": (),
    "ifindex": (),
    "outbound": (),
    "eth.dst": ("frame",),
    "eth.src": ("frame",),
    "eth.type": ("type",),
    "proto": ("proto",),
    "ip.proto": ("proto", "type"),
    "ip6.proto": ("proto", "type"),
    "ip6.headers": ("headers",),
    "chain.proto": ("chain",),
    "frag": ("frag",),
    "frag.offset": ("frag",),
}
_BASES: dict[Base, Part] = {Base.FRAME: "frame", Base.NETWORK: "network", Base.TRANSPORT: "transport"}


def needs_of(predicates: Iterable[Predicate], more: Iterable[Part] = ()) -> Needs:
    """The parts by scope, outer scopes first; `more` is needed of the frame itself."""
    needs: Needs = {(): set(more)}
    for predicate in predicates:
        for leaf, _ in leaves(predicate):
            for scope, parts in _of_leaf(leaf):
                needs.setdefault(scope, set()).update(parts)
    for scope in sorted(needs, key=len, reverse=True):
        _close(needs, scope)
    return dict(sorted(needs.items(), key=lambda item: (len(item[0]), item[0])))


def _close(needs: Needs, scope: Scope) -> None:
    """What is parsed on the way; longer scopes come first, so that what they add is closed later."""
    here = needs[scope]
    if here & _WALKED:
        here |= {"type", "network", "transport", "proto"}
    if not scope:
        return
    for length in range(len(scope) - 1, -1, -1):
        needs.setdefault(scope[:length], set())
    while scope:
        outer, step = needs[scope[:-1]], scope[-1]
        outer |= (
            {"transport", "proto", "type", "network"} if step in ("geneve", "inner") else {"type", "network"}
        )
        if step == "mpls" and "frame" in needs[scope]:
            outer.add("frame")
        scope = scope[:-1]


def _of_leaf(leaf: Predicate) -> Iterator[tuple[Scope, tuple[Part, ...]]]:
    match leaf:
        case Within(ref, _):
            yield ref.scope, _of_field(ref)
        case Compare(_, left, right):
            yield from _of_term(left)
            yield from _of_term(right)
        case HeaderWalked(_, scope, ipv4):
            yield scope, ("proto", "type") if ipv4 else ("headers",)
        case Always():
            pass


def _of_term(term: Term) -> Iterator[tuple[Scope, tuple[Part, ...]]]:
    match term:
        case Literal32():
            pass
        case FieldTerm(ref):
            yield ref.scope, _of_field(ref)
        case Read(base, offset, _, scope):
            yield scope, (_BASES[base], "network") if base is Base.TRANSPORT else (_BASES[base],)
            yield from _of_term(offset)
        case Binary(_, left, right):
            yield from _of_term(left)
            yield from _of_term(right)
        case _:
            assert_never(term)


def _of_field(ref: FieldRef) -> tuple[Part, ...]:
    if ref.name in _FIELDS:
        return _FIELDS[ref.name]
    place = FIXED.get(ref.name)
    if place is not None:
        return ("transport", "proto", "type") if place.base is Base.TRANSPORT else ("type", "network")
    return ("frame",) if ref.name.startswith("vlan.") else ("type", "network")
