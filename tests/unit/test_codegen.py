"""Rule sets as C: names that stay data, expressions, sizes, and golden files."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.compiler.codegen.blocks import (
    BLOCK_COST,
    MAX_BLOCKS,
    MAX_RULE_COST,
    blocks_of,
    cost,
    numbered,
    rule_cost,
)
from penstock.compiler.codegen.boundaries import Boundaries
from penstock.compiler.codegen.classic import MAX_PROGRAMS
from penstock.compiler.codegen.emit import emit, emit_matcher, file_name
from penstock.compiler.codegen.fields import Naming, reads_of
from penstock.compiler.codegen.limiters import MAX_LIMITERS
from penstock.compiler.codegen.predicate import Printer
from penstock.compiler.codegen.room import ensure_room
from penstock.compiler.codegen.writer import comment, string
from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.ir.ops import (
    All,
    Always,
    Any,
    Classic,
    Effect,
    FieldRef,
    HeaderWalked,
    Negation,
    Predicate,
    RuleSet,
    Within,
)
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source
from penstock.errors import LimitError
from penstock.model.classic import Instruction
from penstock.model.field import Layer
from penstock.model.net import IntervalSet
from penstock.model.spec import ProbeLayout
from penstock.model.verdict import Verdict

GOLDEN = Path(__file__).parent.parent / "cases" / "c"
DNS = "filter dns at xdp {\n    dns: drop if udp dst port 53\n}\n"


def rule_set(text: str, name: str = "edge.policy") -> RuleSet:
    policy = parse_policy(Source(name, text))
    return lower_filter(policy, policy.filters[0])


def printed(predicate: Predicate) -> str:
    return Printer(Naming("len", ((), ("mpls",)))).predicate(predicate)


# ── names are data ───────────────────────────────────────────────────────────


def test_a_string_keeps_its_quotes_and_its_trigraphs_apart() -> None:
    assert string('a"b\\n??/\n1') == '"a\\042b\\134n\\077\\077/\\0121"'


def test_a_string_is_ascii() -> None:
    assert string("é\u2028").isascii()


def test_a_comment_cannot_be_left() -> None:
    assert comment("a */ int evil; /* \n b") == "/* a .. int evil; .. . b */"


@pytest.mark.parametrize("name", ["/etc/penstock/edge.policy", "./edge.policy", "edge.policy"])
def test_only_the_last_part_of_a_path_is_named(name: str) -> None:
    assert file_name(name) == "edge.policy"
    assert '#line 2 "edge.policy"' in emit(rule_set(DNS, name)).text


# ── expressions ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (Within(FieldRef("dport"), IntervalSet.single(53)), "(s[0].dport == 0x35U)"),
        (Within(FieldRef("dport"), IntervalSet.of((0, 1023))), "(s[0].dport <= 0x3ffU)"),
        (Within(FieldRef("dport"), IntervalSet.of((8000, 8100))), "(s[0].dport - 0x1f40U <= 0x64U)"),
        (
            Within(FieldRef("ip.src"), IntervalSet.of((0x0A000000, 0x0AFFFFFF))),
            "((s[0].ip_src & 0xffffffffff000000ULL) == 0xa000000ULL)",
        ),
        (Within(FieldRef("ip.src", ("mpls",)), IntervalSet.single(1)), "(s[1].ip_src == 0x1ULL)"),
        (Within(FieldRef("vlan.id", index=1), IntervalSet.single(5)), "(ps_tag_id(s[0].tci[1]) == 0x5U)"),
        (Within(FieldRef("len"), IntervalSet.of((0, 64))), "(len <= 0x40U)"),
        (HeaderWalked(44), "ps_walked(s[0].ip6_headers, 4)"),
        (HeaderWalked(51, ipv4=True), "(s[0].ip_proto == 0x33U)"),
        (Negation(Always(False)), "!0"),
        (All(()), "1"),
        (Any(()), "0"),
    ],
)
def test_a_predicate_in_c(predicate: Predicate, expected: str) -> None:
    assert printed(predicate) == expected


def test_a_value_beyond_the_domain_is_not_taken_for_absent() -> None:
    assert printed(Within(FieldRef("dport"), IntervalSet.of((0, 0xFFFFFFFF)))) == "(s[0].dport <= 0xffffU)"


def test_a_long_list_is_a_table_and_equal_lists_share_it() -> None:
    values = IntervalSet.single(*range(0, 200, 2))
    lists = Boundaries()
    assert lists.add(values, 16) == lists.add(values, 32) == (0, 200)
    assert lists.add(IntervalSet.of((0xFFFFFFFF, 0xFFFFFFFF)), 32) == (200, 1)
    assert "ps_within32" in "\n".join(lists.lines())


def test_what_is_read_decides_how_deep_is_parsed() -> None:
    geneve = Within(FieldRef("eth.type", ("mpls", "geneve")), IntervalSet.single(0x0800))
    reads = reads_of([geneve], Layer.LINK)
    assert reads.scopes == ((), ("mpls",), ("mpls", "geneve"))
    assert reads.level is Layer.TRANSPORT
    addresses = reads_of([Within(FieldRef("ip.src"), IntervalSet.single(1))], Layer.LINK)
    assert addresses.level is Layer.NETWORK
    assert dict(addresses.wants())["PS_WANT_ip_src"] == 1
    assert dict(addresses.wants())["PS_WANT_dport"] == 0


# ── sizes ────────────────────────────────────────────────────────────────────


def test_blocks_keep_the_order_and_the_bound() -> None:
    rules = [f"count if tcp dst port {port} or tcp src port {port}" for port in range(1, 600)]
    items = numbered(rule_set("filter f at xdp {\n" + "\n".join(rules) + "\n}\n"))
    blocks = blocks_of(items)
    assert [item for block in blocks for item in block] == items
    assert all(sum(1 + cost(item.rule.condition) for item in block) <= BLOCK_COST for block in blocks)


def test_the_expression_that_is_one_too_many_for_libpcap_is_named() -> None:
    """Each program is a function; the same one in several rules is the same function."""
    accept = Instruction(0x06, 0, 0, 1)
    programs = [Classic((Instruction(0x28, 0, 0, at), accept)) for at in range(MAX_PROGRAMS + 1)]
    emit_matcher([*programs[:-1], *programs[:-1]])
    with pytest.raises(LimitError, match=f"rule expression:{MAX_PROGRAMS} asks libpcap one thing too many"):
        emit_matcher(programs)


@pytest.mark.check(15)
def test_the_rule_that_is_one_too_many_is_named() -> None:
    """Of rules that count: those that only decide become tables, of which far more fit."""
    one = replace(rule_set(DNS).rules[0], action=Effect.COUNT)
    many = replace(
        rule_set(DNS), rules=tuple(replace(one, name=f"r{n}") for n in range(MAX_BLOCKS * BLOCK_COST))
    )
    with pytest.raises(LimitError, match=r"rule r\d+ is one too many") as caught:
        emit(many)
    assert caught.value.limit == "rules per filter"


@pytest.mark.check(15)
def test_check_says_what_emit_would() -> None:
    """Four fifths of the room are enough, a fifth more is not; rules that decide are not counted."""
    one = replace(rule_set(DNS).rules[0], action=Effect.COUNT)
    each = BLOCK_COST // rule_cost(one)
    for share, fits in ((0.8, True), (1.2, False)):
        many = tuple(replace(one, name=f"r{n}") for n in range(int(share * MAX_BLOCKS * each)))
        ensure_room(replace(rule_set(DNS), rules=tuple(replace(rule, action=Verdict.DROP) for rule in many)))
        with nullcontext() if fits else pytest.raises(LimitError, match=r"rule r\d+ is one too many"):
            ensure_room(replace(rule_set(DNS), rules=many))


@pytest.mark.check(15)
def test_a_rate_that_is_one_too_many_is_named() -> None:
    lines = [f"    drop if over {1 + n}/s per {('src', 'flow', 'rule')[n % 3]}" for n in range(MAX_LIMITERS)]
    text = "\n".join(["filter f at xdp {", *lines, "    count if sample 1/9", "}"])
    ensure_room(rule_set(text))
    more = text.replace("\n}", "\n    last: drop if udp and over 1/h per proto\n}")
    with pytest.raises(LimitError, match="line 35: rule last has one rate too many; a filter can have 32"):
        ensure_room(rule_set(more))


@pytest.mark.check(15)
def test_a_rule_that_is_too_long_is_named() -> None:
    base = rule_set(DNS)
    long = Any((base.rules[0].condition,) * (MAX_RULE_COST + 1))
    with pytest.raises(LimitError, match="line 2: rule dns makes about"):
        emit(replace(base, rules=(*base.rules, replace(base.rules[0], condition=long), *base.rules)))


def test_rules_behind_one_that_always_decides_are_left_out() -> None:
    assert len(numbered(rule_set("filter f at xdp {\n pass\n drop if udp\n}\n"))) == 1


def test_the_probe_has_room_for_every_slot() -> None:
    source = emit_matcher([Always(True)] * 64)
    layout = ProbeLayout(len(source.spec.slots))
    assert layout.hits_words * 32 >= len(source.spec.slots)
    assert "PS_PROBE 1" in source.text


# ── golden files ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["dns", "ssh", "tunnels"])
def test_the_c_of_small_policies(name: str) -> None:
    """The whole text, to be read by whoever changes the emitter.  `make golden` rewrites the .c files."""
    policy = GOLDEN / f"{name}.policy"
    text = emit(rule_set(policy.read_text(), policy.name)).text
    golden = GOLDEN / f"{name}.c"
    if os.environ.get("PENSTOCK_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()
