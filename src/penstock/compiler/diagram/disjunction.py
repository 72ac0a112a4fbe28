"""A condition as a disjunction of terms: each says which values some fields may have, and what else must hold.

In: a predicate.  Out: `Term`s, at least one of which holds exactly when the
predicate does.  Tests that no field's values can express (arithmetic on packet
bytes, headers walked, tests behind a tunnel, libpcap's programs) are the *opaque* predicates of
their terms.

    tcp dst port 80 or arp        eth.type … proto 6, dport 80 | eth.type 0x806
    ip[8] < 5                     no fields; opaque: the comparison

No numpy here: a command that looks at one rule should not wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import assert_never

from penstock.compiler.diagram.terms import compared
from penstock.compiler.ir.ops import (
    All,
    Always,
    Any,
    Classic,
    Compare,
    FieldRef,
    HeaderWalked,
    Member,
    Negation,
    Over,
    Predicate,
    Sample,
    Within,
)
from penstock.model.net import IntervalSet

MAX_BOXES = 256

#: Fields that are another field in packets of one kind (headers.py): the same said with fewer axes.
_SPECIAL = {
    "tcp.sport": ("proto", 6, "sport"),
    "tcp.dport": ("proto", 6, "dport"),
    "udp.sport": ("proto", 17, "sport"),
    "udp.dport": ("proto", 17, "dport"),
    "ip.src": ("eth.type", 0x0800, "addr.src"),
    "ip.dst": ("eth.type", 0x0800, "addr.dst"),
    "ip.proto": ("eth.type", 0x0800, "proto"),
    "ip6.proto": ("eth.type", 0x86DD, "proto"),
}


@dataclass(frozen=True, slots=True)
class Term:
    """A conjunction: the values of some fields (``2**bits`` is absent), and predicates that hold as well."""

    fields: Mapping[FieldRef, IntervalSet]
    opaque: tuple[Predicate, ...] = ()


_TRUE = Term({})


class TooManyTermsError(Exception):
    """A condition falls into more terms than are worth having."""


def terms(condition: Predicate, most: int = MAX_BOXES) -> tuple[Term, ...]:
    """The condition as a disjunction; () is false.

    Raises:
        TooManyTermsError: more than `most` boxes, or more than MAX_BOXES terms.
    """
    found = _terms(condition, True)
    if sum(_size(term) for term in found) > most:
        raise TooManyTermsError
    return found


def _size(term: Term) -> int:
    size = 1
    for values in term.fields.values():
        size *= len(values.intervals)
    return size


def _terms(condition: Predicate, wanted: bool) -> tuple[Term, ...]:
    """Terms that hold exactly when the condition is `wanted`."""
    match condition:
        case Always(value):
            return (_TRUE,) if value == wanted else ()
        case Within(ref, values):
            return _within(ref, values, wanted)
        case Compare():
            found = compared(condition)
            return _within(*found, wanted) if found else _opaque(condition, wanted)
        case HeaderWalked() | Classic() | Member() | Over() | Sample():
            return _opaque(condition, wanted)
        case Negation(operand):
            return _terms(operand, not wanted)
        case All(operands) | Any(operands):
            parts = [_terms(operand, wanted) for operand in operands]
            return _both(parts) if isinstance(condition, All) == wanted else _either(parts)
        case _:
            assert_never(condition)


def _within(ref: FieldRef, values: IntervalSet, wanted: bool) -> tuple[Term, ...]:
    if ref.scope:
        return _opaque(Within(ref, values), wanted)
    if ref.name in _SPECIAL:
        kind, value, general = _SPECIAL[ref.name]
        of_kind, of_general = FieldRef(kind), FieldRef(general)
        if wanted and values:
            return (Term({of_kind: IntervalSet.single(value), of_general: values}),)
        tests = [_within(of_kind, IntervalSet.single(value), wanted), _within(of_general, values, wanted)]
        return _both(tests) if wanted else _either(tests)
    absent = 1 << ref.field.bits
    held = values if wanted else IntervalSet.of(*values.complement(ref.field.bits), (absent, absent))
    return (Term({ref: held}),) if held else ()


def _opaque(condition: Predicate, wanted: bool) -> tuple[Term, ...]:
    return (Term({}, (condition if wanted else Negation(condition),)),)


def _both(parts: list[tuple[Term, ...]]) -> tuple[Term, ...]:
    found: tuple[Term, ...] = (_TRUE,)
    for part in parts:
        pairs = [_intersection(left, right) for left in found for right in part]
        found = tuple(term for term in pairs if term is not None)
        if len(found) > 1:
            found = tuple(_unique(found))
        if len(found) > MAX_BOXES:
            raise TooManyTermsError
    return found


def _intersection(left: Term, right: Term) -> Term | None:
    fields = {**left.fields, **right.fields}
    for ref in left.fields.keys() & right.fields.keys():
        fields[ref] = left.fields[ref] & right.fields[ref]
        if not fields[ref]:
            return None
    if not right.opaque:
        return Term(fields, left.opaque)
    return Term(fields, (*left.opaque, *(new for new in right.opaque if new not in left.opaque)))


def _either(parts: list[tuple[Term, ...]]) -> tuple[Term, ...]:
    """All alternatives; those that differ in one field's values only become one."""
    found = [term for part in parts for term in part]
    if any(not term.fields and not term.opaque for term in found):
        return (_TRUE,)
    merged: dict[tuple[object, ...], Term] = {}
    for term in found:
        if len(term.fields) == 1 and not term.opaque:
            ((ref, values),) = term.fields.items()
            known = merged.get((ref,))
            merged[(ref,)] = Term({ref: known.fields[ref] | values}) if known else term
        else:
            merged[(id(term),)] = term
    return tuple(merged.values())


def _unique(found: Iterable[Term]) -> Iterator[Term]:
    """Terms without repetitions, in order."""
    seen = set()
    for term in found:
        key = (tuple(term.fields.items()), term.opaque)
        if key not in seen:
            seen.add(key)
            yield term
