"""Blocks, diagrams and tables against the reference evaluator, on random rule sets and frames."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.rulesets import RuleSets, frames

from penstock.compiler.analysis.removable import findings
from penstock.compiler.classifier.interpret import classify
from penstock.compiler.classifier.layout import layout
from penstock.compiler.diagram.axis import keys_of
from penstock.compiler.diagram.boxes import NO_RULE, Boxes, Packets, from_ranges
from penstock.compiler.diagram.build import build
from penstock.compiler.diagram.convert import Run, blocks, decisions
from penstock.compiler.diagram.evaluate import decide, first_rule, terminal_of
from penstock.compiler.diagram.order import axis_order
from penstock.compiler.diagram.reduce import reduce
from penstock.compiler.diagram.verify import check
from penstock.compiler.ir.evaluate import Packet, holds, matches
from penstock.compiler.ir.ops import FieldRef, RuleSet

FRAMES = [Packet(frame) for frame in frames(3, 400)]


def batch(boxes: Boxes, parsed: list[Packet]) -> Packets:
    """The packets' fields as keys."""
    found = {}
    for axis in boxes.axes:
        values = [packet.value(axis.ref) for packet in parsed]
        found[axis.ref] = keys_of(axis.bits, [1 << axis.bits if value is None else value for value in values])
    return found


def deciding(rule_set: RuleSet, packet: Packet) -> int:
    """The first deciding rule that matches, by the reference."""
    rules = enumerate(rule_set.rules)
    return next((at for at, rule in rules if rule.decides and matches(rule, packet)), NO_RULE)


def by_tables(rule_set: RuleSet, parsed: list[Packet]) -> list[int]:
    """The same by blocks: tables for runs, single rules asked on their own."""
    answers = np.full(len(parsed), NO_RULE)
    for block in blocks(rule_set):
        if isinstance(block, Run):
            truths = np.array(
                [[holds(asked, packet) for asked in block.opaque] for packet in parsed], dtype=bool
            )
            found = classify(layout(block.boxes), batch(block.boxes, parsed), truths.reshape(len(parsed), -1))
            found = np.where(found == NO_RULE, NO_RULE, found + block.first)
            answers = np.where(answers == NO_RULE, found, answers)
    return answers.tolist()


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("rules", [3, 25])
def test_tables_of_random_policies(seed: int, rules: int) -> None:
    rule_set = RuleSets(seed).rule_set(rules)
    assert by_tables(rule_set, FRAMES) == [deciding(rule_set, packet) for packet in FRAMES]


@pytest.mark.parametrize("seed", range(25))
def test_diagrams_of_random_policies(seed: int) -> None:
    rule_set = RuleSets(seed).rule_set(5)
    run = decisions(rule_set)
    diagram = reduce(build(run.boxes, axis_order(run.boxes).all))
    check(diagram)
    for packet in FRAMES[:150]:
        terminal = terminal_of(diagram, {axis.ref: packet.value(axis.ref) for axis in run.boxes.axes})
        held = {number: holds(asked, packet) for number, asked in enumerate(run.opaque, 1)}
        found = decide(terminal, held.__getitem__)
        assert (NO_RULE if found == NO_RULE else run.rules[found]) == deciding(rule_set, packet)


# ── small boxes, every packet ────────────────────────────────────────────────

REFS = (FieldRef("vlan.pcp"), FieldRef("ecn"), FieldRef("ip.df"))
VERDICTS = ("drop", "pass")


@st.composite
def box_sets(draw: st.DrawFn) -> tuple[Boxes, list[str]]:
    count = draw(st.integers(1, 7))
    ranges = {}
    for ref in REFS:
        top = 1 << ref.field.bits
        ends = [sorted(draw(st.tuples(st.integers(0, top), st.integers(0, top)))) for _ in range(count)]
        whole = [draw(st.booleans()) for _ in range(count)]
        low = [0 if every else pair[0] for pair, every in zip(ends, whole, strict=True)]
        high = [top if every else pair[1] for pair, every in zip(ends, whole, strict=True)]
        ranges[ref] = keys_of(ref.field.bits, low), keys_of(ref.field.bits, high)
    verdicts = draw(st.lists(st.sampled_from(VERDICTS), min_size=count, max_size=count))
    return from_ranges(ranges, np.arange(count)), verdicts


def every_packet() -> Packets:
    tops = [(1 << ref.field.bits) + 1 for ref in REFS]
    grid = np.indices(tops).reshape(len(REFS), -1).astype(np.uint64)
    return dict(zip(REFS, grid, strict=True))


EVERY = every_packet()


def verdicts_of(boxes: Boxes, verdicts: list[str]) -> list[str]:
    return [verdicts[rule] if rule >= 0 else "pass" for rule in first_rule(boxes, EVERY).tolist()]


@given(box_sets())
@settings(max_examples=150, deadline=None)
def test_tables_of_every_packet(drawn: tuple[Boxes, list[str]]) -> None:
    boxes, _ = drawn
    assert (classify(layout(boxes), EVERY) == first_rule(boxes, EVERY)).all()


@given(box_sets())
@settings(max_examples=100, deadline=None)
def test_shadowed_and_redundant_are_exact(drawn: tuple[Boxes, list[str]]) -> None:
    boxes, verdicts = drawn
    found = findings(boxes, verdicts, "pass")
    deciders = set(first_rule(boxes, EVERY).tolist())
    assert {item.rule for item in found.shadowed} == set(range(len(boxes))) - deciders
    shown = boxes.take(np.flatnonzero(~np.isin(boxes.rule, [item.rule for item in found.shadowed])))
    before = verdicts_of(shown, verdicts)
    assert before == verdicts_of(boxes, verdicts)
    spare = []
    for rule in sorted(deciders - {NO_RULE}):
        without = shown.take(np.flatnonzero(shown.rule != rule))
        if verdicts_of(without, verdicts) == before:
            spare.append(rule)
            shown = without
    assert [item.rule for item in found.redundant] == spare
    assert not found.undecided
