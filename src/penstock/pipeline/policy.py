"""A policy's text, compiled: everything that can be done before there is a kernel.

load_policy("filter guard at xdp { drop if udp dst port 53 }")   ->  LoadedPolicy(name="guard", …)
rule_set_of(text)                                                ->  what the reference engine runs
check_text(source)                                               ->  every diagnostic, errors and warnings
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from penstock.compiler.lang.diagnostic import Diagnostic, Severity
from penstock.compiler.lang.source import Source
from penstock.errors import PenstockError, PolicyError
from penstock.kernel.elf import initial_value
from penstock.model.boot_clock import boot_clock_ns
from penstock.model.hook import Hook
from penstock.model.overlay import OFFSETS_VARIABLE
from penstock.model.verdict import Condition, Verdict
from penstock.pipeline.added import with_added
from penstock.pipeline.asked_sets import definitions, with_sets
from penstock.pipeline.built import join, split
from penstock.pipeline.collector import paused
from penstock.pipeline.identity import Added, CounterKey, DeviceAt, Emergency, Identity, Offer, counter_keys
from penstock.version import VERSION

if TYPE_CHECKING:
    from penstock.compiler.driver import Compiled
    from penstock.compiler.ir.ops import Predicate, Rule, RuleSet
    from penstock.compiler.lang import ast
    from penstock.model.field import Layer
    from penstock.model.sets import SetSpec
    from penstock.pipeline.analysis import Analysis

EXPRESSION_NAME = "<expression>"


@dataclass(frozen=True)
class LoadedPolicy:
    """A compiled filter: the object for the kernel, and who it is.

    `rule_set` is None for a built file: its text is kept, its rules are not.
    `dear` says what makes it slow, with the rules to blame.
    """

    identity: Identity
    elf: bytes = field(repr=False)
    rule_set: RuleSet | None = field(default=None, repr=False)
    warnings: tuple[Diagnostic, ...] = ()
    dear: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The filter's name."""
        return self.identity.name

    @property
    def counters(self) -> tuple[CounterKey, ...]:
        """What each counter slot counts, in slot order."""
        return self.identity.counters

    @cached_property
    def rule_keys(self) -> tuple[CounterKey, ...]:
        """The counters of rules alone."""
        return self.counters[1 + len(Condition) :]

    def to_bytes(self) -> bytes:
        """The policy as one file, for hosts without a compiler."""
        return self.elf if self.rule_set is None else join(self.elf, self.identity)


@paused()
def load_policy(
    text: str,
    hook: str | None = None,
    *,
    name: str = "<policy>",
    filter: str | None = None,
    emergencies: tuple[Emergency, ...] = (),
    added: tuple[Added, ...] = (),
    has_policy: bool = True,
) -> LoadedPolicy:
    """Compile a policy; needs clang, but neither privilege nor a kernel.

    `name` is what the text is called in diagnostics, usually its path; `hook` and
    `filter` choose one of several filters (`load_policies` takes all); `added` are rules that are
    compiled in although the text does not have them.

    Raises:
        PolicyError: with every fault of the text.
        LimitError: it is too large for the kernel.
        ToolchainError: clang is missing or failed.
    """
    from penstock.compiler.driver import compile_rule_set

    source = Source(name, text)
    policy, warnings = checked(source)
    chosen = choose_filter(policy, hook, filter)
    rules = with_emergencies(with_added(_lowered(policy, chosen), added, text), emergencies)
    built = compile_rule_set(rules)
    identity = Identity(
        name=rules.name,
        hook=chosen.hook,
        path=name,
        text=text,
        counters=counter_keys(rules, emergencies, added),
        emergencies=emergencies,
        added=added,
        offer=_offer(built, rules.depth),
        devices=tuple(map(DeviceAt, built.spec.devices)),
        sets=built.spec.sets,
        feeds=rules.feeds,
        limiters=built.spec.limiters,
        has_policy=has_policy,
        version=VERSION,
    )
    told = tuple(found for found in warnings if found.severity is Severity.WARNING)
    return LoadedPolicy(identity, built.elf, rules, told, built.dear)


def load_policies(
    text: str, *, name: str = "<policy>", filter: str | None = None
) -> tuple[LoadedPolicy, ...]:
    """Compile the filters of a policy for one interface: all, one at each hook, or the one that is named.

    A filter at socket is no matter of an interface: it is left out beside others.

    Raises:
        PenstockError: as `load_policy`; or several are at one hook, and none is named.
    """
    policy, _ = checked(Source(name, text))
    if filter is not None or len(policy.filters) < 2:
        return (load_policy(text, name=name, filter=filter),)
    hooks = list(dict.fromkeys(one.hook for one in policy.filters if one.hook != "socket")) or ["socket"]
    names = [choose_filter(policy, hook).name for hook in hooks]
    return tuple(load_policy(text, name=name, filter=one) for one in names)


def at_sockets(text: str, name: str = "<policy>") -> tuple[str, ...]:
    """The filters of a policy that `load_policies` leaves out, being at sockets where others are at an interface."""
    if Hook.SOCKET.value not in text:
        return ()
    policy, _ = checked(Source(name, text))
    found = tuple(one.name for one in policy.filters if one.hook == Hook.SOCKET.value)
    return found if len(found) < len(policy.filters) else ()


def _offer(built: Compiled, depth: Layer) -> Offer | None:
    """What the program lets rules test that are added while it runs."""
    if not built.spec.overlay:
        return None
    places = initial_value(built.elf, OFFSETS_VARIABLE) or b""
    return Offer(dict(zip(built.spec.overlay, memoryview(places).cast("H"), strict=True)), int(depth))


def load_built(data: bytes, name: str) -> LoadedPolicy:
    """The policy in a file that `penstock build` made; `name` is what it is called in errors.

    Raises:
        PenstockError: it is not one, or it is cut.
    """
    elf, identity = split(data, name)
    return LoadedPolicy(identity, elf)


def add_emergencies(policy: LoadedPolicy, rules: tuple[Emergency, ...]) -> LoadedPolicy:
    """The policy compiled again with these rules before its own.

    Raises:
        PenstockError: as `load_policy`.
    """
    return replace(compiled_again(policy.identity, rules), warnings=policy.warnings)


def compiled_again(
    identity: Identity, emergencies: tuple[Emergency, ...], added: tuple[Added, ...] = ()
) -> LoadedPolicy:
    """A policy compiled from its own text, with emergency and added rules.

    Raises:
        PenstockError: as `load_policy`.
    """
    made = load_policy(
        identity.text,
        identity.hook,
        name=identity.path,
        filter=identity.name,
        emergencies=emergencies,
        added=added,
    )
    return replace(made, identity=msgspec.structs.replace(made.identity, directory=identity.directory))


def live(rules: tuple[Emergency, ...]) -> tuple[Emergency, ...]:
    """The rules whose time is not over."""
    now = boot_clock_ns()
    return tuple(rule for rule in rules if rule.until_ns > now)


@dataclass(frozen=True, slots=True)
class Checked:
    """Every diagnostic of a text in the order of the text, and what each filter's rules mean together."""

    diagnostics: tuple[Diagnostic, ...]
    analyses: tuple[Analysis, ...] = ()


def check_text(source: Source) -> tuple[Diagnostic, ...]:
    """Every diagnostic of a policy text, in the order of the text: errors, warnings, notes."""
    return checked_text(source).diagnostics


@paused()
def checked_text(source: Source) -> Checked:
    """The diagnostics of a policy text, and the analyses of its filters that are without fault.

    Raises:
        LimitError: a filter is larger than a program can be.
    """
    from penstock.compiler.codegen.room import ensure_room
    from penstock.pipeline.analysis import analyse

    try:
        policy, found = checked(source)
    except PolicyError as error:
        return Checked(error.diagnostics)
    rule_sets, faults = _lowered_filters(policy)
    for rule_set in rule_sets:
        ensure_room(rule_set)
    analyses = tuple(analyse(policy, rule_set) for rule_set in rule_sets)
    meant = [diagnostic for analysis in analyses for diagnostic in analysis.diagnostics(found)]
    return Checked(_sorted((*found, *faults, *meant)), analyses)


@paused()
def rule_set_of(
    text: str, *, name: str = "<policy>", filter: str | None = None, hook: str | None = None
) -> RuleSet:
    """What a filter means, for the reference engine; compiles nothing.

    Raises:
        PolicyError: with every fault of the text.
    """
    policy, _ = checked(Source(name, text))
    return _lowered(policy, choose_filter(policy, hook, filter))


def check_expression(text: str, *, netmask: int | None = None, sets: Sequence[SetSpec] = ()) -> Predicate:
    """What an expression means; an empty one matches every packet.

    `ip broadcast` needs the netmask; `sets` are those that it may ask.

    Raises:
        PolicyError: the text is no expression.
    """
    from penstock.compiler.ir.lower import lower_expression
    from penstock.compiler.ir.ops import Always
    from penstock.compiler.lang.parser import parse_expression

    source = Source(EXPRESSION_NAME, text)
    expression = parse_expression(source)
    if expression is None:
        return Always(True)
    return lower_expression(expression, source, sets=definitions(sets), netmask=netmask)


def with_emergencies(rules: RuleSet, emergencies: tuple[Emergency, ...]) -> RuleSet:
    """The rule set with these rules before its own.  Raises PolicyError: one of them is no expression."""
    if not emergencies:
        return rules
    from penstock.compiler.ir.depth import depth_of

    added = tuple(map(emergency_rule, emergencies))
    depth = max(rules.depth, depth_of(rule.condition for rule in added))
    return replace(rules, rules=(*added, *rules.rules), depth=depth, sets=with_sets(rules, emergencies))


def emergency_rule(emergency: Emergency) -> Rule:
    """What an emergency rule means.  Raises PolicyError: it is no expression."""
    from penstock.compiler.ir.ops import Effect, Rule
    from penstock.compiler.lang.ast import NOWHERE

    action = Effect.AUDIT if emergency.action == "audit" else Verdict.DROP
    condition = check_expression(emergency.expression, sets=emergency.sets)
    return Rule(emergency.name, action, condition, NOWHERE, 1, until_ns=emergency.until_ns)


def checked(source: Source) -> tuple[ast.Policy, tuple[Diagnostic, ...]]:
    """The syntax of a policy and its warnings and notes.

    Raises:
        PolicyError: with every fault, those that only lowering finds among them.
    """
    from penstock.compiler.lang.check import check_policy, has_errors
    from penstock.compiler.lang.parser import read_policy

    policy, faults = read_policy(source)
    found = check_policy(policy)
    if not faults and not has_errors(found):
        return policy, found
    told = {diagnostic.span for diagnostic in (*faults, *found)}
    undefined = any(diagnostic.code == "PS111" for diagnostic in found)
    lowered = (fault for fault in _lowered_filters(policy)[1] if fault.span not in told)
    found = (*found, *(fault for fault in lowered if not (undefined and fault.code == "PS301")))
    if faults:
        found = tuple(_own_faults(found, faults))
    raise PolicyError(_sorted((*faults, *found)))


#: What may be missing only because the line that defines it could not be read.
_OF_CONSTANTS = frozenset({"PS111", "PS301"})
_OF_RULES = frozenset({"PS114", "PS117"})
_CONSTANT = re.compile(r"^\s*let\s+(\w+)")


def _own_faults(found: Iterable[Diagnostic], faults: tuple[Diagnostic, ...]) -> Iterator[Diagnostic]:
    """The errors that do not merely follow from faults of syntax; no warnings about half a policy."""
    lost = {name for fault in faults for name in _CONSTANT.findall(fault.source.line(fault.line))}
    for diagnostic in found:
        text = diagnostic.source.text[diagnostic.span.start : diagnostic.span.end]
        is_lost = diagnostic.code in _OF_CONSTANTS and text.removeprefix("$") in lost
        if diagnostic.severity is Severity.ERROR and not is_lost and diagnostic.code not in _OF_RULES:
            yield diagnostic


def _sorted(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    return tuple(sorted(diagnostics, key=lambda found: (found.span.start, found.code)))


def _lowered(policy: ast.Policy, chosen: ast.Filter) -> RuleSet:
    from penstock.compiler.ir.lower import lower_filter

    return lower_filter(policy, chosen)


def choose_filter(policy: ast.Policy, hook: str | None = None, name: str | None = None) -> ast.Filter:
    """The filter of that name, or the only one (at the hook).

    Raises:
        PenstockError: there is none, or there are several and none was named.
    """
    at = f" at {hook}" if hook else ""
    there = [found for found in policy.filters if hook in (None, found.hook)]
    hooks = {found.hook for found in there}
    listed = ", ".join(f"{found.name} at {found.hook}" if len(hooks) > 1 else found.name for found in there)
    if name is not None:
        chosen = next((found for found in there if found.name == name), None)
        if chosen is None:
            raise PenstockError(f"{policy.source.name} has no filter {name}{at}", hint=f"it has: {listed}")
        return chosen
    if not there:
        hint = f"filter NAME at {hook or 'xdp'} {{ … }}"
        raise PenstockError(f"{policy.source.name} has no filter{at}", hint=hint)
    if len(there) > 1:
        raise PenstockError(
            f"{policy.source.name} has {len(there)} filters{at or (' at ' + hooks.pop() if len(hooks) == 1 else '')}",
            hint=f"say which with --filter: {listed}",
        )
    return there[0]


def _lowered_filters(policy: ast.Policy) -> tuple[list[RuleSet], list[Diagnostic]]:
    """The filters that can be lowered, and what lowering finds in the others."""
    from penstock.compiler.ir.lower import lower_filter

    sound: list[RuleSet] = []
    faults: list[Diagnostic] = []
    for one in policy.filters:
        try:
            sound.append(lower_filter(policy, one))
        except PolicyError as error:
            faults.extend(diagnostic for diagnostic in error.diagnostics if diagnostic not in faults)
    return sound, faults


__all__ = [
    "LoadedPolicy",
    "add_emergencies",
    "check_expression",
    "check_text",
    "checked",
    "checked_text",
    "choose_filter",
    "compiled_again",
    "emergency_rule",
    "live",
    "load_built",
    "load_policies",
    "load_policy",
    "rule_set_of",
    "with_emergencies",
]
