"""What `check` says of rules, against every packet of tiny spaces, and against the reference evaluator."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import frames as kinds
from tests.property.rulesets import RuleSets, frames

from penstock.compiler.analysis.anomalies import Anomalies
from penstock.compiler.analysis.cover import Work
from penstock.compiler.analysis.removable import found_in
from penstock.compiler.analysis.review import Review, review
from penstock.compiler.diagram.axis import keys_of
from penstock.compiler.diagram.boxes import Boxes, from_ranges
from penstock.compiler.ir.evaluate import Packet, evaluate, evaluate_packet, matches
from penstock.compiler.ir.ops import DEFAULT_SLOT, FIRST_RULE_SLOT, FieldRef, RuleSet
from penstock.model.packet import build_packet, parse_packet
from penstock.model.verdict import Verdict
from penstock.pipeline.policy import rule_set_of

# ── every packet of a tiny space ─────────────────────────────────────────────

REFS = (FieldRef("vlan.pcp"), FieldRef("ecn"), FieldRef("ip.df"))
TOPS = [1 << ref.field.bits for ref in REFS]
#: What is true besides the fields: two predicates that no axis knows.
ATOMS = [(a, b) for a in (False, True) for b in (False, True)]
OPAQUE = [frozenset({"a"}), frozenset({"b"}), frozenset({"a", "b"})]
EVERY = np.indices([top + 1 for top in TOPS]).reshape(len(REFS), -1)


@dataclass(frozen=True)
class Drawn:
    """Boxes by rule, and for each of them the packets (of all assignments to the atoms) that it holds."""

    boxes: Boxes
    verdicts: list[str | None]
    held: list[np.ndarray]

    @property
    def deciding(self) -> list[int]:
        return [rule for rule, verdict in enumerate(self.verdicts) if verdict is not None]

    def decider(self, without: set[int] = frozenset()) -> np.ndarray:  # type: ignore[assignment]
        """The rule that decides each packet, -1 for the default."""
        found = np.full(len(self.held[0]), -1)
        for rule in reversed(self.deciding):
            if rule not in without:
                found[self.held[rule]] = rule
        return found

    def fate(self, without: set[int] = frozenset()) -> list[str | None]:  # type: ignore[assignment]
        return ["pass" if rule < 0 else self.verdicts[rule] for rule in self.decider(without).tolist()]

    def anomalies(self) -> Anomalies:
        return Anomalies(self.boxes, self.verdicts, "pass", opaque=OPAQUE)


@st.composite
def drawn(draw: st.DrawFn, *, opaque: bool = False) -> Drawn:
    count = draw(st.integers(1, 6))
    verdicts = [draw(st.sampled_from(("drop", "pass", "drop", "pass", None))) for _ in range(count)]
    owners = [rule for rule in range(count) for _ in range(draw(st.sampled_from((1, 1, 2))))]
    asks = [draw(st.sampled_from((0, 0, 1, 2, 3))) if opaque else 0 for _ in owners]
    ranges = {}
    inside = np.ones((len(owners), EVERY.shape[1]), dtype=bool)
    for at, (ref, top) in enumerate(zip(REFS, TOPS, strict=True)):
        ends = [sorted(draw(st.tuples(*[st.integers(0, top)] * 2))) for _ in owners]
        ends = [[0, top] if draw(st.booleans()) else pair for pair in ends]
        low, high = zip(*ends, strict=True)
        ranges[ref] = keys_of(ref.field.bits, low), keys_of(ref.field.bits, high)
        inside &= (np.array(low)[:, None] <= EVERY[at]) & (EVERY[at] <= np.array(high)[:, None])
    true = np.array([[True, a, b, a and b] for a, b in ATOMS])
    every = np.stack([(inside & true[:, asks][k][:, None]) for k in range(len(ATOMS))], axis=2)
    every = every.reshape(len(owners), -1)
    held = [every[[owner == rule for owner in owners]].any(axis=0) for rule in range(count)]
    return Drawn(from_ranges(ranges, owners, asks), verdicts, held)


def work() -> Work:
    return Work(10**9, 10**9)


def reached(rules: Drawn) -> set[int]:
    """The rules that come to decide or count a packet."""
    found = set(rules.decider().tolist())
    for rule in set(range(len(rules.verdicts))) - set(rules.deciding):
        before = [rules.held[other] for other in rules.deciding if other < rule]
        if (rules.held[rule] & ~np.any([*before, np.zeros_like(rules.held[rule])], axis=0)).any():
            found.add(rule)
    return found - {-1}


@given(drawn())
@settings(max_examples=150, deadline=None)
def test_shadowed_and_redundant_are_exact(rules: Drawn) -> None:
    found = found_in(rules.anomalies(), work())
    shadowed = {one.rule for one in found.shadowed}
    assert shadowed == set(range(len(rules.verdicts))) - reached(rules)
    for one in found.shadowed:
        by = np.any([rules.held[other] for other in one.by], axis=0)
        assert (rules.held[one.rule] <= by).all()
        assert all(other < one.rule for other in one.by)
    gone = set(shadowed)
    spare = []
    for rule in rules.deciding:
        if rule not in gone and rules.fate(gone | {rule}) == rules.fate():
            spare.append(rule)
            gone.add(rule)
    assert [one.rule for one in found.redundant] == spare
    assert not found.undecided


@given(drawn())
@settings(max_examples=100, deadline=None)
def test_correlated_and_default_are_exact(rules: Drawn) -> None:
    anomalies = rules.anomalies()
    decider, held = rules.decider(), rules.held
    expected = {
        (first, second)
        for first in rules.deciding
        for second in rules.deciding
        if first < second
        and rules.verdicts[first] != rules.verdicts[second]
        and ((decider == first) & held[second]).any()
        and (held[first] & ~held[second]).any()
        and (held[second] & ~held[first]).any()
    }
    assert {(one.first, one.second) for one in anomalies.correlated(work())} == expected
    assert (next(anomalies.default(work()), None) is not None) == (decider < 0).any()


@given(drawn(opaque=True))
@settings(max_examples=150, deadline=None)
def test_opaque_predicates_accuse_nobody_wrongly(rules: Drawn) -> None:
    anomalies = rules.anomalies()
    found = found_in(anomalies, work())
    assert not {one.rule for one in found.shadowed} & reached(rules)
    gone = {one.rule for one in (*found.shadowed, *found.redundant)}
    assert rules.fate(gone) == rules.fate()
    if (rules.decider() < 0).any():
        assert next(anomalies.default(work()), None) is not None


@pytest.mark.parametrize("most", [0, 3_000])
def test_what_is_undecided_is_told(most: int) -> None:
    count = 12
    ends = [keys_of(3, [at % 5 for at in range(count)]), keys_of(3, [at % 5 + 1 for at in range(count)])]
    anomalies = Anomalies(
        from_ranges({REFS[0]: (ends[0], ends[1])}, np.arange(count)), ["pass"] * count, "drop"
    )
    all_of_them, some = found_in(anomalies, work()), found_in(anomalies, Work(most, most))
    assert {one.rule for one in some.shadowed} <= {one.rule for one in all_of_them.shadowed}
    assert some.undecided
    assert not all_of_them.undecided


# ── real rules, real frames ──────────────────────────────────────────────────


@cache
def packets() -> list[Packet]:
    cut = [frame[:size] for frame in kinds.frames() for size in range(14, len(frame), 17)]
    return [Packet(frame) for frame in (*frames(4, 300), *kinds.frames(), *cut)]


def assert_true(rules: RuleSet, found: Review, now: int | None = None) -> None:
    """Every example is as it is said to be, and no packet contradicts what is said of all."""
    confirm_examples(rules, found)
    shadowed = {one.rule for one in found.shadowed}
    gone = shadowed | {one.rule for one in found.redundant}
    left = replace(rules, rules=tuple(one for at, one in enumerate(rules.rules) if at not in gone))
    for packet in packets():
        outcome = evaluate_packet(rules, packet, now)
        assert not {slot - FIRST_RULE_SLOT for slot in (outcome.slot, *outcome.hits)} & shadowed, (
            packet.frame.hex()
        )
        if found.is_closed:
            assert outcome.slot != DEFAULT_SLOT, packet.frame.hex()
        if gone:
            # The layers that are looked at stay the same, as `depth` does.
            assert evaluate_packet(left, packet, now).verdict == outcome.verdict, packet.frame.hex()


def confirm_examples(rules: RuleSet, found: Review) -> None:
    def decider(text: str) -> tuple[int, Packet]:
        frame = build_packet(parse_packet(text))
        return evaluate(rules, frame).slot - FIRST_RULE_SLOT, Packet(frame)

    for shadowing in found.shadowed:
        if shadowing.example is not None:
            rule, packet = decider(shadowing.example)
            assert rule in shadowing.by
            assert matches(rules.rules[shadowing.rule], packet)
    for redundancy in found.redundant:
        if redundancy.example is not None:
            assert decider(redundancy.example)[0] == redundancy.rule
    for pair in found.correlated:
        if pair.example is not None:
            rule, packet = decider(pair.example)
            assert rule == pair.first
            assert matches(rules.rules[pair.second], packet)
            assert rules.rules[pair.first].action != rules.rules[pair.second].action
    if found.default is not None:
        assert decider(found.default)[0] == DEFAULT_SLOT - FIRST_RULE_SLOT


@pytest.mark.parametrize("seed", range(14))
def test_random_rule_sets(seed: int) -> None:
    rules = RuleSets(seed, scopes=seed % 2 == 0).rule_set(15)
    assert_true(rules, review(rules))


LINES = (
    "drop if tcp", "pass if tcp dst port 22", "drop if udp", "pass if port 53", "pass if icmp", "drop if icmp6",
    "drop if src net 10.0.0.0/8", "pass if src host 10.0.0.1", "pass if ip", "drop if ip6", "pass if arp",
    "drop if tcp.flags & 2 != 0", "pass if less 60", "drop if greater 1000", "pass if vlan", "drop if vlan 5",
    "pass if frag", "drop if frag.later", "drop if frag.offset > 100", "pass if not ip", "drop if not tcp",
    "pass if ip6 net 2001:db8::/32", "drop if dst host 2001:db8::1", "count if udp port 53", "audit if tcp",
    "pass if ttl < 5", "drop if ttl >= 5", "drop if ip[8] < 5", "pass if ip[40] = 5", "drop if ip[40] = 5",
    "drop if sport < 1024", "pass if dport >= 1024", "drop if port 53 and not udp", "pass if udp or tcp",
    "drop if ether host 02:00:00:00:00:01", "pass if ip proto 47", "drop if ip6 proto 0", "pass if sctp",
    "drop if icmp.type == 8", "pass if mpls 16", "drop if geneve and udp port 53", "drop if ip protochain 17",
    "drop if ip.len > 100", "pass if udp.len < 9", "pass", "drop if dscp == 46", "pass if ip6.flow > 4",
)  # fmt: skip
TOPS_OF_FILTERS = (
    "", "default drop", "on fragment drop", "on malformed drop", "on exthdr-limit continue",
    "default drop\n    on fragment drop\n    on unknown-tag drop", "default drop\n    on malformed continue",
)  # fmt: skip


@given(st.lists(st.sampled_from(LINES), min_size=2, max_size=9), st.sampled_from(TOPS_OF_FILTERS))
@settings(max_examples=40, deadline=None)
def test_rules_as_people_write_them(lines: list[str], top: str) -> None:
    rules = rule_set_of("filter a at xdp {\n" + "\n".join([top, *lines]) + "\n}")
    assert_true(rules, review(rules))


@pytest.mark.parametrize("expired", [False, True])
def test_a_rule_that_expires_shadows_nothing(expired: bool) -> None:
    rules = rule_set_of("filter a at xdp { drop if udp\n pass if udp port 53\n drop if udp port 53\n }")
    first, second, third = rules.rules
    passing = replace(rules, rules=(replace(first, until_ns=5), second, third))
    found = review(passing)
    assert [one.rule for one in found.shadowed] == [2]
    assert_true(passing, found, 9 if expired else 1)
    assert first.action is Verdict.DROP
