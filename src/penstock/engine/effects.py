"""What two filters do differently to packets besides deciding: marks, DSCP values, copies, entries of sets.

    effect_changes(old, new)     ->  (EffectChange("voice", "mark 0x1 if udp", "mark 0x2 if udp"), …)
    reordered(old, new)          ->  ("voice", "bulk"): rules of both that stand in another order

A rule is the same if it does the same under the same condition, whatever it is
called.  One that has another condition or another argument is found again by its
name; a rule without a label also by its condition.  Rules are told, packets are
not: whether a rule is still reached is a question of verdicts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from penstock.compiler.ir.ops import Effect, Predicate, Rule, RuleSet

#: Effects that change a packet, send a copy of it, or change what other packets meet.
DOING = (Effect.MARK, Effect.DSCP, Effect.MIRROR, Effect.ADD, Effect.REMOVE)
#: Of which the later ones take back what the earlier ones have done.
_ORDERED = ((Effect.MARK,), (Effect.DSCP,), (Effect.ADD, Effect.REMOVE))

_What = tuple[str, Predicate]


@dataclass(frozen=True, slots=True)
class EffectChange:
    """A rule of one side, or of both; `kinds` are what it does there: `mark`, `add`."""

    name: str
    old: str | None
    new: str | None
    kinds: tuple[str, ...]


def effect_changes(old: RuleSet, new: RuleSet) -> tuple[EffectChange, ...]:
    """The rules that do something else than on the other side, in the new order, then those that are gone."""
    gone, come = _beyond(old, new), _beyond(new, old)
    found = []
    for rule in come:
        before = _counterpart(rule, gone)
        if before is not None:
            gone.remove(before)
        found.append(_change(before, rule, old, new))
    return (*found, *(_change(rule, None, old, new) for rule in gone))


def reordered(old: RuleSet, new: RuleSet) -> tuple[str, ...]:
    """The rules that both sides have, in the new order, if it is another and counts: the last mark wins."""
    before, after = (Counter(map(_what, _doing(side))) for side in (old, new))
    both = before & after
    found: list[str] = []
    for kinds in _ORDERED:
        first, second = (
            [rule for rule in _doing(side) if rule.action in kinds and _what(rule) in both]
            for side in (old, new)
        )
        if list(map(_what, first)) != list(map(_what, second)):
            found += [rule.name for rule in second]
    return tuple(found)


def _doing(rules: RuleSet) -> list[Rule]:
    return [rule for rule in rules.rules if rule.action in DOING]


def _what(rule: Rule) -> _What:
    return rule.doing, rule.condition


def _beyond(side: RuleSet, other: RuleSet) -> list[Rule]:
    """The rules that do something which the other side has no rule for."""
    there = Counter(map(_what, _doing(other)))
    found = []
    for rule in _doing(side):
        if there[_what(rule)]:
            there[_what(rule)] -= 1
        else:
            found.append(rule)
    return found


def _counterpart(rule: Rule, others: list[Rule]) -> Rule | None:
    """The other side's rule that this one has been, one of the same kind first."""

    def fits() -> Iterator[Rule]:
        for one in others:
            if one.labelled and rule.labelled and one.name == rule.name:
                yield one
        for one in others:
            if one.action is rule.action and one.condition == rule.condition and not one.labelled:
                yield one

    return next(fits(), None)


def _change(before: Rule | None, after: Rule | None, old: RuleSet, new: RuleSet) -> EffectChange:
    sides = [(rule, side) for rule, side in ((before, old), (after, new)) if rule is not None]
    texts = [None if rule is None else _text(rule, side) for rule, side in ((before, old), (after, new))]
    kinds = tuple(dict.fromkeys(rule.action.value for rule, _ in sides))
    return EffectChange(sides[-1][0].name, texts[0], texts[1], kinds)


def _text(rule: Rule, rules: RuleSet) -> str:
    words = " ".join(rules.source.text[rule.span.start : rule.span.end].split())
    return words.removeprefix(f"{rule.name}:").lstrip() if rule.labelled else words
