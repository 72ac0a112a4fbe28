"""Token buckets in the kernel: as the reference has them, exact over time, never granted twice, safe from floods."""

from __future__ import annotations

import os
import struct
import threading
import time
from contextlib import suppress
from random import Random

import pytest
from tests.kernel.conftest import CompileC
from tests.packets import ARP, ICMP, SCTP, TCP, UDP, Ether, Fragment, IPv4, IPv6, Packet, Raw
from tests.property.dataplane import DataPlane
from tests.property.test_kernel_agrees import oldest_clang

from penstock.compiler.codegen.limiters import MAX_LIMITERS
from penstock.compiler.driver import compile_rule_set
from penstock.compiler.ir.buckets import Buckets
from penstock.compiler.ir.evaluate import evaluate
from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.ir.ops import RuleSet
from penstock.compiler.ir.stores import Stores
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source
from penstock.errors import PolicyError
from penstock.kernel.bpf_object import load_object
from penstock.kernel.program import Program, skb_context
from penstock.model.hook import Hook
from penstock.model.metadata import Metadata
from penstock.model.spec import COUNTERS_MAP, PROGRAM
from penstock.model.verdict import Verdict
from penstock.pipeline.limiters import read_usage

pytestmark = pytest.mark.privileged

HOOKS = [pytest.param(hook, id=hook.value) for hook in (Hook.XDP, Hook.TC_INGRESS, Hook.SOCKET)]
#: The boot clock of a test that sets it.
START = 10**15


def rule_set(text: str, hook: Hook = Hook.XDP) -> RuleSet:
    policy = parse_policy(Source("edge.policy", f"filter edge at {hook.value} {{\n{text}\n}}\n"))
    return lower_filter(policy, policy.filters[0])


# ── the reference ────────────────────────────────────────────────────────────

_RATES = ["1/s", "3/s", "7/m", "1000/s", "2/h", "333/m", "900/s bytes", "1M/s bytes", "77/m bytes"]
_KEYS = ["src", "dst", "sport", "dport", "proto", "flow", "rule", "src/24", "dst/9,33", "src/0,64"]
_TESTS = ["tcp", "udp", "ip6", "src net 10.0.0.0/30", "dst port 53", "ip or ip6", "less 90", "vlan"]
_ACTIONS = ["drop", "count", "audit", "pass"]


def over(draw: Random) -> str:
    burst = f" burst {draw.choice([1, 2, 3, 10, 100, 1500])}" if draw.random() < 0.7 else ""
    return f"over {draw.choice(_RATES)} per {draw.choice(_KEYS)}{burst}"


def expression(draw: Random, depth: int = 2) -> str:
    if not depth or draw.random() < 0.3:
        leaf = draw.choice([over(draw), over(draw), draw.choice(_TESTS), f"sample 1/{draw.randint(1, 4)}"])
        return f"not {leaf}" if draw.random() < 0.2 else leaf
    joint = draw.choice(["and", "or"])
    return "(" + f" {joint} ".join(expression(draw, depth - 1) for _ in range(draw.randint(2, 3))) + ")"


def policy(draw: Random) -> str:
    rules = [f"{draw.choice(_ACTIONS)} if {expression(draw)}" for _ in range(draw.randint(1, 5))]
    plain = [
        f"{draw.choice(_ACTIONS)} if {draw.choice(_TESTS)} and dst port {draw.randint(1, 99)}"
        for _ in range(4)
    ]
    return "\n".join(draw.sample([*rules, *plain], len(rules) + 4))


def frames(draw: Random) -> list[bytes]:
    tails = [TCP(sport=7, dport=53), UDP(dport=53), UDP(sport=9) / Raw(bytes(90)), ICMP(), SCTP(dport=1)]
    heads = [IPv4(src=f"10.0.0.{last}", dst="10.9.0.1") for last in range(1, 7)]
    heads += [IPv6(src=f"2001:db8::{last}", dst=f"2001:db8:0:{last}::1") for last in range(1, 5)]
    found = [bytes(Ether() / draw.choice(heads) / draw.choice(tails)) for _ in range(40)]
    later = IPv6(src="2001:db8::1") / Fragment(offset=8) / Raw(bytes(32))
    odd: list[Packet] = [ARP(psrc="10.0.0.1"), later, IPv4(src="10.0.0.1", frag=100) / Raw(bytes(60))]
    return [*found, *(bytes(Ether() / one) for one in odd)]


def differences(rules: RuleSet, plane: DataPlane, draw: Random, count: int) -> list[str]:
    """Packets at times that pass slowly and by leaps, each asked of both."""
    buckets, known, found = Buckets(START), frames(draw), []
    for _ in range(count):
        step = draw.choice([0, 1, draw.randrange(10**6), draw.randrange(10**9), draw.randrange(10**11)])
        buckets.now_ns, buckets.chance = buckets.now_ns + step, draw.getrandbits(32)
        frame = draw.choice(known)
        expected = evaluate(rules, frame, stores=Stores(buckets=buckets))
        got = plane.outcome(frame, now_ns=buckets.now_ns, chance=buckets.chance)
        if got != expected:
            found.append(f"{buckets.now_ns}: {frame.hex()}\n  reference {expected}\n  kernel    {got}")
    return found


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("seed", range(1, 4))
def test_random_policies(seed: int, hook: Hook) -> None:
    draw = Random(seed)
    rules = rule_set(policy(draw), hook)
    with DataPlane.of(rules) as plane:
        assert differences(rules, plane, draw, 400) == []


@pytest.mark.parametrize("hook", HOOKS)
def test_as_many_rates_as_a_filter_can_have(hook: Hook) -> None:
    """Each is followed by the verifier once: as a part of what asks it, two dozen were too many."""
    rates = [
        f"drop if over {2 + at % 7}/s per {_KEYS[at % len(_KEYS)]} size 512" for at in range(MAX_LIMITERS)
    ]
    rules = rule_set("\n".join(rates), hook)
    with DataPlane.of(rules) as plane:
        assert plane.verified_insns < 500_000
        assert differences(rules, plane, Random(32), 100) == []


@pytest.mark.parametrize("hook", HOOKS)
def test_the_oldest_clang(hook: Hook) -> None:
    draw = Random(77)
    rules = rule_set(policy(draw), hook)
    with DataPlane.of(rules, oldest_clang()) as plane:
        assert differences(rules, plane, draw, 300) == []


_MOST = [1, 2, 3, 7, 59, 999, 65_537, 999_999_937, 10**9, 2**31, 2**32 - 5, 2**32 - 1, 4 * 10**9]
_BURSTS = [1, 2, 1499, 65_535, 2**20, 2**31, 2**32 - 1]
_LENGTHS = [0, 0, 1500, 65_535, 2**20 - 1, 2**20, 2**31, 2**32 - 1]


def extreme(draw: Random) -> str:
    """A rule with a rate that may be; a burst of more than fifty days may not."""
    while True:
        unit = f"{draw.choice(['s', 'm', 'h'])}{draw.choice(['', ' bytes'])}"
        rate = f"{draw.choice(_MOST)}/{unit} per {draw.choice(_KEYS)} burst {draw.choice(_BURSTS)} size 512"
        with suppress(PolicyError):
            rule_set(f"count if over {rate}")
            return f"count if over {rate}"


@pytest.mark.parametrize(("seed", "hook"), [*enumerate([Hook.XDP, Hook.TC_EGRESS, Hook.SOCKET, Hook.XDP])])
def test_rates_bursts_and_clocks_at_their_extremes(seed: int, hook: Hook) -> None:
    """One token an hour and four thousand million a second, frames longer than any, clocks of a century."""
    draw = Random(seed)
    rules = rule_set("\n".join(extreme(draw) for _ in range(3)), hook)
    buckets, known = Buckets([1, 2**32 - 3, 2**52 + 1, 2**61][seed]), frames(draw)
    with DataPlane.of(rules) as plane:
        for _ in range(250):
            buckets.now_ns += draw.randrange(1 << draw.choice([1, 2, 10, 20, 30, 37, 53]))
            frame = draw.choice(known)
            length = max(draw.choice(_LENGTHS), len(frame))
            expected = evaluate(rules, frame, length, stores=Stores(buckets=buckets))
            assert plane.outcome(frame, wire_length=length, now_ns=buckets.now_ns) == expected


def test_behind_an_encapsulation() -> None:
    """The key is of the packet that the chain of `and` has come to."""
    rules = rule_set(
        "default pass\ninside: drop if inner(over 1/s per src)\ndrop if vlan and over 1/h per src"
    )
    outer = Ether() / IPv4(src="192.0.2.1", proto=4)
    packets = [bytes(outer / IPv4(src=f"10.0.0.{last}") / UDP()) for last in (1, 2, 1, 2)]
    with DataPlane.of(rules) as plane:
        got = [plane.outcome(packet, now_ns=START).verdict for packet in packets]
    assert got == [Verdict.PASS, Verdict.PASS, Verdict.DROP, Verdict.DROP]


def test_a_bucket_is_asked_only_where_all_before_it_holds() -> None:
    """Short circuit, in the order of the text: also where tests of one field stand on both sides of it."""
    rules = rule_set("default pass\ndrop if tcp and over 1/h per rule and dst port 80 and tcp")
    buckets = Buckets(START)
    with DataPlane.of(rules) as plane:
        for tail in (UDP(dport=80), TCP(dport=81), TCP(dport=80), TCP(dport=80)):
            frame = bytes(Ether() / IPv4() / tail)
            expected = evaluate(rules, frame, stores=Stores(buckets=buckets))
            assert plane.outcome(frame, now_ns=START) == expected
    assert expected.verdict is Verdict.DROP


@pytest.mark.parametrize("unit", ["", " bytes"])
def test_an_aggregate_counts_as_its_segments(unit: str) -> None:
    burst = 5 if not unit else 5 * 1054
    rules = rule_set(f"default pass\ndrop if over 1/m{unit} per src burst {burst}", Hook.TC_INGRESS)
    whole = bytes(Ether() / IPv4(src="10.0.0.1") / TCP() / Raw(bytes(3000)))
    single = bytes(Ether() / IPv4(src="10.0.0.1") / TCP() / Raw(bytes(1000)))
    buckets, got = Buckets(START), []
    with DataPlane.of(rules) as plane:
        context = skb_context(segments=3, segment_size=1000)
        for frame, size in ((whole, 1000), (whole, 1000), (single, 0), (single, 0), (single, 0)):
            expected = evaluate(
                rules, frame, metadata=Metadata(segment_size=size), stores=Stores(buckets=buckets)
            )
            outcome = plane.outcome(frame, ctx=context if size else None, now_ns=START)
            assert outcome == expected
            got.append(outcome.verdict is Verdict.PASS)
    assert got == [True, False, True, True, False]


# ── rates ────────────────────────────────────────────────────────────────────


@pytest.mark.check(39)
@pytest.mark.parametrize(("rate", "per_s"), [("333/s", 333), ("700/m", 700 / 60), ("30k/s bytes", 30e3 / 42)])
def test_ten_seconds_let_through_what_they_should(rate: str, per_s: float) -> None:
    """Three times the rate comes in, at times that are no multiple of anything."""
    draw, now, passed = Random(rate), START, 0
    rules = rule_set(f"default pass\ndrop if over {rate} per src")
    frame = bytes(Ether() / IPv4(src="10.0.0.1") / UDP())
    with DataPlane.of(rules) as plane:
        while now < START + 10 * 10**9:
            passed += plane.outcome(frame, now_ns=now).verdict is Verdict.PASS
            now += int(draw.uniform(0, 2e9 / (3 * per_s)))
    assert abs(passed / (10 * per_s) - 1) <= 0.02, passed


def test_nothing_is_lost_by_rounding() -> None:
    """Seven a minute is one in 8,571,428,571.43 ns: asked just in time, and just too early."""
    rules = rule_set("default pass\ndrop if over 7/m per src burst 2")
    frame = bytes(Ether() / IPv4() / UDP())
    with DataPlane.of(rules) as plane:
        for _ in range(2):
            assert plane.outcome(frame, now_ns=START).verdict is Verdict.PASS
        for number in range(1, 600):
            due = START + -(-number * 60 * 10**9 // 7)
            assert plane.outcome(frame, now_ns=due - 1).verdict is Verdict.DROP, number
            assert plane.outcome(frame, now_ns=due).verdict is Verdict.PASS, number


def test_a_packet_larger_than_the_burst() -> None:
    """It is let through by a full bucket and paid back, so that the rate holds all the same."""
    rules = rule_set("default pass\ndrop if over 1000/s bytes per src burst 100")
    frame = bytes(Ether() / IPv4() / UDP() / Raw(bytes(958)))
    with DataPlane.of(rules) as plane:
        got = [
            plane.outcome(frame, now_ns=START + step * 10**8).verdict is Verdict.PASS for step in range(100)
        ]
    assert [at for at, passed in enumerate(got) if passed] == list(range(0, 100, 10))


@pytest.mark.check(39)
def test_two_processors_never_take_one_token() -> None:
    """Both run the program as fast as they can, against the clock of the kernel."""
    rules = rule_set("default pass\ndrop if over 200k/s per src burst 50")
    frame = bytes(Ether() / IPv4() / UDP())
    with load_object(compile_rule_set(rules).elf, "edge") as loaded:
        program = loaded.programs[PROGRAM]
        took = _on_every_processor(program, frame)
        _, values = loaded.maps[COUNTERS_MAP].read_all()
    passed = int(values[0, :, 0].sum())
    assert 0 < passed <= 50 + 200e3 * took / 1e9


def _on_every_processor(program: Program, frame: bytes) -> int:
    """The time that it took, in nanoseconds."""
    begin = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    runners = [
        threading.Thread(target=_run_on, args=(cpu, program, frame)) for cpu in os.sched_getaffinity(0)
    ]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - begin


def _run_on(cpu: int, program: Program, frame: bytes) -> None:
    os.sched_setaffinity(0, {cpu})
    program.test_run(frame, repeat=1_000_000)


# ── tables ───────────────────────────────────────────────────────────────────


def source(number: int) -> bytes:
    return bytes(Ether() / IPv4(src=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}") / UDP())


@pytest.mark.check(39)
def test_a_table_never_has_more_keys_than_it_says() -> None:
    """Keys beyond it have one bucket together; once buckets are full again, others get their places."""
    rules = rule_set("default pass\nflood: drop if over 1/m per src burst 1 size 64")
    with DataPlane.of(rules) as plane:
        got = [plane.outcome(source(number), now_ns=START).verdict for number in range(500)]
        (limiter,) = (rule.condition.limiter for rule in rules.rules)  # type: ignore[union-attr]
        usage = read_usage(plane.maps["ps_limit0"], limiter, START)
        assert usage.held == usage.places == 64
        assert usage.given == 0
        assert got.count(Verdict.PASS) == 64 + 1
        assert usage.refused == 500 - 64
        later = START + 61 * 10**9
        assert plane.outcome(source(999), now_ns=later).verdict is Verdict.PASS
        usage = read_usage(plane.maps["ps_limit0"], limiter, later)
        assert usage.held == 1
        assert usage.given == 1


@pytest.mark.check(39)
def test_who_finds_no_place_in_its_first_row_has_another() -> None:
    """Half of the places are taken and nobody shares a bucket, at times at which keys come, go and come back."""
    rules = rule_set("default pass\ndrop if over 3/m per src burst 2 size 1k")
    draw, buckets, now = Random(8), Buckets(START), START
    with DataPlane.of(rules) as plane:
        for _ in range(6000):
            now += draw.choice([0, 10**6, draw.randrange(10**8)])
            buckets.now_ns, frame = now, source(draw.randrange(500))
            expected = evaluate(rules, frame, stores=Stores(buckets=buckets))
            assert plane.outcome(frame, now_ns=now) == expected
        (limiter,) = (rule.condition.limiter for rule in rules.rules)  # type: ignore[union-attr]
        usage = read_usage(plane.maps["ps_limit0"], limiter, now)
        _, raw = plane.maps["ps_limit0"].read_all()
    assert usage.held > 400
    assert usage.refused == 0
    seconds = [row for row in raw[limiter.rows // 2 : limiter.rows] if row.tobytes().strip(b"\0")]
    assert 8 < len(seconds) < limiter.rows // 2, "some keys had to go to the second half, and most had not"


def in_turn(kind: str, offset: int, next_value: str) -> str:
    """A program that writes the next value over a number of the frame, and goes on to the program in `ps_jump`."""
    return f"""
struct {{
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
}} ps_jump SEC(".maps");
SEC("xdp.frags") int ps_in_turn(struct xdp_md *ctx)
{{
	void *data = (void *)(long)ctx->data;
	{kind} *number = data + {offset};
	if ((void *)(number + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	*number = {next_value};
	bpf_tail_call(ctx, &ps_jump, 0);
	return XDP_ABORTED;
}}
"""


#: Sixteen sources one after the other, and as many as there are.
CYCLING = in_turn("__u8", 29, "(*number + 1) & 15")
SPOOFING = in_turn("__u32", 26, "__builtin_bswap32(__builtin_bswap32(*number) + 1)")


@pytest.mark.check(39)
def test_two_processors_and_keys_in_both_rows(compile_c: CompileC) -> None:
    """Sixteen keys in two rows of eight, which both processors fill and empty: each gets its tokens once."""
    rules = rule_set("default pass\ndrop if over 20k/s per src burst 5 size 16")
    frame = bytes(Ether() / IPv4(src="10.0.0.0") / UDP())
    with (
        load_object(compile_rule_set(rules).elf, "edge") as loaded,
        load_object(compile_c(CYCLING), "cycling") as cycling,
    ):
        cycling.maps["ps_jump"].update(bytes(4), loaded.programs[PROGRAM].fd.to_bytes(4, "little"))
        took = _on_every_processor(cycling.programs["ps_in_turn"], frame)
        _, values = loaded.maps[COUNTERS_MAP].read_all()
        (limiter,) = (rule.condition.limiter for rule in rules.rules)  # type: ignore[union-attr]
        usage = read_usage(loaded.maps["ps_limit0"], limiter, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
    assert usage.given == 0, "each key has one place, and keeps it"
    # Whoever gives up on a lock that the other's processor was taken from is judged by the common bucket.
    assert 0 < int(values[0, :, 0].sum()) <= 17 * (5 + 20e3 * took / 1e9)


@pytest.mark.check(39)
def test_ten_million_spoofed_sources_do_not_evict_whoever_is_known(compile_c: CompileC) -> None:
    """Whose bucket counts keeps counting, and whoever came twice keeps its own bucket."""
    rules = rule_set("default pass\nflood: drop if over 10/m per src burst 3 size 1k")
    busy, guest = source(1), source(2)
    with DataPlane.of(rules) as plane, load_object(compile_c(SPOOFING), "spoofing") as spoofing:
        spoofing.maps["ps_jump"].update(bytes(4), plane.program.fd.to_bytes(4, "little"))
        for frame in (busy, busy, busy, guest, guest):
            assert plane.outcome(frame, now_ns=START).verdict is Verdict.PASS
        # The guest's bucket is full by now, the flood comes within the time for which it keeps its place.
        now = START + 12 * 10**9 + 5 * 10**8
        plane.expect(now_ns=now)
        spoofed = bytes(Ether() / IPv4(src="20.0.0.0") / UDP())
        spoofing.programs["ps_in_turn"].test_run(spoofed, repeat=10_000_000)
        (limiter,) = (rule.condition.limiter for rule in rules.rules)  # type: ignore[union-attr]
        usage = read_usage(plane.maps["ps_limit0"], limiter, now)
        assert usage.held <= usage.places == 1000
        assert usage.refused > 9_900_000
        got = [plane.outcome(busy, now_ns=now).verdict for _ in range(3)]
        assert got == [Verdict.PASS, Verdict.PASS, Verdict.DROP], (
            "two came back in twelve seconds, and no third"
        )
        assert plane.outcome(guest, now_ns=now).verdict is Verdict.PASS, "its own bucket is full"
        assert plane.outcome(source(3), now_ns=now).verdict is Verdict.DROP, "the common one has been emptied"


def test_a_policy_without_rates_has_nothing_of_them() -> None:
    built = compile_rule_set(rule_set("drop if udp"))
    assert not any(name.startswith("ps_limit") for name in built.spec.maps)
    assert b"ps_limit" not in built.elf
    assert b"ps_sampled" not in built.elf


def test_the_row_is_laid_out_as_user_space_reads_it() -> None:
    """The first key of an empty table lies in the first place of its row."""
    rules = rule_set("default pass\ndrop if over 1/h per dport size 8")
    with DataPlane.of(rules) as plane:
        plane.outcome(bytes(Ether() / IPv4() / UDP(dport=4711)), now_ns=START)
        _, rows = plane.maps["ps_limit0"].read_all()
    words = struct.unpack("=28Q", rows[0].tobytes())
    assert words[1:4] == (0, 0, 0)
    assert words[6] == 4711
    assert words[4] == START + 3600 * 10**9


@pytest.mark.check(39)
@pytest.mark.parametrize(("kernel_locks", "shares"), [(True, True), (False, False)])
def test_with_the_lock_of_the_kernel_a_key_has_one_row(kernel_locks: bool, shares: bool) -> None:
    """For kernels without an atomic exchange: of that lock one at a time can be held, and keys of a full row share."""
    rules = rule_set("default pass\nflood: drop if over 1/m per src burst 1 size 64")
    (limiter,) = (rule.condition.limiter for rule in rules.rules)  # type: ignore[union-attr]
    with load_object(compile_rule_set(rules, kernel_locks=kernel_locks).elf, "edge") as loaded:

        def used(sources: range) -> tuple[int, int]:
            for number in sources:
                loaded.programs[PROGRAM].test_run(source(number))
            found = read_usage(loaded.maps["ps_limit0"], limiter, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
            return found.held, found.refused

        held, refused = used(range(56))
        assert (refused > 0) is shares
        assert held + refused == 56
        assert used(range(56, 500)) == (64, 500 - 64)
