"""The generated program in the kernel: sizes, places, clocks, and names that try to get out."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from shutil import which

import pytest
from tests.packets import TCP, UDP, Ether, IPv4
from tests.property.dataplane import DataPlane
from tests.verdict_cases import Case, cases, in_words, wanted

from penstock.compiler.clang import find_clang
from penstock.compiler.codegen.blocks import BLOCK_COST, MAX_BLOCKS, MAX_RULE_COST, rule_cost
from penstock.compiler.codegen.plan import Wish
from penstock.compiler.codegen.weigh import Form
from penstock.compiler.driver import compile_rule_set
from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.ir.ops import FIRST_RULE_SLOT, All, Any, FieldRef, RuleSet, Within
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source
from penstock.kernel.bpf_object import load_object
from penstock.model.hook import TRAITS, Hook
from penstock.model.net import IntervalSet
from penstock.model.verdict import Verdict

pytestmark = pytest.mark.privileged

EXAMPLES = Path(__file__).parents[2] / "examples"
DNS = bytes(Ether() / IPv4(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1024, dport=53))
SSH = bytes(Ether() / IPv4(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1024, dport=22))


def rule_set(text: str, name: str = "edge.policy") -> RuleSet:
    policy = parse_policy(Source(name, text))
    return lower_filter(policy, policy.filters[0])


def at_hooks() -> Iterator[tuple[Case, Hook, Form | None]]:
    """Every case at every hook that has its verdicts, as planned, and in each form at one of them, in turn.

    What a form is written as does not depend on the hook, nor a hook's frame on the form; random policies,
    small and large, are tried at every hook in test_hooks.py and test_changes.py.
    """
    for number, case in enumerate(cases()):
        verdicts = {packet.verdict for packet in case.packets}
        hooks = [hook for hook in Hook if verdicts <= TRAITS[hook].codes.keys()]
        yield from ((case, hook, None) for hook in hooks)
        for turn, form in enumerate((Form.NESTED, Form.TABLES), number):
            yield case, hooks[turn % len(hooks)], form


AT_HOOKS = [
    pytest.param(case, hook, form, id=f"{case.name}-{hook.value}-{form.value if form else 'planned'}")
    for case, hook, form in at_hooks()
]


@pytest.mark.parametrize(("case", "hook", "form"), AT_HOOKS)
def test_verdict_cases(case: Case, hook: Hook, form: Form | None) -> None:
    """The cases that define the language's odd corners; frames shorter than a test run takes are left to others."""
    rules = replace(case.rule_set(), hook=hook)
    with DataPlane.of(rules, wish=None if form is None else Wish(form, inline=False)) as plane:
        for packet in case.packets:
            if plane.takes(packet.frame):
                got = plane.outcome(packet.frame, packet.wire_length or 0)
                assert got == wanted(rules, packet), f"{case.path.name}:{packet.line}: {in_words(rules, got)}"


@pytest.mark.parametrize("name", ["deny", "dns", "edge", "ssh-guard", "web-server"])
def test_the_verifier_is_done_soon_with_small_policies(name: str) -> None:
    """Most of it is the exact parser, which it once followed in 13,000 to 30,000 instructions."""
    with DataPlane.of(rule_set((EXAMPLES / f"{name}.policy").read_text())) as plane:
        assert plane.verified_insns < 11_000


def test_a_thousand_rules_load_in_linear_time() -> None:
    rules = [f"drop if src net 10.{n // 256}.{n % 256}.0/24 and tcp dst port {n + 1}" for n in range(1000)]
    text = "filter edge at xdp {\n" + "\n".join(rules) + "\n}\n"
    with DataPlane.of(rule_set(text)) as plane:
        assert plane.verified_insns < 30_000
        last = bytes(Ether() / IPv4(src="10.3.231.9") / TCP(dport=1000))
        assert plane.outcome(last).slot == FIRST_RULE_SLOT + 999
        assert plane.outcome(SSH).slot == 0


def test_a_list_of_a_thousand_prefixes() -> None:
    nets = ", ".join(str(net) for net in list(ip_network("10.0.0.0/12").subnets(new_prefix=23))[:2000:2])
    text = f"let bad = {nets}\nfilter edge at xdp {{\n drop if src net $bad\n}}\n"
    with DataPlane.of(rule_set(text)) as plane:
        verdicts = [plane.outcome(bytes(Ether() / IPv4(src=f"10.0.{n}.1") / UDP())).verdict for n in range(8)]
    assert verdicts == [Verdict.DROP, Verdict.DROP, Verdict.PASS, Verdict.PASS] * 2


@pytest.mark.check(15)
def test_the_longest_rule_loads() -> None:
    one = [All((_port("tcp.dport", n), _port("tcp.sport", n))) for n in range(0, 2 * MAX_RULE_COST, 2)]
    longest = Any(tuple(one[: (MAX_RULE_COST - 1) // 2]))
    base = rule_set("filter edge at xdp {\n drop if tcp dst port 1\n}\n")
    rule = replace(base.rules[0], condition=longest)
    assert MAX_RULE_COST - 2 <= rule_cost(rule) <= MAX_RULE_COST
    with DataPlane.of(replace(base, rules=(rule,))) as plane:
        assert plane.outcome(bytes(Ether() / IPv4() / TCP(sport=22, dport=22))).verdict is Verdict.DROP
        assert plane.outcome(bytes(Ether() / IPv4() / TCP(sport=22, dport=23))).verdict is Verdict.PASS


def _port(name: str, port: int) -> Within:
    return Within(FieldRef(name), IntervalSet.single(port))


@pytest.mark.check(15)
def test_four_fifths_of_all_functions_load() -> None:
    """Rules that count, each as long as a function: no table holds them."""
    base = rule_set("filter edge at xdp {\n count if tcp dst port 1\n}\n")
    wide = [
        Any(tuple(_port("tcp.dport", number) for number in range(first, first + 2 * (BLOCK_COST - 2), 2)))
        for first in range(1, 3 * int(0.8 * MAX_BLOCKS), 3)
    ]
    rules = tuple(replace(base.rules[0], name=f"r{n}", condition=one) for n, one in enumerate(wide))
    assert all(rule_cost(rule) == BLOCK_COST - 1 for rule in rules)
    with DataPlane.of(replace(base, rules=rules)) as plane:
        hits = plane.outcome(bytes(Ether() / IPv4() / TCP(dport=301))).hits
    assert len(hits) == sum(
        301 in range(first, first + 2 * (BLOCK_COST - 2), 2) for first in range(1, 3 * len(wide), 3)
    )


def test_the_kernel_names_policy_lines() -> None:
    if which("bpftool") is None:
        pytest.skip("bpftool is not installed")
    if find_clang().version < 17:
        pytest.skip("clang 14 to 16 name one file for a whole function, here the hook's")
    text = "filter edge at xdp {\n    default pass\n    drop if udp dst port 53\n}\n"
    with load_object(compile_rule_set(rule_set(text)).elf, "edge") as loaded:
        number = str(loaded.programs["ps_filter"].id)
        dump = subprocess.run(
            ["bpftool", "prog", "dump", "xlated", "id", number, "linum"], capture_output=True, text=True
        ).stdout
    assert "edge.policy line_num:3" in dump
    assert "drop if udp dst port 53" in dump


def test_a_rule_ends_at_its_time() -> None:
    base = rule_set("filter edge at xdp {\n drop if udp dst port 53\n}\n")
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    for until, verdict in ((now + 3600 * 10**9, Verdict.DROP), (now - 1, Verdict.PASS)):
        rule = replace(base.rules[0], until_ns=until)
        with DataPlane.of(replace(base, rules=(rule,))) as plane:
            assert plane.outcome(DNS).verdict is verdict


def test_bounce_swaps_the_addresses_and_sends_back() -> None:
    base = rule_set("filter edge at xdp {\n bounce if udp dst port 53\n}\n")
    with load_object(compile_rule_set(base).elf, "edge") as loaded:
        answer = loaded.programs["ps_filter"].test_run(DNS)
    assert answer.retval == 3
    assert answer.data_out == DNS[6:12] + DNS[:6] + DNS[12:]


EVIL = [
    'a" */ return 1; /*',
    "a\\",
    "a\n#include </etc/passwd>\n",
    "??/\n??>",
    "*/ } int evil(void) { return 1; } /*",
    "\u2028\u202e é",
    '%s"\\012"',
    "a\r\n#error x",
]


@pytest.mark.parametrize("evil", EVIL)
def test_names_stay_names(evil: str) -> None:
    """A label, a filter's or a file's name is data: none of them reaches clang as C."""
    base = rule_set("filter edge at xdp {\n drop if udp dst port 53\n}\n")
    rule = replace(base.rules[0], name=evil, labelled=True)
    named = replace(base, name=evil, rules=(rule,), source=Source(evil, base.source.text))
    built = compile_rule_set(named, probe=True)
    plain = compile_rule_set(replace(base, source=Source("x", base.source.text)), probe=True)
    assert built.spec.rules[0].name == evil
    with load_object(built.elf, "evil") as loaded, load_object(plain.elf, "plain") as other:
        assert loaded.programs["ps_filter"].tag == other.programs["ps_filter"].tag
