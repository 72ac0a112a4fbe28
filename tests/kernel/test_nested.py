"""Rules as nested comparisons: kernel, diagram and reference agree; what it costs the verifier."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bench.rulesets import Flavour, generate, rule_lines
from tests.kernel.test_tables import OTHERS, built, odd_frames, rule_set
from tests.property.dataplane import DataPlane, disagreements
from tests.property.rulesets import RuleSets
from tests.property.test_kernel_agrees import FRAMES, oldest_clang

from penstock.compiler.codegen.blocks import numbered
from penstock.compiler.codegen.emit import emit
from penstock.compiler.codegen.plan import NESTED_SIZE, Wish, plan_of
from penstock.compiler.codegen.stages import Nested
from penstock.compiler.codegen.weigh import Form
from penstock.compiler.diagram.boxes import NO_RULE
from penstock.compiler.diagram.evaluate import decide, terminal_of
from penstock.compiler.driver import object_of
from penstock.compiler.ir.evaluate import Packet, evaluate, holds
from penstock.compiler.ir.ops import DEFAULT_SLOT, FIRST_RULE_SLOT, Always, RuleSet
from penstock.kernel.bpf_object import load_object
from penstock.model.verdict import Condition

pytestmark = pytest.mark.privileged

INLINE, STAGED = Wish(Form.NESTED, inline=True), Wish(Form.NESTED, inline=False)


def drawn(seed: int, count: int, *, deciding: bool) -> RuleSet:
    """Random rules, without those that no packet gets past; odd packets reach them."""
    found = RuleSets(seed).rule_set(count)
    kept = (rule for rule in found.rules if rule.condition != Always(True))
    rules = tuple(rule for rule in kept if rule.decides or not deciding)
    return replace(found, rules=rules, conditions=tuple((condition, None) for condition in Condition))


def nested_stages(rules: RuleSet, wish: Wish) -> list[Nested]:
    return [stage for stage in plan_of(rules, numbered(rules), wish).stages if isinstance(stage, Nested)]


@pytest.mark.parametrize("wish", [INLINE, STAGED], ids=["inline", "staged"])
@pytest.mark.parametrize(("seed", "count"), [(1, 3), (2, 6), (3, 10), (5, 14)])
def test_random_rules(seed: int, count: int, wish: Wish) -> None:
    rules = drawn(seed, count, deciding=False)
    with DataPlane.of(rules, wish=wish) as plane:
        assert disagreements(rules, plane, FRAMES) == []


@pytest.mark.parametrize("seed", range(10, 16))
def test_kernel_diagram_and_reference(seed: int) -> None:
    """One diagram of all rules, walked as arrays, as C, and not at all."""
    rules = drawn(seed, 12, deciding=True)
    (stage,) = nested_stages(rules, STAGED)
    with DataPlane.of(rules, wish=STAGED) as plane:
        for frame in FRAMES:
            expected = evaluate(rules, frame)
            assert slot_by(stage, Packet(frame)) == expected.slot, frame.hex()
            assert plane.outcome(frame) == expected, frame.hex()


def slot_by(stage: Nested, packet: Packet) -> int:
    """What the stage's diagram comes to; its rules are all that there are."""
    values = {ref: packet.value(ref) for ref in stage.refs}
    terminal = terminal_of(stage.flow.diagram, values)
    rule = decide(terminal, lambda number: holds(stage.opaque[number - 1], packet))
    return DEFAULT_SLOT if rule == NO_RULE else FIRST_RULE_SLOT + rule


@pytest.mark.parametrize("flavour", ["acl", "fw", "ipc"])
def test_both_families(flavour: Flavour) -> None:
    four, six = (generate(flavour, 12, 5, ipv6=ipv6) for ipv6 in (False, True))
    lines = [line for rules in (four, six) for line in rule_lines(rules) if " if " in line]
    rules = rule_set("filter edge at xdp {\n" + "\n".join([*lines[:6], *OTHERS[:3], *lines[6:]]) + "\n}\n")
    frames = [*built(four, 400, 1), *built(six, 400, 2), *odd_frames()]
    assert nested_stages(rules, INLINE)
    with DataPlane.of(rules, wish=INLINE) as plane:
        assert disagreements(rules, plane, frames) == []


def test_the_oldest_clang() -> None:
    rules = drawn(5, 14, deciding=False)
    with DataPlane.of(rules, oldest_clang(), INLINE) as plane:
        assert disagreements(rules, plane, FRAMES) == []


@pytest.mark.parametrize(("flavour", "count"), [("acl", 70), ("ipc", 50)])
def test_what_the_verifier_follows(flavour: Flavour, count: int) -> None:
    """A diagram of nearly the largest size takes it less than 2,000 instructions more than one of eight rules.

    It follows both of the first function's copies: the usual packet's, and that for odd packets.
    """
    lines = [line for line in rule_lines(generate(flavour, count, 1)) if " if " in line]
    many, few = (
        rule_set(f"filter edge at xdp {{\n{chr(10).join(lines[:most])}\n}}\n") for most in (count, 8)
    )
    (stage,) = nested_stages(many, STAGED)
    assert NESTED_SIZE / 2 < stage.flow.comparisons <= NESTED_SIZE
    assert verified(many) - verified(few) < 2 * 2000


def verified(rules: RuleSet) -> int:
    with load_object(object_of(emit(rules, wish=STAGED)), "nested") as loaded:
        return loaded.programs["ps_filter"].info.verified_insns
