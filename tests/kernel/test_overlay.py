"""Rules added to a running program: it answers as if they had been compiled in at their places."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
from bench.rulesets import generate, policy_text
from tests.kernel.test_tables import FIELDS, built, drawn_rules, odd_frames, ports, rule_set, woven
from tests.overlay import Addition, Overlaid, at_random_places
from tests.packets import TCP, UDP, Ether, IPv4
from tests.property.rulesets import RuleSets
from tests.property.test_kernel_agrees import FRAMES

from penstock.compiler.ir.ops import Effect, Rule, RuleSet
from penstock.model.overlay import RECORDS
from penstock.model.verdict import Condition, Verdict

pytestmark = pytest.mark.privileged

DNS = bytes(Ether() / IPv4(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1024, dport=53))


def with_counts(rules: RuleSet, every: int) -> RuleSet:
    """The rules with one that counts behind every so many."""
    counts = [rule for rule in RuleSets(77).rule_set(60).rules if not rule.decides]
    found: list[Rule] = []
    for at, rule in enumerate(rules.rules):
        found.append(rule)
        if at % every == every - 1 and counts:
            found.append(replace(counts.pop(), name=f"count:{at}"))
    return replace(rules, rules=tuple(found))


@pytest.mark.parametrize("seed", [1000, 1001, 1004, 1008])
def test_random_rules_at_random_places(seed: int) -> None:
    """Rules of every kind of predicate, that decide and that count, among rules of tables and others."""
    drawn = drawn_rules(seed, 1600, FIELDS)
    rules = with_counts(replace(drawn, conditions=tuple((condition, None) for condition in Condition)), 70)
    additions = at_random_places(rules, RuleSets(seed + 1).rule_set(400).rules, seed)
    with Overlaid.of(rules) as running:
        able = running.sayable(additions, room=400)
        assert len(able) > 60
        for start in range(8):
            some = running.sayable(able[start::8])
            running.put(some)
            assert running.disagreements(some, FRAMES[start::4]) == []
        assert min(running.decided, running.hits) > 100
        running.put([])
        assert running.disagreements([], FRAMES[::5]) == []


def rules_of(text: str) -> list[Rule]:
    return list(rule_set("filter added at xdp {\n" + text + "\n}\n").rules)


#: What people add: a host, a net, ports, flags, families, tags, lengths, and negations of all of them.
USUAL = """
drop if src host 10.1.2.3
count if tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn
audit if udp or icmp
drop if not ip and not ip6 and not arp
bounce if dst port 53 and not src net 10.0.0.0/8
pass if src net 2001:db8::/32 or dst host fe80::1
count if not src net 2001:db8::/32 and not dst port 80
drop if udp src portrange 100-2000 and len > 512
count if ttl < 9 or ttl > 200
audit if ip6
count if tcp dst port 22 or 80 or 443 or 8080
drop if frag
"""


@pytest.mark.parametrize("ipv6", [False, True])
def test_what_people_add(ipv6: bool) -> None:
    generated = generate("acl", 400, 5, ipv6=ipv6)
    rules = rule_set(policy_text(generated))
    drawn = at_random_places(rules, rules_of(USUAL), 3)
    with Overlaid.of(rules) as running:
        able = running.sayable(drawn)
        assert len(able) == len(drawn)
        running.put(able)
        assert running.disagreements(able, [*built(generated, 500, 1), *odd_frames()]) == []


def test_both_families_with_others_between() -> None:
    four, six = (generate("fw", 150, 5, ipv6=ipv6) for ipv6 in (False, True))
    rules = rule_set(woven(four, six, count_every=100))
    drawn = at_random_places(
        rules, rules_of(USUAL + "drop if vlan 5\ncount if not vlan 7\naudit if vlan 5 and ip"), 9
    )
    with Overlaid.of(rules) as running:
        able = running.sayable(drawn)
        assert len(able) == len(drawn)
        running.put(able)
        assert running.disagreements(able, [*built(four, 300, 1), *built(six, 300, 2), *odd_frames()]) == []


def one(text: str) -> Rule:
    (rule,) = rules_of(text)
    return replace(rule, name="added:0")


def test_a_rule_that_counts_does_it_once() -> None:
    """Its condition falls into several records that all fit."""
    rules = rule_set(ports(100))
    addition = (0, one("count if src host 10.0.0.1 or dst host 10.0.0.2 or udp dst port 53"))
    with Overlaid.of(rules) as running:
        assert len(running.records_of(addition[1], 0, 0)) > 1
        running.put([addition])
        assert running.disagreements([addition], [DNS, *odd_frames()]) == []


def test_all_of_the_room() -> None:
    rules = rule_set(ports(100))
    added = [
        replace(one(f"{'count' if n % 2 else 'drop'} if udp dst port {n + 53}"), name=f"added:{n}")
        for n in range(64)
    ]
    additions: list[Addition] = [(n, rule) for n, rule in enumerate(added)]
    frames = [bytes(Ether() / IPv4() / UDP(dport=n)) for n in range(50, 120)]
    with Overlaid.of(rules) as running:
        assert sum(len(running.records_of(rule, 0, 0)) for rule in added) == RECORDS
        running.put(additions)
        assert running.disagreements(additions, frames) == []


def test_a_rule_that_ends() -> None:
    rules = rule_set(ports(100))
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    with Overlaid.of(rules) as running:
        for until, verdict in ((now + 3600 * 10**9, Verdict.DROP), (now - 1, Verdict.BOUNCE)):
            running.put([(0, replace(one("drop if udp dst port 53"), until_ns=until))])
            assert running.plane.outcome(DNS).verdict is verdict


def test_no_packet_sees_neither() -> None:
    """While other rules come and go beside it, and the banks are filled again and again, a rule is always in force."""
    rules = rule_set(ports(100))
    kept = (0, one("drop if udp dst port 53"))
    others = [replace(one(f"pass if udp src port {n}"), name=f"other:{n}") for n in range(40)]
    stop, passed = threading.Event(), []
    with Overlaid.of(rules) as running:
        running.put([kept])

        def packets() -> None:
            while not stop.is_set():
                passed.extend(v for v in running.plane.verdicts([DNS] * 64) if v is not Verdict.DROP)

        thread = threading.Thread(target=packets)
        thread.start()
        try:
            for count in range(1, 40):
                running.put([*((0, rule) for rule in others[:count]), kept])
        finally:
            stop.set()
            thread.join()
    assert passed == []


def test_a_policy_without_tables_takes_no_rules() -> None:
    from penstock.compiler.codegen.emit import emit

    small = emit(rule_set(ports(20)))
    assert small.spec.overlay == ()
    assert "overlay.bpf.h" not in small.text


def test_a_rule_before_and_behind_one_that_counts() -> None:
    """Rules of the program that only count are counted as far as the packet comes, and no further."""
    text = (
        "count if udp\n" * 3 + "\n".join(f"drop if tcp dst port {n}" for n in range(1, 70)) + "\naudit if udp"
    )
    rules = rule_set("filter edge at xdp {\n" + text + "\n}\n")
    frames = [DNS, bytes(Ether() / IPv4() / TCP(dport=7))]
    with Overlaid.of(rules) as running:
        for before in (0, 1, 2, 3, 30, 72, 73):
            for action in (Verdict.DROP, Effect.COUNT):
                addition = (before, replace(one("drop if udp dst port 53"), action=action))
                running.put([addition])
                assert running.disagreements([addition], frames) == [], before
