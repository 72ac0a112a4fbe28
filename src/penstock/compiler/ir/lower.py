"""From what was written to what it means: a filter becomes a rule set.

In goes syntax, out comes the form of `ops.py`: fields, intervals, verdicts, no
names and no precedence.  What expressions mean is told in `lower_expression`.

Every fault of a filter is found in one run and raised together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.compiler.ir.depth import depth_of, members
from penstock.compiler.ir.lower_expression import Expression, Terms
from penstock.compiler.ir.lower_set import membership
from penstock.compiler.ir.lowering import Lowering, Position
from penstock.compiler.ir.names import Names, SystemNames
from penstock.compiler.ir.ops import Effect, Predicate, Rule, RuleSet
from penstock.compiler.ir.simplify import TRUE
from penstock.compiler.ir.verify import verify
from penstock.compiler.lang import ast
from penstock.compiler.lang.sets import with_filled
from penstock.compiler.lang.source import Source, Span
from penstock.errors import PolicyError
from penstock.model.field import Layer
from penstock.model.hook import Hook
from penstock.model.sets import MAX_SETS
from penstock.model.verdict import DENYING, Condition, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

_ACTIONS: dict[ast.ActionWord, Verdict | Effect] = {
    "pass": Verdict.PASS,
    "drop": Verdict.DROP,
    "reject": Verdict.REJECT,
    "bounce": Verdict.BOUNCE,
    "redirect": Verdict.REDIRECT,
    "audit": Effect.AUDIT,
    "count": Effect.COUNT,
    "mark": Effect.MARK,
    "dscp": Effect.DSCP,
    "mirror": Effect.MIRROR,
    "add": Effect.ADD,
    "remove": Effect.REMOVE,
}


def lower_filter(
    policy: ast.Policy, filter: ast.Filter, *, netmask: int | None = None, resolver: Names | None = None
) -> RuleSet:
    """The rule set of one of a policy's filters.

    `netmask` is what `ip broadcast` needs; `resolver` looks names up (default:
    the machine's own tables and resolver).

    Raises:
        PolicyError: with every fault of this filter.
    """
    lowering = _lowering(policy.source, policy.constants, netmask, resolver, with_filled(policy))
    lowering.hook = Hook(filter.hook)
    default = filter.default or Verdict.PASS
    rules = _rules(lowering, filter)
    conditions = _conditions(filter, default)
    depth = max(depth_of(asked for rule in rules for asked in rule.asked), _asked_depth(filter))
    if lowering.faults:
        raise PolicyError(sorted(lowering.faults, key=lambda found: found.span.start))
    asked = members(one for rule in rules for one in rule.asked)
    sets = tuple(spec for spec in lowering.sets.values() if spec.name in asked)
    if len(sets) > MAX_SETS:
        message = f"a filter asks at most {MAX_SETS} sets, this one {len(sets)}"
        lowering.fault("PS313", message, filter.name_span)
        raise PolicyError(lowering.faults)
    feeds = tuple(feed for item in policy.sets if item.name in asked for feed in item.fed_by)
    rule_set = RuleSet(
        filter.name, Hook(filter.hook), default, conditions, rules, depth, policy.source, sets, feeds
    )
    return verify(rule_set)


def lower_expression(
    expression: ast.Expr | None,
    source: Source,
    constants: Sequence[ast.Let] = (),
    *,
    sets: Sequence[ast.SetDefinition] = (),
    netmask: int | None = None,
    resolver: Names | None = None,
) -> Predicate:
    """The meaning of one expression; without one, every packet matches.

    Raises:
        PolicyError: with every fault of the expression.
    """
    lowering = _lowering(source, constants, netmask, resolver, sets)
    predicate = TRUE if expression is None else Expression(lowering).predicate(expression)
    if lowering.faults:
        raise PolicyError(lowering.faults)
    return predicate


def lower_terms(
    expression: ast.Expr,
    source: Source,
    constants: Sequence[ast.Let] = (),
    sets: Sequence[ast.SetDefinition] = (),
    *,
    hook: Hook | None = None,
    rule: str | None = None,
) -> tuple[tuple[Span, Predicate], ...]:
    """The terms of an expression in the order of the text: where each stands, and what it means there alone.

    `hook` is where the filter runs, for what lies beside a packet; `rule` is whose condition it is, for rates.

    Raises:
        PolicyError: with every fault of the expression.
    """
    lowering = _lowering(source, constants, None, None, sets)
    lowering.hook, lowering.rule = hook, rule
    terms = Terms(lowering)
    terms.predicate(expression)
    if lowering.faults:
        raise PolicyError(lowering.faults)
    return tuple(sorted(terms.found, key=lambda term: term[0].start))


def _lowering(
    source: Source,
    constants: Sequence[ast.Let],
    netmask: int | None,
    resolver: Names | None,
    sets: Sequence[ast.SetDefinition],
) -> Lowering:
    named, specs = {let.name: let for let in constants}, {item.name: item.spec for item in sets}
    return Lowering(source, resolver or SystemNames(), named, netmask, sets=specs)


# ── filters ──────────────────────────────────────────────────────────────────


def _rules(lowering: Lowering, filter: ast.Filter) -> tuple[Rule, ...]:
    taken: dict[str, ast.Rule] = {}
    rules: list[Rule] = []
    for rule in filter.rules:
        line = lowering.source.position(rule.span.start)[0]
        name = _rule_name(lowering, filter, rule, line, taken)
        taken[name] = rule
        condition: Predicate = TRUE
        if rule.condition is not None:
            lowering.rule, lowering.kept = name, 0
            condition = Expression(lowering).predicate(rule.condition)
        action, labelled = _ACTIONS[rule.action], rule.label is not None
        target = None if rule.target is None else membership(lowering, rule.target, Position())
        if rule.target is not None:
            lowering.changes[rule.target.set] += 1
        rules.append(
            Rule(name, action, condition, rule.span, line, labelled, argument=rule.argument, target=target)
        )
    return tuple(rules)


def _rule_name(
    lowering: Lowering, filter: ast.Filter, rule: ast.Rule, line: int, taken: dict[str, ast.Rule]
) -> str:
    """The label, or the filter's name and the line; a second rule of a line has `.2` behind it."""
    if rule.label is None:
        name, count = f"{filter.name}:{line}", 1
        while name in taken:
            count += 1
            name = f"{filter.name}:{line}.{count}"
        return name
    if rule.label in taken:
        lowering.fault("PS314", f"two rules are named `{rule.label}`", rule.label_span)
    return rule.label


def _conditions(filter: ast.Filter, default: Verdict) -> tuple[tuple[Condition, Verdict | None], ...]:
    """What the filter says of each odd-packet condition, or what it says by saying nothing."""
    verdicts: dict[Condition, Verdict | None] = dict.fromkeys(Condition)
    verdicts[Condition.MALFORMED] = Verdict.DROP if default in DENYING else None
    verdicts[Condition.EXTHDR_LIMIT] = Verdict.DROP
    verdicts |= {told.condition: told.verdict for told in filter.conditions}
    return tuple(verdicts.items())


_CONDITION_DEPTHS = {
    Condition.MALFORMED: Layer.TRANSPORT,
    Condition.UNKNOWN_TAG: Layer.LINK,
    Condition.EXTHDR_LIMIT: Layer.NETWORK,
    Condition.FRAGMENT: Layer.NETWORK,
    Condition.IP_OPTIONS: Layer.NETWORK,
}


def _asked_depth(filter: ast.Filter) -> Layer:
    """The deepest layer that an `on …` line asks about."""
    return max((_CONDITION_DEPTHS[told.condition] for told in filter.conditions), default=Layer.LINK)
