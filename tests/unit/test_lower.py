"""What expressions and filters are lowered to, and the faults that lowering finds."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import ClassVar

import pytest

from penstock.compiler.ir.dump import dump_predicate
from penstock.compiler.ir.evaluate import Packet, holds
from penstock.compiler.ir.lower import lower_expression, lower_filter
from penstock.compiler.ir.names import Service, SystemNames, missing_table
from penstock.compiler.ir.ops import Always, Effect, RuleSet
from penstock.compiler.ir.verify import verify_predicate
from penstock.compiler.lang.ast import (
    Accessor,
    Address,
    Binary,
    Constant,
    Let,
    Mac,
    Name,
    NamedNumber,
    Number,
    PartialAddress,
    Prefix,
    Primitive,
    Protocol,
    Qualifiers,
    Relation,
)
from penstock.compiler.lang.parser import parse_expression, parse_policy
from penstock.compiler.lang.source import Source
from penstock.errors import PolicyError
from penstock.model.field import Layer
from penstock.model.packet import build_packet, parse_packet
from penstock.model.verdict import Condition, Verdict


class Table:
    """Names for tests."""

    HOSTS: ClassVar = {
        "both": ("192.0.2.1", "192.0.2.9", "2001:db8::1"),
        "four": ("192.0.2.4",),
        "six": ("2001:db8::6",),
    }

    def host(self, name: str) -> tuple[IPv4Address | IPv6Address, ...]:
        return tuple(ip_address(text) for text in self.HOSTS.get(name, ()))

    def network(self, name: str) -> int | None:
        return {"campus": int(IPv4Address("10.2.0.0")), "short": 10}.get(name)

    def service(self, name: str) -> Service | None:
        services = {"www": Service(80, None), "shell": Service(514, 6), "log": Service(514, 17)}
        return services.get(name)

    def protocol(self, name: str) -> int | None:
        return {"ospf": 89}.get(name)

    def ether_host(self, name: str) -> bytes | None:
        return bytes.fromhex("020000000007") if name == "printer" else None


def lowered(text: str, netmask: int | None = None) -> str:
    source = Source("<expression>", text)
    predicate = lower_expression(parse_expression(source), source, netmask=netmask, resolver=Table())
    return dump_predicate(verify_predicate(predicate))


def rule_set(text: str) -> RuleSet:
    policy = parse_policy(Source("edge.policy", text))
    return lower_filter(policy, policy.filters[0], resolver=Table())


def faults(text: str) -> list[tuple[str, str]]:
    """Codes of an expression's faults, each with the text that it points at."""
    source = Source("<expression>", text)
    with pytest.raises(PolicyError) as raised:
        lower_expression(parse_expression(source), source, resolver=Table())
    return [(one.code, text[one.span.start : one.span.end]) for one in raised.value.diagnostics]


V4 = "192.0.2.1"
TAG = "vlan.tpid[0] in {0x8100, 0x88a8, 0x9100}"


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("tcp", "proto in {6}"),
        ("icmp", "ip.proto in {1}"),
        ("icmp6", "ip6.proto in {58}"),
        ("ah", "any(proto in {51}, ip6 header 51)"),
        ("udp dst port 53", "udp.dport in {53}"),
        ("port 53", "any(sport in {53}, dport in {53})"),
        ("src and dst port 53", "all(sport in {53}, dport in {53})"),
        ("sctp port 7", "all(proto in {132}, any(sport in {7}, dport in {7}))"),
        ("tcp dst port 80 or 443 or 8080", "tcp.dport in {80, 443, 8080}"),
        ("dst portrange 9-5", "dport in {5-9}"),
        ("dst port www", "dport in {80}"),
        ("dst port shell", "tcp.dport in {514}"),
        ("udp dst port log", "udp.dport in {514}"),
        ("src host 192.0.2.1", "addr.src in {192.0.2.1}"),
        ("ip src host 192.0.2.1", "ip.src in {192.0.2.1}"),
        ("arp src host 192.0.2.1", "all(eth.type in {0x0806}, addr.src in {192.0.2.1})"),
        ("src net 10", "addr.src in {10.0.0.0/8}"),
        ("src net 10.1", "addr.src in {10.1.0.0/16}"),
        ("src host 10.1", "addr.src in {10.1.0.0/16}"),
        ("src net 10.0.0.0/9", "addr.src in {10.0.0.0/9}"),
        ("src net 10.0.0.0 mask 255.0.0.0", "addr.src in {10.0.0.0/8}"),
        ("src net 10.0.0.1 mask 255.0.0.255", "(addr.src & 4278190335) == 167772161"),
        ("src net 0.0.0.0/0", "addr.src in {0.0.0.0/0}"),
        ("dst host 2001:db8::1", "ip6.dst in {2001:db8::1}"),
        ("dst net 2001:db8::/32", "ip6.dst in {2001:db8::/32}"),
        ("src host both", "any(addr.src in {192.0.2.1, 192.0.2.9}, ip6.src in {2001:db8::1})"),
        ("ip6 src host both", "ip6.src in {2001:db8::1}"),
        ("ip src host both", "ip.src in {192.0.2.1, 192.0.2.9}"),
        ("src net campus", "addr.src in {10.2.0.0}"),
        ("src net short", "addr.src in {10.0.0.0/8}"),
        ("ether src printer", "eth.src in {02:00:00:00:00:07}"),
        ("ip proto ospf", "ip.proto in {89}"),
        ("proto 300", "never"),
        ("ip protochain 6", "chain.proto in {6}"),
        ("ip protochain 51", "ip header 51"),
        ("ip6 protochain 6", "ip6.proto in {6}"),
        ("ip6 proto 44", "any(ip6.proto in {44}, ip6 header 44)"),
        ("ether proto 0x8100", "vlan.tpid[0] in {0x8100}"),
        ("vlan and ether proto 0x8100", f"all({TAG}, vlan.tpid[1] in {{0x8100}})"),
        ("ether proto 0x42", "all(eth.type in {0x0000-0x05dc}, network[0:1] == 66)"),
        ("less 60", "len in {0-60}"),
        ("greater 60", "len in {60-4294967295}"),
        ("len = 60", "len in {60}"),
        ("ether broadcast", "eth.dst in {ff:ff:ff:ff:ff:ff}"),
        ("ttl < 5", "ttl in {0-4}"),
        ("5 > ttl", "ttl in {0-4}"),
        ("ttl != 5", "ttl in {0-4, 6-255}"),
        ("ttl < 300", "ttl in {0-255}"),
        ("ttl > 255", "never"),
        ("1 + 1 = 2", "always"),
        ("2 - 3 > 5", "always"),
        ("frag", "frag in {1-2}"),
        ("frag.later", "frag in {2}"),
        ("tcp[tcpflags] & tcp-syn != 0", "all(proto in {6}, (tcp.flags & 2) != 0)"),
        ("igmp[0] = 17", "all(eth.type in {0x0800}, ip.proto in {2}, transport[0:1] == 17)"),
        ("ip[ip[0] & 15] = 1", "all(eth.type in {0x0800}, network[(network[0:1] & 15):1] == 1)"),
        (
            "ether[0] & 1 = 0 and ip[16] >= 224",
            "all((frame[0:1] & 1) == 0, eth.type in {0x0800}, network[16:1] >= 224)",
        ),
        ("vlan 5 and vlan 6", f"all({TAG}, vlan.id[0] in {{5}}, {TAG.replace('[0]', '[1]')}, vlan.id[1] in {{6}})"),
        ("vlan and vlan.id = 5", f"all({TAG}, vlan.id[0] in {{5}})"),
        (
            "mpls and host 192.0.2.1",
            "all(eth.type in {0x8847}, any(mpls/ip.src in {192.0.2.1}, mpls/ip.dst in {192.0.2.1}))",
        ),
        ("mpls and mpls 7", "all(eth.type in {0x8847}, (network[2:1] & 1) == 0, (mpls/network[0:4] >> 12) == 7)"),
        ("pppoes and ip", "all(eth.type in {0x8864}, pppoes/eth.type in {0x0800})"),
        ("pppoes and ether proto 0x8100", "all(eth.type in {0x8864}, pppoes/frame[0:2] == 33024)"),
        ("not not tcp", "proto in {6}"),
        ("tcp and tcp", "proto in {6}"),
        ("tcp and udp", "never"),
        ("not (tcp and udp)", "always"),
        (
            "tcp xor ip",
            "any(all(proto in {6}, not(eth.type in {0x0800})), all(not(proto in {6}), eth.type in {0x0800}))",
        ),
        ("tcp and port 80 or udp", "any(all(proto in {6}, any(sport in {80}, dport in {80})), proto in {17})"),
        ("", "always"),
    ],
)  # fmt: skip
def test_meaning(text: str, meaning: str) -> None:
    assert lowered(text) == meaning


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("vlan and arp", 0),
        ("(vlan or arp) and ether proto 0x8100", 0),
        ("not vlan and ether proto 0x8100", 0),
        ("vlan and (tcp or ether proto 0x8100)", 1),
        ("(vlan and tcp) and ether proto 0x8100", 1),
        ("vlan and (vlan and tcp) and ether proto 0x8100", 2),
        ("vlan and (vlan or tcp) and ether proto 0x8100", 1),
        ("vlan and tcp or ether proto 0x8100", 0),
    ],
)
def test_reach_of_an_encapsulation(text: str, inner: int) -> None:
    assert (f"vlan.tpid[{inner}] in {{0x8100}}" in lowered(text)) == ("0x8100" in text)


def test_ten_thousand_terms_are_one_interval_set() -> None:
    text = " or ".join(f"host 10.{index // 256}.{index % 256}.1" for index in range(10_000))
    source = Source("<expression>", text)
    predicate = lower_expression(parse_expression(source), source)
    assert dump_predicate(predicate).count("10.39.15.1") == 2
    frame = build_packet(parse_packet('IPv4(src="10.39.15.1")'))
    assert holds(predicate, Packet(frame))


def test_negations_under_and_are_one() -> None:
    assert lowered("tcp and not port 80 and ip and not port 443") == lowered(
        "tcp and not (port 80 or 443) and ip"
    )


def test_what_a_constant_stands_for_is_joined_by_or() -> None:
    text = """
        let net = 10.0.0.0/8, 192.0.2.1, 2001:db8::/32
        let all = $net, 172.16.0.0/12
        filter f at xdp { drop if src net $all }
    """
    condition = rule_set(text).rules[0].condition
    wanted = "any(addr.src in {10.0.0.0/8, 172.16.0.0/12, 192.0.2.1}, ip6.src in {2001:db8::/32})"
    assert dump_predicate(condition) == wanted


def test_ip_broadcast_needs_the_netmask() -> None:
    assert lowered("ip broadcast", netmask=0xFFFFFF00) == "any((ip.dst & 255) == 0, (ip.dst & 255) == 255)"
    assert faults("ip broadcast") == [("PS310", "ip broadcast")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("host nowhere", [("PS304", "nowhere")]),
        ("ip6 host four", [("PS304", "four")]),
        ("ip host six", [("PS304", "six")]),
        ("net nowhere", [("PS304", "nowhere")]),
        ("ether host nowhere", [("PS304", "nowhere")]),
        ("port nowhere", [("PS304", "nowhere")]),
        ("udp port shell", [("PS304", "shell")]),
        ("sctp port log", [("PS304", "log")]),
        ("ip proto nowhere", [("PS304", "nowhere")]),
        ("ether proto nowhere", [("PS304", "nowhere")]),
        ("inbound", [("PS311", "inbound")]),
        ("mpls and arp", [("PS309", "arp")]),
        ("mpls and vlan", [("PS309", "vlan")]),
        ("pppoes and vlan", [("PS309", "vlan")]),
        ("pppoes and llc", [("PS309", "llc")]),
        ("pppoes and ether broadcast", [("PS309", "ether broadcast")]),
        ("pppoes and ether host printer", [("PS309", "printer")]),
        ("mpls and pppoes", [("PS309", "pppoes")]),
        ("geneve and protochain 6", [("PS309", "6")]),
        ("ttl / (1 - 1) = 2", [("PS307", "1 - 1")]),
        ("src port $nowhere", [("PS301", "$nowhere")]),
        ("host nowhere or port nowhere", [("PS304", "nowhere"), ("PS304", "nowhere")]),
        (" and ".join(["pppoes"] * 9), [("PS313", "pppoes")]),
        (" xor ".join(["tcp", "udp", "sctp"] * 4), [("PS313", " xor ".join(["tcp", "udp", "sctp"] * 4))]),
        (" or arp and ".join(["tcp"] * 60), [("PS313", " or arp and ".join(["tcp"] * 60))]),
    ],
)  # fmt: skip
def test_faults(text: str, found: list[tuple[str, str]]) -> None:
    assert faults(text) == found


HOST, PORT, PROTO = (
    Qualifiers(None, None, "host"),
    Qualifiers(None, None, "port"),
    Qualifiers(None, None, "proto"),
)


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        (Primitive(PORT, Address(IPv4Address(V4))), "PS302"),
        (Primitive(HOST, Mac(bytes(6))), "PS302"),
        (Primitive(HOST, Prefix(Address(IPv4Address("10.0.0.0")), 8)), "PS302"),
        (Primitive(PROTO, Address(IPv4Address(V4))), "PS302"),
        (Primitive(Qualifiers("ip6", None, "host"), Address(IPv4Address(V4))), "PS302"),
        (Primitive(Qualifiers("arp", None, "host"), Address(IPv6Address("::1"))), "PS302"),
        (Primitive(Qualifiers("ether", None, "host"), Address(IPv4Address(V4))), "PS302"),
        (Primitive(Qualifiers("tcp", None, "host"), Address(IPv4Address(V4))), "PS303"),
        (Primitive(Qualifiers("icmp", None, "port"), Number(7)), "PS303"),
        (Primitive(Qualifiers("arp", None, "proto"), Number(7)), "PS303"),
        (Primitive(Qualifiers("tcp", None, "protochain"), Number(7)), "PS303"),
        (Primitive(Qualifiers("ip", "src", "proto"), Number(7)), "PS303"),
        (Primitive(PORT, Number(65536)), "PS305"),
        (Primitive(Qualifiers(None, None, "net"), PartialAddress((10, 256))), "PS305"),
        (Primitive(Qualifiers(None, None, "net"), Prefix(Address(IPv4Address("10.0.0.1")), 8)), "PS306"),
        (Primitive(Qualifiers(None, None, "net"), Prefix(Address(IPv4Address("10.0.0.0")), 33)), "PS306"),
        (Primitive(Qualifiers(None, None, "net"), Prefix(Address(IPv6Address("2001::")), 129)), "PS306"),
        (Primitive(Qualifiers(None, None, "net"), Prefix(Address(IPv6Address("2001::1")), 64)), "PS306"),
        (Primitive(Qualifiers(None, None, "gateway"), Name("four")), "PS311"),
        (Protocol("radio"), "PS303"),
        (Protocol("ether"), "PS303"),
        (Relation("==", Accessor("esp", Number(0)), Number(1)), "PS308"),
        (Relation("==", Accessor("ip", Number(0), 3), Number(1)), "PS308"),
        (Relation("==", NamedNumber("tcp-sin"), Number(1)), "PS312"),
        (Relation("==", Constant("ports"), Number(1)), "PS302"),
        (Relation("==", Binary("/", NamedNumber("tcp-syn"), Number(0)), Number(1)), "PS307"),
        (Relation("==", Binary("<<", NamedNumber("tcp-syn"), Number(32)), Number(1)), "PS307"),
        (Primitive(PORT, Constant("loop")), "PS301"),
    ],
)  # fmt: skip
def test_faults_that_a_constant_can_smuggle_past_the_parser(expression: object, code: str) -> None:
    constants = [Let("ports", (Number(1), Number(2))), Let("loop", (Constant("loop"),))]
    with pytest.raises(PolicyError) as raised:
        lower_expression(expression, Source("<expression>", ""), constants, resolver=Table())  # type: ignore[arg-type]
    assert [found.code for found in raised.value.diagnostics] == [code]


# ── filters ──────────────────────────────────────────────────────────────────


def test_rules() -> None:
    found = rule_set(
        "filter f at xdp {\n  count\n  a: drop if tcp\n  audit if udp; pass\n}".replace("; ", "\n")
    )
    assert [(rule.name, rule.action, rule.labelled, rule.line) for rule in found.rules] == [
        ("f:2", Effect.COUNT, False, 2),
        ("a", Verdict.DROP, True, 3),
        ("f:4", Effect.AUDIT, False, 4),
        ("f:5", Verdict.PASS, False, 5),
    ]
    assert found.default is Verdict.PASS


def test_conditions_by_default() -> None:
    passing = rule_set("filter f at xdp {\n pass\n}")
    assert passing.verdict_on(Condition.MALFORMED) is None
    assert passing.verdict_on(Condition.EXTHDR_LIMIT) is Verdict.DROP
    dropping = rule_set(
        "filter f at xdp {\n default drop\n on exthdr-limit continue\n on fragment pass\n pass\n}"
    )
    assert dropping.verdict_on(Condition.MALFORMED) is Verdict.DROP
    assert dropping.verdict_on(Condition.EXTHDR_LIMIT) is None
    assert dropping.verdict_on(Condition.FRAGMENT) is Verdict.PASS
    assert dropping.verdict_on(Condition.UNKNOWN_TAG) is None


@pytest.mark.parametrize(
    ("line", "depth"),
    [
        ("pass", Layer.LINK),
        ("pass if ether broadcast", Layer.LINK),
        ("pass if ip", Layer.LINK),
        ("pass if host 10.0.0.1", Layer.NETWORK),
        ("pass if ip6 proto 44", Layer.NETWORK),
        ("pass if ip[0] = 5", Layer.NETWORK),
        ("pass if udp", Layer.NETWORK),
        ("pass if udp port 5", Layer.TRANSPORT),
        ("pass if tcp[0] = 5", Layer.TRANSPORT),
        ("pass if ether[ip[0]] = 5", Layer.NETWORK),
        ("pass if mpls and tcp", Layer.NETWORK),
        ("pass if geneve and ip", Layer.TRANSPORT),
        ("on malformed continue", Layer.TRANSPORT),
        ("on fragment drop", Layer.NETWORK),
        ("on unknown-tag drop", Layer.LINK),
    ],
)
def test_depth(line: str, depth: Layer) -> None:
    assert rule_set(f"filter f at xdp {{\n {line}\n}}").depth is depth


def test_every_packet_that_xdp_sees_is_inbound() -> None:
    assert rule_set("filter f at xdp { drop if inbound }").rules[0].condition == Always(True)


def test_every_fault_of_a_filter_in_one_run() -> None:
    text = "filter f at xdp {\n drop if host nowhere\n drop if outbound\n drop if port $x\n}"
    with pytest.raises(PolicyError) as raised:
        rule_set(text)
    found = [(one.code, one.line) for one in raised.value.diagnostics]
    assert found == [("PS304", 2), ("PS311", 3), ("PS301", 4)]


def test_system_names() -> None:
    names = SystemNames()
    assert names.host("127.0.0.1") == (IPv4Address("127.0.0.1"),)
    assert names.host("no such host.invalid") == ()
    assert names.service("no-such-service") is None
    assert names.protocol("no-such-protocol") is None
    assert names.network("no-such-network") is None
    assert names.ether_host("no-such-host") is None


def test_a_machine_without_a_table_of_names_is_told(tmp_path: Path) -> None:
    assert missing_table(str(tmp_path)) is None
    assert "netbase" in str(missing_table(str(tmp_path / "services")))
