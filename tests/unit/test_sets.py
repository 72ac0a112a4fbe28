"""Sets without a kernel: the language, what a test of one means, entries as text, and changes as a model sees them."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network, summarize_address_range
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.compiler.codegen.emit import emit
from penstock.compiler.ir.dump import dump_predicate
from penstock.compiler.ir.evaluate import evaluate
from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.ir.ops import RuleSet
from penstock.compiler.ir.stores import SetContent, Stores
from penstock.compiler.lang.check import check_policy
from penstock.compiler.lang.format import format_policy
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source
from penstock.errors import PenstockError, PolicyError
from penstock.model.packet import build_packet, parse_packet
from penstock.model.set_text import read_lines
from penstock.model.sets import EXPIRY_MASK, REST, SetSpec
from penstock.model.verdict import Verdict
from penstock.pipeline.set_change import Held, change, settled
from penstock.pipeline.set_keys import Content, Entries, keys_of, read_entries, text_of

HOST, NET = SetSpec("s", ("host",)), SetSpec("s", ("net",), structure="trie")


def rules(sets: str, *lines: str) -> RuleSet:
    body = "\n".join(f"    {line}" for line in lines)
    policy = parse_policy(Source("edge.policy", f"{sets}\nfilter edge at xdp {{\n{body}\n}}\n"))
    return lower_filter(policy, policy.filters[0])


def meaning(sets: str, expression: str) -> str:
    return dump_predicate(rules(sets, f"drop if {expression}").rules[0].condition)


# ── the language ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("sets", "expression", "meant"),
    [
        ("set s : net", "src in @s", "any(addr.src in @s, ip6.src in @s)"),
        ("set s : host", "ip src in @s", "ip.src in @s"),
        ("set s : host", "ip6 dst in @s", "ip6.dst in @s"),
        ("set s : host", "ip src and dst in @s", "all(ip.src in @s, ip.dst in @s)"),
        ("set s : port", "port in @s", "any(sport in @s, dport in @s)"),
        ("set s : port", "tcp dst port in @s", "tcp.dport in @s"),
        ("set s : port", "sctp dst port in @s", "all(proto in {132}, dport in @s)"),
        ("set s : mac", "ether src in @s", "eth.src in @s"),
        ("set s : host . port", "src . dst port in @s", "any(addr.src . dport in @s, ip6.src . dport in @s)"),
        ("set s : proto . port", "proto . dst port in @s", "proto . dport in @s"),
        ("set s : net", "mpls and src in @s", "mpls/ip.src in @s"),
    ],
)  # fmt: skip
def test_what_a_test_of_a_set_asks(sets: str, expression: str, meant: str) -> None:
    assert meant in meaning(sets, expression)


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("filter a at xdp {\n drop if src in @threats\n}", "PS111", "set threats : host"),
        (
            "set threats : net\nfilter a at xdp {\n drop if src in @threat\n}",
            "PS111",
            "did you mean `@threats`?",
        ),
        ("set s : port\nfilter a at xdp {\n drop if src in @s\n}", "PS116", "set of port"),
        ("set s : net\nset s : host\nfilter a at xdp {\n drop if src in @s\n}", "PS112", "defined already"),
        ("set s : net\nfilter a at xdp {\n drop if tcp\n}", "PS206", "never used"),
    ],
)
def test_faults_of_names(text: str, code: str, told: str) -> None:
    found = [one for one in check_policy(parse_policy(Source("a.policy", text))) if one.code == code]
    assert found
    assert told in f"{found[0].message} {found[0].hint}"


@pytest.mark.parametrize(
    "text",
    [
        "set s : netz", "set s", "set : net", "set s : net size 0", "set s : net size 17M", "set s : net size",
        "set s : proto",
        "set s : net . port", "set s : host . host . host . host . host", "set s : net timeout 0s",
        "set s : net timeout 5", "set s : net size 5 size 6", "set s : net counted",
    ],
)  # fmt: skip
def test_what_is_no_set_has_one_fault(text: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(Source("a.policy", f"{text}\nfilter a at xdp {{\n drop\n}}"))
    assert len(caught.value.diagnostics) == 1


@pytest.mark.parametrize(
    "expression",
    [
        "in @s", "tcp in @s", "src @s", "src . port in @s", "src . in @s", "src . dst port", "proto 6 . src in @s",
        "net . dst in @s",
    ],
)  # fmt: skip
def test_what_is_no_question_has_one_fault(expression: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(Source("a.policy", f"set s : host\nfilter a at xdp {{\n drop if {expression}\n}}"))
    assert len(caught.value.diagnostics) == 1


def test_more_sets_than_a_program_has_maps_for() -> None:
    names = [f"s{number}" for number in range(17)]
    with pytest.raises(PolicyError, match="at most 16 sets"):
        rules(
            "\n".join(f"set {name} : net" for name in names), *(f"drop if src in @{name}" for name in names)
        )


def test_canonical_text() -> None:
    text = (
        "set  b:host.port size 1000k counters timeout 600s\nset a : net\n"
        "filter f at xdp {\n drop if src  . dst port in @b or src in @a\n}"
    )
    policy = parse_policy(Source("a.policy", text))
    written = format_policy(policy)
    assert "set b : host . port size 1M timeout 10m counters\nset a : net\n\n" in written
    assert "drop if src . dst port in @b or src in @a" in written
    assert parse_policy(Source("a.policy", written)) == policy


def test_a_policy_of_addresses_alone_parses_no_ports() -> None:
    text = emit(rules("set s : net", "drop if src in @s")).text
    assert "PS_LEVEL = 2" in text
    assert "PS_DEPTH = 2" in text
    assert "PS_WANT_dport = 0" in text


# ── the reference ────────────────────────────────────────────────────────────


def packet(text: str) -> bytes:
    return build_packet(parse_packet(text))


def test_the_reference_asks_its_stores() -> None:
    found = rules("set s : net", "drop if src in @s")
    network = int(ip_network("198.51.100.0/24").network_address)
    stores = Stores({"s": SetContent(("net",), {(network, 24, 32): 0, (network, 25, 32): 50})}, now_ns=60)
    inside = packet('IPv4(src="198.51.100.7")/UDP')
    assert evaluate(found, inside).verdict is Verdict.PASS
    assert evaluate(found, inside, stores=stores).verdict is Verdict.DROP
    assert evaluate(found, packet('IPv4(src="198.51.101.7")/UDP'), stores=stores).verdict is Verdict.PASS
    assert evaluate(found, packet('ARP(psrc="198.51.100.7")'), stores=stores).verdict is Verdict.DROP


# ── entries as text ──────────────────────────────────────────────────────────


def listed(spec: SetSpec, content: Content) -> list[str]:
    return [text_of(spec, family, key.tobytes()) for family in content for key in content[family].keys]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("host", "192.0.2.1"), ("host", "2001:db8::1"), ("net", "192.0.2.0/24"), ("net", "2001:db8::/32"),
        ("net", "0.0.0.0/0"), ("port", "443"), ("mac", "02:00:00:00:00:01"), ("host port", "192.0.2.1 . 53"),
        ("host host proto port", "2001:db8::1 . 2001:db8::2 . tcp . 22"), ("mac port", "02:00:00:00:00:01 . 7"),
    ],
)  # fmt: skip
def test_entries_are_written_as_they_are_read(kind: str, text: str) -> None:
    spec = SetSpec("s", tuple(kind.split()))
    assert [text_of(spec, family, key) for family, key in keys_of(spec, text)] == [text]


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        ("host", "192.0.2.0/24", "no address"), ("host", "010.0.0.1", "no address"),
        ("host", "::ffff:1.2.3.4", "write 1.2.3.4"),
        ("net", "192.0.2.1/24", "192.0.2.0/24 is the network"), ("net", "192.0.2.0/33", "at most 32"),
        ("net", "10/8", "no address"), ("net", "192.0.2.9-192.0.2.1", "ends before it begins"),
        ("net", "192.0.2.1-::1", "from one family to the other"), ("net", "192.0.2.0/24-192.0.3.0", "no address"),
        ("net", "192.0.2.1-", "no address"), ("net", "::ffff:1.2.3.4-::ffff:1.2.3.9", "write 1.2.3.4"),
        ("host", "192.0.2.1-192.0.2.9", "a set of `net` takes ranges"),
        ("port", "65536", "no port"), ("port", "9-3", "no port"), ("mac", "02:00", "no Ethernet address"),
        ("host port", "192.0.2.1", "1 part, and a key of @s has 2"), ("host host", "192.0.2.1 . ::1", "both families"),
        ("proto port", "tcpp . 1", "no protocol"), ("proto port", "٦ . 1", "no protocol"),
        ("net", "192.0.2.0/٢٤", "at most 32"), ("port", "٢٢", "no port"),
        ("host", "192.0.2.1 timeout 999999999d", "longer than an entry can stay"),
    ],
)  # fmt: skip
def test_what_is_no_entry(kind: str, text: str, told: str) -> None:
    with pytest.raises(PenstockError, match=told):
        read_entries(SetSpec("s", tuple(kind.split())), text.encode(), 0, 0)


@given(st.sampled_from([32, 128]), st.data())
def test_a_range_is_the_networks_that_are_exactly_it(bits: int, data: st.DataObject) -> None:
    make = IPv4Address if bits == 32 else IPv6Address
    low, high = sorted(data.draw(st.tuples(*[st.integers(0, (1 << bits) - 1)] * 2)))
    text = f"{make(low)}-{make(high)} timeout 1h # all of them"
    nets = list(map(str, summarize_address_range(make(low), make(high))))  # type: ignore[type-var]
    few = read_lines(NET, text, 0, 0)
    assert [text_of(NET, family, key) for family, keys in few.items() for key in keys] == nets
    assert {end for keys in few.values() for end in keys.values()} == {3_600_000_000_000}
    many = read_entries(NET, f"10.0.0.0/8\n{text}\n".encode(), 0, 0)
    found = {text_of(NET, family, key) for family, entries in many.items() for key, _ in entries.items()}
    assert found == {"10.0.0.0/8", *nets}


def test_lines_have_comments_and_times_and_faults_their_number() -> None:
    text = b"# head\n192.0.2.1   ; one\n\n192.0.2.2 timeout 10s # two\r\n2001:db8::1\n"
    content = read_entries(HOST, text, 0, 1_000_000_000)
    assert listed(HOST, content) == ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
    assert content["v4"].expiry.tolist() == [0, 11_000_000_000 & EXPIRY_MASK]
    with pytest.raises(PenstockError, match=r"^drop.txt:2: `x` is no address$"):
        read_entries(HOST, b"192.0.2.1\nx\n", 0, 0, "drop.txt")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("192.0.2.1 . tcp . 70000", "`192.0.2.1 . tcp . 70000`: `70000` is no port"),
        ("300.0.0.1", "`300.0.0.1` is no address"),
    ],
)
def test_an_argument_that_is_no_entry_is_shown_itself(text: str, fault: str) -> None:
    """It has no file and no line that could be named."""
    spec = SetSpec("served", ("host", "proto", "port")) if " . " in text else NET
    with pytest.raises(PenstockError) as few:
        read_lines(spec, text, 0, 0)
    with pytest.raises(PenstockError) as many:
        read_entries(spec, text.encode(), 0, 0)
    assert few.value.message == many.value.message == fault


NETWORKS = st.builds(
    lambda address, length: str(
        IPv4Network((address >> 32 - length << 32 - length if length else 0, length))
    ),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, 32),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(NETWORKS, min_size=1, max_size=8), st.booleans())
def test_the_quick_reader_reads_what_the_slow_one_reads(texts: list[str], ends: bool) -> None:
    """A comment keeps the quick one from a text."""
    text = "\n".join(texts).encode() + b"\n" * ends
    quick, slow = (read_entries(NET, one, 7, 0) for one in (text, text + b"\n# slow"))
    assert listed(NET, quick) == listed(NET, slow) == texts
    assert quick["v4"].expiry.tolist() == slow["v4"].expiry.tolist()


ODD = st.sampled_from(
    """
    192.0.2.1|010.0.0.1|192.0.2.1/33|192.0.2.1/32|2001:db8::1/32|192.0.2.1/24|10.0.0.0/08|1.2.3|::ffff:192.0.2.1|::|::/0|2001:db8::/32
    |2001:DB8::1/128|2001:db8::1/64|fe80::1%eth0|1::2::3|:||/|1::/| 192.0.2.1\t|192.0.2.1 # why|192.0.2.1 timeout 5s
    |::192.0.2.1|1:2:3:4:5:6:7::|a/b|\0|٣.0.0.0|192.0.2.0/٢٤
    """.strip()
    .replace("\n    ", "")
    .split("|")
)


@settings(max_examples=150, deadline=None)
@given(st.one_of(ODD, st.ip_addresses().map(str), st.ip_addresses().map(lambda one: one.exploded), NETWORKS))
@pytest.mark.parametrize("spec", [HOST, NET])
def test_a_plain_line_is_read_as_any_other(spec: SetSpec, line: str) -> None:
    """Plain ones are read at once; behind a comment they are looked at closely."""

    def read(reader: Any, text: Any) -> Any:
        try:
            found = reader(spec, text, 7 * 256, 0)
        except PenstockError:
            return "wrong"
        return {family: one if isinstance(one, dict) else one.by_key() for family, one in found.items()}

    closely = read(read_lines, f"{line} #")
    assert read(read_lines, line) == closely
    assert read(read_entries, line.encode()) == closely


# ── changes (checks 33 and 36) ───────────────────────────────────────────────

Prefix = tuple[int, int]
Set = dict[Prefix, int]
"""Prefixes of addresses of 4 bits, the lowest of a family, with their expiries."""
V4_BASE, V6_BASE = (
    int(ip_network("10.0.0.0/28").network_address),
    int(ip_network("2001:db8::/124").network_address),
)
PREFIXES = st.tuples(st.integers(0, 15), st.integers(0, 4)).map(
    lambda one: (one[0] >> 4 - one[1] << 4 - one[1], one[1])
)
SETS = st.dictionaries(PREFIXES, st.sampled_from([0, 0, 1536, 3072]), max_size=6)


def entries(found: Set, family: str, spec: SetSpec) -> Entries:
    made = [(f"{_network(prefix, family)}", end) for prefix, end in found.items()]
    keys = [key for text, _ in made for _, key in keys_of(spec, text)]
    size = spec.key_bytes(family)
    return Entries(
        np.frombuffer(b"".join(keys), np.uint8).reshape(-1, size),
        np.array([end for _, end in made], np.uint64),
    )


def _network(prefix: Prefix, family: str) -> IPv4Network | IPv6Network:
    value, length = prefix
    if family == "v4":
        return IPv4Network((V4_BASE + value, 28 + length))
    return IPv6Network((V6_BASE + value, 124 + length))


class Trie:
    """What the kernel's trie does, in Python: keys, values, the longest match."""

    def __init__(self, spec: SetSpec, family: str) -> None:
        self.spec, self.family, self.active = spec, family, 0
        self.held: dict[bytes, list[int]] = {}

    def write(self, part: Held) -> Iterator[None]:
        for key, value in zip(part.keys, part.values, strict=True):
            self.held[key.tobytes()] = value.tolist()
            yield

    def remove(self, keys: np.ndarray) -> Iterator[None]:
        for key in keys:
            del self.held[key.tobytes()]
            yield

    def members(self, now: int) -> set[int]:
        """The addresses that a packet would be told to be in the set."""
        return {value for value in range(16) if self._has(value, now)}

    def _has(self, value: int, now: int) -> bool:
        for length in range(4, -1, -1):
            ((_, key),) = keys_of(
                self.spec, str(_network((value >> 4 - length << 4 - length, length), self.family))
            )
            if key in self.held:
                state = self.held[key][0]
                expiry = state & EXPIRY_MASK
                return bool(state >> self.active & 1) and (not expiry or now < expiry)
        return False

    def content(self) -> Held:
        size = self.spec.key_bytes(self.family)
        keys = np.frombuffer(b"".join(self.held), np.uint8).reshape(-1, size)
        return Held(keys, np.array(list(self.held.values()), np.uint64).reshape(-1, self.spec.value_words))

    def change(self, wanted: Entries) -> Iterator[str]:
        """One step at a time: which content packets meet then."""
        steps = change(self.spec, self.content(), wanted, self.active)
        for _ in self.write(steps.first):
            yield "old"
        self.active = 1 - self.active
        yield "new"
        for _ in self.write(steps.last):
            yield "new"
        for _ in self.remove(steps.gone):
            yield "new"

    def settle(self) -> None:
        kept, gone = settled(self.spec, self.content(), self.active)
        list(self.write(kept))
        list(self.remove(gone))


def covered(found: Set, now: int) -> set[int]:
    """The model: an address is in the set if some prefix that has not expired holds it."""
    live = [prefix for prefix, end in found.items() if not end or now < end]
    return {
        value for value in range(16) for start, length in live if value >> 4 - length == start >> 4 - length
    }


def texts(trie: Trie) -> set[str]:
    return {text_of(trie.spec, trie.family, key) for key in trie.held}


@pytest.mark.check(33)
@pytest.mark.check(36)
@settings(max_examples=60, deadline=None)
@given(st.lists(SETS, min_size=2, max_size=4), st.sampled_from(["v4", "v6"]), st.integers(0, 40))
def test_packets_meet_the_old_content_or_the_new_at_every_step_and_after_a_kill(
    contents: list[Set], family: str, killed_at: int
) -> None:
    trie = Trie(NET, family)
    before: Set = {}
    for content in contents:
        wanted, met, side = entries(content, family, NET), before, "old"
        for step, side in enumerate(trie.change(wanted)):
            met = before if side == "old" else content
            assert trie.members(0) == covered(met, 0), side
            if step == killed_at:
                trie.settle()
                break
        else:
            met = content
        for now in (0, 1536, 3072, 1 << 40):
            # A kill leaves the entries of one side; those that are in both may have either's expiry.
            if side != "old" or met == content:
                assert trie.members(now) == covered(met, now)
        assert trie.members(0) == covered(met, 0)
        assert texts(trie) == {str(_network(prefix, family)) for prefix in met}
        before = {prefix: _own(trie, prefix) for prefix in met}


def _own(trie: Trie, prefix: Prefix) -> int:
    ((_, key),) = keys_of(trie.spec, str(_network(prefix, trie.family)))
    return trie.held[key][1] & EXPIRY_MASK


@pytest.mark.check(31)
def test_a_change_writes_only_what_differs() -> None:
    """Check 31: an update of 1 % touches 1 %."""
    many = entries({(value, 4): 0 for value in range(16)}, "v4", NET)
    trie = Trie(NET, "v4")
    list(trie.change(many))
    steps = change(NET, trie.content(), Entries(many.keys[1:], many.expiry[1:]), trie.active)
    assert (len(steps.first.keys), len(steps.last.keys), len(steps.gone)) == (1, 0, 1)
    assert change(NET, trie.content(), many, trie.active).is_empty


@pytest.mark.check(33)
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 12), min_size=1), min_size=2, max_size=4),
    st.sampled_from([("host",), ("port",), ("host", "proto", "port"), ("mac",)]),
    st.sampled_from([0, 1536]),
)
def test_keys_that_end_alike_are_exchanged_in_one_step(
    contents: list[list[int]], kind: tuple[str, ...], end: int
) -> None:
    spec, held, active = SetSpec("some", kind), dict[bytes, int](), 0
    width = spec.key_bytes(spec.families[0])
    before: set[bytes] = set()
    for content in contents:
        keys = [number.to_bytes(2, "big") * (width // 2) for number in content]
        rows = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, width)
        there = np.frombuffer(b"".join(held), np.uint8).reshape(-1, width)
        states = np.array(list(held.values()), np.uint64).reshape(-1, 1)
        steps = change(spec, Held(there, states), Entries(rows, np.full(len(rows), end, np.uint64)), active)
        assert (steps.added, steps.changed) == (len(set(keys) - before), 0)
        for part, bank in ((steps.first, active), (steps.last, 1 - active)):
            for key, state in zip(part.keys, part.values[:, 0].tolist(), strict=True):
                held[key.tobytes()] = state
                asked = {key for key, state in held.items() if state >> bank & 1}
                assert asked == (before if bank == active else set(keys))
        for key in steps.gone:
            assert not held.pop(key.tobytes()) >> (1 - active) & 1
        assert held == dict.fromkeys(keys, end | REST)
        before, active = set(keys), 1 - active if not steps.is_empty else active
