"""How the rules of a large policy are tried: stretches of them one after the other, or by tables.

In: the rules of a rule set too large to be inlined.  Out: stages in the rules'
order.  A `Linear` becomes block functions (blocks.py); a `Tabled` is a long
stretch of rules that decide and remember nothing, laid out as a `Classifier`
whose answers were compared with those of the rules (tabled.py prints it).

    1000 rules, the 500th counts    ->    Tabled(499 rules), Linear(1 rule), Tabled(500 rules)
    70 rules                        ->    Linear(70 rules), if they are not all `drop` or `pass`

numpy is imported only for a stretch of LEAST_RULES.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

from penstock.compiler.codegen.blocks import MAX_RULE_COST, NumberedRule, cost
from penstock.compiler.ir.ops import FieldRef, Predicate, RuleSet, Within
from penstock.errors import InternalError
from penstock.model.net import IntervalSet

if TYPE_CHECKING:
    from penstock.compiler.diagram.convert import Run
    from penstock.compiler.diagram.tables import Classifier, Family

#: Fewer rules in a row are compared one after the other.
LEAST_RULES = 64
#: List entries while tables are built.  There is no limit of time: what is built must not depend on the machine.
MAX_MEMBERS = 8_000_000
#: What the verifier (Linux 6.18) was seen to follow with a wide margin: each field beyond the two that lead may
#: double its work (9 of them: 76,000 instructions, 13: over a million), loops multiply it.
MAX_LANES, MAX_ASKED, MAX_WORDS = 8, 40, 64


@dataclass(frozen=True, slots=True)
class Linear:
    """Rules to be tried one after the other."""

    rules: tuple[NumberedRule, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Tabled:
    """Rules to be looked up; `opaque` are the predicates that the classifier asks, from number 1 on."""

    rules: tuple[NumberedRule, ...]
    classifier: Classifier
    refs: tuple[FieldRef, ...]
    opaque: tuple[Predicate, ...]


Stage = Linear | Tabled


def stages_of(rule_set: RuleSet, rules: Sequence[NumberedRule]) -> tuple[Stage, ...]:
    """The rules as stages; `rules` are the first of the rule set's, maybe all.

    Raises:
        InternalError: tables do not say what their rules say.
    """
    stretches = [len(list(found)) for able, found in groupby(rules, _is_stateless) if able]
    if max(stretches, default=0) < LEAST_RULES:
        return (Linear(tuple(rules)),)
    return tuple(_joined(_stages(replace(rule_set, rules=tuple(item.rule for item in rules)), rules)))


def _is_stateless(item: NumberedRule) -> bool:
    return item.rule.decides and item.rule.until_ns is None


def _stages(rule_set: RuleSet, rules: Sequence[NumberedRule]) -> Iterator[Stage]:
    from penstock.compiler.diagram.convert import Run, blocks

    for block in blocks(rule_set):
        if isinstance(block, Run):
            part = tuple(rules[block.first : block.last + 1])
            yield _tabled(block, part) or Linear(part)
        else:
            yield Linear((rules[block.rule],))


def _tabled(run: Run, rules: tuple[NumberedRule, ...]) -> Tabled | None:
    """The run by tables; None where one rule after the other is shorter, or no tables can be had."""
    if len(rules) < LEAST_RULES or not len(run.boxes) or sum(map(cost, run.opaque)) > MAX_RULE_COST:
        return None
    from penstock.compiler.diagram.build import Budget, OverBudgetError
    from penstock.compiler.diagram.layout import layout

    try:
        classifier = layout(run.boxes, Budget(members=MAX_MEMBERS, seconds=float("inf")))
    except OverBudgetError:
        return None
    if not all(map(_is_verifiable, classifier.families)):
        return None
    _compare(classifier, run)
    return Tabled(rules, classifier, tuple(axis.ref for axis in run.boxes.axes), run.opaque)


def _is_verifiable(family: Family) -> bool:
    from penstock.compiler.diagram.tables import BitGroup, ListLeaf

    words = sum(group.words for group in family.groups if isinstance(group, BitGroup))
    others = [group for group in family.groups if not isinstance(group, BitGroup)]
    asked = [group.leaf.longest for group in others if group.opaque and isinstance(group.leaf, ListLeaf)]
    return len(family.lanes) <= MAX_LANES and words <= MAX_WORDS and sum(asked) <= MAX_ASKED


def _compare(classifier: Classifier, run: Run) -> None:
    from penstock.compiler.diagram.verify import disagreements

    wrong = disagreements(classifier, run.boxes).wrong
    if len(wrong):
        raise InternalError(f"the tables of rules {run.first} to {run.last} err about {len(wrong)} packets")


def _joined(stages: Iterator[Stage]) -> Iterator[Stage]:
    """The stages, neighbouring linear ones as one."""
    waiting: list[NumberedRule] = []
    for stage in stages:
        if isinstance(stage, Linear):
            waiting += stage.rules
            continue
        if waiting:
            yield Linear(tuple(waiting))
            waiting = []
        yield stage
    if waiting:
        yield Linear(tuple(waiting))


def conditions(stages: Sequence[Stage]) -> Iterator[Predicate]:
    """Predicates that read everything the stages read."""
    for stage in stages:
        if isinstance(stage, Linear):
            yield from (item.rule.condition for item in stage.rules)
        else:
            yield from stage.opaque
            yield from (Within(ref, IntervalSet.single(0)) for ref in stage.refs)
