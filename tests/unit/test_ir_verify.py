"""Each invariant of a rule set, broken once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.ir.ops import (
    All,
    Always,
    Any,
    Base,
    Classic,
    Compare,
    FieldRef,
    FieldTerm,
    HeaderWalked,
    Literal32,
    Negation,
    Predicate,
    Read,
    RuleSet,
    Within,
)
from penstock.compiler.ir.verify import verify, verify_predicate
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source
from penstock.errors import InternalError
from penstock.model.classic import Instruction
from penstock.model.field import Layer
from penstock.model.net import IntervalSet

PORT = Within(FieldRef("dport"), IntervalSet.single(53))
ACCEPT = Instruction(0x06, 0, 0, 1)
TCP = Within(FieldRef("proto"), IntervalSet.single(6))


@pytest.mark.parametrize(
    ("predicate", "message"),
    [
        (Within(FieldRef("dport"), IntervalSet()), "no value"),
        (Within(FieldRef("dport"), IntervalSet.single(65536)), "beyond its bits"),
        (Within(FieldRef("dport"), IntervalSet(((5, 6), (7, 8)))), "not merged"),
        (Within(FieldRef("dport"), IntervalSet(((8, 7),))), "empty"),
        (Within(FieldRef("port"), IntervalSet.single(5)), "no field"),
        (Within(FieldRef("dport", index=1), IntervalSet.single(5)), "index"),
        (Compare("==", FieldTerm(FieldRef("ip6.src")), Literal32(0)), "wider"),
        (Classic(()), "no size"),
        (Classic((Instruction(0x28, 0, 0, 12),)), "does not end"),
        (Classic((Instruction(0x05, 0, 0, 0xFFFFFFFF), ACCEPT)), "backwards"),
        (Classic((Instruction(0x15, 9, 0, 1), ACCEPT)), "out of itself"),
        (Classic((Instruction(0x60, 0, 0, 1), ACCEPT)), "before it writes"),
        (Classic((Instruction(0x02, 0, 0, 16), ACCEPT)), "word too many"),
        (Compare("==", Literal32(1 << 32), Literal32(0)), "32 bits"),
        (Compare("==", Read(Base.FRAME, Literal32(0), 3), Literal32(0)), "3 bytes"),
        (Compare("==", Read(Base.FRAME, Literal32(-1), 1), Literal32(0)), "32 bits"),
        (HeaderWalked(6), "walked over"),
        (HeaderWalked(44, ipv4=True), "walked over"),
        (All((PORT,)), "fewer than two"),
        (Any(()), "fewer than two"),
        (All((PORT, All((PORT, TCP)))), "not flat"),
        (Any((PORT, Always(True))), "not flat"),
        (Negation(Always(True)), "says nothing"),
        (Negation(Negation(PORT)), "says nothing"),
        (Any((TCP, Negation(All((PORT, Within(FieldRef("ttl"), IntervalSet())))))), "no value"),
    ],
)
def test_broken_predicate(predicate: Predicate, message: str) -> None:
    with pytest.raises(InternalError, match=message):
        verify_predicate(predicate)


@pytest.mark.parametrize(
    "predicate",
    [
        Always(True),
        PORT,
        All((TCP, Any((PORT, Negation(TCP))))),
        Within(FieldRef("vlan.id", index=3), IntervalSet.single(5)),
        HeaderWalked(51, ipv4=True),
    ],
)
def test_sound_predicate(predicate: Predicate) -> None:
    assert verify_predicate(predicate) is predicate


def rule_set() -> RuleSet:
    policy = parse_policy(Source("f", "filter f at xdp {\n a: drop if port 53\n pass\n}"))
    return lower_filter(policy, policy.filters[0])


def test_sound_rule_set() -> None:
    assert verify(rule_set()) == rule_set()


def test_names_are_unique() -> None:
    sound = rule_set()
    with pytest.raises(InternalError, match="unique"):
        verify(replace(sound, rules=sound.rules * 2))


def test_every_condition_has_its_entry() -> None:
    sound = rule_set()
    with pytest.raises(InternalError, match="condition"):
        verify(replace(sound, conditions=sound.conditions[1:]))


def test_depth_is_deep_enough() -> None:
    with pytest.raises(InternalError, match="a: looks deeper"):
        verify(replace(rule_set(), depth=Layer.NETWORK))
