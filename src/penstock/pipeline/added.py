"""Rules that are added to a policy: read one, find its place, put it among the policy's own.

    read_added("drop if src host $bad", "let bad = 192.0.2.1\\n", "guard")   ->  the rule
    with_added(rules, (Added("rule#1", "drop if arp", before="dns"),), text)    ->  the rule set with it

An added rule is a rule as in a policy, on one line; it may use the policy's
constants.  Its place is told by the policy's rule before which it stands, so
that it keeps it when the policy is compiled again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING

from penstock.errors import PenstockError
from penstock.pipeline.identity import Added

if TYPE_CHECKING:
    from penstock.compiler.ir.ops import Rule, RuleSet
    from penstock.compiler.lang.diagnostic import Diagnostic
    from penstock.model.sets import SetSpec

RULE_NAME = "<rule>"
_ITEM = re.compile(r"^[ \t]*(?P<word>let|set|filter|test)[ \t]+[\"A-Za-z_]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ReadRule:
    """A rule that was read: what it means, its text without label and comment, and the warnings about it."""

    rule: Rule
    text: str
    warnings: tuple[Diagnostic, ...]


@lru_cache(maxsize=4)  # A rule is read for its place and its name, and again for its records.
def read_added(text: str, constants: str, filter: str, hook: str = "xdp") -> ReadRule:
    """What a rule's text means; `constants` is what `constants_of` gives.

    Raises:
        PolicyError: with every fault of the text.
        PenstockError: it is something else than one rule.
    """
    from penstock.compiler.ir.lower import lower_filter
    from penstock.compiler.lang.diagnostic import Severity
    from penstock.compiler.lang.source import Source
    from penstock.compiler.lang.walk import keeps_count
    from penstock.pipeline.policy import checked

    if _ITEM.match(text):
        raise _no_rule(text)
    # On a line of its own, so that a fault is shown beneath what was typed.
    head = f"filter {filter} at {hook} {{\n"
    source = Source(RULE_NAME, f"{head}{text}\n}}\n{constants if asks_names(text) else ''}", above=1)
    policy, found = checked(source)
    end = len(head) + len(text)
    rules = [rule for one in policy.filters for rule in one.rules]
    is_one = len(rules) == len(policy.filters) == 1 and not policy.tests and rules[0].span.end <= end
    if not is_one or policy.filters[0].default is not None or policy.filters[0].conditions:
        raise _no_rule(text)
    (rule,) = lower_filter(policy, policy.filters[0]).rules
    if rules[0].label is None and keeps_count(rules[0].condition):
        hint = f"a label names it and its buckets: NAME: {text}"
        raise PenstockError(f"`{text}` keeps count, and needs a label", hint=hint)
    start = source.text.index(rules[0].action, rules[0].label_span.end if rules[0].label else len(head))
    told = (one for one in found if one.severity is Severity.WARNING and one.span.start < end)
    return ReadRule(rule, " ".join(source.text[start : rules[0].span.end].split()), tuple(told))


def _no_rule(text: str) -> PenstockError:
    return PenstockError(
        f"`{text}` is not one rule",
        hint="[LABEL:] pass|drop|reject|bounce|redirect DEV|audit|count [if EXPRESSION]",
    )


def asks_names(text: str) -> bool:
    """Whether a rule's text uses constants or sets of the policy."""
    return "$" in text or "@" in text


def constants_of(text: str) -> str:
    """The `let` and `set` items of a policy's text, found without reading the rest of it."""
    starts = [(found.start(), found["word"]) for found in _ITEM.finditer(text)]
    ends = [*(start for start, _ in starts[1:]), len(text)]
    return "".join(
        text[start:end] for (start, word), end in zip(starts, ends, strict=True) if word in ("let", "set")
    )


def with_added(rules: RuleSet, added: Sequence[Added], text: str) -> RuleSet:
    """The rule set of a policy's text, with these rules in their places.

    Raises:
        PenstockError: one of them can no longer be read, or its place is gone.
    """
    if not added:
        return rules
    from penstock.compiler.ir.depth import depth_of

    constants = constants_of(text)
    made = [(one, ir_rule(one, constants, rules.name, rules.hook.value)) for one in added]
    names = {rule.name for rule in rules.rules}
    for one, _ in made:
        if one.before is not None and one.before not in names:
            raise PenstockError(
                f"rule {one.name} stands before {one.before}, which {rules.name} does not have"
            )
    depth = max(rules.depth, depth_of(asked for _, rule in made for asked in rule.asked))
    placed = tuple(_in_places(rules.rules, made))
    return replace(rules, rules=placed, depth=depth, sets=_asked_sets(rules, placed, constants))


def _asked_sets(rules: RuleSet, made: Sequence[Rule], constants: str) -> tuple[SetSpec, ...]:
    """The sets of the policy's own rules, then those that only added ones ask."""
    from penstock.compiler.ir.depth import members
    from penstock.compiler.lang.parser import read_policy
    from penstock.compiler.lang.source import Source
    from penstock.model.action import Change

    changed = {rule.argument.set for rule in made if isinstance(rule.argument, Change)}
    own = tuple(replace(spec, dynamic=spec.dynamic or spec.name in changed) for spec in rules.sets)
    asked = members(one for rule in made for one in rule.asked) - {spec.name for spec in rules.sets}
    if not asked:
        return own
    defined, _ = read_policy(Source(RULE_NAME, constants))
    others = (item.spec for item in defined.sets if item.name in asked)
    return (*own, *(replace(spec, dynamic=spec.dynamic or spec.name in changed) for spec in others))


def ir_rule(one: Added, constants: str, filter: str, hook: str = "xdp") -> Rule:
    """What an added rule means, under its own name.  Raises PenstockError."""
    from penstock.compiler.lang.ast import NOWHERE

    text = f"{one.name}: {one.text}" if one.labelled else one.text
    read = read_added(text, constants, filter, hook)
    return replace(read.rule, name=one.name, labelled=one.labelled, span=NOWHERE, line=0)


def _in_places(rules: Sequence[Rule], made: Sequence[tuple[Added, Rule]]) -> Iterator[Rule]:
    before: dict[str | None, list[Rule]] = {}
    for one, rule in made:
        before.setdefault(one.before, []).append(rule)
    for own in rules:
        yield from before.get(own.name, ())
        yield own
    yield from before.get(None, ())


def placed(
    added: Sequence[Added], new: Added, own: Sequence[str], before: str | None, *, first: bool
) -> tuple[Added, ...]:
    """The added rules with a new one in its place: first, directly before a rule, or behind all others.

    `own` are the names of the policy's rules, in order.

    Raises:
        PenstockError: there is no such rule.
    """
    if first:
        anchor = own[0] if own else None
        return (replaced(new, anchor), *added)
    if before is None:
        return (*added, replaced(new, None))
    for at, other in enumerate(added):
        if other.name == before:
            return (*added[:at], replaced(new, other.before), *added[at:])
    if before not in own:
        close = get_close_matches(before, [*own, *(one.name for one in added)], 1)
        hint = f"did you mean {close[0]}?" if close else "`penstock status` lists the rules"
        raise PenstockError(f"there is no rule {before} to stand before", hint=hint)
    return (*added, replaced(new, before))


def replaced(rule: Added, before: str | None) -> Added:
    """The rule before another one."""
    return Added(rule.name, rule.text, before, rule.labelled)
