"""Policies whose rules become tables, in the kernel, against the reference: all of each packet's outcome."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from bench.rulesets import Flavour, Rules, generate, packets, policy_text, rule_lines
from tests.frames import frames
from tests.packets import TCP, UDP, Ether, IPv4
from tests.property.dataplane import DataPlane, disagreements
from tests.property.rulesets import RuleSets
from tests.property.test_kernel_agrees import FRAMES, oldest_clang

from penstock.compiler.clang import compile_c
from penstock.compiler.codegen.emit import emit
from penstock.compiler.codegen.plan import Wish
from penstock.compiler.codegen.weigh import Form
from penstock.compiler.diagram.convert import Run, blocks
from penstock.compiler.driver import compile_rule_set, object_of
from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.ir.ops import FIRST_RULE_SLOT, Always, RuleSet
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source
from penstock.compiler.objectfile import section
from penstock.errors import KernelError, PenstockError
from penstock.kernel.bpf_object import load_object
from penstock.kernel.elf import tables_in
from penstock.kernel.netlink import interface
from penstock.model.field import FIELDS as FIELD_NAMES
from penstock.model.tables import SECTION, packed, unpacked
from penstock.model.verdict import Verdict
from penstock.pipeline.attach import load
from penstock.pipeline.policy import load_built, load_policy

pytestmark = pytest.mark.privileged

#: Whatever the plan would choose.
TABLES = Wish(Form.TABLES, inline=False)

#: What no table can say, what counts, what has a name, what reads behind a tunnel: woven in between.
OTHERS = (
    "drop if ip[8] < 5",
    "bounce if udp dst port 7 and ip[1] & 3 == 1",
    "named: pass if len - 40 > 1400 and tcp",
    "drop if tcp[13] & 2 != 0 and ttl < 9",
    "drop if vlan 5 and dst port 53",
    "drop if not ip and not ip6 and not arp",
    "bounce if icmp or icmp6",
    "drop if ip6 protochain 17",
)
COUNTS = ("count if tcp", "counted: count if len > 100", "audit if src net 10.0.0.0/8")


def rule_set(text: str) -> RuleSet:
    policy = parse_policy(Source("tables.policy", text))
    return lower_filter(policy, policy.filters[0])


def woven(four: Rules, six: Rules, *, count_every: int) -> str:
    """A policy of both families' rules in turn, with others in between."""
    lines: list[str] = []
    rules = chain.from_iterable(zip(rule_lines(four), rule_lines(six), strict=True))
    others, counts = iter(OTHERS), iter(COUNTS)
    for at, line in enumerate(rule for rule in rules if " if " in rule):
        if at % 9 == 4:
            lines += [next(others, "")]
        if at % count_every == count_every - 1:
            lines += [next(counts, "")]
        lines.append(line)
    return "filter tables at xdp {\n" + "\n".join(lines) + "\n}\n"


def built(rules: Rules, count: int, seed: int) -> Iterator[bytes]:
    """Frames of packets drawn from inside the rules."""
    columns = packets(rules, count, seed)
    names = ("src", "dst", "proto", "sport", "dport")
    for src, dst, proto, sport, dport in zip(*(columns[name].tolist() for name in names), strict=True):
        ports = b"" if sport > 0xFFFF else sport.to_bytes(2, "big") + dport.to_bytes(2, "big")
        if proto == 6:
            data = ports + bytes(8) + b"\x50\x02" + bytes(6)
        elif proto == 17:
            data = ports + b"\0\x14" + bytes(14)
        else:
            data = ports.ljust(20, b"\0")
        yield (_ipv6 if rules.ipv6 else _ipv4)(src, dst, proto, data)


def _ipv4(src: int, dst: int, proto: int, data: bytes) -> bytes:
    head = b"\x45\0\0\x28" + bytes(4) + bytes([64, proto]) + bytes(2)
    return bytes(12) + b"\x08\0" + head + src.to_bytes(4, "big") + dst.to_bytes(4, "big") + data


def _ipv6(src: list[int], dst: list[int], proto: int, data: bytes) -> bytes:
    head = b"\x60\0\0\0\0\x14" + bytes([proto, 64])
    addresses = b"".join(half.to_bytes(8, "big") for half in (*src, *dst))
    return bytes(12) + b"\x86\xdd" + head + addresses + data


def odd_frames() -> list[bytes]:
    return [frame for frame in frames() if len(frame) >= 14]


@pytest.mark.parametrize("flavour", ["acl", "fw"])
@pytest.mark.parametrize(("count", "count_every"), [(100, 75), (1000, 300)])
def test_both_families_and_everything_else(flavour: Flavour, count: int, count_every: int) -> None:
    four, six = (generate(flavour, count // 2, 5, ipv6=ipv6) for ipv6 in (False, True))
    rules = rule_set(woven(four, six, count_every=count_every))
    assert emit(rules, wish=TABLES).tables
    # The reference evaluator takes most of the time: the more rules there are, the fewer frames it is asked about.
    each = 60_000 // count
    tried = [*built(four, min(each, 600), 1), *built(six, min(each, 600), 2), *odd_frames()[:: count // 100]]
    with DataPlane.of(rules, wish=TABLES) as plane:
        assert disagreements(rules, plane, tried) == []


def test_five_thousand_rules() -> None:
    generated = generate("acl", 5000, 9)
    rules = rule_set(policy_text(generated))
    with DataPlane.of(rules, wish=TABLES) as plane:
        assert disagreements(rules, plane, [*built(generated, 300, 3), *odd_frames()[::20]]) == []


def test_ten_thousand_rules_load() -> None:
    rules = rule_set(policy_text(generate("acl", 10_000)))
    with load_object(compile_rule_set(rules).elf, "many") as loaded:
        assert loaded.programs["ps_filter"].info.verified_insns < 20_000


#: As many fields as one run's tables may have.
FIELDS = {
    "addr.src",
    "addr.dst",
    "ip6.src",
    "ip6.dst",
    "proto",
    "sport",
    "dport",
    "eth.type",
    "ttl",
    "vlan.id",
}


def drawn_rules(seed: int, count: int, fields: set[str]) -> RuleSet:
    """Rules of every kind of predicate: deciding, on these fields, and few that no table can say."""
    drawn = RuleSets(seed).rule_set(count)
    kept, whole = [], 0
    for rule in drawn.rules:
        if not rule.decides or rule.until_ns is not None or rule.condition == Always(True):
            continue
        (run,) = blocks(replace(drawn, rules=(rule,)))
        opaque = isinstance(run, Run) and bool(run.opaque)
        if isinstance(run, Run) and not {axis.ref.name for axis in run.boxes.axes} <= {*fields, "len"}:
            continue
        whole += opaque
        if not opaque or whole <= 12:
            kept.append(rule)
    return replace(drawn, rules=tuple(kept))


@pytest.mark.parametrize("seed", [1000, 1001, 1002, 1004, 1007, 1008])
def test_random_rule_sets(seed: int) -> None:
    rules = drawn_rules(seed, 1600, FIELDS)
    assert emit(rules, wish=TABLES).tables
    with DataPlane.of(rules, wish=TABLES) as plane:
        assert disagreements(rules, plane, FRAMES) == []


def test_every_field_at_once() -> None:
    """More fields than tables have room for: the least tested ones become predicates."""
    rules = drawn_rules(1000, 400, set(FIELD_NAMES))
    assert emit(rules, wish=TABLES).tables
    with DataPlane.of(rules, wish=TABLES) as plane:
        assert disagreements(rules, plane, FRAMES) == []


#: One rule for each of many fields; with those of `policy_text` more than there is room for.
ODD = (
    "ether src 02:00:00:00:00:01", "ether dst 02:00:00:00:00:02", "vlan.id == 5", "ttl == 9", "dscp == 4", "ecn == 1",
    "ip.id == 5", "icmp.type == 3", "icmp.code == 1", "icmp6.type == 128", "tcp.flags == 2", "tcp.window == 5",
    "tcp.seq == 7", "tcp.ack == 8", "udp.len == 9", "len > 1400", "ip.len == 20", "ip6.flow == 3", "vlan.pcp == 2",
)  # fmt: skip


def test_a_few_odd_rules_leave_the_others_flat() -> None:
    lines = [line for line in rule_lines(generate("acl", 400, 3)) if " if " in line]
    rules = rule_set(
        "filter edge at xdp {\n" + "\n".join([*(f"drop if {odd}" for odd in ODD), *lines]) + "\n}\n"
    )
    assert len(emit(rules, wish=TABLES).tables) == 1
    with DataPlane.of(rules, wish=TABLES) as plane:
        tried = [*built(generate("acl", 400, 3), 300, 1), *FRAMES]
        assert disagreements(rules, plane, tried) == []


def crowded(fields: int) -> RuleSet:
    """Rules about addresses of both families, each with one more of so many fields."""
    tests = ["src port {}", "dst port {}", "len > {}", "vlan.pcp == {}", "ip.len == {}", "vlan.id == {}", "ttl == {}",
             "dscp == {}", "tcp.flags == {}", "ip.id == {}", "icmp.type == {}", "icmp6.type == {}", "ecn == {}",
             "ether proto {}"][:fields]  # fmt: skip
    places = [
        "src net 10.{}.0.0/16",
        "dst net 2001:db8:{}::/48",
        "(src net 10.9.{}.0/24 or dst host fe80::{})",
    ]
    lines = [
        f"drop if {test.format(k)} and {places[(at + k) % 3].replace('{}', str(k + 1))}"
        for k in range(4)
        for at, test in enumerate(tests)
    ]
    return rule_set("filter edge at xdp {\n" + "\n".join(lines) + "\n}\n")


@pytest.mark.parametrize("fields", [9, 11, 13, 14])
def test_records_of_many_fields_leave_room_on_the_stack(fields: int) -> None:
    """Beside the overlay's records; what the stack has no room for is no record."""
    rules = crowded(fields)
    for compiler in (oldest_clang(), None):
        with DataPlane.of(rules, compiler, TABLES) as plane:
            assert disagreements(rules, plane, FRAMES) == []


def test_predicates_about_different_addresses_are_one_run() -> None:
    lines = [f"drop if src host 10.0.0.{at} and ip[{at % 20}] & 7 == {at % 8}" for at in range(100)]
    lines += [line for line in rule_lines(generate("acl", 200, 3)) if " if " in line]
    rules = rule_set("filter edge at xdp {\n" + "\n".join(lines) + "\n}\n")
    assert len(emit(rules, wish=TABLES).tables) == 1
    with DataPlane.of(rules, wish=TABLES) as plane:
        tried = [_ipv4(0x0A000000 + at, at, 17, bytes(20)) for at in range(120)]
        assert disagreements(rules, plane, [*tried, *FRAMES]) == []


@pytest.mark.parametrize("asked", [5, 30])
def test_predicates_that_no_table_can_say(asked: int) -> None:
    whole = [f"drop if ip[{at % 20}] & 7 == {at % 8}" for at in range(asked)]
    lines = [*whole, *(line for line in rule_lines(generate("acl", 200, 3)) if " if " in line)]
    rules = rule_set("filter edge at xdp {\n" + "\n".join(lines) + "\n}\n")
    assert "_asks" in emit(rules, wish=TABLES).text
    with DataPlane.of(rules, wish=TABLES) as plane:
        assert disagreements(rules, plane, FRAMES) == []


def ports(count: int) -> str:
    rules = [f"drop if src net 10.{n // 256}.{n % 256}.0/24 and tcp dst port {n + 1}" for n in range(count)]
    return "filter edge at xdp {\n" + "\n".join([*rules, "dns: bounce if udp dst port 53"]) + "\n}\n"


def test_the_oldest_clang() -> None:
    rules = rule_set(ports(300))
    with DataPlane.of(rules, oldest_clang(), TABLES) as plane:
        last = bytes(Ether() / IPv4(src="10.1.43.9") / TCP(dport=300))
        assert disagreements(rules, plane, [*odd_frames(), last]) == []
        assert plane.outcome(last).slot == FIRST_RULE_SLOT + 299


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_ipv6_networks_with_the_oldest_clang(count: int) -> None:
    """Few steps of a search, which clang 14 would fold into sums that the verifier knows no bounds of."""
    nets = ("2001:db8::/32", "fe80::/10", "ff00::/8", "2001:db8:1:2:3::/80", "::1")[:count]
    lines = [f"drop if src net {net} and udp dst port {port}" for port in range(50, 60) for net in nets]
    rules = rule_set("filter edge at xdp {\n" + "\n".join(lines) + "\n}\n")
    with DataPlane.of(rules, oldest_clang(), TABLES) as plane:
        assert disagreements(rules, plane, odd_frames()) == []


def test_a_built_file_carries_its_tables() -> None:
    policy = load_policy(ports(900))
    again = load_built(policy.to_bytes(), "edge.pso")
    assert tables_in(again.elf) == tables_in(policy.elf) != {}
    dns = bytes(Ether() / IPv4() / UDP(dport=53))
    with load(again, interface("lo")) as loaded:
        assert loaded.programs["ps_filter"].test_run(dns).retval == 3
        assert loaded.programs["ps_filter"].test_run(bytes(Ether() / IPv4() / UDP(dport=54))).retval == 2


def test_a_built_file_with_other_tables_is_refused() -> None:
    data = load_policy(ports(900)).to_bytes()
    at = data.index(section(data, SECTION) or b"-") + 100
    with pytest.raises(PenstockError, match="checksum"):
        load_built(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], "edge.pso")


@pytest.mark.parametrize("cut", [1, 20, 1000])
def test_tables_that_are_cut_are_no_tables(cut: int) -> None:
    whole = packed([("first", bytes(range(256)) * 4), ("second", b"")])
    assert unpacked(whole) == {"first": bytes(range(256)) * 4, "second": b""}
    with pytest.raises(ValueError, match=r"its tables are (cut|damaged)"):
        unpacked(whole[:-cut])


def test_without_its_tables_an_object_is_refused() -> None:
    """It would load and run, and no packet would match a rule."""
    source = emit(rule_set(ports(900)), probe=True)
    with pytest.raises(KernelError, match="its tables are missing"):
        load_object(compile_c(source.text, source.files), "edge")
    with load_object(object_of(source), "edge") as loaded:
        assert loaded.programs["ps_filter"].test_run(bytes(Ether() / IPv4() / UDP(dport=53))).retval == 3


@pytest.mark.parametrize("change", [lambda name, data: (name, data + bytes(64)), lambda name, data: (name, data[:-64]),
                                    lambda name, data: (f"{name}x", data)])  # fmt: skip
def test_tables_of_another_program_are_refused(change: Callable[[str, bytes], tuple[str, bytes]]) -> None:
    source = emit(rule_set(ports(900)), probe=True)
    others = tuple(change(name, data) for name, data in source.tables)
    with pytest.raises(KernelError, match="its tables are another program's"):
        load_object(object_of(replace(source, tables=others)), "edge")


def test_the_same_bytes_each_time() -> None:
    text = policy_text(generate("fw", 400))
    first, again = compile_rule_set(rule_set(text)), compile_rule_set(rule_set(text))
    assert first.elf == again.elf


def test_the_last_rule_of_a_long_list_of_verdicts() -> None:
    with DataPlane.of(rule_set(ports(500)), wish=TABLES) as plane:
        found = plane.outcome(bytes(Ether() / IPv4() / UDP(dport=53)))
        assert (found.verdict, found.slot) == (Verdict.BOUNCE, FIRST_RULE_SLOT + 500)


SMALL = """
import sys
from penstock.compiler.driver import compile_rule_set
from penstock.pipeline.policy import rule_set_of
rules = "".join(f"drop if tcp dst port {n} and src port 1\\n" for n in range(9))
compile_rule_set(rule_set_of("filter edge at xdp {\\n" + rules + "}\\n"))
assert "numpy" not in sys.modules
"""


def test_small_policies_need_no_numpy() -> None:
    assert subprocess.run([sys.executable, "-c", SMALL]).returncode == 0


def test_the_drawn_frames_exercise_the_rules() -> None:
    """The frames that these tests build are what the rules were drawn for: most of them match one."""
    generated = generate("acl", 100, 5)
    rules = rule_set(policy_text(generated))
    with DataPlane.of(rules, wish=TABLES) as plane:
        decided = np.array(
            [plane.outcome(frame).slot >= FIRST_RULE_SLOT for frame in built(generated, 200, 1)]
        )
    assert decided.mean() > 0.8
