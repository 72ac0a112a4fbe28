"""Why a rule did not match, in words."""

from __future__ import annotations

import re

import pytest
from tests import frames

from penstock.compiler.ir.explain import explain, first_failure
from penstock.compiler.ir.headers import Packet
from penstock.compiler.ir.lower import lower_expression, lower_filter
from penstock.compiler.lang.parser import parse_expression, parse_policy
from penstock.compiler.lang.source import Source
from penstock.errors import PenstockError
from penstock.model.packet import build_packet, parse_packet
from penstock.model.verdict import Verdict
from penstock.pipeline.set_contents import given, modelled


@pytest.mark.parametrize(
    ("text", "packet", "reason"),
    [
        ("udp dst port 53", "IPv4()/UDP(dport=54)", "UDP destination port is 54, wanted 53"),
        ("dst port 53 or 80", "IPv4()/UDP(dport=54)", "destination port is 54, wanted 53 or 80"),
        ("dst portrange 1-9", "IPv4()/UDP(dport=54)", "destination port is 54, wanted 1-9"),
        ("udp dst port 53", "IPv4()/TCP(dport=53)", "no UDP header"),
        ("dst port 53", "IPv4()/ICMP()", "no TCP, UDP or SCTP header"),
        ("dst port 53", "IPv4(frag=1, proto=17)/Raw(len=8)", "a later fragment has no destination port"),
        ("dst port 53", "IPv4()/UDP()/Truncate(36)", "no destination port: the packet is too short or broken"),
        ("ip", "IPv6()", "Ethernet type is 0x86dd (IPv6), wanted 0x0800 (IPv4)"),
        ("tcp", "IPv4()/UDP()", "protocol is 17 (UDP), wanted 6 (TCP)"),
        ("tcp", "ARP()", "no IP header"),
        ("src net 10.0.0.0/8", "IPv4(src=192.0.2.1)", "source address is 192.0.2.1, wanted 10.0.0.0/8"),
        ("src host 10.0.0.1", "IPv6()", "no IPv4 or ARP header"),
        ("ip src host 10.0.0.1", "ARP()", "no IPv4 header"),
        ("ip6 src host ::1", "IPv4()", "no IPv6 header"),
        ("src net 10.0.0.0/8 or src net ::/64", "IPv4(src=192.0.2.1)", "source address is 192.0.2.1, wanted 10"),
        ("vlan 5", "IPv4()", "no VLAN tag"),
        ("vlan 5", "Dot1Q(vlan=6)/IPv4()", "VLAN id is 6, wanted 5"),
        ("not vlan", "Dot1Q(vlan=6)/IPv4()", "has a VLAN tag"),
        ("not dst port 53", "IPv4()/UDP(dport=53)", "destination port is 53, wanted anything but 53"),
        ("not (udp and dst port 53)", "IPv4()/UDP(dport=53)", "destination port is 53, wanted anything but 53"),
        ("not (arp or udp)", "IPv4()/UDP(dport=53)", "protocol is 17 (UDP), wanted anything but 17 (UDP)"),
        ("frag.later", "IPv4()", "it is not a fragment, wanted a later fragment"),
        ("not frag", "IPv4(flags=MF)/Raw(len=8)", "it is a first fragment, wanted not a fragment"),
        ("tcp[13] & 2 != 0", "IPv4()/TCP(flags=A)", "(tcp.flags & 2) is 0, wanted != 0"),
        ("not tcp[13] & 2 != 0", "IPv4()/TCP(flags=S)", "(tcp.flags & 2) is 2, not wanted != 0"),
        ("ip[12:4] == ip[16:4]", "IPv4(src=10.0.0.1, dst=10.0.0.2)", "ip.src is 10.0.0.1, wanted == ip.dst, which"),
        ("ip[12:4] == ip[8] + 3", "IPv4(src=10.0.0.1, ttl=64)", "ip.src is 10.0.0.1, wanted == (ttl + 3), which is 67"),
        ("ether[99] = 1", "IPv4()", "frame[99:1] == 1 reads what the packet does not have"),
        ("ip6 protochain 44", "IPv6(nh=17)/UDP()", "IPv6 protocol is 17 (UDP), wanted 44"),
        ("mpls and ip", "MPLS(s=0)/Raw(len=8)", "no IP header directly behind the label"),
        ("geneve and udp", "IPv4()/UDP(dport=7)", "UDP destination port is 7, wanted 6081"),
        ('pcap "udp port 53"', "IPv4()/UDP()", 'pcap "udp port 53" does not match'),
        ('not pcap "udp port 53"', "IPv4()/UDP(dport=53)", 'pcap "udp port 53" matches'),
        ('pcap "udp port 53"', "IPv4()/UDP()/Truncate(36)", 'pcap "udp port 53" reads beyond the packet'),
        ('pcap "len / ip[1] > 1"', "IPv4()/UDP()", 'pcap "len / ip[1] > 1" divides by zero'),
        ("inner(udp)", "IPv4()/UDP()", "it carries no packet: no tunnel that is looked into"),
        ("inner(inner(udp))", "IPv4()/IPv4()/UDP()", "the packet inside carries no packet"),
        ("not inner(udp)", "IPv4()/IPv4()/UDP()", "protocol of the inner packet is 17 (UDP), wanted anything but"),
        ("not inner(not udp)", "IPv4()/IPv4()/TCP()", "protocol of the inner packet is 6 (TCP), wanted 17"),
        ("inner(dst port 53)", "IPv4()/GRE()/IPv6()/UDP(dport=5)", "destination port of the inner packet is 5, wanted"),
        ("vxlan 5 and arp", "IPv4()/UDP(dport=5)", "UDP destination port is 5, wanted 4789"),
        ("proto 300", "IPv4()", "it never matches"),
        ("dst port 1 or 3 or 5 or 7 or 9", "IPv4()/UDP(dport=2)", "destination port is 2, wanted 1 or 3 or 5 or 7"),
    ],
)  # fmt: skip
def test_first_failure(text: str, packet: str, reason: str) -> None:
    source = Source("<expression>", text)
    predicate = lower_expression(parse_expression(source), source)
    assert first_failure(predicate, Packet(build_packet(parse_packet(packet)))).startswith(reason)


POLICY = """filter f at xdp {
    dns: drop if udp port 53
    seen: count if udp
    web: drop if tcp dst port 80
    rest: pass
}"""


def test_every_rule_before_the_deciding_one() -> None:
    policy = parse_policy(Source("f", POLICY))
    story = explain(
        lower_filter(policy, policy.filters[0]), build_packet(parse_packet("IPv4()/UDP(sport=1, dport=2)"))
    )
    assert story.outcome.verdict is Verdict.PASS
    assert [(passed.rule.name, passed.matched, passed.reason) for passed in story.rules] == [
        ("dns", False, "UDP source port is 1, wanted 53"),
        ("seen", True, "matched; count does not decide"),
        ("web", False, "no TCP header"),
    ]


def test_rules_behind_meet_what_a_rule_has_added() -> None:
    """As `evaluate` has it, and the kernel: the very packet that trips the trap is caught by the rule behind."""
    policy = parse_policy(
        Source(
            "t.policy",
            "set seen : host\nset other : host\n"
            "filter trap at xdp {\n"
            "  early: drop if src in @seen\n"
            "  bait: add src to @seen if tcp dst port 23\n"
            "  else: drop if src in @other or not src in @seen\n"
            "  caught: drop if src in @seen\n}\n",
        )
    )
    found = explain(lower_filter(policy, policy.filters[0]), build_packet(parse_packet("IPv4/TCP(dport=23)")))
    assert [(one.rule.name, one.matched, one.reason) for one in found.rules] == [
        ("early", False, "192.0.2.1 is not in @seen"),
        ("bait", True, "matched; add does not decide"),
        ("else", False, "192.0.2.1 is not in @other"),
    ]
    assert found.outcome.verdict is Verdict.DROP


SETS = """set nets : net
set hosts : host
set flows : host . proto . port
set cards : mac
filter edge at xdp {
    early: count if src in @hosts or ether src in @cards
    wide: drop if src in @nets and not dst in @hosts
    flow: drop if src . proto . dst port in @flows
}"""


@pytest.mark.parametrize(
    ("contents", "packet", "reasons", "because"),
    [
        (
            ["nets=192.0.2.0/24,192.0.0.0/16"],
            'IPv4(src="192.0.2.7", dst="10.0.0.1")/TCP',
            ["192.0.2.7 is not in @hosts"],
            ("192.0.2.7 is in @nets, by 192.0.2.0/24", "10.0.0.1 is not in @hosts"),
        ),
        (
            ["nets=2001:db8::/32", "hosts=2001:db8::2"],
            'IPv6(src="2001:db8::7", dst="2001:db8::2")/TCP(dport=9)',
            [
                "2001:db8::7 is not in @hosts",
                "2001:db8::2 is in @hosts, by 2001:db8::2",
                "2001:db8::7 . 6 (TCP) . 9 is not in @flows",
            ],
            (),
        ),
        (
            ["flows=192.0.2.7 . tcp . 80", "cards=02:00:00:00:00:01"],
            'Ether(src="02:00:00:00:00:01")/IPv4(src="192.0.2.7")/TCP(dport=80)',
            [
                "matched: 02:00:00:00:00:01 is in @cards, by 02:00:00:00:00:01; count does not decide",
                "192.0.2.7 is not in @nets",
            ],
            ("192.0.2.7 . 6 (TCP) . 80 is in @flows, by 192.0.2.7 . tcp . 80",),
        ),
        (["flows=192.0.2.7 . tcp . 80"], "ARP", ["192.0.2.1 is not in @hosts"], ()),
    ],
)
def test_which_entry_of_which_set(
    contents: list[str], packet: str, reasons: list[str], because: tuple[str, ...]
) -> None:
    policy = parse_policy(Source("f", SETS))
    rules = lower_filter(policy, policy.filters[0])
    sets = modelled(rules.sets, given(rules.sets, contents))
    found = explain(rules, build_packet(parse_packet(packet)), sets=sets)
    assert [one.reason for one in found.rules][: len(reasons)] == reasons
    assert found.because == because


@pytest.mark.parametrize(
    ("option", "fault"),
    [
        ("nets", "`nets` says no content"),
        ("other=10.0.0.1", "no rule asks a set @other"),
        ("hosts=10.0.0.0/8", "`10.0.0.0/8` is no address"),
        ("nets=@/nowhere/list", "read /nowhere/list: No such file"),
        ("hosts=" + ",".join(f"10.0.{n >> 8}.{n & 255}" for n in range(1 << 16)) + ",10.1.0.0", "65,537"),
    ],
)
def test_contents_that_cannot_be(option: str, fault: str) -> None:
    policy = parse_policy(Source("f", SETS))
    rules = lower_filter(policy, policy.filters[0])
    with pytest.raises(PenstockError, match=re.escape(fault)):
        modelled(rules.sets, given(rules.sets, [option]))


def test_a_condition_decides_before_any_rule() -> None:
    policy = parse_policy(Source("f", POLICY.replace("{", "{\n on malformed drop", 1)))
    story = explain(lower_filter(policy, policy.filters[0]), b"")
    assert story.outcome.slot == 1
    assert story.rules == ()


@pytest.mark.parametrize(
    "text",
    ["tcp xor not (vlan or mpls and ip)", "port 80 and not (host 10.0.0.1 or llc)", "l1 or geneve 5 and ip6"],
)
def test_every_frame_has_an_explanation(text: str) -> None:
    policy = parse_policy(Source("f", f"filter f at xdp {{\n drop if {text}\n}}"))
    rules = lower_filter(policy, policy.filters[0])
    for frame in frames.frames():
        for cut in (frame, frame[:30], frame[:15]):
            story = explain(rules, cut)
            assert len(story.rules) == (story.outcome.slot == 0)
            assert all(passed.reason for passed in story.rules)
