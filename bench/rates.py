"""What a rate per source costs a packet, beside the token bucket that one writes by hand over an LRU hash.

Out: a row a hook and kind of traffic, nanoseconds above an empty program, of the
policy and of the program by hand.  That one's buckets are under no lock, which the
kernel has not for an LRU hash: two processors may pay with one token.  And what sets
and rates cost that stand between the rules of a large policy.

Sources are drawn in the kernel, by a program that writes the next one into the
packet and goes on by a tail call; what that costs is in the empty program's figure.

    python -m bench.rates
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from random import Random
from statistics import median
from time import thread_time_ns

from bench.linear import policy_text as five_tuples
from bench.turns import undisturbed, unpreempted
from penstock.compiler.clang import compile_c
from penstock.compiler.driver import compile_rule_set
from penstock.kernel.bpf_object import load_object
from penstock.kernel.program import Program
from penstock.model.packet import read_packet
from penstock.model.spec import PROGRAM
from penstock.pipeline.policy import rule_set_of
from penstock.price.feed import times
from penstock.price.stopwatch import kept_busy

HOOKS = {"xdp": "xdp.frags", "tc ingress": "tc"}
#: Sources by traffic: a mask of what is drawn.
TRAFFIC = {"one source": 0, "1,024 sources": 1023, "16 million sources": (1 << 24) - 1}
PLACES = 1 << 16
_TURN = 20_000
_POLICY = "filter rates at {hook} {{\n default pass\n drop if over 1000/s per src burst 100 size 64k\n}}\n"

_FEEDER = """
#include <penstock/uapi.bpf.h>
static long (*const bpf_tail_call)(void *ctx, void *map, __u32 index) = (void *)12;
struct {
	__uint(type, 3);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} next SEC(".maps");
const volatile __u32 mask;
__u32 cursor;
SEC("%(section)s") int feeder(struct %(context)s *ctx)
{
	void *data = (void *)(long)ctx->data;
	__u32 drawn = cursor++ * 2654435761u;
	if (data + 34 > (void *)(long)ctx->data_end)
		return 0;
	*(__u16 *)(data + 26) = 10;
	*(__u16 *)(data + 28) = (drawn ^ drawn >> 15) & mask;
	*(__u8 *)(data + 27) = ((drawn ^ drawn >> 15) & mask) >> 16;
	bpf_tail_call(ctx, &next, 0);
	return 0;
}
SEC("%(section)s") int empty(struct %(context)s *ctx)
{
	return 2;
}
char _license[] SEC("license") = "Dual BSD/GPL";
"""

_HAND = """
#include <penstock/uapi.bpf.h>
#define RATE 1000
#define BURST 100
static __u64 (*const ktime)(void) = (void *)5;
static long (*const map_update)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
struct bucket {
	__u64 tokens, last;	/* billionths of a token; when they were counted */
};
struct {
	__uint(type, 9); /* BPF_MAP_TYPE_LRU_HASH */
	__uint(max_entries, %(places)d);
	__type(key, __u32);
	__type(value, struct bucket);
} buckets SEC(".maps");

SEC("%(section)s") int hand(struct %(context)s *ctx)
{
	void *data = (void *)(long)ctx->data;
	__u64 now, tokens;
	__u32 source;
	int answer = 2;

	if (data + 34 > (void *)(long)ctx->data_end || *(__u16 *)(data + 12) != 8)
		return 2;
	source = *(__u32 *)(data + 26);
	now = ktime();
	struct bucket *found = bpf_map_lookup_elem(&buckets, &source);
	if (!found) {
		struct bucket full = { (BURST - 1) * 1000000000ULL, now };
		map_update(&buckets, &source, &full, 0);
		return 2;
	}
	tokens = found->tokens + (now - found->last) * RATE;
	found->last = now;
	if (tokens > BURST * 1000000000ULL)
		tokens = BURST * 1000000000ULL;
	if (tokens < 1000000000ULL)
		answer = %(drop)d;
	else
		tokens -= 1000000000ULL;
	found->tokens = tokens;
	return answer;
}
char _license[] SEC("license") = "Dual BSD/GPL";
"""


@dataclass(frozen=True, slots=True)
class RateRow:
    """Nanoseconds above an empty program."""

    hook: str
    traffic: str
    policy_ns: float
    hand_ns: float


@dataclass(frozen=True, slots=True)
class BetweenRow:
    """A policy of so many rules, without and with a set and a rate in the middle: nanoseconds a packet."""

    rules: int
    traffic: str
    flat_ns: float
    with_set_ns: float
    with_both_ns: float


def rate_rows(rounds: int = 21) -> list[RateRow]:
    """A row a hook and kind of traffic."""
    return [row for hook in HOOKS for row in _at(hook, rounds)]


def _at(hook: str, rounds: int) -> list[RateRow]:
    names = {"section": HOOKS[hook], "context": "xdp_md" if hook == "xdp" else "__sk_buff"}
    hand = {**names, "places": PLACES, "drop": 1 if hook == "xdp" else 2}
    text = _POLICY.format(hook=hook)
    made = {
        "policy": (compile_rule_set(rule_set_of(text, name="rates.policy")).elf, PROGRAM),
        "hand": (compile_c(_HAND % hand), "hand"),
    }
    feeder = compile_c(_FEEDER % names)
    found = []
    for traffic, mask in TRAFFIC.items():
        with ExitStack() as held:
            programs = {
                name: held.enter_context(load_object(elf, "rates")).programs[entry]
                for name, (elf, entry) in made.items()
            }
            costs = _measured(programs, feeder, mask, rounds, held)
            above = {name: cost - costs["empty"] for name, cost in costs.items()}
            found.append(RateRow(hook, traffic, above["policy"], above["hand"]))
    return found


def _measured(
    programs: Mapping[str, Program], feeder: bytes, mask: int, rounds: int, held: ExitStack
) -> dict[str, float]:
    """Medians over interleaved rounds, each program behind a feeder of its own."""
    frame = read_packet('IPv4(src="10.0.0.1")/UDP(dport=53)').ljust(64, b"\0")
    fed: dict[str, Program] = {}
    for name in ("empty", *programs):
        loaded = held.enter_context(load_object(feeder, "feed", rodata={"mask": mask}))
        target = programs.get(name, loaded.programs["empty"])
        loaded.maps["next"].update(bytes(4), struct.pack("=I", target.fd))
        fed[name] = loaded.programs["feeder"]
        held.enter_context(kept_busy(fed[name]))
    samples: dict[str, list[float]] = {name: [] for name in fed}
    with undisturbed(), unpreempted():
        for _ in range(rounds):
            for name, program in fed.items():
                program.test_run(frame, repeat=_TURN // 4)
                begun = thread_time_ns()
                program.test_run(frame, repeat=_TURN)
                samples[name].append((thread_time_ns() - begun) / _TURN)
    return {name: median(found) for name, found in samples.items()}


def between_rows(rules: int = 1000, rounds: int = 15) -> list[BetweenRow]:
    """A row a kind of traffic: whether a set and a rate leave the rules around them as cheap as they were."""
    lines = five_tuples(rules).splitlines()
    middle = len(lines) // 2
    asks = "    drop if src in @some"
    rate = "    drop if udp dst port 9 and over 1000/s per src"
    texts = {
        "flat": lines,
        "set": ["set some : host", *lines[:middle], asks, *lines[middle:]],
        "both": ["set some : host", *lines[:middle], asks, rate, *lines[middle:]],
    }
    chance = Random(5)
    drawn = [
        read_packet(
            f'IPv4(src="10.{chance.randrange(4)}.{chance.randrange(250)}.1", dst="192.0.2.{chance.randrange(250)}")'
            f"/TCP(sport={1000 + chance.randrange(rules)}, dport={1 + chance.randrange(rules)})"
        )
        for _ in range(4096)
    ]
    found = []
    with ExitStack() as held:
        programs = {
            name: held.enter_context(
                load_object(
                    compile_rule_set(rule_set_of("\n".join(text), name="between.policy")).elf, "between"
                )
            ).programs[PROGRAM]
            for name, text in texts.items()
        }
        for traffic, frames in {"one packet": drawn[:1], "4,096 packets": drawn}.items():
            with undisturbed():
                costs = times(programs, frames, rounds)
            found.append(BetweenRow(rules, traffic, costs["flat"], costs["set"], costs["both"]))
    return found


def main() -> None:
    """Print both tables."""
    for row in rate_rows():
        print(f"{row.hook:<12}{row.traffic:<22}policy {row.policy_ns:6.1f}   by hand {row.hand_ns:6.1f}")
    for between in between_rows():
        print(
            f"{between.rules:,} rules, {between.traffic}: {between.flat_ns:.1f}, with a set {between.with_set_ns:.1f}, "
            f"with a set and a rate {between.with_both_ns:.1f}"
        )


if __name__ == "__main__":
    main()
