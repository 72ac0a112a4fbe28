"""What a policy does with many packets: as the reference evaluator says, in less time.

In: a rule set and frames.  Out: for each frame the verdict and the counter slot
of what decides.  Where rules times packets are many, the rules are searched as
boxes by numpy, one after the other for all packets at once (`diagram.evaluate`);
the property tests hold the two against each other.  Rules that no box can say
make every packet go through the evaluator itself.

    decisions_on(rules, [frame])  ->  [(Verdict.DROP, 6)]
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.compiler.diagram.axis import keys_of
from penstock.compiler.diagram.boxes import NO_RULE, Boxes, Packets
from penstock.compiler.diagram.convert import Decisions, decisions
from penstock.compiler.diagram.evaluate import first_rule
from penstock.compiler.ir.conditions import conditions_of
from penstock.compiler.ir.evaluate import Packet, evaluate_packet
from penstock.compiler.ir.ops import DEFAULT_SLOT, FIRST_CONDITION_SLOT, FIRST_RULE_SLOT, RuleSet
from penstock.model.verdict import Verdict

#: Tests of a rule on a packet that the evaluator does in a second or so.
FEW_TESTS = 500_000

Decision = tuple[Verdict, int]


def decisions_on(rules: RuleSet, frames: Sequence[bytes]) -> list[Decision]:
    """Verdict and slot for each frame, in order."""
    distinct = list(dict.fromkeys(frames))
    found = dict(zip(distinct, _decisions(rules, [Packet(frame) for frame in distinct]), strict=True))
    return [found[frame] for frame in frames]


def affordable(rules: RuleSet, frames: Sequence[bytes]) -> Sequence[bytes]:
    """The first of the frames, as many as can be decided in a reasonable time."""
    if len(frames) * len(rules.rules) <= FEW_TESTS or _as_boxes(rules) is not None:
        return frames
    return frames[: max(64, 4 * FEW_TESTS // len(rules.rules))]


def _decisions(rules: RuleSet, packets: Sequence[Packet]) -> list[Decision]:
    said = None if len(packets) * len(rules.rules) <= FEW_TESTS else _as_boxes(rules)
    if said is None:
        outcomes = [evaluate_packet(rules, packet) for packet in packets]
        return [(outcome.verdict, outcome.slot) for outcome in outcomes]
    found = first_rule(said.boxes, _batch(said.boxes, packets)).tolist()
    return [
        _judged(rules, packet) or _of_rule(rules, None if at == NO_RULE else said.rules[at])
        for packet, at in zip(packets, found, strict=True)
    ]


def _as_boxes(rules: RuleSet) -> Decisions | None:
    """The deciding rules as boxes; None where a test is none, or a rule expires."""
    found = decisions(rules)
    if any(rule.until_ns is not None for rule in rules.rules) or found.boxes.opaque.any():
        return None
    return found


def _batch(boxes: Boxes, packets: Sequence[Packet]) -> Packets:
    batch = {}
    for axis in boxes.axes:
        values = [packet.value(axis.ref) for packet in packets]
        batch[axis.ref] = keys_of(axis.bits, [1 << axis.bits if value is None else value for value in values])
    return batch


def _judged(rules: RuleSet, packet: Packet) -> Decision | None:
    """What a condition decides before any rule."""
    for condition in sorted(conditions_of(packet, rules.depth)):
        verdict = rules.verdict_on(condition)
        if verdict is not None:
            return verdict, FIRST_CONDITION_SLOT + condition
    return None


def _of_rule(rules: RuleSet, number: int | None) -> Decision:
    if number is None:
        return rules.default, DEFAULT_SLOT
    action = rules.rules[number].action
    assert isinstance(action, Verdict)
    return action, FIRST_RULE_SLOT + number
