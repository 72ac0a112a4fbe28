"""Conjunction, disjunction and negation of predicates, kept small while they are built.

>>> from penstock.compiler.ir.ops import FieldRef, Within
>>> from penstock.model.net import IntervalSet
>>> port = FieldRef("dport")
>>> any_of([Within(port, IntervalSet.single(80)), Within(port, IntervalSet.single(81))])
Within(ref=FieldRef(name='dport', scope=(), index=0), values=IntervalSet(intervals=((80, 81),)))

Promised: the result holds of exactly the same packets; nested `All` and `Any`
are flattened; `Always` is gone, or all that is left; tests of one field are one
interval set (their union under `Any`, their intersection under `All`) at the
place of the first; so are the negations under `All`, which become the negation
of one `Any`; otherwise operands keep their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.compiler.ir.ops import (
    All,
    Always,
    Any,
    FieldRef,
    Negation,
    Over,
    Predicate,
    Sample,
    Scope,
    Within,
)
from penstock.model.net import Interval, IntervalSet

if TYPE_CHECKING:
    from collections.abc import Iterable

TRUE, FALSE = Always(True), Always(False)


def all_of(operands: Iterable[Predicate]) -> Predicate:
    """A predicate that holds where every operand does."""
    kept: list[Predicate] = []
    places: dict[FieldRef, int] = {}
    for operand in _one_negation(list(_flat(operands, All))):
        if isinstance(operand, Within):
            at = places.setdefault(operand.ref, len(kept))
            if at < len(kept):
                kept[at] = _both(kept[at], operand)
                if kept[at] == FALSE:
                    return FALSE
                continue
        elif isinstance(operand, Always):
            if not operand.value:
                return FALSE
            continue
        kept.append(operand)
    return kept[0] if len(kept) == 1 else All(tuple(kept)) if kept else TRUE


def in_order(kind: type[All | Any], operands: Iterable[Predicate]) -> Predicate:
    """`all_of` or `any_of`, but no operand is taken past one that keeps count."""
    join = all_of if kind is All else any_of
    parts: list[Predicate] = []
    pure: list[Predicate] = []
    for operand in operands:
        if keeps_count(operand):
            parts += [join(pure), operand]
            pure = []
        else:
            pure.append(operand)
    last = TRUE if kind is All else FALSE
    kept = [part for part in _flat([*parts, join(pure)], kind) if part != last]
    if negation(last) in kept:
        return negation(last)
    return kept[0] if len(kept) == 1 else kind(tuple(kept)) if kept else last


def keeps_count(predicate: Predicate) -> bool:
    """Whether asking the predicate is an event (`ops.Over`), or may say something else the next time."""
    match predicate:
        case Over() | Sample():
            return True
        case Negation(operand):
            return keeps_count(operand)
        case All(operands) | Any(operands):
            return any(map(keeps_count, operands))
        case _:
            return False


def _one_negation(operands: list[Predicate]) -> list[Predicate]:
    """`not A and not B` as `not (A or B)`, in which tests of one field meet."""
    negated = [operand.operand for operand in operands if isinstance(operand, Negation)]
    if len(negated) < 2:
        return operands
    joined = negation(any_of(negated))
    first = next(at for at, operand in enumerate(operands) if isinstance(operand, Negation))
    others = [operand for operand in operands if not isinstance(operand, Negation)]
    return [*others[:first], joined, *others[first:]]


def _both(first: Predicate, second: Within) -> Predicate:
    assert isinstance(first, Within)
    return within(first.ref, first.values & second.values)


def any_of(operands: Iterable[Predicate]) -> Predicate:
    """A predicate that holds where some operand does."""
    kept: list[Predicate] = []
    places: dict[FieldRef, int] = {}
    more: dict[FieldRef, list[Interval]] = {}
    for operand in _flat(operands, Any):
        if isinstance(operand, Within):
            if operand.ref in places:
                more.setdefault(operand.ref, []).extend(operand.values.intervals)
                continue
            places[operand.ref] = len(kept)
        elif isinstance(operand, Always):
            if operand.value:
                return TRUE
            continue
        kept.append(operand)
    for ref, intervals in more.items():
        first = kept[places[ref]]
        assert isinstance(first, Within)
        kept[places[ref]] = Within(ref, IntervalSet.of(*first.values, *intervals))
    return kept[0] if len(kept) == 1 else Any(tuple(kept)) if kept else FALSE


def _flat(operands: Iterable[Predicate], kind: type[All | Any]) -> Iterable[Predicate]:
    """The operands, those of an operand of the same kind in its place; these are flat already."""
    for operand in operands:
        if isinstance(operand, kind):
            yield from operand.operands
        else:
            yield operand


def negation(operand: Predicate) -> Predicate:
    """A predicate that holds where the operand does not."""
    match operand:
        case Always(value):
            return Always(not value)
        case Negation(inner):
            return inner
        case _:
            return Negation(operand)


def within(ref: FieldRef, values: IntervalSet) -> Predicate:
    """The field is there with one of these values; of no values, false."""
    if values and values.intervals[-1][1] >> ref.field.bits:
        values &= IntervalSet.full(ref.field.bits)
    return Within(ref, values) if values else FALSE


def carried(scope: Scope) -> Predicate:
    """The packet has these headers at all; `len` is there wherever they are."""
    return Within(FieldRef("len", scope), IntervalSet.full(32))


def equals(ref: FieldRef, *values: int) -> Predicate:
    """The field is there and has one of the values."""
    return within(ref, IntervalSet.single(*values))
