"""From rules to boxes: which rules of a policy can share a diagram, and what they say about each field.

A rule set is cut into blocks.  A `Run` is a stretch of rules that decide and
remember nothing, as boxes; a `Single` is any other rule (it counts, audits or
expires), to be asked on its own.  The order of the text is kept.

A condition becomes a disjunction of boxes (disjunction.py).  One that would fall
into more than MAX_BOXES boxes is left whole, as one opaque predicate: exact, only
slower.

    drop if tcp dst port 80 or 443        proto 6, dport 80 | proto 6, dport 443
    drop if ip[8] < 5                     one box, everything; opaque predicate 1
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from penstock.compiler.diagram.axis import Keys, keys_of
from penstock.compiler.diagram.boxes import Boxes, from_ranges
from penstock.compiler.diagram.disjunction import Term, TooManyTermsError, terms
from penstock.compiler.diagram.rare import rare_fields, test_of
from penstock.compiler.ir.depth import countings, leaves, members
from penstock.compiler.ir.ops import All, FieldRef, Member, Predicate, Rule, RuleSet
from penstock.model.action import Change
from penstock.model.net import Interval, IntervalSet

MAX_OPAQUE = 32
"""More rules with opaque predicates than this, about the same addresses or about any, end a run.

A packet may have to ask them all.
"""

_Divided = tuple[int, tuple[Term, ...], bool]
"""A rule's number, its terms, and whether it had to be left whole."""


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


def blocks(rule_set: RuleSet, *, sets_apart: bool = False) -> tuple[Block, ...]:
    """The rule set as runs and single rules, in order; with `sets_apart` those that ask sets alone are single, too."""
    found: list[Block] = []
    gathered: list[_Divided] = []
    for number, rule in enumerate(rule_set.rules):
        if not is_stateless(rule) or (sets_apart and asks_sets_alone(rule)):
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
    boxes, opaque = listed(rule_set.rules[number].condition for number in chosen)
    return Decisions(boxes, tuple(chosen), opaque)


def listed(conditions: Iterable[Predicate]) -> tuple[Boxes, tuple[Predicate, ...]]:
    """Conditions as boxes, the n-th as rule n; and the opaque predicates, number m being the (m - 1)-th of these."""
    divided = [(at, *_divided(condition)) for at, condition in enumerate(conditions)]
    run = _run(divided) if divided else Run(0, 0, _boxes([]), (), ())
    return run.boxes, run.opaque


def is_stateless(rule: Rule) -> bool:
    """Whether a rule decides, and asking it leaves no trace.

    What is in a set is asked where it is needed, in any order; an entry that counts
    is found by the packets that come to the rule, and so the rule is asked on its own.
    """
    counted = any(isinstance(leaf, Member) and leaf.counted for leaf, _ in leaves(rule.condition))
    return rule.decides and rule.until_ns is None and not counted and not countings([rule.condition])


def asks_sets_alone(rule: Rule) -> bool:
    """Whether a rule asks sets, and of every packet: a diagram or a table could but say of each that it is to ask."""
    return bool(members([rule.condition])) and not any(term.fields for term in _divided(rule.condition)[0])


@dataclass(frozen=True, slots=True)
class Joined:
    """A run to be looked up at once, and the rules (indices) to be asked between its own, in order."""

    run: Run
    between: tuple[int, ...]


def joined(rules: Sequence[Rule], first: int, last: int, most: int) -> Joined | None:
    """Rules ``first … last`` as one run with at most so many rules between its own; None if that cannot be.

    Asked between are those with a memory, and those that ask sets alone.  No rule
    between changes what a later one of the run asks.
    """
    gathered: list[_Divided] = []
    changed: set[str] = set()
    between: list[int] = []
    for number in range(first, last + 1):
        rule = rules[number]
        if isinstance(rule.argument, Change):
            changed.add(rule.argument.set)
        if not is_stateless(rule) or asks_sets_alone(rule):
            between.append(number)
        elif changed & members([rule.condition]):
            return None
        else:
            gathered.append((number, *_divided(rule.condition)))
    runs = list(_runs(gathered))
    if len(runs) != 1 or len(between) > most:
        return None
    return Joined(runs[0], tuple(between))


def _divided(condition: Predicate) -> tuple[tuple[Term, ...], bool]:
    """The condition's terms, and whether it had to be left whole."""
    try:
        return terms(condition), False
    except TooManyTermsError:
        return (Term({}, (condition,)),), True


def _runs(rules: list[_Divided]) -> Iterator[Run]:
    rare = rare_fields(term.fields for _, terms, _ in rules for term in terms)
    part: list[_Divided] = []
    asked: Counter[tuple[IntervalSet | None, ...]] = Counter()
    for rule in rules:
        number, found, whole = rule
        if rare:
            found = tuple(_without(term, rare) for term in found)
        places = {_place(term) for term in found if term.opaque}
        if any(asked[place] + asked[_ANYWHERE] >= MAX_OPAQUE for place in places):
            yield _run(part)
            part, asked = [], Counter()
        part.append((number, found, whole))
        asked.update(places)
    if part:
        yield _run(part)


_ADDRESSES = tuple(FieldRef(name) for name in ("addr.src", "addr.dst", "ip6.src", "ip6.dst"))
_ANYWHERE = (None,) * len(_ADDRESSES)


def _place(term: Term) -> tuple[IntervalSet | None, ...]:
    """The addresses that a term is about: few packets ask two terms with different ones."""
    return tuple(term.fields.get(ref) for ref in _ADDRESSES)


def _without(term: Term, rare: frozenset[FieldRef]) -> Term:
    """The term with its tests of rare fields as opaque predicates."""
    tests = tuple(test_of(ref, values) for ref, values in term.fields.items() if ref in rare)
    if not tests:
        return term
    kept = {ref: values for ref, values in term.fields.items() if ref not in rare}
    return Term(kept, (*term.opaque, *tests))


def _run(rules: list[_Divided]) -> Run:
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
