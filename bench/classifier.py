"""Measure the table classifier alone: bytes, build time, verifier work, ns per packet, and that it is right.

A program takes 5-tuples from an array in global data, classifies them and
stores the rules; another does the same without the classification.  In every
round both are run over all packets by BPF_PROG_TEST_RUN, and this thread's CPU
time is taken; the price is the median of the rounds' differences, told with its
quartiles and with the other program's median (`base`).
They are TC programs: the kernel patches its dispatcher for every test run of an
XDP program, which takes 30 ms a round.
Every answer is read back and compared with linear search over the boxes.

    python -m bench.classifier --flavour acl fw ipc --rules 100 1000 10000
    python -m bench.classifier --flavour acl --rules 10000 --seed 1 2 3 --ipv6 --json out.json
    python -m bench.classifier --flavour fw --rules 10000 --mixed

`--mixed` puts as many rules of each family into one set, and times packets of
either family and of both by turns.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench.rulesets import WIDTHS, Flavour, Rules, generate, packets
from bench.turns import unpreempted
from penstock.compiler.classifier.layout import layout
from penstock.compiler.codegen.tables import Access, classifier_source, image
from penstock.compiler.diagram.axis import Keys, halves, keys_of, wide_keys
from penstock.compiler.diagram.boxes import Boxes, Packets, from_ranges
from penstock.compiler.diagram.evaluate import first_rule
from penstock.compiler.ir.ops import FieldRef
from penstock.kernel.bpf_object import BpfObject, load_object

TUPLES = 1 << 16
FRAME = bytes(64)
REPEAT = 1 << 16
PROGRAMS = ("ps_nothing", "ps_classifier")

REFS4 = {"src": "addr.src", "dst": "addr.dst", "proto": "proto", "sport": "sport", "dport": "dport"}
REFS6 = {**REFS4, "src": "ip6.src", "dst": "ip6.dst"}
REFS_OF_BOTH = {**REFS4, "src6": "ip6.src", "dst6": "ip6.dst"}

HARNESS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

%s
struct ps_tuple ps_tuples[65536] __attribute__((aligned(64)));
__u32 ps_results[65536];
__u32 ps_cursor;
const volatile __u32 ps_by_helpers = 0;
%s
SEC("tc") int ps_classifier(struct __sk_buff *skb)
{
    __u32 i = ps_cursor++ & 0xffff;
    ps_results[i] = ps_classify(&ps_tuples[i]);
    return 0;
}

SEC("tc") int ps_nothing(struct __sk_buff *skb)
{
    __u32 i = ps_cursor++ & 0xffff;
    const struct ps_tuple *t = &ps_tuples[i];
    ps_results[i] = t->src + t->dst + t->proto + t->sport + t->dport;
    return 0;
}

char _license[] SEC("license") = "GPL";
"""

Kind = Literal["ipv4", "ipv6", "both"]
"""Whose addresses a set's rules name."""
_PORTS_C = "__u16 sport, dport; __u8 proto, no_ports, is_ipv6, pad;"
#: Compact, so that the array of packets does not itself push the tables out of the cache.
TUPLES_C: dict[Kind, str] = {
    "ipv4": f"struct ps_tuple {{ __u32 src, dst; {_PORTS_C} }};",
    "ipv6": f"struct ps_tuple {{ __u64 src, src_low, dst, dst_low; {_PORTS_C} }};",
    "both": f"struct ps_tuple {{ __u64 src6, src6_low, dst6, dst6_low; __u32 src, dst; {_PORTS_C} }};",
}
_PORTS = [
    ("sport", "u2"),
    ("dport", "u2"),
    ("proto", "u1"),
    ("no_ports", "u1"),
    ("is_ipv6", "u1"),
    ("pad", "u1"),
]
TUPLE: dict[Kind, np.dtype[Any]] = {
    "ipv4": np.dtype([("src", "u4"), ("dst", "u4"), *_PORTS]),
    "ipv6": np.dtype([("src", "u8"), ("src_low", "u8"), ("dst", "u8"), ("dst_low", "u8"), *_PORTS]),
    "both": np.dtype(
        [
            *((name, "u8") for name in ("src6", "src6_low", "dst6", "dst6_low")),
            ("src", "u4"),
            ("dst", "u4"),
            *_PORTS,
        ]
    ),
}
ABSENT4 = np.uint64(1 << 32)


@dataclass(frozen=True, slots=True)
class Times:
    """Nanoseconds a packet above the program that classifies nothing: the median, and the quartiles."""

    median: float
    quartiles: tuple[float, float]
    base: float

    def __str__(self) -> str:
        low, high = self.quartiles
        return f"{self.median:.0f} ns ({low:.0f}-{high:.0f})"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One rule set's figures; `times` by kind of traffic."""

    flavour: str
    rules: int
    seed: int
    kind: Kind
    build_s: float
    compile_s: float
    load_s: float
    table_kib: int
    groups: int
    choice: str
    instructions: int
    verified: int
    times: dict[str, Times]
    checked: int
    wrong: int


def refs(ipv6: bool) -> dict[str, FieldRef]:
    """The diagram's fields for a rule set's columns."""
    return {name: FieldRef(field) for name, field in (REFS6 if ipv6 else REFS4).items()}


def boxes_of(rules: Rules) -> Boxes:
    """The rule set as boxes; a column that covers its domain also holds packets without the field."""
    return from_ranges(_ranges(rules), np.arange(len(rules)))


def _ranges(rules: Rules) -> dict[FieldRef, tuple[Keys, Keys]]:
    ranges: dict[FieldRef, tuple[Keys, Keys]] = {}
    for name, ref in refs(rules.ipv6).items():
        low, high = rules.low[name], rules.high[name]
        if low.ndim == 2:
            first, last = wide_keys(low[:, 0], low[:, 1]), wide_keys(high[:, 0], high[:, 1])
            open_ = (low == 0).all(axis=1) & (high == ~np.uint64(0)).all(axis=1)
            ranges[ref] = first, np.where(open_, keys_of(128, [1 << 128]), last)
        else:
            bits = WIDTHS.get(name, 32)
            open_ = (low == 0) & (high == (1 << bits) - 1)
            ranges[ref] = low, np.where(open_, np.uint64(1 << bits), high)
    return ranges


def both_families(four: Rules, six: Rules) -> Boxes:
    """The rules of both, those of IPv4 first; a rule without addresses holds for either family."""
    parts = [_ranges(four), _ranges(six)]
    joined: dict[FieldRef, tuple[Keys, Keys]] = {}
    for ref in dict.fromkeys([*parts[0], *parts[1]]):
        open_ = keys_of(ref.field.bits, [0]), keys_of(ref.field.bits, [1 << ref.field.bits])
        ends = [
            part.get(ref, tuple(end.repeat(len(rules)) for end in open_))
            for part, rules in zip(parts, (four, six), strict=True)
        ]
        joined[ref] = np.concatenate([low for low, _ in ends]), np.concatenate([high for _, high in ends])
    return from_ranges(joined, np.arange(len(four) + len(six)))


def batch_of(ipv6: bool, columns: Mapping[str, Keys]) -> Packets:
    """Sampled packets as the diagram's batch."""
    found = {}
    for name, ref in refs(ipv6).items():
        column = columns[name]
        found[ref] = wide_keys(column[:, 0], column[:, 1]) if column.ndim == 2 else column
    return found


def _of_both(batch: Packets) -> Packets:
    """A batch of one family with the other family's addresses, absent."""
    count = len(batch[FieldRef("proto")])
    found = dict(batch)
    for name in ("src", "dst"):
        found.setdefault(FieldRef(f"addr.{name}"), np.full(count, ABSENT4))
        found.setdefault(FieldRef(f"ip6.{name}"), keys_of(128, [1 << 128]).repeat(count))
    return found


def _by_turns(left: Packets, right: Packets) -> Packets:
    """Every other packet of each batch."""
    turn = np.arange(len(left[FieldRef("proto")])) % 2 == 0
    return {ref: np.where(turn, column, right[ref]) for ref, column in left.items()}


def access(kind: Kind) -> Access:
    """How the harness's C reads a tuple."""
    fields = {"ipv4": REFS4, "ipv6": REFS6, "both": REFS_OF_BOTH}[kind]
    scalars: dict[FieldRef, str] = {}
    wides: dict[FieldRef, tuple[str, str, str]] = {}
    for name, field in fields.items():
        if field.startswith("ip6."):
            wides[FieldRef(field)] = f"t->{name}", f"t->{name}_low", "t->is_ipv6"
        elif field.endswith("port"):
            scalars[FieldRef(field)] = f"(t->{name} | (__u64)t->no_ports << 16)"
        elif field.startswith("addr."):
            scalars[FieldRef(field)] = f"(t->{name} | (__u64)t->is_ipv6 << 32)"
        else:
            scalars[FieldRef(field)] = f"t->{name}"
    return Access("const struct ps_tuple *t", scalars, wides)


def tuples_of(batch: Packets, kind: Kind) -> bytes:
    """The packets as the harness's array."""
    found = np.zeros(len(batch[FieldRef("proto")]), dtype=TUPLE[kind])
    for name, field in {"ipv4": REFS4, "ipv6": REFS6, "both": REFS_OF_BOTH}[kind].items():
        keys = batch[FieldRef(field)]
        if keys.dtype != np.uint64:
            found[name], found[f"{name}_low"] = halves(keys)
            found["is_ipv6"] = keys != keys_of(128, [1 << 128])[0]
        else:
            found[name] = keys & np.uint64((1 << FieldRef(field).field.bits) - 1)
    found["no_ports"] = batch[FieldRef("sport")] >> np.uint64(16)
    return found.tobytes()


def compiled(source: str) -> bytes:
    """The harness as an ELF object."""
    with tempfile.TemporaryDirectory() as folder:
        c, o = Path(folder, "classifier.bpf.c"), Path(folder, "classifier.bpf.o")
        c.write_text(source)
        clang = ["clang-19", "-O2", "-g", "-target", "bpf", "-mcpu=v3", "-I/usr/include/x86_64-linux-gnu"]
        subprocess.run([*clang, "-c", str(c), "-o", str(o)], check=True)
        return o.read_bytes()


def measure(flavour: Flavour, count: int, seed: int, kind: Kind, rounds: int) -> Measurement:
    """Build, compile, load, verify and time one rule set; of `both`, so many rules of either family."""
    sets = [
        generate(flavour, count, seed, ipv6=ipv6)
        for ipv6 in (False, True)
        if kind in ("both", ("ipv4", "ipv6")[ipv6])
    ]
    boxes = boxes_of(sets[0]) if len(sets) == 1 else both_families(*sets)
    began = time.perf_counter()
    classifier = layout(boxes)
    built = time.perf_counter()
    elf = compiled(HARNESS % (TUPLES_C[kind], classifier_source(classifier, "ps_classify", access(kind))))
    made = time.perf_counter()
    data = bytes(image(classifier))
    with load_object(elf, "classifier", rodata={"ps_classify_tables": data}) as loaded:
        ready = time.perf_counter()
        traffic = _traffic(sets)
        wrong = sum(_wrong(loaded, boxes, batch, kind) for name, batch in traffic.items() if name != "warm")
        times = {name: _timed(loaded, tuples_of(batch, kind), rounds) for name, batch in traffic.items()}
        info = loaded.programs["ps_classifier"].info
    return Measurement(
        flavour,
        count,
        seed,
        kind,
        round(built - began, 3),
        round(made - built, 3),
        round(ready - made, 3),
        classifier.bytes >> 10,
        max(len(family.groups) for family in classifier.families),
        classifier.main.notes[-1].text,
        info.xlated_size // 8,
        info.verified_insns,
        times,
        (len(traffic) - 1) * TUPLES,
        wrong,
    )


def _traffic(sets: list[Rules]) -> dict[str, Packets]:
    """The kinds of traffic that a set is timed with, by name."""
    uniform = [batch_of(rules.ipv6, packets(rules, TUPLES, 1)) for rules in sets]
    zipf = [batch_of(rules.ipv6, packets(rules, TUPLES, 2, zipf=True)) for rules in sets]
    found = {"uniform": uniform[0], "zipf": zipf[0]}
    if len(sets) == 2:
        four, six = map(_of_both, uniform)
        found = {
            "uniform": _by_turns(four, six),
            "zipf": _by_turns(*map(_of_both, zipf)),
            "only ipv4": four,
            "only ipv6": six,
        }
    return {**found, "warm": {ref: column[:1].repeat(TUPLES) for ref, column in found["uniform"].items()}}


def _wrong(loaded: BpfObject, boxes: Boxes, batch: Packets, kind: Kind) -> int:
    """How many of the kernel's answers differ from linear search."""
    loaded.variable("ps_tuples")[:] = tuples_of(batch, kind)
    loaded.variable("ps_cursor")[:] = bytes(4)
    loaded.programs["ps_classifier"].test_run(FRAME, repeat=TUPLES)
    answers = np.frombuffer(loaded.variable("ps_results"), dtype=np.uint32).astype(np.int64) - 1
    return int((answers != first_rule(boxes, batch)).sum())


def _timed(loaded: BpfObject, tuples: bytes, rounds: int) -> Times:
    """Interleaved rounds over all packets, after one of each that is not counted."""
    loaded.variable("ps_tuples")[:] = tuples
    with unpreempted():
        taken = np.array([[_cpu_ns(loaded, name) for name in PROGRAMS] for _ in range(rounds + 1)])[1:]
    low, middle, high = np.percentile(taken[:, 1] - taken[:, 0], [25, 50, 75]).round(1).tolist()
    return Times(middle, (low, high), round(float(np.median(taken[:, 0])), 1))


def _cpu_ns(loaded: BpfObject, program: str) -> float:
    """Thread time of a packet; other processes' turns on this CPU are not counted, what they did to its caches is."""
    began = time.thread_time_ns()
    loaded.programs[program].test_run(FRAME, repeat=REPEAT)
    return (time.thread_time_ns() - began) / REPEAT


def describe(found: Measurement) -> str:
    """One line for people."""
    times = "  ".join(f"{name} {taken}" for name, taken in found.times.items())
    return (
        f"{found.flavour:3} {found.kind} {found.rules:>7,} rules seed {found.seed}  build {found.build_s:5.2f} s"
        f"  load {found.load_s * 1000:4.0f} ms  {found.table_kib:>6,} KiB  {found.verified:>5} verified"
        f"  {times}  base {found.times['uniform'].base}  wrong {found.wrong} of {found.checked:,}"
    )


def main() -> int:
    """Measure what the command line asks for; exit code 1 if any answer was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flavour", nargs="+", default=["acl", "fw", "ipc"], choices=["acl", "fw", "ipc"])
    parser.add_argument("--rules", nargs="+", type=int, default=[100, 1000, 10_000])
    families = parser.add_mutually_exclusive_group()
    families.add_argument("--ipv6", dest="kind", action="store_const", const="ipv6", default="ipv4")
    families.add_argument("--mixed", dest="kind", action="store_const", const="both")
    parser.add_argument("--seed", nargs="+", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    for count, flavour, seed in product(options.rules, options.flavour, options.seed):
        found.append(measure(flavour, count, seed, options.kind, options.rounds))
        sys.stdout.write(describe(found[-1]) + "\n")
        sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in found], indent=2))
    return int(any(row.wrong for row in found))


if __name__ == "__main__":
    raise SystemExit(main())
