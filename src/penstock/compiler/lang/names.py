"""Names that a policy defines: constants, filters, labels; each once, and each use of one that exists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from penstock.compiler.lang.ast import (
    Arithmetic,
    Constant,
    Expectation,
    Expr,
    Filter,
    Given,
    Let,
    Number,
    Policy,
    PortRange,
    Prefix,
    Primitive,
    Qualifiers,
    Test,
    Value,
)
from penstock.compiler.lang.findings import Findings
from penstock.compiler.lang.qualification import check_prefix, check_value
from penstock.compiler.lang.source import Span
from penstock.compiler.lang.spelling import spell_value
from penstock.compiler.lang.values import BadValue
from penstock.compiler.lang.walk import inner_leaves, rules, terms
from penstock.compiler.lang.words import DECIDING
from penstock.model.verdict import CONDITION_WORDS

RESERVED_LABELS = frozenset({"default", *CONDITION_WORDS})

Constants = Mapping[str, tuple[Value, ...]]


def check_names(policy: Policy, findings: Findings) -> None:
    """Report names that are missing, defined twice or not to be used."""
    constants = _constants(policy, findings)
    for rule in rules(policy):
        check_references(rule.condition, constants, findings)
    _check_unused(policy, findings)
    _check_filters(policy, findings)
    for test in policy.tests:
        _check_test(test, policy, findings)


# ── constants ────────────────────────────────────────────────────────────────


def _constants(policy: Policy, findings: Findings) -> Constants:
    """Each constant's values, the constants among them replaced by theirs."""
    known: dict[str, tuple[Value, ...]] = {}
    first: dict[str, Let] = {}
    for let in policy.constants:
        if let.name in first:
            where = findings.place(first[let.name].name_span)
            findings.error(
                "PS112", f"the constant `{let.name}` is defined already, on {where}", let.name_span
            )
            continue
        first[let.name] = let
        known[let.name] = tuple(_flat(let, known, findings))
    return known


def _flat(let: Let, known: Constants, findings: Findings) -> Iterable[Value]:
    for value in let.values:
        if not isinstance(value, Constant):
            _check_listed(value, findings)
            yield value
        elif value.name == let.name:
            findings.error("PS111", f"the constant `{let.name}` is defined by itself", value.span)
        else:
            yield from _values(value, known, findings)


def _check_listed(value: Value, findings: Findings) -> None:
    if isinstance(value, Prefix):
        try:
            check_prefix(value)
        except BadValue as fault:
            findings.error("PS104", str(fault), value.span, hint=fault.hint)


def _values(constant: Constant, known: Constants, findings: Findings) -> tuple[Value, ...]:
    if constant.name in known:
        return known[constant.name]
    near = get_close_matches(constant.name, known, n=1, cutoff=0.7)
    hint = (
        f"did you mean `${near[0]}`?"
        if near
        else f"define it above this line: let {constant.name} = VALUE, …"
    )
    findings.error("PS111", f"the constant `${constant.name}` is not defined", constant.span, hint=hint)
    return ()


def check_references(expr: Expr | None, constants: Constants, findings: Findings) -> None:
    """Report constants that do not exist, or whose values cannot stand where they are used."""
    for leaf in inner_leaves(expr):
        if isinstance(leaf, Primitive) and isinstance(leaf.value, Constant):
            for value in _values(leaf.value, constants, findings):
                _check_use(leaf.qualifiers, value, leaf.value, findings)
        for term in terms(leaf):
            if isinstance(term, Constant):
                _check_number(term, constants, findings)


def _check_use(qualifiers: Qualifiers, value: Value, constant: Constant, findings: Findings) -> None:
    if isinstance(value, PortRange) and qualifiers.kind == "port":
        qualifiers = Qualifiers(qualifiers.protocol, qualifiers.direction, "portrange")
    try:
        check_value(qualifiers, value)
    except BadValue as fault:
        message = f"`{spell_value(value)}` of `${constant.name}` cannot stand here: {fault}"
        findings.error("PS116", message, constant.span, hint=fault.hint)


def _check_number(constant: Constant, constants: Constants, findings: Findings) -> None:
    values = _values(constant, constants, findings)
    if values and not (len(values) == 1 and isinstance(values[0], Number)):
        message = f"arithmetic takes one number, and `${constant.name}` is something else"
        findings.error("PS116", message, constant.span)


def _check_unused(policy: Policy, findings: Findings) -> None:
    used = {value.name for let in policy.constants for value in let.values if isinstance(value, Constant)}
    for rule in rules(policy):
        for leaf in inner_leaves(rule.condition):
            if isinstance(leaf, Primitive) and isinstance(leaf.value, Constant):
                used.add(leaf.value.name)
            used.update(_names(terms(leaf)))
    for let in policy.constants:
        if let.name not in used:
            findings.warning("PS206", f"the constant `{let.name}` is never used", let.name_span)


def _names(found: Iterable[Arithmetic]) -> Iterable[str]:
    return (term.name for term in found if isinstance(term, Constant))


# ── filters and labels ───────────────────────────────────────────────────────


def _check_filters(policy: Policy, findings: Findings) -> None:
    if not policy.filters:
        message = "this policy has no filter"
        findings.error(
            "PS117", message, Span(0, 0), hint="as in: filter edge at xdp { drop if udp dst port 53 }"
        )
    named = ((item.name, item.name_span) for item in policy.filters)
    _check_unique(named, "filter", findings)
    for item in policy.filters:
        labels = [(rule.label, rule.label_span) for rule in item.rules if rule.label is not None]
        _check_unique(labels, "label", findings)
        for label, span in labels:
            if label in RESERVED_LABELS:
                findings.error("PS113", f"`{label}` is reserved: counters of that name exist already", span)
        conditions = ((entry.condition.word, entry.span) for entry in item.conditions)
        _check_unique(conditions, "condition", findings)


def _check_unique(named: Iterable[tuple[str, Span]], what: str, findings: Findings) -> None:
    first: dict[str, Span] = {}
    for name, span in named:
        if name in first:
            where = findings.place(first[name])
            findings.error("PS112", f"the {what} `{name}` is used already, on {where}", span)
        first.setdefault(name, span)


# ── tests ────────────────────────────────────────────────────────────────────


def _check_test(test: Test, policy: Policy, findings: Findings) -> None:
    named = {item.name: item for item in policy.filters}
    if test.filter is not None and test.filter not in named:
        findings.error(
            "PS114", f"there is no filter `{test.filter}`", test.span, hint=_near(test.filter, named)
        )
        return
    target = named.get(test.filter) if test.filter else next(iter(policy.filters), None)
    if target is None:
        return
    deciders = _deciders(target, findings)
    for step in test.steps:
        if not isinstance(step, Given):
            _check_expectation(step.expect, target, deciders, findings)


def _deciders(item: Filter, findings: Findings) -> set[str]:
    """The names of what can decide in a filter."""
    found = {"default", *CONDITION_WORDS}
    for rule in item.rules:
        if rule.action in DECIDING:
            line = findings.source.position(rule.span.start)[0]
            found.add(rule.label or f"{item.name}:{line}")
    return found


def _check_expectation(expect: Expectation, item: Filter, deciders: set[str], findings: Findings) -> None:
    name = expect.rule
    if name is None or name in deciders:
        return
    if any(rule.label == name for rule in item.rules):
        findings.error("PS114", f"the rule `{name}` never decides", expect.span)
        return
    message = f"the filter `{item.name}` has no rule `{name}`"
    findings.error("PS114", message, expect.span, hint=_near(name, deciders))


def _near(name: str, known: Iterable[str]) -> str | None:
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean `{near[0]}`?" if near else None
