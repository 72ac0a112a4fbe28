"""Rules as classic BPF: the reference, libpcap's interpreter and the kernel, all on the same pairs.

The kernel runs a program on the packets of a pair of unix sockets, which may be
of any length and need no privilege: what its own check of classic programs
refuses, or its translation changes, is seen here.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests import frames
from tests.property import expressions
from tests.property.rulesets import Frames, RuleSets
from tests.strategies import expression_texts

from penstock.compiler.classic.generate import compile_classic
from penstock.compiler.classic.start import Start
from penstock.compiler.ir.dump import dump
from penstock.compiler.ir.evaluate import evaluate
from penstock.compiler.ir.ops import RuleSet
from penstock.compiler.libpcap import compile_filter, program_of
from penstock.errors import LimitError, PolicyError
from penstock.kernel.socket_filter import attach_classic
from penstock.model.classic import Instruction
from penstock.model.verdict import Verdict
from penstock.pipeline.expression import matcher
from penstock.pipeline.policy import rule_set_of

DECIDING = (Verdict.PASS, Verdict.DROP)


class Filtered:
    """A pair of sockets whose second end has a classic program."""

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._there.setblocking(False)

    def close(self) -> None:
        self._here.close()
        self._there.close()

    def load(self, program: Sequence[Instruction]) -> None:
        attach_classic(self._there, program)

    def keeps(self, frame: bytes) -> bool:
        self._here.send(frame)
        try:
            kept = self._there.recv(1 << 16)
        except BlockingIOError:
            return False
        assert kept == frame
        return True


@contextmanager
def filtered() -> Iterator[Filtered]:
    sockets = Filtered()
    try:
        yield sockets
    finally:
        sockets.close()


def decided(rules: RuleSet) -> RuleSet:
    """The rule set with `drop` wherever an action is none that classic BPF can say."""
    kept = tuple(
        rule if rule.action in DECIDING else replace(rule, action=Verdict.DROP) for rule in rules.rules
    )
    return replace(rules, rules=kept)


def agree(rules: RuleSet, collection: Sequence[bytes], kernel: Filtered) -> int:
    """Compare all three on every frame; gives how many passed."""
    program = compile_classic(rules).instructions
    theirs = program_of(program)
    kernel.load(program)
    passed = 0
    for frame in collection:
        wanted = evaluate(rules, frame).verdict is Verdict.PASS
        found = theirs.matches(frame), kernel.keeps(frame)
        assert found == (wanted, wanted), f"{dump(rules)}\n{frame.hex()}\n(libpcap, kernel) = {found}"
        passed += wanted
    return passed


def test_random_rule_sets() -> None:
    refused = compared = passed = 0
    known = frames.frames()
    with filtered() as kernel:
        for seed in range(200):
            draw = random.Random(seed)
            rules = decided(RuleSets(seed).rule_set(draw.choice((1, 1, 2, 4))))
            source = Frames(seed)
            whole = source.frame()
            some = [source.frame() for _ in range(30)] + [whole[:end] for end in range(min(len(whole), 150))]
            try:
                passed += agree(rules, some + draw.sample(known, 20), kernel)
            except (LimitError, PolicyError):
                refused += 1
                continue
            compared += len(some) + 20
    assert compared > 15_000
    assert compared // 10 < passed < compared * 9 // 10
    assert refused < 120


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(expressions.plain(), expression_texts()), st.lists(frames.broken(), min_size=5, max_size=20))
def test_expressions(text: str, some: list[bytes]) -> None:
    try:
        rules = matcher(text)
    except PolicyError:
        return
    with filtered() as kernel:
        agree(rules, frames.frames() + some, kernel)


CUT = (
    "drop if udp dst port 53\n drop if tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn\n drop if icmp",
    "on malformed drop\n drop if src net 10.0.0.0/8 and not portrange 20-90\n pass if ip6 protochain 6",
    "on fragment drop\n on ip-options drop\n drop if ip6 host 2001:db8::1 or ether host 02:00:00:00:00:01",
    "on exthdr-limit pass\n on unknown-tag drop\n drop if vlan 5 and vlan.pcp < 3 or mpls 16 and ip",
    "default drop\n pass if geneve 5 and tcp\n pass if pppoes 7 and udp\n pass if ip[2:2] - 4*(ip[0]&15) > 20",
    'drop if pcap "tcp[0] << tcp[1] = 0 or port 53"\n drop if ttl < 5 or dscp == 46 or frag.offset > 0',
    "drop if less 60\n drop if arp src host 10.0.0.1\n drop if tcp[(tcp[12] >> 2) + 1] << ip[8] > 3",
)


@pytest.mark.parametrize("text", CUT)
def test_every_frame_cut_at_every_byte(text: str) -> None:
    rules = rule_set_of(f"filter cut at xdp {{\n {text}\n}}")
    with filtered() as kernel:
        cuts = [cut for frame in frames.frames() for cut in frames.truncations(frame)]
        passed = agree(rules, cuts, kernel)
    assert 0 < passed < len(cuts)


def test_libpcaps_own_programs_are_carried_over() -> None:
    texts = (
        "udp port 53",
        "vlan and ip",
        "tcp[13] & 2 != 0",
        "ip6 host 2001:db8::1",
        "mpls 16",
        "geneve",
        "portrange 20-100",
    )
    with filtered() as kernel:
        for text in texts:
            rules = matcher(f'not pcap "{text}"')
            expected = compile_filter(text)
            assert all(
                (evaluate(rules, frame).verdict is Verdict.PASS) != expected.matches(frame)
                for frame in frames.frames()
            )
            agree(rules, frames.frames(), kernel)


def test_every_start_is_a_program_to_the_kernel() -> None:
    with filtered() as kernel:
        for seed in range(150):
            rules = decided(RuleSets(seed).rule_set(2))
            for start in Start:
                try:
                    kernel.load(compile_classic(rules, start).instructions)
                except (LimitError, PolicyError):
                    continue
