"""The sets that an expression asks without a policy that defines them: those that are there.

asked_sets("udp and src in @threats")     ->  (SetSpec("threats", …),)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.compiler.ir.ops import RuleSet
    from penstock.compiler.lang import ast
    from penstock.model.sets import SetSpec
    from penstock.pipeline.identity import Emergency

_NAME = re.compile(r"\bin\s+@([A-Za-z_][A-Za-z0-9_-]*)")


def asked_sets(expression: str) -> tuple[SetSpec, ...]:
    """The sets of this host that an expression names; one that is not there is left for the compiler to tell of.

    Raises:
        KernelError: one cannot be read.
    """
    from penstock.pipeline.set_store import spec_of

    specs = (spec_of(name) for name in dict.fromkeys(_NAME.findall(expression)))
    return tuple(spec for spec in specs if spec is not None)


def definitions(sets: Sequence[SetSpec]) -> tuple[ast.SetDefinition, ...]:
    """The lines of a policy that would define them."""
    from penstock.compiler.lang.ast import SetDefinition

    return tuple(
        SetDefinition(
            one.name,
            one.kind,
            one.size,
            one.timeout_ns,
            one.counters,
            one.dynamic,
            structure=one.structure if one.kind == ("net",) else None,
        )
        for one in sets
    )


def with_sets(rules: RuleSet, emergencies: Sequence[Emergency]) -> tuple[SetSpec, ...]:
    """The sets of a rule set and those that only emergency rules ask."""
    known = {spec.name: spec for spec in rules.sets}
    for emergency in emergencies:
        for spec in emergency.sets:
            known.setdefault(spec.name, spec)
    return tuple(known.values())
