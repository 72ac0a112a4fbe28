"""A policy in the words of other filters: what is said, and what is refused instead of being approximated."""

from __future__ import annotations

import pytest

from penstock.model.net import IntervalSet
from penstock.model.packet import read_packet
from penstock.model.verdict import Verdict
from penstock.pipeline.policy import rule_set_of
from penstock.price.peers import iptables, naive_c, nft, xdp_filter
from penstock.price.peers.clauses import CannotSayError, PlainRule, is_common, masks, plain_rules


def plain(*rules: str, default: str = "pass") -> tuple[PlainRule, ...]:
    lines = "\n".join(rules)
    return plain_rules(rule_set_of(f"filter t at xdp {{\n default {default}\n{lines}\n}}"))


def nft_rules(*rules: str) -> list[str]:
    text = nft.script(plain(*rules), Verdict.PASS, "netdev", "v1")
    return [line.strip() for line in text.splitlines()[3:-2]]


def iptables_rules(rule: str) -> list[str]:
    found = iptables.tables(plain(rule), Verdict.PASS, "v1")
    lines = [*found.ipv4.splitlines(), *found.ipv6.splitlines()]
    return [line.removeprefix("-A PREROUTING -i v1 ") for line in lines if line.endswith("-j DROP")]


def test_nft_says_each_rule() -> None:
    assert nft_rules(
        "drop if udp dst port 53",
        "pass if src net 10.0.0.0/8 and tcp dst port (22 or 443)",
        "drop if ip6 host 2001:db8::1",
        "count if icmp",
    ) == [
        "meta l4proto 17 th dport 53 drop",
        "meta protocol ip meta l4proto 6 ip saddr 10.0.0.0/8 th dport { 22, 443 } accept",
        "meta protocol ip6 ip6 saddr 2001:db8::1 drop",
        "meta protocol ip6 ip6 daddr 2001:db8::1 drop",
        "meta protocol ip meta l4proto 1 counter",
    ]


def test_the_negation_of_a_field_holds_where_it_is_absent() -> None:
    """penstock's `not tcp dst port 22` is true of ICMP, where other filters would read bytes that are no port."""
    assert sorted(nft_rules("drop if ip and not tcp dst port 22")) == [
        "meta protocol ip meta l4proto { 0-5, 7-16, 18-131, 133-255 } drop",
        "meta protocol ip meta l4proto { 0-5, 7-255 } drop",
        "meta protocol ip meta l4proto { 6, 17, 132 } th dport { 0-21, 23-65535 } drop",
    ]


def test_iptables_says_each_rule() -> None:
    assert iptables_rules("drop if udp dst port 53") == ["-p 17 -m udp --destination-port 53 -j DROP"] * 2
    assert iptables_rules("drop if src net 10.0.0.0/8 and ttl < 5") == [
        "-s 10.0.0.0/8 -m ttl --ttl-lt 5 -j DROP"
    ]
    assert iptables_rules("drop if tcp[tcpflags] & (tcp-syn|tcp-fin) == tcp-syn|tcp-fin and ip") == [
        "-p 6 -m tcp --tcp-flags FIN,SYN FIN,SYN -j DROP"
    ]


def test_iptables_lists_addresses_in_sets_and_ports_by_fifteen() -> None:
    ports = " or ".join(str(port) for port in range(1, 41, 2))
    found = iptables.tables(
        plain(f"drop if src net (10.0.0.0/8 or 192.0.2.0/24) and tcp dst port ({ports})"), Verdict.PASS, "v1"
    )
    assert found.sets.splitlines() == [
        "create ps0 hash:net family inet maxelem 65536",
        "add ps0 10.0.0.0/8",
        "add ps0 192.0.2.0/24",
    ]
    assert found.ipv4.count("--match-set ps0 src -m multiport") == 2


def test_xdp_filter_lists_ports_and_addresses() -> None:
    found = xdp_filter.listed(
        plain("drop if udp dst port 53", "drop if dst host 192.0.2.1 and ip"), Verdict.PASS
    )
    assert found.policy == "allow"
    assert found.features == ("udp", "ipv4")
    assert found.entries == (
        ("port", "53", "-m", "dst", "-p", "udp"),
        ("ip", "192.0.2.1", "-m", "dst"),
    )


def test_the_naive_c_is_a_chain_of_ifs() -> None:
    text = naive_c.source(plain("drop if udp dst port 53"), Verdict.PASS)
    assert "\tif (k->proto == 17u && k->dport == 53u)\n\t\treturn 1;" in text


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("drop if vlan 5", "vlan"),
        ("drop if ip[12:4] == ip[16:4]", "computes"),
        ("drop if frag", "frag"),
        ("drop if greater 512", "len"),
    ],
)
def test_what_only_penstock_can_say_is_refused_with_its_line(rule: str, reason: str) -> None:
    with pytest.raises(CannotSayError, match=rf"line 4.*{reason}") as caught:
        plain("drop if udp", rule)
    assert len(caught.value.refusals) == 1


@pytest.mark.parametrize(
    "rules",
    [
        ("drop if src net 10.0.0.0/8",),
        ("drop if dst port 53",),
        ("pass if udp dst port 53",),
        ("drop if udp dst port 53 and src host 192.0.2.1",),
        ("count if udp dst port 53",),
        ("drop if udp",),
    ],
)
def test_what_xdp_filter_cannot_say_is_refused(rules: tuple[str, ...]) -> None:
    with pytest.raises(CannotSayError):
        xdp_filter.listed(plain(*rules), Verdict.PASS)


def test_bouncing_is_refused_by_all_that_cannot() -> None:
    rules = plain("bounce if udp dst port 7")
    with pytest.raises(CannotSayError, match="sends packets back"):
        nft.script(rules, Verdict.PASS, "inet", "v1")
    with pytest.raises(CannotSayError, match="sends packets back"):
        iptables.tables(rules, Verdict.PASS, "v1")


def test_masks_hold_exactly_the_values() -> None:
    for values in (
        IntervalSet.single(2),
        IntervalSet.single(*(n for n in range(256) if n & 18 == 2)),
        IntervalSet.of((0, 4), (9, 77)),
    ):
        found = masks(values)
        held = {n for n in range(256) if any(n & mask == value for mask, value in found)}
        assert held == {n for n in range(256) if n in values}


@pytest.mark.parametrize(
    ("packet", "common"),
    [
        ("IPv4/UDP(dport=53)", True),
        ("IPv6/TCP(dport=53)", True),
        ("Dot1Q(vlan=5)/IPv4/UDP", False),
        ("IPv4(options=40)/TCP", False),
        ("IPv6/HopByHop/UDP", False),
        ("IPv4(flags='MF')/UDP/Raw(len=64)", False),
        ("IPv4(ihl=3)/UDP", False),
        ("ARP(op=1)", False),
        ("IPv4(chksum=1)/UDP", False),
        ("IPv6(src='::1')/UDP", False),
        ("IPv6(src='ff02::1')/UDP", False),
        ("IPv6(dst='ff01::1')/UDP", False),
        ("IPv6(dst='ff02::1')/UDP", True),
        ("IPv6(plen=0)/UDP", False),
    ],
)
def test_which_packets_all_filters_see_alike(packet: str, common: bool) -> None:
    assert is_common(read_packet(packet.replace("'", '"'))) is common
