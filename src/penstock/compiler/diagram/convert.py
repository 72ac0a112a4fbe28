"""From rules to boxes: which rules of a policy can share a diagram, and what they say about each field.

A rule set is cut into blocks.  A `Run` is a stretch of rules that decide and
remember nothing, as boxes; a `Single` is any other rule (it counts, audits or
expires), to be asked on its own.  The order of the text is kept.

A condition becomes a disjunction of boxes.  Tests that no axis can express
(arithmetic on packet bytes, headers walked, tests behind a tunnel) become
*opaque predicates* of their boxes.  A condition that would fall into more than
MAX_BOXES boxes is left whole, as one opaque predicate: exact, only slower.

    drop if tcp dst port 80 or 443        proto 6, dport 80 | proto 6, dport 443
    drop if ip[8] < 5                     one box, everything; opaque predicate 1
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import assert_never

import numpy as np

from penstock.compiler.diagram.axis import Keys, keys_of
from penstock.compiler.diagram.boxes import Boxes, from_ranges
from penstock.compiler.diagram.terms import compared
from penstock.compiler.ir.ops import (
    All,
    Always,
    Any,
    Compare,
    FieldRef,
    HeaderWalked,
    Negation,
    Predicate,
    Rule,
    RuleSet,
    Within,
)
from penstock.model.net import Interval, IntervalSet

MAX_BOXES = 256
MAX_OPAQUE = 32
"""More rules with opaque predicates than this end a run: a packet may have to ask them all."""

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
class Run:
    """Rules ``first … last`` (indices, inclusive) of the rule set.

    `opaque` are the boxes' predicates: number n is ``opaque[n - 1]``.  The boxes'
    rules count from `first`.  `undivided` are rules kept whole because their
    condition falls into too many boxes.
    """

    first: int
    last: int
    boxes: Boxes
    opaque: tuple[Predicate, ...]
    undivided: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Single:
    """Rule number `rule`, to be asked on its own."""

    rule: int


Block = Run | Single


@dataclass(frozen=True, slots=True)
class Term:
    """A conjunction: the values of some fields (``2**bits`` is absent), and predicates that hold as well."""

    fields: Mapping[FieldRef, IntervalSet]
    opaque: tuple[Predicate, ...] = ()


_TRUE = Term({})


class _TooManyError(Exception):
    """A condition falls into more terms than are worth having."""


def blocks(rule_set: RuleSet) -> tuple[Block, ...]:
    """The rule set as runs and single rules, in order."""
    found: list[Block] = []
    gathered: list[tuple[int, tuple[Term, ...], bool]] = []
    for number, rule in enumerate(rule_set.rules):
        if not is_stateless(rule):
            found += _runs(gathered)
            found.append(Single(number))
            gathered = []
        else:
            gathered.append((number, *_divided(rule.condition)))
    return (*found, *_runs(gathered))


@dataclass(frozen=True, slots=True)
class Decisions:
    """All deciding rules of a rule set as boxes; a box's rule r is rule ``rules[r]`` of the rule set."""

    boxes: Boxes
    rules: tuple[int, ...]
    opaque: tuple[Predicate, ...]


def decisions(rule_set: RuleSet) -> Decisions:
    """What decides a packet's verdict, whatever is counted on the way; for analyses, not for code.

    Rules that expire are taken as if they did not.
    """
    chosen = [number for number, rule in enumerate(rule_set.rules) if rule.decides]
    divided = [(at, *_divided(rule_set.rules[number].condition)) for at, number in enumerate(chosen)]
    run = _run(divided) if divided else Run(0, 0, _boxes([]), (), ())
    return Decisions(run.boxes, tuple(chosen), run.opaque)


def is_stateless(rule: Rule) -> bool:
    """Whether a rule decides, and by the packet alone."""
    return rule.decides and rule.until_ns is None


def _divided(condition: Predicate) -> tuple[tuple[Term, ...], bool]:
    """The condition's terms, and whether it had to be left whole."""
    try:
        return terms(condition), False
    except _TooManyError:
        return (Term({}, (condition,)),), True


def _runs(rules: list[tuple[int, tuple[Term, ...], bool]]) -> Iterator[Run]:
    part: list[tuple[int, tuple[Term, ...], bool]] = []
    opaque = 0
    for rule in rules:
        asks = any(term.opaque for term in rule[1])
        if asks and opaque == MAX_OPAQUE:
            yield _run(part)
            part, opaque = [], 0
        part.append(rule)
        opaque += asks
    if part:
        yield _run(part)


def _run(rules: list[tuple[int, tuple[Term, ...], bool]]) -> Run:
    first = rules[0][0]
    numbers: dict[tuple[Predicate, ...], int] = {(): 0}
    rows: list[tuple[int, int, dict[FieldRef, Interval]]] = []
    for rule, alternatives, _ in rules:
        for term in alternatives:
            number = numbers.setdefault(term.opaque, len(numbers))
            rows += [(rule - first, number, box) for box in _boxes_of(term)]
    predicates = tuple(All(opaque) if len(opaque) != 1 else opaque[0] for opaque in list(numbers)[1:])
    undivided = tuple(rule for rule, _, whole in rules if whole)
    return Run(first, rules[-1][0], _boxes(rows), predicates, undivided)


def _boxes_of(term: Term) -> Iterator[dict[FieldRef, Interval]]:
    choices = [values.intervals for values in term.fields.values()]
    for combination in product(*choices):
        yield dict(zip(term.fields, combination, strict=True))


def _boxes(rows: list[tuple[int, int, dict[FieldRef, Interval]]]) -> Boxes:
    refs = dict.fromkeys(ref for _, _, box in rows for ref in box) or {FieldRef("len"): None}
    ranges: dict[FieldRef, tuple[Keys, Keys]] = {}
    for ref in refs:
        bits = ref.field.bits
        everything = (0, 1 << bits)
        ends = [box.get(ref, everything) for _, _, box in rows]
        ranges[ref] = keys_of(bits, [low for low, _ in ends]), keys_of(bits, [high for _, high in ends])
    return from_ranges(
        ranges, np.array([rule for rule, _, _ in rows]), np.array([number for _, number, _ in rows])
    )


# ── disjunctive normal form ──────────────────────────────────────────────────


def terms(condition: Predicate) -> tuple[Term, ...]:
    """The condition as a disjunction; () is false.

    Raises:
        _TooManyError: more than MAX_BOXES boxes.
    """
    found = _terms(condition, True)
    if sum(_size(term) for term in found) > MAX_BOXES:
        raise _TooManyError
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
        case HeaderWalked():
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
        of_kind = _within(FieldRef(kind), IntervalSet.single(value), wanted)
        tests = [of_kind, _within(FieldRef(general), values, wanted)]
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
        found = tuple(_unique(term for term in pairs if term is not None))
        if len(found) > MAX_BOXES:
            raise _TooManyError
    return found


def _intersection(left: Term, right: Term) -> Term | None:
    fields = dict(left.fields)
    for ref, values in right.fields.items():
        fields[ref] = fields[ref] & values if ref in fields else values
        if not fields[ref]:
            return None
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


def _unique(found: Iterator[Term]) -> Iterator[Term]:
    """Terms without repetitions, in order."""
    seen = set()
    for term in found:
        key = (tuple(term.fields.items()), term.opaque)
        if key not in seen:
            seen.add(key)
            yield term
