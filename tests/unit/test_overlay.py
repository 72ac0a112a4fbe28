"""A rule as records of the overlay: what each condition says, what cannot be said, and the bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.compiler.codegen.overlay import UnsayableError, conjunctions
from penstock.compiler.ir.ops import FIRST_RULE_SLOT, FieldRef, Within
from penstock.errors import PenstockError, PolicyError
from penstock.model.field import Layer
from penstock.model.net import IntervalSet
from penstock.model.overlay import BANK_BYTES, END, RECORDS, Ask, Bank, Condition, Record, bank, rule_of
from penstock.pipeline.added import constants_of, placed, read_added, with_added
from penstock.pipeline.identity import Added
from penstock.pipeline.policy import rule_set_of

ABSENT32, ABSENT64 = 0xFFFF_FFFF, (1 << 64) - 1
PLACES = {
    "len": 152,
    "eth.type": 220,
    "proto": 240,
    "ttl": 244,
    "sport": 280,
    "dport": 284,
    "tcp.flags": 296,
    "addr.src": 352,
    "addr.dst": 360,
    "ip6.src": 400,
    "vlan.id/0": 208,
    "vlan.pcp/0": 208,
    "vlan.tpid/0": 196,
}


def said(text: str) -> tuple[tuple[Condition, ...], ...]:
    return conjunctions(read_added(text, "", "edge").rule.condition, PLACES, Layer.TRANSPORT)


def at(text: str, field: str) -> list[Condition]:
    """The conditions of a rule's records that are about one field."""
    return [one for record in said(text) for one in record if one.at == PLACES[field]]


def test_a_port_and_its_protocol() -> None:
    (record,) = said("drop if udp dst port 53")
    assert {(one.at, one.ask) for one in record} == {(284, Ask.WORD), (240, Ask.BITS)}
    assert at("drop if udp dst port 53", "dport")[0].words == (53, 0, 53, 0)
    assert at("drop if udp dst port 53", "proto")[0].words == (1 << 17, 0, 0, 0)


def test_two_ranges_are_one_condition_and_three_are_two() -> None:
    assert [one.words for one in at("drop if dst port 80 or dst port 443", "dport")] == [(80, 0, 443, 0)]
    words = [
        one.words for one in at("drop if dst port 80 or dst port 443 or dst portrange 8000-8100", "dport")
    ]
    assert words == [(80, 0, 443, 0), (8000, 100, 8000, 100)]


def test_what_is_negated_holds_of_packets_without_the_field() -> None:
    (one,) = at("drop if not dport == 53", "dport")
    assert one.words == (0, 52, 54, ABSENT32 - 54)
    (two,) = at("drop if not src net 10.0.0.0/8 and not ip6", "addr.src")
    assert two.words == (0, 0x09FF_FFFF, 0x0B00_0000, ABSENT64 - 0x0B00_0000)
    (small,) = at("drop if not ttl < 8", "ttl")
    assert (small.ask, small.absent, small.words[0] & 0x1FF) == (Ask.BITS, True, 0x100)


def test_ipv6_addresses() -> None:
    (one,) = at("drop if src net 2001:db8::/32", "ip6.src")
    assert one.words == (0x2001_0DB8_0000_0000, 0, 0x2001_0DB8_FFFF_FFFF, ABSENT64)
    below, above = at("drop if ip6 and not src net 2001:db8::/32", "ip6.src")
    assert (below.absent, above.absent) == (False, True)
    assert above.words[:2] == (0x2001_0DB9_0000_0000, 0)


def test_parts_of_a_tag() -> None:
    one = at("drop if vlan 5", "vlan.id/0")[0]
    assert (one.ask, one.mask, one.shift, one.words[:2]) == (Ask.TAG, 0xFFF, 0, (5, 0))


def test_flags_are_one_record() -> None:
    assert len(said("drop if tcp[tcpflags] & tcp-syn != 0")) == 1


def test_what_never_matches_has_no_records() -> None:
    assert said("drop if tcp and udp") == ()


def test_what_always_matches_has_no_conditions() -> None:
    assert said("drop") == ((),)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("drop if ip[20:2] & 3 == 1", "no plain test"),
        ("drop if mpls and src host 10.0.0.1", "no plain test"),
        ("drop if ip6 dst host ::1", "does not read ip6.dst"),
        ("drop if dscp == 3", "does not read dscp"),
        ("drop if " + " or ".join(f"src host 10.0.{n}.1" for n in range(140)), "70 of the overlay's 64"),
        (
            "drop if "
            + " or ".join(f"(src host 10.0.{n}.1 and dst port {n})" for n in range(250))
            + " or udp dst port 9 or tcp dst port 9 or arp or ip6 or icmp or vlan 7",
            "too many cases|of the overlay.s 64 records",
        ),
    ],
)
def test_what_cannot_be_said(text: str, why: str) -> None:
    with pytest.raises(UnsayableError, match=why):
        said(text)


def test_no_deeper_than_the_program_judges() -> None:
    rule = read_added("drop if dst port 53", "", "edge").rule
    with pytest.raises(UnsayableError, match="deeper"):
        conjunctions(rule.condition, PLACES, Layer.NETWORK)


@given(st.sets(st.integers(0, 255), min_size=1, max_size=255))
def test_small_fields_are_bitmaps(values: set[int]) -> None:
    predicate = Within(FieldRef("ttl"), IntervalSet.single(*values))
    ((one,),) = conjunctions(predicate, PLACES, Layer.NETWORK)
    bits = sum(word << 64 * place for place, word in enumerate(one.words))
    assert {value for value in range(256) if bits >> value & 1} == values
    assert not one.absent


def test_a_bank_gives_back_what_was_put_in() -> None:
    made = [
        Record(conditions, END, number, 1).packed()
        for number, conditions in enumerate(said("drop if src host 10.0.0.1 or dst host 10.0.0.2"))
    ]
    value = bank(7, made, b"text")
    found = Bank.of(value)
    assert len(value) == BANK_BYTES
    assert (found.generation, found.text) == (7, b"text")
    assert [record for _, record in found.records] == made
    assert [number for number, _ in found.records] == [rule_of(record) for record in made] == [0, 1]


def test_a_bank_has_bounds() -> None:
    with pytest.raises(ValueError, match="65 records"):
        bank(1, [Record((), END, 0, 1).packed()] * (RECORDS + 1), b"")
    with pytest.raises(ValueError, match="bytes of text"):
        bank(1, [], bytes(1 << 20))
    with pytest.raises(ValueError, match="a bank has"):
        Bank.of(b"short")


# ── reading and placing ──────────────────────────────────────────────────────

POLICY = """
let bad = 192.0.2.1,
    192.0.2.2
# let none = 1
filter edge at xdp {
    web: pass if tcp dst port 80
    drop if udp
}
let ports = 80, 443
test "let x = 1" { packet Ether/IPv4/UDP -> drop }
"""


def test_constants_are_found_without_reading_the_policy() -> None:
    text = "let a = 10.0.0.1\nfilter f at xdp {\n  drop if udp\n}\nlet b = 53, 80\n"
    assert constants_of(text) == "let a = 10.0.0.1\nlet b = 53, 80\n"
    assert read_added("drop if src host $a and dst port $b", constants_of(text), "f").rule.decides
    with pytest.raises(PolicyError):
        read_added("drop if src host $c", constants_of(text), "f")


def test_a_label_and_a_comment_are_no_part_of_the_text() -> None:
    read = read_added("dns:  drop   if udp dst port 53   # the resolver", "", "edge")
    assert (read.rule.name, read.rule.labelled, read.text) == ("dns", True, "drop if udp dst port 53")
    assert read_added("drop", "", "edge").text == "drop"


def test_places() -> None:
    new, own = Added("new", "drop"), ["a", "b"]
    there = (Added("x", "drop", "a"), Added("y", "drop", None))
    names = [
        [(one.name, one.before) for one in placed(there, new, own, before, first=first)]
        for before, first in (("a", False), ("x", False), ("y", False), (None, False), (None, True))
    ]
    x, y = ("x", "a"), ("y", None)
    assert names == [
        [x, y, ("new", "a")],
        [("new", "a"), x, y],
        [x, ("new", None), y],
        [x, y, ("new", None)],
        [("new", "a"), x, y],
    ]
    with pytest.raises(PenstockError, match="no rule c"):
        placed(there, new, own, "c", first=False)


def test_added_rules_in_a_rule_set() -> None:
    text = "filter edge at xdp {\n web: pass if tcp\n drop if udp\n}\n"
    added = (
        Added("late", "count", None),
        Added("one", "count if arp", "web"),
        Added("two", "drop if dst port 1", "web"),
        Added("mid", "audit if ip", "edge:3"),
    )
    rules = with_added(rule_set_of(text), added, text)
    assert [rule.name for rule in rules.rules] == ["one", "two", "web", "mid", "edge:3", "late"]
    assert rules.depth is Layer.TRANSPORT
    assert FIRST_RULE_SLOT == 6
    with pytest.raises(PenstockError, match="stands before nope"):
        with_added(rule_set_of(text), (Added("x", "drop", "nope"),), text)
