"""A rule set as text."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from penstock.compiler.ir.dump import dump
from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source

if TYPE_CHECKING:
    from penstock.compiler.ir.ops import RuleSet

POLICY = """
let office = 10.0.0.0/8, 2001:db8::/32

filter edge at xdp {
    default drop
    on malformed continue
    dns:  drop if udp dst port 53 and not src net $office
          audit if ether src 02:00:00:00:00:01 or tcp[tcpflags] & tcp-syn != 0
          pass if vlan 5 and (mpls 16 and ip proto 17) or ip6 proto 44
          pass if (src net 10.0.0.0/9 or src portrange 1-5) and (dst host 10.0.0.1 or 2001:db8::1 or 2001:db8::2)
    all:  count
}
"""
TEXT = """\
filter edge at xdp, default drop, depth transport
on malformed continue
on unknown-tag continue
on exthdr-limit drop
on fragment continue
on ip-options continue
6 dns: drop if
    all(udp.dport in {53}, not(any(addr.src in {10.0.0.0/8}, ip6.src in {2001:db8::/32})))
7 edge:8: audit if
    any(eth.src in {02:00:00:00:00:01}, all(proto in {6}, (tcp.flags & 2) != 0))
8 edge:9: pass if
    any(
        all(
            vlan.tpid[0] in {0x8100, 0x88a8, 0x9100}
            vlan.id[0] in {5}
            eth.type in {0x8847}
            (network[0:4] >> 12) == 16
            mpls/ip.proto in {17}
        )
        ip6.proto in {44}
        ip6 header 44
    )
9 edge:10: pass if
    all(
        any(addr.src in {10.0.0.0/9}, sport in {1-5})
        any(addr.dst in {10.0.0.1}, ip6.dst in {2001:db8::1-2001:db8::2})
    )
10 all: count
"""


def rule_set() -> RuleSet:
    policy = parse_policy(Source("edge.policy", POLICY))
    return lower_filter(policy, policy.filters[0])


def test_text() -> None:
    assert dump(rule_set()) == TEXT


def test_time_is_shown() -> None:
    sound = rule_set()
    rules = (replace(sound.rules[0], until_ns=7), *sound.rules[1:])
    assert "6 dns: drop until 7 if\n" in dump(replace(sound, rules=rules))
