"""bench.iptables_save: what iptables-save prints, read and said again in penstock's language."""

from __future__ import annotations

import numpy as np
import pytest
from bench.frames import frames_of
from bench.iptables_policy import Translated, translate
from bench.iptables_save import Address, Flags, IcmpType, Ports, Protocol, read
from bench.netfilter import deciding_steps
from bench.reference import NO_RULE, first_rules
from bench.rulesets import generate, packets
from bench.saved import DATA, SETS, SavedSet, packets_for

from penstock.engine.policy import ReferenceEngine
from penstock.errors import PenstockError
from penstock.model.packet import read_packet
from penstock.model.verdict import Verdict
from penstock.pipeline.policy import rule_set_of

HEAD = "*filter\n:INPUT DROP [0:0]\n:mine - [0:0]\n"


def translated(*rules: str, policy: str = "DROP") -> Translated:
    text = HEAD.replace("DROP", policy) + "\n".join(rules) + "\nCOMMIT\n"
    return translate(read(text), "INPUT", interface="eth0")


def lines(*rules: str) -> list[str]:
    return [line.strip() for line in translated(*rules).text.splitlines()[3:-1]]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("-A INPUT -s 192.0.2.0/24 -j ACCEPT", "pass if src net 192.0.2.0/24"),
        ("-A INPUT ! -d 192.0.2.7/32 -j DROP", "drop if not (dst net 192.0.2.7/32)"),
        ("-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT", "pass if tcp and dst port 22"),
        ("-A INPUT -p udp -m udp --sport :1023 -j DROP", "drop if udp and src portrange 0-1023"),
        ("-A INPUT -p tcp -m multiport --dports 80,443,8000:8100 -j ACCEPT",
         "pass if tcp and (dst port 80 or dst port 443 or dst portrange 8000-8100)"),
        ("-A INPUT -p tcp -m multiport ! --ports 1,2 -j DROP", "drop if tcp and not ((port 1 or port 2))"),
        ("-A INPUT -p icmp -m icmp --icmp-type 3/4 -j ACCEPT",
         "pass if icmp and icmp.type == 3 and icmp.code == 4"),
        ("-A INPUT -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j DROP",
         "drop if tcp and not (tcp.flags & 0x17 == 0x2)"),
        ("-A INPUT -m iprange --src-range 192.0.2.0-192.0.2.2 -j DROP",
         "drop if (src net 192.0.2.0/31 or src net 192.0.2.2/32)"),
        ("-A INPUT -p esp -m comment --comment \"a b\" -j ACCEPT", "pass if ip proto 50"),
        ("-A INPUT -i eth+ -j ACCEPT", "pass"),
    ],
)  # fmt: skip
def test_a_rule(rule: str, said: str) -> None:
    assert lines(rule) == [said]


def test_tests_are_values() -> None:
    [rule] = read(HEAD + "-A INPUT -s 10.0.0.1 -p tcp --syn --dport 1:2 -j DROP").chains["INPUT"].rules
    assert rule.tests == (
        Address("src", ("10.0.0.1/32",)),
        Protocol(6),
        Flags(0x17, 0x02),
        Ports("dst", ((1, 2),)),
    )
    [rule] = read(HEAD + "-A INPUT -p icmp -m icmp --icmp-type echo-request -j DROP").chains["INPUT"].rules
    assert rule.tests[1] == IcmpType(8, None)


def test_a_chain_is_written_out_and_return_takes_the_rest_of_it_away() -> None:
    assert lines(
        "-A INPUT -p tcp -j mine",
        "-A mine -s 10.0.0.0/8 -j RETURN",
        "-A mine -j DROP",
        "-A INPUT -j ACCEPT",
    ) == ["drop if tcp and not (src net 10.0.0.0/8)", "pass"]


def test_return_from_a_built_in_chain_is_its_policy() -> None:
    assert lines("-A INPUT -s 10.0.0.0/8 -j RETURN") == ["drop if src net 10.0.0.0/8"]


def test_what_needs_state_is_left_out_and_listed() -> None:
    found = translated(
        "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A INPUT -p tcp -m tcp --dport 22 -m recent --set --name A -j mine",
        '-A INPUT -m limit --limit 3/min -j LOG --log-prefix "x y "',
        "-A INPUT -o eth1 -j ACCEPT",
        "-A INPUT -p tcp -j TARPIT",
        "-A INPUT -i lo -j ACCEPT",
        "-A INPUT -j REJECT --reject-with tcp-reset",
    )
    reasons = ["-m conntrack", "-m recent", "-m limit", "-o", "-j TARPIT"]
    assert [notice.reason for notice in found.left_out] == reasons
    assert [notice.line for notice in found.changed] == [10]
    assert [step.line for step in found.steps] == [10]


@pytest.mark.parametrize(
    "text",
    ["", "*nat\n:OUTPUT ACCEPT\nCOMMIT", HEAD + "-A OTHER -j DROP", HEAD + "-A INPUT -p tcp --dport x -j DROP",
     HEAD + "-A INPUT -p", HEAD + 'iptables -A "'],
)  # fmt: skip
def test_what_is_no_iptables_save(text: str) -> None:
    with pytest.raises(PenstockError):
        read(text)


def test_only_a_built_in_chain_is_translated() -> None:
    with pytest.raises(PenstockError, match="mine is no built-in chain"):
        translate(read(HEAD), "mine", interface="eth0")


@pytest.mark.parametrize("which", SETS, ids=lambda one: one.name)
def test_the_policy_decides_as_the_chains_do(which: SavedSet) -> None:
    """The walk through the chains and the reference evaluator on the translation, packet by packet."""
    saved = read((DATA / f"{which.name}.rules").read_text())
    found = translate(saved, which.chain, interface=which.interface)
    columns = {name: column[:60] for name, column in packets_for(found, 3).items()}
    steps = deciding_steps(saved.chains, which.chain, which.interface, columns)
    with ReferenceEngine(rule_set_of(found.text)) as engine:
        for step, frame in zip(steps, frames_of(columns, ipv6=False), strict=True):
            drops = found.drops_by_default if step == NO_RULE else found.steps[step].drops
            outcome = engine.outcome(frame.tobytes(), len(frame))
            assert outcome.verdict is (Verdict.DROP if drops else Verdict.PASS)
            assert not outcome.conditions


def test_other_families_pass() -> None:
    with ReferenceEngine(rule_set_of(translated("-A INPUT -j DROP").text)) as engine:
        frame = read_packet("IPv6()/UDP(dport=53)")
        assert engine.outcome(frame, len(frame)).verdict is Verdict.PASS


@pytest.mark.parametrize("ipv6", [False, True])
def test_linear_search_is_linear_search(ipv6: bool) -> None:
    rules = generate("fw", 60, 2, ipv6=ipv6)
    columns = packets(rules, 400, 4)
    found = first_rules(rules, columns)
    for at in range(400):
        slow = (number for number in range(60) if _holds(rules, number, columns, at))
        assert found[at] == next(slow, NO_RULE)


def _holds(rules: object, number: int, columns: dict[str, np.ndarray], at: int) -> bool:
    for name, column in columns.items():
        low, high = (_number(part[name][number]) for part in (rules.low, rules.high))  # type: ignore[attr-defined]
        is_open = name.endswith("port") and (low, high) == (0, 65535)
        if not (is_open or low <= _number(column[at]) <= high):
            return False
    return True


def _number(value: np.ndarray) -> int:
    return int(value) if not np.ndim(value) else int(value[0]) << 64 | int(value[1])
