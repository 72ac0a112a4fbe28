"""Packets that show what differs where rules look behind tunnels or ask libpcap."""

from __future__ import annotations

import pytest

from penstock.compiler.ir.evaluate import evaluate
from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.ir.ops import RuleSet
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source
from penstock.engine.comparison import compare, shown


def _rules(expression: str) -> RuleSet:
    policy = parse_policy(Source("edge.policy", f"filter edge at xdp {{\n    drop if {expression}\n}}"))
    return lower_filter(policy, policy.filters[0])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("inner(udp dst port 53)", "inner(udp dst port 54)"),
        ("inner(ip6)", "inner(ip)"),
        ("inner(inner(tcp))", "inner(tcp)"),
        ("vxlan and arp", "geneve and arp"),
        ('pcap "udp port 53"', 'pcap "udp port 54"'),
        ('pcap "src net 10.0.0.0/8 and tcp"', "arp"),
        ('tcp and not pcap "tcp dst port 22"', "tcp"),
    ],
)
def test_a_difference_is_shown_by_a_packet(before: str, after: str) -> None:
    old, new = _rules(before), _rules(after)
    examples = [shown(one, old, new).example for one in compare(old, new).classes]
    found = [example.frame for example in examples if example is not None]
    assert found
    assert all(evaluate(old, frame).verdict != evaluate(new, frame).verdict for frame in found)
