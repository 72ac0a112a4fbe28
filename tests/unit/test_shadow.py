"""Shadowed rules told from the text: how much work they are, and which rule is named."""

from __future__ import annotations

import pytest

from penstock.compiler.lang.check import check_policy
from penstock.compiler.lang.parser import parse_policy, read_policy
from penstock.compiler.lang.shadow import Seen
from penstock.compiler.lang.source import Source


def _compared(conditions: list[str]) -> int:
    """How many pairs of rules the search for shadows compares."""
    seen = Seen()
    text = "".join(f"  drop if {condition}\n" for condition in conditions)
    for rule in parse_policy(Source("edge.policy", f"filter edge at xdp {{\n{text}}}\n")).filters[0].rules:
        assert seen.take(rule) is None
    return seen.compared


_SHAPES = {
    "a common protocol": "ip and src host 10.0.{0}.{1}",
    "a common port": "dst port 80 and src net 10.{0}.{1}.0/24",
    "two common terms": "src net 10.{0}.0.0/16 and dst net 10.0.{1}.0/24",
    "common pairs": "tcp dst port {0} and udp src port {1} and tcp",
}


@pytest.mark.parametrize("shape", _SHAPES.values(), ids=_SHAPES)
def test_rules_are_not_compared_with_all_before_them(shape: str) -> None:
    conditions = [shape.format(1 + number // 30, 1 + number % 30) for number in range(900)]
    assert _compared(conditions) <= 50 * len(conditions)


def test_the_first_of_the_rules_that_shadow_is_named() -> None:
    text = """filter edge at xdp {
  drop if udp and src net 10.0.0.0/8
  drop if dst net 10.0.0.0/16
  drop if udp dst port 53
  drop if src host 10.1.2.3 and dst host 10.0.1.2 and udp dst port 53
}
"""
    found = [str(finding.message) for finding in check_policy(parse_policy(Source("edge.policy", text)))]
    assert "this rule can never match: the rule on line 2 asks for less and decides first" in found


def test_a_prefix_that_is_none_stops_nobody() -> None:
    text = "filter edge at xdp {\n  drop if src net 10.0.0.0/40\n  drop if src host 10.0.0.1\n}\n"
    policy, faults = read_policy(Source("edge.policy", text))
    assert [fault.code for fault in faults] == ["PS105"]
    assert [found.code for found in check_policy(policy)] == ["PS224"]
