"""The reference evaluator, field by field and byte by byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import frames

from penstock.compiler.ir.conditions import conditions_of
from penstock.compiler.ir.evaluate import Packet, arithmetic, evaluate, holds, term_value
from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.ir.ops import (
    DEFAULT_SLOT,
    FIRST_RULE_SLOT,
    All,
    Any,
    Base,
    Binary,
    Compare,
    Effect,
    FieldRef,
    FieldTerm,
    HeaderWalked,
    Literal32,
    Negation,
    Predicate,
    Read,
    Rule,
    RuleSet,
    Scope,
    Within,
)
from penstock.compiler.ir.outcome import Outcome
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source, Span
from penstock.model.field import FIELDS, Layer
from penstock.model.hook import Hook
from penstock.model.net import IntervalSet
from penstock.model.packet import build_packet, parse_packet
from penstock.model.verdict import Condition, Verdict


def packet(text: str) -> Packet:
    return Packet(build_packet(parse_packet(text)))


def value(text: str, name: str, *scope: str, index: int = 0) -> int | None:
    return packet(text).value(FieldRef(name, scope, index))  # type: ignore[arg-type]


V4 = 'IPv4(src="10.0.0.1", dst="10.0.0.2", ttl=9, dscp=46, ecn=1, id=77)'
V6 = "IPv6(src=2001:db8::1, dst=2001:db8::2, hlim=9, dscp=46, ecn=1, fl=77)"
TCP = 'TCP(sport=1, dport=2, seq=3, ack=4, flags="SA", window=6)'


@pytest.mark.parametrize(
    ("text", "name", "wanted"),
    [
        (V4, "len", 34),
        (V4, "eth.dst", 0x020000000002),
        (V4, "eth.src", 0x020000000001),
        (V4, "eth.type", 0x0800),
        (V4, "vlan.tpid", 0x0800),
        (V4, "vlan.id", None),
        (V4, "ip.src", 0x0A000001),
        (V4, "addr.dst", 0x0A000002),
        (V4, "ip6.src", None),
        (V4, "ttl", 9),
        (V4, "dscp", 46),
        (V4, "ecn", 1),
        (V4, "ip.id", 77),
        (V4, "ip.len", 20),
        (V4, "ip.df", 0),
        ('IPv4(flags="DF")', "ip.df", 1),
        (V4, "ip6.flow", None),
        (V6, "ip6.src", 0x20010DB8 << 96 | 1),
        (V6, "ttl", 9),
        (V6, "dscp", 46),
        (V6, "ecn", 1),
        (V6, "ip6.flow", 77),
        (V6, "addr.src", None),
        (V6, "chain.proto", None),
        (f"{V4}/{TCP}", "proto", 6),
        (f"{V4}/{TCP}", "ip6.proto", None),
        (f"{V6}/{TCP}", "ip.proto", None),
        (f"{V6}/{TCP}", "ip6.proto", 6),
        (f"{V6}/{TCP}", "ip6.headers", 0),
        (f"{V6}/HopByHop()/Fragment(m=1)/{TCP}/Raw(len=4)", "ip6.headers", 0b101),
        (f"{V6}/{TCP}", "sport", 1),
        (f"{V6}/{TCP}", "tcp.dport", 2),
        (f"{V4}/{TCP}", "tcp.seq", 3),
        (f"{V4}/{TCP}", "tcp.ack", 4),
        (f"{V4}/{TCP}", "tcp.flags", 0x12),
        (f"{V4}/{TCP}", "tcp.window", 6),
        (f"{V4}/{TCP}", "udp.sport", None),
        (f"{V4}/UDP()/Raw(len=3)", "udp.len", 11),
        (f"{V4}/SCTP(dport=5)", "dport", 5),
        (f"{V4}/ICMP(type=3, code=1)", "icmp.code", 1),
        (f"{V6}/ICMPv6(type=135)", "icmp6.type", 135),
        (f"{V6}/ICMPv6(type=135)", "icmp.type", None),
        ("IPv6(nh=1)/Raw(len=8)", "icmp.type", None),
        ("IPv4(proto=58)/Raw(len=8)", "icmp6.type", None),
        ("ARP(psrc=10.0.0.7, pdst=10.0.0.8)", "addr.src", 0x0A000007),
        ("RARP(psrc=10.0.0.7, pdst=10.0.0.8)", "addr.dst", 0x0A000008),
        ("ARP()", "ip.src", None),
        ('IPv4(flags="MF", proto=17)/Raw(len=8)', "frag", 1),
        ("IPv4(frag=3, proto=17)/Raw(len=8)", "frag", 2),
        ("IPv4(frag=3, proto=17)/Raw(len=8)", "frag.offset", 24),
        ("IPv4(frag=3, proto=17)/Raw(len=8)", "dport", None),
        (f"{V6}/{TCP}", "frag", 0),
        (f"{V6}/Fragment(offset=3, nh=60)/Raw(len=8)", "ip6.proto", 60),
        (f"{V6}/Fragment(offset=3, nh=60)/Raw(len=8)", "frag.offset", 24),
        (f"{V6}/HopByHop()/Truncate(54)", "ip6.headers", 1),
        (f"{V6}/HopByHop()/Truncate(54)", "ip6.proto", None),
        (f"{V6}/HopByHop()/{TCP}/Truncate(55)", "ip6.proto", 6),
        (f"{V6}/HopByHop()/{TCP}/Truncate(55)", "sport", None),
        (f"{V6}/Fragment(m=1)/UDP()/Truncate(56)", "frag", None),
        (f"{V6}/Fragment(m=1)/UDP()/Truncate(56)", "ip6.proto", 17),
        (f"{V6}/Truncate(20)", "frag", None),
        ("IPv6()" + "/DestOpt()" * 9 + "/UDP()", "ip6.proto", None),
        ("IPv6()" + "/DestOpt()" * 8 + "/UDP(dport=9)", "dport", 9),
        ("IPv4()/AH()/UDP(dport=9)", "chain.proto", 17),
        ("IPv4()/AH()/AH()/UDP(dport=9)", "chain.proto", 17),
        ("IPv4()/AH()/UDP(dport=9)", "dport", None),
        ("IPv4()/AH()/Truncate(35)", "chain.proto", None),
        ("IPv4()" + "/AH()" * 9 + "/UDP()", "chain.proto", None),
        ("IPv4(frag=1, proto=51)/Raw(len=8)", "chain.proto", 51),
        ("IPv4(ihl=4)/UDP()", "dport", None),
        ("IPv4(ihl=4)/UDP()", "ip.proto", 17),
    ],
)  # fmt: skip
def test_field(text: str, name: str, wanted: int | None) -> None:
    assert value(text, name) == wanted


def test_every_field_is_known() -> None:
    for name in FIELDS:
        for frame in frames.frames():
            found = Packet(frame).value(FieldRef(name))
            assert found is None or 0 <= found < 1 << FIELDS[name].bits, name


def test_tags() -> None:
    text = "Dot1AD(vlan=5, prio=1)/Dot1Q(vlan=6, dei=1)/Dot1Q(vlan=7)/IPv4()"
    assert [value(text, "vlan.id", index=index) for index in range(4)] == [5, 6, 7, None]
    assert [value(text, "vlan.tpid", index=index) for index in range(5)] == [
        0x88A8,
        0x8100,
        0x8100,
        0x0800,
        None,
    ]
    assert (value(text, "vlan.pcp"), value(text, "vlan.dei", index=1)) == (1, 1)
    assert value(text, "eth.type") == 0x8100


def test_scopes() -> None:
    stack = "MPLS(label=5)/MPLS(label=6)/IPv4(src=10.0.0.1)/UDP(dport=9)"
    assert value(stack, "eth.type", "mpls") is None
    assert value(stack, "dport", "mpls", "mpls") == 9
    assert packet(stack).headers(("mpls", "mpls", "mpls")) is None
    assert value("PPPoES()/IPv6()/UDP(dport=9)", "dport", "pppoes") == 9
    assert value("PPPoES()/PPP(proto=0xc021)", "eth.type", "pppoes") == 0xC021
    inner = "IPv4()/UDP(dport=6081)/Geneve(options=8)/Ether(src=02:00:00:00:00:09)/Dot1Q(vlan=5)/IPv6()/UDP(dport=9)"
    assert value(inner, "eth.src", "geneve") == 0x020000000009
    assert value(inner, "vlan.id", "geneve") == 5
    assert value(inner, "dport", "geneve") == 9
    bare = "IPv6()/UDP(dport=6081)/Geneve()/IPv4(src=10.0.0.1)"
    assert value(bare, "eth.src", "geneve") is None
    assert value(bare, "ip.src", "geneve") == 0x0A000001
    assert packet("IPv4()/UDP(dport=6081)/Geneve(version=1)/IPv4()").headers(("geneve",)) is None


# ── reads, terms, predicates ─────────────────────────────────────────────────


def read(text: str, base: Base, offset: int, size: int = 1) -> int | None:
    return term_value(Read(base, Literal32(offset & 0xFFFFFFFF), size), packet(text))


def test_reads() -> None:
    text = "IPv4(ttl=9, options=4)/UDP(dport=53)"
    assert read(text, Base.FRAME, 12, 2) == 0x0800
    assert read(text, Base.NETWORK, 8) == 9
    assert read(text, Base.TRANSPORT, 2, 2) == 53
    assert read(text, Base.TRANSPORT, 7, 2) is None
    assert read(text, Base.FRAME, -2) is None
    assert read(text, Base.NETWORK, -2) is None
    # Counted from the network header, so that it may reach back into it.
    assert read(text, Base.TRANSPORT, -24) == 0x46
    assert read(text, Base.TRANSPORT, -25) is None
    assert read("IPv4(frag=1)/Raw(len=8)", Base.TRANSPORT, 0) is None
    assert read("Truncate(13)", Base.NETWORK, 0) is None


@pytest.mark.parametrize(
    ("left", "operator", "right", "wanted"),
    [
        (0xFFFFFFFF, "+", 1, 0),
        (0, "-", 1, 0xFFFFFFFF),
        (0x10000, "*", 0x10000, 0),
        (7, "/", 2, 3),
        (7, "/", 0, None),
        (7, "%", 4, 3),
        (7, "%", 0, None),
        (6, "&", 3, 2),
        (6, "|", 3, 7),
        (6, "^", 3, 5),
        (1, "<<", 31, 0x80000000),
        (1, "<<", 32, 0),
        (0x80000000, ">>", 31, 1),
        (0x80000000, ">>", 4000, 0),
    ],
)
def test_arithmetic(left: int, operator: str, right: int, wanted: int | None) -> None:
    assert arithmetic(operator, left, right) == wanted


def test_absent_is_false_and_its_negation_true() -> None:
    dns = Within(FieldRef("udp.dport"), IntervalSet.full(16))
    arp = packet("ARP()")
    assert not holds(dns, arp)
    assert holds(Negation(dns), arp)
    absent = FieldTerm(FieldRef("udp.dport"))
    for operator in ("<", "<=", ">", ">=", "==", "!="):
        assert not holds(Compare(operator, absent, Literal32(0)), arp)  # type: ignore[arg-type]
        assert not holds(Compare(operator, Literal32(0), absent), arp)  # type: ignore[arg-type]
    assert not holds(Compare(">=", Binary("/", FieldTerm(FieldRef("len")), Literal32(0)), Literal32(0)), arp)


def test_empty_and_full() -> None:
    assert holds(All(()), packet("ARP()"))
    assert not holds(Any(()), packet("ARP()"))


def test_header_walked() -> None:
    assert holds(HeaderWalked(60), packet("IPv6()/DestOpt()/UDP()"))
    assert not holds(HeaderWalked(0), packet("IPv6()/DestOpt()/UDP()"))
    assert not holds(HeaderWalked(51), packet("IPv4()/AH()/UDP()"))
    assert holds(HeaderWalked(51, ipv4=True), packet("IPv4()/AH()/UDP()"))
    assert not holds(HeaderWalked(51, ipv4=True), packet("IPv6()/AH()/UDP()"))


# ── rules ────────────────────────────────────────────────────────────────────


def rules(*some: tuple[Verdict | Effect, Predicate, int | None]) -> RuleSet:
    made = tuple(
        Rule(f"r{at}", action, test, Span(0, 0), 1, True, until)
        for at, (action, test, until) in enumerate(some)
    )
    conditions = tuple((condition, None) for condition in Condition)
    return RuleSet("f", Hook.XDP, Verdict.PASS, conditions, made, Layer.LINK, Source("f", ""))


YES, NO = All(()), Any(())


def test_first_deciding_rule_wins_and_others_are_hits() -> None:
    some = rules(
        (Effect.COUNT, YES, None),
        (Verdict.DROP, NO, None),
        (Effect.AUDIT, YES, None),
        (Verdict.BOUNCE, YES, None),
        (Verdict.DROP, YES, None),
    )
    first = FIRST_RULE_SLOT
    assert evaluate(some, b"") == Outcome(
        Verdict.BOUNCE, first + 3, (first, first + 2), frozenset({Condition.MALFORMED})
    )


def test_default() -> None:
    assert evaluate(rules((Verdict.DROP, NO, None)), bytes(60)) == Outcome(Verdict.PASS, DEFAULT_SLOT)


def test_a_rule_ends_with_its_time() -> None:
    some = rules((Verdict.DROP, YES, 100))
    assert evaluate(some, bytes(60), now_ns=99).verdict is Verdict.DROP
    assert evaluate(some, bytes(60), now_ns=100).verdict is Verdict.PASS
    assert evaluate(some, bytes(60)).verdict is Verdict.DROP


def test_what_the_capture_cut_is_not_malformed() -> None:
    frame = build_packet(parse_packet("IPv4(len=1486)/UDP(len=1466)"))
    assert conditions_of(Packet(frame), Layer.TRANSPORT) == {Condition.MALFORMED}
    for end in range(len(frame) + 1):
        assert conditions_of(Packet(frame[:end], 1500), Layer.TRANSPORT) == frozenset()


WIDE = """
filter f at xdp {
    on malformed continue
    on fragment drop
    count if tcp[tcp[12] >> 2] = 1 or geneve and ip
    drop if ip6 protochain 6
}
"""
SCOPES: tuple[Scope, ...] = (
    (), ("mpls",), ("mpls", "mpls"), ("pppoes",), ("geneve",), ("geneve", "mpls"), ("pppoes", "mpls", "geneve"),
)  # fmt: skip


@given(st.binary(max_size=200) | frames.broken(), st.integers(0, 300))
def test_no_bytes_make_it_raise(frame: bytes, more: int) -> None:
    policy = parse_policy(Source("f", WIDE))
    assert evaluate(lower_filter(policy, policy.filters[0]), frame, len(frame) + more).verdict in Verdict
    for name in FIELDS:
        for scope in SCOPES:
            found = Packet(frame).value(FieldRef(name, scope))
            assert found is None or 0 <= found < 1 << FIELDS[name].bits
