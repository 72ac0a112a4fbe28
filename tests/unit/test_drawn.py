"""Packets drawn from a policy's rules, and what is said of many packets at once."""

from __future__ import annotations

import pytest

from penstock.compiler.ir.evaluate import evaluate
from penstock.compiler.ir.ops import FIRST_RULE_SLOT, RuleSet
from penstock.model.packet import read_packet
from penstock.pipeline.policy import rule_set_of
from penstock.price import decide
from penstock.price.draw import drawn_frames
from penstock.price.traffic import (
    MOST_CLASSES,
    capture_classes,
    kind_of,
    odd_frames,
    usual_classes,
    usual_frames,
)

RULES = """
filter drawn at xdp {
    on fragment drop
    drop if src net 10.0.0.0/8 and tcp dst port 22
    count if ip6
    pass if ip6 and dst net 2001:db8::/32 and udp dst portrange 1000-1010
    drop if src host 2001:db9::1
    drop if ttl < 5
    pass if tcp[tcpflags] & tcp-syn != 0 and dst port (80 or 443)
    drop if icmp[icmptype] == 8
    drop if dst host 192.0.2.9 and ip proto 47
    drop if sctp src port 7
}
"""


@pytest.fixture(scope="module")
def rules() -> RuleSet:
    return rule_set_of(RULES)


def test_every_rule_is_met(rules: RuleSet) -> None:
    frames = drawn_frames(rules, 2000)
    assert len(frames) == 2000
    met = {evaluate(rules, frame).slot for frame in frames}
    deciding = {FIRST_RULE_SLOT + at for at, rule in enumerate(rules.rules) if rule.decides}
    assert deciding <= met


def test_what_is_drawn_is_the_same_every_time(rules: RuleSet) -> None:
    assert drawn_frames(rules, 100) == drawn_frames(rules, 100)


def test_rules_that_test_nothing_give_no_packets() -> None:
    assert drawn_frames(rule_set_of("filter all at xdp { default drop }"), 100) == []


def test_many_packets_are_decided_as_the_evaluator_decides_each(
    rules: RuleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [*drawn_frames(rules, 500), *usual_frames().values(), *odd_frames().values()]
    monkeypatch.setattr(decide, "FEW_TESTS", 0)
    expected = [(outcome.verdict, outcome.slot) for outcome in (evaluate(rules, frame) for frame in frames)]
    assert decide.decisions_on(rules, frames) == expected


def test_rules_that_are_no_boxes_are_left_to_the_evaluator(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = rule_set_of("filter land at xdp {\n drop if ip[12:4] == ip[16:4]\n}")
    same = read_packet('IPv4(src="192.0.2.1", dst="192.0.2.1")/UDP')
    monkeypatch.setattr(decide, "FEW_TESTS", 0)
    assert [slot for _, slot in decide.decisions_on(rules, [same, read_packet("IPv4/UDP")])] == [
        FIRST_RULE_SLOT,
        0,
    ]


@pytest.mark.parametrize(
    ("packet", "kind"),
    [
        ("IPv4/UDP", "udp"),
        ("IPv6/TCP", "tcp6"),
        ("IPv6/ICMPv6", "icmp6"),
        ("Dot1Q(vlan=5)/IPv4/ICMP", "vlan icmp"),
        ("ARP(op=1)", "arp"),
        ("IPv4(frag=64, proto=17)/Raw(len=64)", "udp fragment"),
        ("IPv4(proto=47)/Raw(len=8)", "ip proto 47"),
        ("Ether(type=0x88cc)/Raw(len=46)", "other"),
    ],
)
def test_what_a_frame_is_called(packet: str, kind: str) -> None:
    assert kind_of(read_packet(packet)) == kind


def test_classes_of_a_capture_are_the_largest_first() -> None:
    rules = rule_set_of("filter t at xdp {\n dns: drop if udp dst port 53\n}")
    frames = [read_packet("IPv4/UDP(dport=53)")] * 3 + [read_packet("IPv4/TCP")] + [bytes(5)]
    classes, kept = capture_classes(frames, rules)
    assert [(one.name, one.packets, one.share) for one in classes] == [
        ("udp, drop by dns", 3, 0.75),
        ("tcp, pass by default", 1, 0.25),
    ]
    assert len(kept) == 4


def test_only_so_many_classes_are_measured() -> None:
    frames = [read_packet(f"IPv4(proto={number})/Raw(len=8)") for number in range(100, 140)]
    classes, kept = capture_classes(frames, None)
    assert (len(classes), len(kept)) == (MOST_CLASSES, 40)
    assert classes[0].verdict is None


def test_usual_classes_say_what_becomes_of_them() -> None:
    rules = rule_set_of("filter t at xdp {\n dns: drop if udp dst port 53\n}")
    found = {one.name: (one.verdict, one.decided_by) for one in usual_classes(rules)}
    assert found["udp dns"] == ("drop", "dns")
    assert found["arp"] == ("pass", "default")
