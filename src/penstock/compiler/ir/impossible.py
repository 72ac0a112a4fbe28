"""Rules that no packet can match, seen once they are lowered.

drop if ttl > 300                  a time to live has 8 bits
drop if less 70 and greater 100    no length is both
"""

from __future__ import annotations

from collections.abc import Iterator

from penstock.compiler.ir.ops import RuleSet
from penstock.compiler.ir.simplify import FALSE
from penstock.compiler.lang.diagnostic import Diagnostic, Severity


def impossible_rules(rule_set: RuleSet) -> Iterator[Diagnostic]:
    """A warning for each rule whose condition is false of every packet."""
    for rule in rule_set.rules:
        if rule.condition == FALSE:
            message = "this rule can never match: its condition is false of every packet"
            yield Diagnostic("PS207", Severity.WARNING, message, rule_set.source, rule.span)
