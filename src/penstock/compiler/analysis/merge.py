"""Few readable classes from many.

Classes that differ in one field only become one; what a class says that packets
cannot be otherwise anyway is left out; and so is what a class says only to keep
away from packets that change in the same way.  The classes that come out hold
together exactly the packets of those that went in, but may overlap.

    tcp dst port 22, tcp dst port 23                ->  tcp dst port 22 or 23
    udp and ttl < 5, not udp and src 10/8 and ttl < 5 ->  udp and ttl < 5, src 10/8 and ttl < 5
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import log2

from penstock.compiler.analysis.expression import in_order, simplified
from penstock.compiler.analysis.facts import fields_beneath
from penstock.compiler.analysis.listing import Literal, Odd
from penstock.compiler.analysis.reality import impossible
from penstock.compiler.ir.ops import Decision, FieldRef
from penstock.model.net import IntervalSet

Fields = Mapping[FieldRef, IntervalSet]

#: More classes than this are not simplified one by one; more of one kind are not compared with each other.
MAX_SIMPLIFIED = 2000
MAX_WIDENED = 60
MAX_PIECES = 64
MAX_COMPARED = 500
#: Subtractions of one class from another that all of a comparison's classes are worth.
EFFORT = 200_000


@dataclass(frozen=True, slots=True)
class Change:
    """Packets that fare otherwise: `fields` they have (``2**bits`` is absent), and `literals` that are true of them.

    `old_slots` and `new_slots` are the counter slots of what decides them.  With
    more than one of `parts` the class is told by what its many parts have in
    common: not every packet that `fields` hold is in one; `samples` are some parts.
    """

    fields: Fields
    literals: frozenset[Literal]
    old: Decision
    new: Decision
    old_slots: frozenset[int]
    new_slots: frozenset[int]
    parts: int = 1
    samples: tuple[Fields, ...] = ()


def merged(classes: Iterable[Change]) -> list[Change]:
    """The classes, merged, those with most packets first; odd packets, which nobody looks for first, last."""
    every = list(classes)
    found = _met([one for one in every if one.parts == 1])
    if len(found) <= MAX_SIMPLIFIED:
        found = _met([replace(one, fields=simplified(one.fields)) for one in found])
        kinds: dict[object, list[Change]] = {}
        for one in sorted(found, key=_is_odd):
            kinds.setdefault((one.literals, one.old, one.new), []).append(one)
        effort = Effort(EFFORT)
        told = (list(_there(_widened(kind, effort), effort)) for kind in kinds.values())
        found = [one for kind in told for one in _outermost(_met(kind))]
    found += [replace(one, fields=simplified(one.fields)) for one in every if one.parts > 1]
    return sorted(
        found, key=lambda one: (_is_odd(one), -breadth(one.fields), len(one.literals), _order(one.fields))
    )


def _is_odd(one: Change) -> bool:
    """Whether it is a class of odd packets: malformed ones, fragments."""
    return any(isinstance(literal.atom, Odd) and literal.holds for literal in one.literals)


def breadth(fields: Fields) -> float:
    """The share of all packets that a class holds were every field equally likely to have each value, as log2."""
    return sum(log2(held.size() / (1 + (1 << ref.field.bits))) for ref, held in fields.items())


def _order(fields: Fields) -> list[tuple[str, tuple[tuple[int, int], ...]]]:
    return sorted((f"{ref.name}.{ref.index}", held.intervals) for ref, held in fields.items())


# ── one field apart ──────────────────────────────────────────────────────────


def _met(classes: list[Change]) -> list[Change]:
    """Classes joined along one field after the other, until no two can be."""
    while True:
        count = len(classes)
        for ref in dict.fromkeys(ref for one in classes for ref in one.fields):
            classes = _joined(classes, ref)
        if len(classes) == count:
            return classes


def _joined(classes: list[Change], ref: FieldRef) -> list[Change]:
    whole = _whole(ref)
    known: dict[object, Change] = {}
    for one in classes:
        rest = {other: held for other, held in one.fields.items() if other != ref}
        key = frozenset(rest.items()), one.literals, one.old, one.new
        other = known.get(key)
        if other is None:
            known[key] = one
            continue
        held = one.fields.get(ref, whole) | other.fields.get(ref, whole)
        fields = {**rest, ref: held} if held != whole else rest
        known[key] = _with_slots(replace(other, fields=fields), [one])
    return list(known.values())


def _whole(ref: FieldRef) -> IntervalSet:
    return IntervalSet.of((0, 1 << ref.field.bits))


def _with_slots(one: Change, others: Sequence[Change]) -> Change:
    return replace(
        one,
        old_slots=one.old_slots.union(*(other.old_slots for other in others)),
        new_slots=one.new_slots.union(*(other.new_slots for other in others)),
    )


# ── overlap ──────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Effort:
    """What is left to spend; nothing is claimed once it is spent."""

    left: int


def _widened(kind: list[Change], effort: Effort) -> list[Change]:
    """Classes of one kind without the fields that only keep them apart; those within another are left out."""
    if not 1 < len(kind) <= MAX_WIDENED:
        return kind
    every = [one.fields for one in kind]
    kept = _needed([_without_fields(fields, every, effort) for fields in every], effort)
    # Classes that take values of others in only pay where there are fewer of them then.
    wide = _needed([_with_values(fields, kept, effort) for fields in kept], effort)
    return [
        _with_slots(replace(parts[0], fields=fields), parts)
        for fields in (wide if len(wide) < len(kept) else kept)
        if (parts := [one for one in kind if meet(one.fields, fields)])
    ]


def _outermost(kind: list[Change]) -> list[Change]:
    """Classes of one kind without those that lie within another one, however little effort was left."""
    if not 1 < len(kind) <= MAX_COMPARED:
        return kind
    kept: list[Change] = []
    for one in sorted(kind, key=lambda one: -breadth(one.fields)):
        at = next((at for at, other in enumerate(kept) if _within(one.fields, other.fields)), None)
        if at is None:
            kept.append(one)
        else:
            kept[at] = _with_slots(kept[at], [one])
    return kept


def _within(inner: Fields, outer: Fields) -> bool:
    return all(ref in inner and inner[ref].issubset(held) for ref, held in outer.items())


def _needed(classes: list[Fields], effort: Effort) -> list[Fields]:
    """The classes, broad ones first, without those whose packets are all in others."""
    classes = sorted(classes, key=lambda fields: -breadth(fields))
    kept: list[Fields] = []
    for at, fields in enumerate(classes):
        if not covered(fields, [*kept, *classes[at + 1 :]], effort):
            kept.append(fields)
    return kept


def _without_fields(fields: Fields, every: Sequence[Fields], effort: Effort) -> Fields:
    for ref in sorted(fields, key=lambda ref: (-ref.field.layer, -ref.field.bits)):
        wider = {other: held for other, held in fields.items() if other != ref}
        if covered(wider, every, effort):
            fields = wider
    return fields


def _with_values(fields: Fields, every: Sequence[Fields], effort: Effort) -> Fields:
    for ref in sorted(fields, key=lambda ref: (-ref.field.layer, -ref.field.bits)):
        for held in dict.fromkeys(other[ref] for other in every if ref in other):
            wider = {**fields, ref: fields[ref] | held}
            if not held.issubset(fields[ref]) and covered(wider, every, effort):
                fields = wider
    return fields


def _there(classes: Iterable[Change], effort: Effort) -> Iterator[Change]:
    """The classes without "or absent" where their other fields say that the field is there; some are empty then."""
    for one in classes:
        fields = dict(one.fields)
        for ref, held in one.fields.items():
            absent = IntervalSet.single(1 << ref.field.bits)
            if absent.issubset(held) and covered({**fields, ref: absent}, (), effort):
                fields[ref] = held - absent
        if all(fields.values()):
            yield replace(one, fields=fields)


def covered(fields: Fields, by: Sequence[Fields], effort: Effort | None = None) -> bool:
    """Whether every packet of the class is in another one of these; false when that is too much to find out."""
    near = [other for other in by if meet(fields, other)]
    refs = in_order(fields_beneath([*fields, *(ref for other in near for ref in other)]))
    pieces = [dict(fields)]
    for other in (*near, *_impossible(refs)):
        if effort is not None:
            effort.left -= len(pieces)
            if effort.left < 0:
                return False
        pieces = [part for piece in pieces for part in _without(piece, other)]
        if not pieces or len(pieces) > MAX_PIECES:
            return not pieces
    return False


@lru_cache(maxsize=256)
def _impossible(refs: tuple[FieldRef, ...]) -> tuple[Fields, ...]:
    return tuple({ref: IntervalSet.of(ends) for ref, ends in fact.items()} for fact in impossible(refs))


def _without(piece: Fields, other: Fields) -> Iterator[dict[FieldRef, IntervalSet]]:
    """The packets of a class that are not in the other, as disjoint classes."""
    if not meet(piece, other):
        yield dict(piece)
        return
    left = dict(piece)
    for ref, held in other.items():
        mine = left.get(ref, _whole(ref))
        outside = mine - held
        if outside:
            yield {**left, ref: outside}
        left[ref] = mine & held


def meet(one: Fields, other: Fields) -> bool:
    """Whether two classes have values in common in every field."""
    return all(held & other[ref] for ref, held in one.items() if ref in other)
