"""What a policy's rules become in C: stretches of them, in order, each in one of three forms.

A `Linear` is compared rule by rule (blocks.py), a `Nested` is a small decision
diagram as comparisons (nested.py), a `Tabled` a large one as tables (tabled.py).
Which stretch takes which form is decided in plan.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.compiler.codegen.blocks import NumberedRule
from penstock.compiler.ir.ops import FieldRef, Predicate, Within
from penstock.model.net import IntervalSet

if TYPE_CHECKING:
    from penstock.compiler.classifier.tables import Classifier
    from penstock.compiler.codegen.flow import Flow


@dataclass(frozen=True, slots=True)
class Linear:
    """Rules to be tried one after the other."""

    rules: tuple[NumberedRule, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Nested:
    """Rules to be decided by comparisons; `opaque` are the predicates that terminals ask, from number 1 on."""

    rules: tuple[NumberedRule, ...]
    flow: Flow
    refs: tuple[FieldRef, ...]
    opaque: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Tabled:
    """Rules to be looked up; `opaque` are the predicates that the classifier asks, from number 1 on.

    `between` are those of the rules that are asked one after the other, of packets that no rule before
    them has decided: what is looked up is the first of the others that decides.
    """

    rules: tuple[NumberedRule, ...]
    classifier: Classifier
    refs: tuple[FieldRef, ...]
    opaque: tuple[Predicate, ...]
    between: tuple[NumberedRule, ...] = ()


Stage = Linear | Nested | Tabled


def conditions(stages: Iterable[Stage]) -> Iterator[Predicate]:
    """Predicates that read everything the stages read."""
    for stage in stages:
        if isinstance(stage, Linear):
            yield from (asked for item in stage.rules for asked in item.rule.asked)
        else:
            if isinstance(stage, Tabled):
                yield from (asked for item in stage.between for asked in item.rule.asked)
            yield from stage.opaque
            yield from (Within(ref, IntervalSet.single(0)) for ref in stage.refs)
