"""Which rules of a filter some traffic exercised, and which terms of their conditions.

In go a policy, one of its filters, and packets; out comes a `Coverage`: for each
rule how many packets it was tried on and matched, for each term of its condition
on how many of the packets that came to the rule it held, and did not.  A term is
counted whether or not the terms before it had settled the matter.

    measure(policy, "edge", frames)  ->  Coverage(rules=(RuleCoverage(…), …), …)

Outcomes are the reference evaluator's, found for many packets at once (batch.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from penstock.compiler.diagram.boxes import Indices
from penstock.compiler.ir.conditions import conditions_of
from penstock.compiler.ir.evaluate import Packet, holds
from penstock.compiler.ir.lower import lower_expression, lower_filter, lower_terms
from penstock.compiler.ir.ops import Predicate, Rule, RuleSet
from penstock.compiler.ir.stores import Stores
from penstock.compiler.lang import ast
from penstock.compiler.lang.source import Span
from penstock.engine.batch import Batch, axes_of
from penstock.engine.trials import contents_of
from penstock.model.hook import Hook
from penstock.model.packet import build_packet
from penstock.model.verdict import Condition, Verdict
from penstock.observe.capture import ethernet_frames
from penstock.pipeline.policy import choose_filter
from penstock.pipeline.set_contents import Contents, joined, modelled

#: Packets that are looked at together.
CHUNK = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What sets contain when some packets come; told from others by being another, as comparing is slow."""

    contents: Contents


@dataclass(slots=True)
class TermCoverage:
    """A term of a rule's condition: on how many packets that came to the rule it held, and did not."""

    span: Span
    predicate: Predicate
    true: int = 0
    false: int = 0

    @property
    def seen(self) -> int:
        """Of its two outcomes, how many were seen."""
        return bool(self.true) + bool(self.false)


@dataclass(slots=True)
class RuleCoverage:
    """A rule: how many packets came to it, and how many (and their bytes) matched."""

    rule: Rule
    terms: list[TermCoverage]
    tried: int = 0
    packets: int = 0
    size: int = 0


@dataclass(slots=True)
class Share:
    """Packets and bytes of something that is no rule; `decided` of the packets it decided."""

    packets: int = 0
    size: int = 0
    decided: int = 0

    def add(self, packet: Packet, *, decided: bool) -> None:
        """Count one packet."""
        self.packets += 1
        self.size += packet.wire_length
        self.decided += decided


@dataclass(slots=True)
class Coverage:
    """What the traffic exercised.  Counts of `default` are of the packets that it decided."""

    rule_set: RuleSet
    filter: ast.Filter
    rules: list[RuleCoverage]
    default: Share = field(default_factory=Share)
    conditions: dict[Condition, Share] = field(default_factory=lambda: {one: Share() for one in Condition})
    total: Share = field(default_factory=Share)
    warnings: list[str] = field(default_factory=list)

    @property
    def outcomes(self) -> tuple[int, int]:
        """(seen, all): each rule that matched is one, each term has two."""
        terms = [term for one in self.rules for term in one.terms]
        seen = sum(bool(one.packets) for one in self.rules) + sum(term.seen for term in terms)
        return seen, len(self.rules) + 2 * len(terms)

    @property
    def percent(self) -> float:
        """The share of outcomes that were seen; 100 where there are none to see."""
        seen, possible = self.outcomes
        return 100 * seen / possible if possible else 100.0


def start(policy: ast.Policy, filter_name: str | None) -> Coverage:
    """The coverage of a filter before any packet.

    Raises:
        PenstockError: there is no such filter, or it cannot be lowered.
    """
    chosen = choose_filter(policy, None, filter_name)
    rules = lower_filter(policy, chosen)
    covered = [
        RuleCoverage(rule, list(_terms(written, rule.name, policy, Hook(chosen.hook))))
        for written, rule in zip(chosen.rules, rules.rules, strict=True)
    ]
    return Coverage(rules, chosen, covered)


def _terms(rule: ast.Rule, name: str, policy: ast.Policy, hook: Hook) -> Iterator[TermCoverage]:
    if rule.condition is not None:
        found = lower_terms(
            rule.condition, policy.source, policy.constants, policy.sets, hook=hook, rule=name
        )
        for span, predicate in found:
            yield TermCoverage(span, predicate)


def measure(coverage: Coverage, packets: Iterable[Packet], contents: Contents | None = None) -> None:
    """Add some packets to a coverage, which meet sets of these contents."""
    stores = Stores(modelled(coverage.rule_set.sets, contents or {}))
    predicates = [one.rule.condition for one in coverage.rules]
    predicates += [term.predicate for one in coverage.rules for term in one.terms]
    axes = axes_of(predicates)
    remaining = iter(packets)
    while some := list(islice(remaining, CHUNK)):
        alive = np.array(
            [at for at, packet in enumerate(some) if not _is_settled(coverage, packet)], dtype=np.int64
        )
        sizes = np.array([packet.wire_length for packet in some], dtype=np.int64)
        left = _through_rules(coverage.rules, Batch(axes, some, stores), alive, sizes)
        coverage.default.packets += len(left)
        coverage.default.decided += len(left)
        coverage.default.size += int(sizes[left].sum())


def _is_settled(coverage: Coverage, packet: Packet) -> bool:
    """Count the packet's odd conditions; whether one of them decides it."""
    coverage.total.add(packet, decided=True)
    for condition in (found := sorted(conditions_of(packet, coverage.rule_set.depth))):
        decides = coverage.rule_set.verdict_on(condition) is not None
        coverage.conditions[condition].add(packet, decided=decides)
        if decides:
            for other in found[found.index(condition) + 1 :]:
                coverage.conditions[other].add(packet, decided=False)
            return True
    return False


def _through_rules(rules: list[RuleCoverage], batch: Batch, alive: Indices, sizes: Indices) -> Indices:
    """Count at each rule the packets that come to it; those that no rule decides are left."""
    for one in rules:
        if not len(alive):
            break
        one.tried += len(alive)
        for term in one.terms:
            true = int(batch.holds(term.predicate, alive).sum())
            term.true += true
            term.false += len(alive) - true
        matched = batch.holds(one.rule.condition, alive)
        one.packets += int(matched.sum())
        one.size += int(sizes[alive[matched]].sum())
        if isinstance(one.rule.action, Verdict):
            alive = alive[~matched]
    return alive


# ── where packets come from ──────────────────────────────────────────────────


def of_captures(paths: Iterable[str], warnings: list[str]) -> Iterator[Packet]:
    """The packets of captures, one after the other.

    Raises:
        CaptureError: a capture cannot be read.
    """
    for path in paths:
        for frame in ethernet_frames(path, warnings):
            yield Packet(frame.data, frame.wire_length)


def of_tests(
    policy: ast.Policy, rules: RuleSet, folder: Path, warnings: list[str], contents: Contents | None = None
) -> Iterator[tuple[Given, Packet]]:
    """The packets of the policy's own tests of a filter, each with what sets contain when it comes.

    At the beginning of a test that is `contents`; captures and lists of entries are looked for in `folder`.

    Raises:
        PenstockError: a capture, or a list, cannot be read.
    """
    first = Given(contents or {})
    for test in policy.tests:
        if (test.filter or policy.filters[0].name) != rules.name:
            continue
        known = first
        for step in test.steps:
            match step:
                case ast.Given():
                    known = Given(joined(known.contents, contents_of(step, rules, folder)))
                case ast.PacketTest():
                    yield known, Packet(build_packet(step.layers))
                case ast.CaptureTest():
                    for packet in _selected(policy, step, folder, warnings):
                        yield known, packet


def _selected(
    policy: ast.Policy, step: ast.CaptureTest, folder: Path, warnings: list[str]
) -> Iterator[Packet]:
    wanted = None
    if step.condition is not None:
        wanted = lower_expression(step.condition, policy.source, policy.constants, sets=policy.sets)
    for packet in of_captures([str(folder / step.path)], warnings):
        if wanted is None or holds(wanted, packet):
            yield packet
