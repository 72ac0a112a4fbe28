"""Measure the forms that rules can take in C: linear, nested and tables, inline and as functions.

The figures behind the cost model (compiler/codegen/plan.py).  The policies' own
C is compiled, but for its hook: instead of parsing a packet the program takes a
5-tuple from an array, fills the view and decides.  Another does all of that but
decide; the difference, in interleaved rounds, is the form's price.  Each answer
is read back and compared with linear search.

    python -m bench.forms --rules 5 10 20 30 50 64 100 200 --flavour acl fw ipc five
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import thread_time_ns

import numpy as np

from bench.linear import policy_text as five_tuples
from bench.rulesets import generate, packets, policy_text
from penstock.compiler.codegen.blocks import numbered
from penstock.compiler.codegen.emit import CSource, emit
from penstock.compiler.codegen.plan import Plan, Wish, plan_of
from penstock.compiler.codegen.weigh import Form
from penstock.compiler.driver import object_of
from penstock.compiler.ir.ops import RuleSet
from penstock.errors import PenstockError
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.model.spec import PROGRAM
from penstock.pipeline.policy import rule_set_of
from penstock.price.stopwatch import kept_busy

TUPLES = 1 << 14
FRAME = bytes(64)
FORMS = (
    Wish(Form.LINEAR, True),
    Wish(Form.LINEAR, False),
    Wish(Form.NESTED, True),
    Wish(Form.NESTED, False),
    Wish(Form.TABLES, False),
)

HOOK = """
struct ps_tuple { __u32 src, dst; __u16 sport, dport; __u8 proto, no_ports, pad[2]; };
struct ps_tuple ps_tuples[%(count)d] __attribute__((aligned(64)));
__u32 ps_results[%(count)d];
__u32 ps_cursor;

static __always_inline __u32 ps_next(struct xdp_md *ctx, __u32 decides)
{
	struct ps_view local[PS_SCOPES], *s = local;
	__u32 i = ps_cursor++ & %(mask)d, found = 0;
	const struct ps_tuple *t = &ps_tuples[i];

	if (!PS_INLINE) {
		struct ps_scratch *scratch = ps_scratch_area();

		if (!scratch)
			return 0;
		s = scratch->s;
	}
	ps_clear(s);
	s->eth_type = 0x0800;
	s->proto = t->proto;
	ps_set(s, ip_proto, t->proto);
	ps_set(s, addr_src, t->src);
	ps_set(s, addr_dst, t->dst);
	if (t->proto == 6) {
		ps_set(s, tcp_sport, t->sport);
		ps_set(s, tcp_dport, t->dport);
	} else if (t->proto == 17) {
		ps_set(s, udp_sport, t->sport);
		ps_set(s, udp_dport, t->dport);
	}
	if (!t->no_ports) {
		ps_set(s, sport, t->sport);
		ps_set(s, dport, t->dport);
	}
	if (decides)
		found = ps_decide(ctx, s, 64);
	else if (PS_INLINE)
		found = t->proto + t->src + t->dst + t->sport + t->dport;
	ps_results[i] = found;
	return found;
}

SEC("xdp.frags") int ps_filter(struct xdp_md *ctx)
{
	ps_next(ctx, 1);
	return 2;
}

SEC("xdp.frags") int ps_nothing(struct xdp_md *ctx)
{
	ps_next(ctx, 0);
	return 2;
}

char ps_license[] SEC("license") = "Dual BSD/GPL";
"""
TUPLE = np.dtype(
    [
        ("src", "u4"),
        ("dst", "u4"),
        ("sport", "u2"),
        ("dport", "u2"),
        ("proto", "u1"),
        ("none", "u1"),
        ("pad", "u2"),
    ]
)


@dataclass(frozen=True, slots=True)
class Row:
    """One form of one rule set; nanoseconds above the program that decides nothing."""

    flavour: str
    rules: int
    form: str
    inline: bool
    random_ns: float
    warm_ns: float
    size: int
    bytes: int
    estimated_ns: float
    verified: int
    instructions: int
    wrong: int


def sample(flavour: str, count: int, seed: int) -> tuple[RuleSet, np.ndarray]:
    """A rule set, and tuples drawn from it."""
    if flavour == "five":
        rules = rule_set_of(five_tuples(count), name="five.policy")
        at = np.random.default_rng(seed).integers(0, count, TUPLES)
        found = np.zeros(TUPLES, dtype=TUPLE)
        found["src"] = (10 << 24) | (at // 250) << 16 | (at % 250) << 8 | 1
        found["dst"], found["proto"] = 0xC0000200 | at % 250, 6
        found["sport"], found["dport"] = 1000 + at, 1 + at + (np.random.default_rng(9).random(TUPLES) < 0.2)
        return rules, found
    generated = generate(flavour, count, seed)  # type: ignore[arg-type]
    drawn = packets(generated, TUPLES, seed)
    found = np.zeros(TUPLES, dtype=TUPLE)
    for name in ("src", "dst", "proto"):
        found[name] = drawn[name]
    for name in ("sport", "dport"):
        found[name] = drawn[name] & np.uint64(0xFFFF)
    found["none"] = drawn["sport"] >> np.uint64(16)
    return rule_set_of(policy_text(generated), name="forms.policy"), found


def harnessed(source: CSource) -> CSource:
    """The policy's C with a hook that takes tuples."""
    hook = HOOK % {"count": TUPLES, "mask": TUPLES - 1}
    text = source.text.replace("#include <hooks/xdp.bpf.c>", hook)
    return CSource(text, source.spec, source.files, source.tables)


def rows(flavour: str, count: int, seed: int, rounds: int) -> Iterator[Row]:
    """A row a form that can be had."""
    rules, tuples = sample(flavour, count, seed)
    warm = tuples[:1].repeat(TUPLES)
    with ExitStack() as held:
        loaded: dict[Wish, tuple[BpfObject, Plan]] = {}
        for wish in FORMS:
            plan = plan_of(rules, numbered(rules), wish)
            if len(plan.choices) != 1 or plan.choices[0].form != wish.form:
                continue
            try:
                elf = object_of(harnessed(emit(rules, wish=wish)))
                made = held.enter_context(load_object(elf, "forms"))
            except PenstockError as error:
                sys.stderr.write(f"{flavour} {count} {wish}: {str(error)[:100]}\n")
                continue
            for name in (PROGRAM, "ps_nothing"):
                held.enter_context(kept_busy(made.programs[name]))
            loaded[wish] = made, plan
        random = _timed({wish: made for wish, (made, _) in loaded.items()}, tuples, rounds)
        answers = {
            wish: np.frombuffer(bytes(made.variable("ps_results")), np.uint32)
            for wish, (made, _) in loaded.items()
        }
        same = _timed({wish: made for wish, (made, _) in loaded.items()}, warm, rounds)
        reference = next(iter(answers.values()))
        for wish, (made, plan) in loaded.items():
            estimate = next(one for one in plan.choices[0].estimates if one.form == wish.form)
            info = made.programs[PROGRAM].info
            yield Row(
                flavour,
                count,
                str(wish.form),
                wish.inline,
                random[wish],
                same[wish],
                estimate.size,
                estimate.table_bytes,
                round(estimate.ns, 1),
                info.verified_insns,
                info.xlated_size // 8,
                int((answers[wish] != reference).sum()),
            )


def _timed(loaded: dict[Wish, BpfObject], tuples: np.ndarray, rounds: int) -> dict[Wish, float]:
    found: dict[Wish, list[float]] = {wish: [] for wish in loaded}
    for made in loaded.values():
        made.variable("ps_tuples")[:] = tuples.tobytes()
    for _ in range(rounds):
        for wish, made in loaded.items():
            base = _once(made, "ps_nothing")
            found[wish].append(_once(made, "ps_filter") - base)
    return {wish: round(median(values), 1) for wish, values in found.items()}


def _once(made: BpfObject, program: str) -> float:
    made.variable("ps_cursor")[:] = bytes(4)
    start = thread_time_ns()
    made.programs[program].test_run(FRAME, repeat=TUPLES)
    return (thread_time_ns() - start) / TUPLES


def describe(row: Row) -> str:
    """One line for people."""
    return (
        f"{row.flavour:5} {row.rules:4} {row.form:7} {'inline' if row.inline else 'staged'}"
        f"  random {row.random_ns:6.1f}  warm {row.warm_ns:6.1f}  estimated {row.estimated_ns:5.1f}"
        f"  size {row.size:5}  {row.bytes >> 10:4} KiB  {row.verified:6} verified"
        f"  {row.instructions:5} insns  wrong {row.wrong}"
    )


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.forms", description="Measure the forms of rules in C."
    )
    parser.add_argument("--flavour", nargs="+", default=["acl", "fw", "ipc", "five"])
    parser.add_argument("--rules", nargs="+", type=int, default=[5, 10, 20, 30, 50, 64, 100, 200])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    for count in options.rules:
        for flavour in options.flavour:
            for row in rows(flavour, count, options.seed, options.rounds):
                found.append(row)
                sys.stdout.write(describe(row) + "\n")
                sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
