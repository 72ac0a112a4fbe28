"""What `penstock diff` says against brute force: the classes hold just the packets whose verdicts differ."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.rulesets import Frames, RuleSets

from penstock.compiler.analysis.change import changes
from penstock.compiler.analysis.merge import Change, merged
from penstock.compiler.analysis.spelling import condition_of
from penstock.compiler.diagram.build import Budget
from penstock.compiler.ir.depth import depth_of
from penstock.compiler.ir.evaluate import evaluate, holds
from penstock.compiler.ir.headers import Packet
from penstock.compiler.ir.ops import FieldRef, RuleSet
from penstock.engine.comparison import Classes, Comparison, compare, shown, touching
from penstock.model.net import IntervalSet
from penstock.model.packet import build_packet, parse_packet
from penstock.model.verdict import Verdict
from penstock.pipeline.policy import check_expression, rule_set_of

# ── a tiny world, every packet of it ─────────────────────────────────────────


@cache
def world() -> tuple[bytes, ...]:
    texts = [
        f'IPv4(src="{source}"{more})/{layer}(dport={port})'
        for source, layer, port, more in product(
            ("10.0.0.1", "10.1.0.1", "192.0.2.1"), ("TCP", "UDP"), (21, 22, 23, 53), ("", ", ttl=3")
        )
    ]
    texts += [
        "IPv6/TCP(dport=22)",
        "IPv6/UDP(dport=53)",
        "ARP",
        "IPv4/ICMP",
        "IPv4(frag=1, proto=6)/Raw(len=8)",
    ]
    texts += ["IPv4(ihl=3)/TCP(dport=22)", "IPv4(options=4)/TCP(dport=22)", "Dot1Q/IPv4/TCP(dport=22)"]
    return tuple(build_packet(parse_packet(text)) for text in texts)


TERMS = st.sampled_from(
    [
        "tcp",
        "udp",
        "dst port 22",
        "dst portrange 21-23",
        "udp dst port 53",
        "src net 10.0.0.0/8",
        "src net 10.1.0.0/16",
        "ip6",
        "ttl < 5",
        "ether[33] == 0",
        "not src net 10.0.0.0/8",
        "not dst port 22",
        "frag.later",
    ]
)
CONDITIONS = st.lists(TERMS, min_size=1, max_size=3).map(" and ".join)
RULES = st.tuples(st.sampled_from(["pass", "drop", "count"]), CONDITIONS).map(
    lambda rule: f"{rule[0]} if {rule[1]}"
)
HEADS = st.sampled_from(["", "default drop", "on fragment drop", "on malformed drop", "on ip-options drop"])


def filtered(head: str, rules: list[str]) -> RuleSet:
    return rule_set_of("filter f at xdp {\n" + "\n".join([head, *rules]) + "\n}\n")


@st.composite
def pairs(draw: st.DrawFn) -> tuple[RuleSet, RuleSet]:
    """A filter and an edited one."""
    head, rules = draw(HEADS), draw(st.lists(RULES, min_size=1, max_size=5))
    edited = list(rules)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(edited)))
        if draw(st.booleans()):
            edited.insert(at, draw(RULES))
        elif edited:
            del edited[min(at, len(edited) - 1)]
    return filtered(head, rules), filtered(draw(HEADS) if draw(st.booleans()) else head, edited)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(pairs())
def test_the_classes_hold_just_the_packets_that_differ(pair: tuple[RuleSet, RuleSet]) -> None:
    old, new = pair
    found = compare(old, new)
    assert_exact(found, old, new, [Packet(frame) for frame in world()])
    for one in found.classes[:5]:
        example = shown(one, old, new).example
        if example is not None:
            before, after = evaluate(old, example.frame), evaluate(new, example.frame)
            assert (before.verdict, after.verdict) == (one.change.old, one.change.new)
            assert (before.slot in one.change.old_slots, after.slot in one.change.new_slots) == (True, True)
            assert build_packet(parse_packet(example.text)) == example.frame


def assert_exact(found: Comparison, old: RuleSet, new: RuleSet, packets: list[Packet]) -> int:
    """Returns how many packets differed."""
    assert not found.undecided
    classes = Classes([one.change for one in found.classes], old, new)
    differing = 0
    for packet in packets:
        inside = classes.first(packet)
        differing += inside is not None
        assert (inside is not None) == classes.differs(packet), packet.frame.hex()
        if inside is not None and found.classes[inside].exact:
            assert holds(check_expression(found.classes[inside].condition), packet)
    return differing


@settings(max_examples=30, deadline=None, derandomize=True)
@given(pairs(), CONDITIONS)
def test_what_touches_an_expression_is_never_missed(pair: tuple[RuleSet, RuleSet], text: str) -> None:
    old, new = pair
    wanted = check_expression(text)
    concerned = [frame for frame in world() if holds(wanted, Packet(frame))]
    differs = any(evaluate(old, frame).verdict is not evaluate(new, frame).verdict for frame in concerned)
    found = touching(old, new, wanted)
    assert found.classes or found.undecided or not differs


def test_a_predicate_before_another_of_the_same_verdict_is_asked() -> None:
    """The next one need not hold: two of one verdict in a row were taken for the second alone."""
    rules = ["drop if vlan.id & 15 < 2008"]
    old, new = filtered("", rules), filtered("", ["drop if ip protochain 51", *rules])
    packets = [
        Packet(build_packet(parse_packet(text))) for text in ("IPv4/AH/UDP", "IPv4/UDP", "Dot1Q/IPv4/UDP")
    ]
    assert assert_exact(compare(old, new), old, new, packets) == 1


def test_a_chain_that_is_cut_is_malformed_and_no_longer_than_the_limit() -> None:
    rules = ["pass if ether src 02:00:00:00:00:09 or not (src and dst net 192.0.0.0/8)"]
    cut = build_packet(parse_packet("IPv6/Fragment/UDP"))[:24]
    old, new = filtered("default drop", rules), filtered("", rules)
    assert assert_exact(compare(old, new), old, new, [Packet(cut), *map(Packet, world())]) > 0


def test_a_class_without_packets_is_none() -> None:
    """Its fields exclude each other in ways that only come out when they are taken together."""
    tagged = IntervalSet.of((0, 0x8100), (0x88A8, 0x88A8), (0x9100, 0x9100))
    fields = {
        FieldRef("proto"): IntervalSet.single(132),
        FieldRef("vlan.id"): IntervalSet.single(4096),
        FieldRef("vlan.tpid"): tagged,
        FieldRef("sport"): IntervalSet.full(16),
        FieldRef("frag.offset"): IntervalSet.of((129, 65535)),
    }
    change = Change(fields, frozenset(), Verdict.PASS, Verdict.DROP, frozenset({0}), frozenset({6}))
    assert merged([change]) == []


@pytest.mark.parametrize(("values", "exact"), [((17, 17), True), ((51, 51), False), ((0, 255), False)])
def test_what_ends_a_chain_may_have_no_expression(values: tuple[int, int], exact: bool) -> None:
    """`ip protochain 51` is true of the authentication headers on the way as well."""
    fields = {FieldRef("chain.proto"): IntervalSet.of(values)}
    absent = {FieldRef("chain.proto"): IntervalSet.single(256)}
    assert condition_of(fields, (), ())[1] is exact
    assert condition_of(absent, (), ())[1] is False


# ── anything at all ──────────────────────────────────────────────────────────


def random_pair(seed: int) -> tuple[RuleSet, RuleSet]:
    """Rule sets with every field, scope and accessor; some rules, conditions or the default are other ones."""
    rules, draw = RuleSets(seed), random.Random(seed)
    old, other = rules.rule_set(4), rules.rule_set(3)
    edited = list(old.rules)
    for rule in other.rules[: draw.randrange(1, 3)]:
        edited[draw.randrange(len(edited))] = rule
    if draw.random() < 0.5:
        draw.shuffle(edited)
    named = tuple(replace(rule, name=f"r{at}") for at, rule in enumerate(edited))
    new = replace(old, rules=named, depth=max(old.depth, depth_of(rule.condition for rule in named)))
    if draw.random() < 0.2:
        new = replace(new, conditions=other.conditions)
    return old, replace(new, default=other.default) if draw.random() < 0.2 else new


def test_random_rule_sets_and_random_packets() -> None:
    differing = 0
    for seed in range(6):
        old, new = random_pair(seed)
        frames = Frames(seed)
        packets = [Packet(frames.frame()) for _ in range(100)]
        differing += assert_exact(compare(old, new), old, new, packets)
    assert differing > 30


def test_merged_classes_have_their_fields_in_order() -> None:
    """What is tried first depends on it, so it must not be the order of a set."""
    names = (
        "len",
        "eth.type",
        "proto",
        "addr.src",
        "addr.dst",
        "sport",
        "dport",
        "ttl",
        "ip.id",
        "tcp.window",
    )
    one = {FieldRef(name): IntervalSet.single(at + 1) for at, name in enumerate(names)}
    both = [one, {**one, FieldRef("ttl"): IntervalSet.single(99)}]
    nothing: frozenset[int] = frozenset()
    found = merged(
        Change(fields, frozenset(), Verdict.PASS, Verdict.DROP, nothing, nothing) for fields in both
    )
    assert [ref.name for ref in found[0].fields if ref.name != "ttl"] == [
        name for name in names if FieldRef(name) in found[0].fields and name != "ttl"
    ]


def test_what_the_budget_does_not_allow_is_named() -> None:
    old = filtered("", ["drop if tcp dst port 22"])
    new = filtered("", ["drop if tcp dst port 23"])
    found = changes(old, new, lambda: Budget(members=1))
    assert not found.classes
    assert len(found.undecided) == 2
