"""What would change if a policy's filters ran at another hook.

elsewhere(source, (Hook.TC_EGRESS,))    ->  (Elsewhere("edge", TC_EGRESS, (error[PS118] …, warning[PS252] …)),)

What a hook lacks is an error, with the hooks that have it; what is the same
rule about other packets is a warning, if a rule touches it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from penstock.compiler.ir.elsewhere import differences
from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.lang.diagnostic import Diagnostic
from penstock.compiler.lang.findings import Findings
from penstock.compiler.lang.parser import read_policy
from penstock.compiler.lang.placement import check_placement
from penstock.errors import PolicyError
from penstock.model.hook import Hook

if TYPE_CHECKING:
    from penstock.compiler.lang import ast
    from penstock.compiler.lang.source import Source


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """One filter at one hook, and what of it would change there; () for nothing."""

    filter: str
    hook: Hook
    diagnostics: tuple[Diagnostic, ...]


def elsewhere(source: Source, hooks: Sequence[Hook]) -> tuple[Elsewhere, ...]:
    """Each filter of a policy at each of the hooks; nothing of a text that is no policy."""
    policy, faults = read_policy(source)
    if faults:
        return ()
    return tuple(
        Elsewhere(item.name, hook, tuple(sorted(_changes(policy, item, hook), key=_place)))
        for item in policy.filters
        for hook in hooks
    )


def _place(found: Diagnostic) -> tuple[int, str]:
    return found.span.start, found.code


def _changes(policy: ast.Policy, item: ast.Filter, hook: Hook) -> Iterator[Diagnostic]:
    there = replace(item, hook=hook.value)
    findings = Findings(policy.source)
    check_placement(there, findings)
    yield from findings.sorted()
    try:
        rules = lower_filter(policy, item)
    except PolicyError:
        return
    try:
        lower_filter(policy, there)
    except PolicyError as error:
        yield from error.diagnostics
    yield from differences(rules, hook, item)
