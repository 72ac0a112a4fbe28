"""`over` and `sample` in the language, in what is made of it, and in what is said of it."""

from __future__ import annotations

import pytest
from tests.packets import ARP, ICMP, TCP, UDP, Ether, IPv4

from penstock.compiler.diagram.convert import Run, Single, blocks
from penstock.compiler.ir.buckets import SPENT, Buckets
from penstock.compiler.ir.depth import countings
from penstock.compiler.ir.dump import dump_predicate
from penstock.compiler.ir.evaluate import evaluate
from penstock.compiler.ir.explain import explain
from penstock.compiler.ir.ops import Over, RuleSet
from penstock.compiler.ir.stores import Stores
from penstock.compiler.lang.format import format_policy
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source
from penstock.engine.policy import ReferenceEngine
from penstock.errors import PenstockError, PolicyError
from penstock.model.limiter import Limiter
from penstock.model.verdict import Verdict
from penstock.pipeline.added import read_added
from penstock.pipeline.policy import check_expression, check_text, rule_set_of

SYN = bytes(Ether() / IPv4(src="192.0.2.1") / TCP(dport=80, flags="S"))


def policy(*rules: str) -> str:
    return "filter edge at xdp {\n    default pass\n" + "".join(f"    {rule}\n" for rule in rules) + "}\n"


def rules_of(*rules: str) -> RuleSet:
    return rule_set_of(policy(*rules))


def limiter_of(text: str) -> Limiter:
    (rule,) = rules_of(f"drop if {text}").rules
    assert isinstance(rule.condition, Over)
    return rule.condition.limiter


def codes(*rules: str) -> list[str]:
    found = check_text(Source("edge.policy", policy(*rules)))
    return [one.code for one in found if one.severity.value != "note"]


# ── the language ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("over 1000/s per src", "over 1000/s per src"),
        ("over 2000k/m bytes per src/24,56 burst 10k", "over 2M/m bytes per src/24,56 burst 10k"),
        ("over 1/h per dst/32 size 1k", "over 1/h per dst size 1000"),
        ("over 64000/s per flow", "over 64k/s per flow"),
        ("over 5/s per rule burst 3 size 100", "over 5/s per rule burst 3 size 100"),
        ("not over 5/s per proto", "not over 5/s per proto"),
        ("sample 1/10", "sample 1/10"),
        ("udp and over 5/s per sport or sample 1/2", "(udp and over 5/s per sport) or sample 1/2"),
    ],
)
def test_canonical_form(written: str, canonical: str) -> None:
    parsed = parse_policy(Source("edge.policy", policy(f"drop if {written}")))
    formatted = format_policy(parsed)
    assert f"drop if {canonical}\n" in formatted
    assert parse_policy(Source("edge.policy", formatted)) == parsed


@pytest.mark.parametrize("name", ["over", "sample"])
def test_their_words_are_names_elsewhere(name: str) -> None:
    """A host may be called so, where a value is wanted."""
    text = policy(f"drop if src host {name} or over 5/s per src")
    assert "src host" in format_policy(parse_policy(Source("edge.policy", text)))


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("over", "PS102"),
        ("over 10 per src", "PS103"),
        ("over 10/d per src", "PS103"),
        ("over 10/s", "PS102"),
        ("over 10/s per", "PS103"),
        ("over 10/s per source", "PS103"),
        ("over 10/s per src/33", "PS104"),
        ("over 10/s per src/24,129", "PS104"),
        ("over 0/s per src", "PS104"),
        ("over 10X/s per src", "PS103"),
        ("over 10/s per src burst 0", "PS104"),
        ("over 10/s per src size 4", "PS105"),
        ("over 10/s per src size 5M", "PS104"),
        ("over 99999999999999999999/s per src", "PS104"),
        ("over 5000000001/s per src", "PS104"),
        ("over 1/h per src burst 100k", "PS331"),
        ("sample 2/10", "PS102"),
        ("sample 1/0", "PS102"),
        ("sample", "PS102"),
        ("tcp xor over 5/s per src", "PS330"),
        ("(udp or sample 1/3) xor tcp", "PS330"),
    ],
)
def test_faults(rule: str, code: str) -> None:
    assert codes(f"drop if {rule}") == [code]


@pytest.mark.parametrize("text", ["over 5/s per src", "udp and sample 1/2"])
def test_an_expression_alone_keeps_no_count(text: str) -> None:
    with pytest.raises(PolicyError) as caught:
        check_expression(text)
    assert [one.code for one in caught.value.diagnostics] == ["PS330"]


# ── what it means ────────────────────────────────────────────────────────────


def test_defaults() -> None:
    """A burst is what comes in a tenth of a second and a packet more; a table has 65,536 places."""
    assert limiter_of("over 1000/s per src").burst == 101
    assert limiter_of("over 1/h per src").burst == 1
    assert limiter_of("over 1M/s bytes per src").burst == 100_000
    assert limiter_of("over 1000/s per src").places == 65_536
    assert limiter_of("over 1000/s per rule").places == 0
    assert limiter_of("over 1/s per src size 1001").places == 1000


@pytest.mark.parametrize("text", ["1/s", "7/m", "999/h", "3M/s bytes", "4G/s bytes"])
def test_arithmetic_is_exact(text: str) -> None:
    found = limiter_of(f"over {text} per src")
    assert (
        found.token_ns * found.tokens
        == found.share * {"s": 10**9, "m": 6 * 10**10, "h": 36 * 10**11}[found.period]
    )


def test_no_test_is_taken_past_a_bucket() -> None:
    """Tests of one field are joined elsewhere; here that would change who pays."""
    (rule,) = rules_of("drop if dst port 80 and tcp and over 5/s per src and tcp and dst port 80 or 81").rules
    shown = dump_predicate(rule.condition)
    assert shown.index("over") > shown.index("{80}")
    assert shown.count("{80}") == 2


def test_two_that_look_alike_are_two() -> None:
    rules = rules_of("a: drop if over 5/s per src or over 5/s per src", "drop if over 5/s per src")
    names = [test.limiter.name for test in countings(rule.condition for rule in rules.rules)]
    assert names == ["a", "a.2", "edge:4"]


def test_nothing_is_shadowed_by_a_rate() -> None:
    assert codes("drop if udp and over 5/s per src", "drop if udp and over 5/s per src") == []
    assert codes("drop if sample 1/2", "drop if sample 1/2") == []
    assert codes("drop if udp", "drop if udp and over 5/s per src") == ["PS203"]


def test_a_rate_ends_a_run_and_leaves_the_others_whole() -> None:
    plain = [f"drop if tcp dst port {port}" for port in range(1, 30)]
    rules = rules_of(*plain, "drop if over 5/s per src", *plain)
    found = blocks(rules)
    assert [type(block) for block in found] == [Run, Single, Run]


def test_a_packet_by_itself_finds_full_buckets() -> None:
    rules = rules_of("flood: drop if tcp and over 1/h per src burst 1")
    for _ in range(3):
        assert evaluate(rules, SYN).verdict is Verdict.PASS
    told = explain(rules, SYN).rules[0].reason
    assert told == (
        "its bucket of 1 token decides, of which none is taken as spent: "
        "a packet by itself is never over 1/h per src"
    )
    story = explain(rules, SYN, buckets=SPENT)
    assert story.outcome.verdict is Verdict.DROP
    assert story.because == ("its bucket of 1 token decides, and is taken as spent: it is over 1/h per src",)
    assert explain(rules, bytes(Ether() / ARP())).rules[0].reason == "no IP header"


def test_a_packet_without_the_key_is_never_over() -> None:
    rules, buckets = rules_of("drop if over 1/h per dport burst 1"), Buckets(1)
    ping = bytes(Ether() / IPv4() / ICMP())
    assert [evaluate(rules, ping, stores=Stores(buckets=buckets)).verdict for _ in range(3)] == [
        Verdict.PASS
    ] * 3
    assert explain(rules, ping).rules[0].reason == "it has no dport to be limited by"


def test_each_key_has_its_bucket() -> None:
    rules, buckets = rules_of("drop if over 1/h per src/24 burst 1"), Buckets(1)
    near, far = (bytes(Ether() / IPv4(src=src) / UDP()) for src in ("192.0.2.200", "198.51.100.1"))
    got = [
        evaluate(rules, frame, stores=Stores(buckets=buckets)).verdict.value
        for frame in (SYN, near, far, far)
    ]
    assert got == ["pass", "drop", "pass", "drop"]


def test_captures_bring_their_own_time() -> None:
    """Packets at the times at which they were captured; a time that goes back is taken for none."""
    with ReferenceEngine(rules_of("drop if over 1/s per src burst 1")) as engine:
        times = (5 * 10**18, 5 * 10**18 + 1, 5 * 10**18 + 10**9, 5 * 10**18)
        got = [engine.outcome(SYN, len(SYN), time).verdict for time in times]
        assert got == [Verdict.PASS, Verdict.DROP, Verdict.PASS, Verdict.DROP]
        engine.start_afresh()
        assert engine.outcome(SYN, len(SYN)).verdict is Verdict.PASS


def test_an_added_rule_needs_a_name_to_keep_its_count() -> None:
    assert read_added("calm: drop if over 5/s per src", "", "edge").rule.name == "calm"
    with pytest.raises(PenstockError, match="label"):
        read_added("drop if over 5/s per src", "", "edge")


@pytest.mark.parametrize(
    ("rate", "packets", "octets", "pays"),
    [
        ("2/m per src burst 1", 3, 60, True),
        ("2/m per src burst 1", 4, 60, False),
        ("1/h per rule burst 299", 300, 60, False),
        ("1/h per rule burst 300", 300, 60, True),
        ("7/m per rule burst 1", 8, 60, True),
        ("7/m per rule burst 1", 9, 60, False),
        ("100/s bytes per src burst 1", 100, 60, True),
        ("100/s bytes per src burst 1", 100, 61, False),
        ("100/s bytes per src burst 1", 300, 20, True),
        ("4G/s per src", 4_000_000_000 * 60, 60, True),
    ],
)
def test_what_a_full_bucket_and_a_minute_pay(rate: str, packets: int, octets: int, pays: bool) -> None:
    (rule,) = rules_of(f"drop if over {rate}").rules
    assert isinstance(rule.condition, Over)
    assert rule.condition.limiter.pays(packets, octets) is pays
