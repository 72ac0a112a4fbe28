"""How deep a predicate looks into a packet, and how deep it is nested itself."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, assert_never

from penstock.compiler.ir.ops import (
    All,
    Any,
    Base,
    Binary,
    Classic,
    Compare,
    FieldRef,
    FieldTerm,
    HeaderWalked,
    Literal32,
    Member,
    Negation,
    Over,
    Predicate,
    Read,
    Sample,
    Scope,
    Term,
    Within,
)
from penstock.model.field import AT_INTERFACE, Layer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_BASE_LAYERS = {Base.FRAME: Layer.LINK, Base.NETWORK: Layer.NETWORK, Base.TRANSPORT: Layer.TRANSPORT}


def depth_of(predicates: Iterable[Predicate]) -> Layer:
    """The deepest layer of the frame's own headers that any of the predicates needs; LINK at least.

    What lies behind MPLS or PPPoE needs the network layer that it is part of,
    what a tunnel carries the transport layer.
    """
    found = [leaf for predicate in predicates for leaf, _ in leaves(predicate)]
    fields = {leaf.ref for leaf in found if isinstance(leaf, Within)}
    others = [_leaf_depth(leaf) for leaf in found if not isinstance(leaf, Within)]
    return max((*map(_field_depth, fields), *others), default=Layer.LINK)


def nesting_of(predicate: Predicate) -> int:
    """The length of the longest path from the predicate to a leaf; 0 for a leaf."""
    return max((nesting for _, nesting in leaves(predicate)), default=0)


def leaves(predicate: Predicate) -> Iterator[tuple[Predicate, int]]:
    """Every leaf with its nesting, from left to right; recursion plays no part, so any depth is fine."""
    pending: list[tuple[Predicate, int]] = [(predicate, 0)]
    while pending:
        node, nesting = pending.pop()
        match node:
            case All(operands) | Any(operands):
                pending += [(operand, nesting + 1) for operand in reversed(operands)]
            case Negation(operand):
                pending.append((operand, nesting + 1))
            case _:
                yield node, nesting


def classics(predicates: Iterable[Predicate]) -> tuple[Classic, ...]:
    """The different classic programs of some predicates, in order."""
    found = (leaf for predicate in predicates for leaf, _ in leaves(predicate))
    return tuple(dict.fromkeys(leaf for leaf in found if isinstance(leaf, Classic)))


def countings(predicates: Iterable[Predicate]) -> tuple[Over | Sample, ...]:
    """What keeps count or draws by chance in some predicates, in the order in which it is asked."""
    found = (leaf for predicate in predicates for leaf, _ in leaves(predicate))
    return tuple(leaf for leaf in found if isinstance(leaf, Over | Sample))


def interfaces_of(predicate: Predicate) -> Iterator[str]:
    """The interfaces whose names a predicate asks for (`ifname`), in order."""
    for leaf, _ in leaves(predicate):
        if isinstance(leaf, Within) and leaf.ref.name.startswith(AT_INTERFACE):
            yield leaf.ref.name.removeprefix(AT_INTERFACE)


def members(predicates: Iterable[Predicate]) -> frozenset[str]:
    """The names of the sets that some predicates ask."""
    found = (leaf for predicate in predicates for leaf, _ in leaves(predicate))
    return frozenset(leaf.set for leaf in found if isinstance(leaf, Member))


def _leaf_depth(leaf: Predicate) -> Layer:
    match leaf:
        case Compare(_, left, right):
            return max(_term_depth(left), _term_depth(right))
        case HeaderWalked(_, scope, _):
            return _behind(scope, Layer.NETWORK)
        case Member(_, keys):
            return max(map(_field_depth, keys))
        case Over(_, refs):
            return max(map(_field_depth, refs), default=Layer.LINK)
        case Classic():
            # libpcap's program may look anywhere; nobody should get round `on malformed` by quoting.
            return Layer.TRANSPORT
        case _:
            return Layer.LINK


@cache
def _field_depth(ref: FieldRef) -> Layer:
    return _behind(ref.scope, ref.field.layer)


def _behind(scope: Scope, layer: Layer) -> Layer:
    if "geneve" in scope or "inner" in scope:
        return Layer.TRANSPORT
    return Layer.NETWORK if scope else layer


def _term_depth(term: Term) -> Layer:
    match term:
        case Literal32():
            return Layer.LINK
        case FieldTerm(ref):
            return _field_depth(ref)
        case Read(base, offset, _, scope):
            return max(_behind(scope, _BASE_LAYERS[base]), _term_depth(offset))
        case Binary(_, left, right):
            return max(_term_depth(left), _term_depth(right))
        case _:
            assert_never(term)
