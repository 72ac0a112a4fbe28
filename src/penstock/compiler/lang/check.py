"""What can be said about a policy without compiling it.

Takes a policy that could be read, gives errors (PS1xx: names that do not exist
or exist twice), warnings (PS2xx: rules that can never match, services that a
deny-by-default filter forgets) and notes (PS22x: places where penstock means
something other than tcpdump, because a firewall must), in the order of the text.
"""

from __future__ import annotations

from penstock.compiler.lang.ast import Expr, Policy
from penstock.compiler.lang.contradiction import check_contradictions
from penstock.compiler.lang.denial import check_denial
from penstock.compiler.lang.diagnostic import Diagnostic, Severity
from penstock.compiler.lang.difference import check_differences
from penstock.compiler.lang.findings import Findings
from penstock.compiler.lang.given import check_given
from penstock.compiler.lang.names import check_names, check_references
from penstock.compiler.lang.placement import check_placement
from penstock.compiler.lang.set_change import check_field
from penstock.compiler.lang.sets import check_members, check_sets
from penstock.compiler.lang.shadow import check_shadows
from penstock.compiler.lang.source import Source


def check_policy(policy: Policy) -> tuple[Diagnostic, ...]:
    """Everything there is to say about a policy; whoever builds it must stop at errors."""
    findings = Findings(policy.source)
    check_names(policy, findings)
    check_sets(policy, findings)
    check_given(policy, findings)
    for item in policy.filters:
        for rule in item.rules:
            check_contradictions(rule.condition, findings)
            if rule.target is not None:
                check_field(rule.target, rule.condition, findings)
        check_placement(item, findings)
        check_shadows(item, findings)
        check_denial(item, policy, findings)
        check_differences(item, findings)
    return findings.sorted()


def check_expression(expr: Expr | None, source: Source) -> tuple[Diagnostic, ...]:
    """What there is to say about an expression by itself: it has no constants and should be able to match."""
    findings = Findings(source)
    check_references(expr, {}, findings)
    check_members(expr, {}, findings)
    check_contradictions(expr, findings)
    return findings.sorted()


def has_errors(diagnostics: tuple[Diagnostic, ...]) -> bool:
    return any(diagnostic.severity is Severity.ERROR for diagnostic in diagnostics)
