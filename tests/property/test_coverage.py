"""What `penstock coverage` counts is what the reference evaluator does, packet by packet."""

from __future__ import annotations

from collections import Counter

import numpy as np
from tests.property.rulesets import Frames, RuleSets

from penstock.compiler.ir.evaluate import Packet, evaluate_packet, holds
from penstock.compiler.ir.ops import (
    DEFAULT_SLOT,
    FIRST_CONDITION_SLOT,
    FIRST_RULE_SLOT,
    All,
    Any,
    Predicate,
    Rule,
    RuleSet,
)
from penstock.compiler.lang.ast import NOWHERE, Filter
from penstock.engine.batch import Batch, axes_of
from penstock.engine.coverage import Coverage, RuleCoverage, TermCoverage, measure
from penstock.model.verdict import Condition

NOBODY = Filter("random", "xdp", None, (), ())


def terms_of(condition: Predicate) -> tuple[Predicate, ...]:
    return condition.operands if isinstance(condition, All | Any) else (condition,)


def covered(rules: RuleSet, packets: list[Packet]) -> Coverage:
    def empty(rule: Rule) -> RuleCoverage:
        return RuleCoverage(rule, [TermCoverage(NOWHERE, one) for one in terms_of(rule.condition)])

    found = Coverage(rules, NOBODY, [empty(rule) for rule in rules.rules])
    measure(found, packets)
    return found


def test_every_count_is_the_evaluators() -> None:
    for seed in range(8):
        rules = RuleSets(seed).rule_set(6)
        frames = Frames(seed)
        packets = [Packet(frames.frame()) for _ in range(120)]
        found = covered(rules, packets)
        slots: Counter[int] = Counter()
        odd: Counter[Condition] = Counter()
        sizes: Counter[int] = Counter()
        for packet in packets:
            outcome = evaluate_packet(rules, packet)
            odd.update(outcome.conditions)
            for slot in (outcome.slot, *outcome.hits):
                slots[slot] += 1
                sizes[slot] += packet.wire_length
        assert found.default.packets == slots[DEFAULT_SLOT]
        assert found.default.size == sizes[DEFAULT_SLOT]
        for at, one in enumerate(found.rules, FIRST_RULE_SLOT):
            assert (one.packets, one.size) == (slots[at], sizes[at])
        for condition, share in found.conditions.items():
            assert share.packets == odd[condition]
            assert share.decided == slots[FIRST_CONDITION_SLOT + condition]
        assert_terms(found, packets)


def assert_terms(found: Coverage, packets: list[Packet]) -> None:
    """Terms are counted on the packets that came to their rule."""
    outcomes = [evaluate_packet(found.rule_set, packet) for packet in packets]
    for at, one in enumerate(found.rules, FIRST_RULE_SLOT):
        came = [
            packet
            for packet, outcome in zip(packets, outcomes, strict=True)
            if outcome.slot == DEFAULT_SLOT or outcome.slot >= at
        ]
        assert one.tried == len(came)
        for term in one.terms:
            assert term.true == sum(holds(term.predicate, packet) for packet in came)
            assert term.true + term.false == len(came)


def test_a_batch_answers_what_the_evaluator_does() -> None:
    rules, frames = RuleSets(77), Frames(77)
    packets = [Packet(frames.frame()) for _ in range(60)]
    predicates = [rules.predicate() for _ in range(150)]
    batch = Batch(axes_of(predicates), packets)
    rows = np.arange(0, 60, 2)
    for predicate in predicates:
        assert batch.holds(predicate, rows).tolist() == [holds(predicate, packets[row]) for row in rows]
