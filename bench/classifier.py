"""Measure the table classifier alone: bytes, build time, verifier work, ns per packet, and that it is right.

A program takes 5-tuples from an array in global data, classifies them and
stores the rules; another does the same without the classification.  The
difference of the two, in interleaved BPF_PROG_TEST_RUN rounds, is the price.
They are TC programs: the kernel patches its dispatcher for every test run of an
XDP program, which takes 30 ms a round.
Every answer is read back and compared with linear search over the boxes.

    python -m bench.classifier --flavour acl fw ipc --rules 100 1000 10000
    python -m bench.classifier --flavour acl --rules 10000 --ipv6 --json out.json
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
from pathlib import Path

import numpy as np

from bench.rulesets import WIDTHS, Rules, generate, packets
from penstock.compiler.codegen.tables import Access, classifier_source, image
from penstock.compiler.diagram.axis import Keys, halves, keys_of, wide_keys
from penstock.compiler.diagram.boxes import Boxes, Packets, from_ranges
from penstock.compiler.diagram.evaluate import first_rule
from penstock.compiler.diagram.layout import layout
from penstock.compiler.ir.ops import FieldRef
from penstock.kernel.bpf_object import BpfObject, load_object

TUPLES = 1 << 16
FRAME = bytes(64)
REPEAT = 1 << 16

REFS4 = {"src": "addr.src", "dst": "addr.dst", "proto": "proto", "sport": "sport", "dport": "dport"}
REFS6 = {**REFS4, "src": "ip6.src", "dst": "ip6.dst"}

HARNESS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

%s
struct ps_tuple ps_tuples[65536] __attribute__((aligned(64)));
__u32 ps_results[65536];
__u32 ps_cursor;
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

#: Compact, so that the array of packets does not itself push the tables out of the cache.
TUPLES_C = {
    False: "struct ps_tuple { __u32 src, dst; __u16 sport, dport; __u8 proto, no_ports, pad[2]; };",
    True: "struct ps_tuple { __u64 src, src_low, dst, dst_low; __u16 sport, dport; __u8 proto, no_ports, pad[2]; };",
}
_PORTS = [("sport", "u2"), ("dport", "u2"), ("proto", "u1"), ("no_ports", "u1"), ("pad", "u2")]
TUPLE = {
    False: np.dtype([("src", "u4"), ("dst", "u4"), *_PORTS]),
    True: np.dtype([("src", "u8"), ("src_low", "u8"), ("dst", "u8"), ("dst_low", "u8"), *_PORTS]),
}


@dataclass(frozen=True, slots=True)
class Measurement:
    """One rule set's figures; times of the packet in ns above the program that classifies nothing."""

    flavour: str
    rules: int
    ipv6: bool
    build_s: float
    compile_s: float
    load_s: float
    table_kib: int
    groups: int
    choice: str
    instructions: int
    verified: int
    uniform_ns: float
    zipf_ns: float
    warm_ns: float
    base_ns: float
    checked: int
    wrong: int


def refs(ipv6: bool) -> dict[str, FieldRef]:
    """The diagram's fields for a rule set's columns."""
    return {name: FieldRef(field) for name, field in (REFS6 if ipv6 else REFS4).items()}


def boxes_of(rules: Rules) -> Boxes:
    """The rule set as boxes; a column that covers its domain also holds packets without the field."""
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
    return from_ranges(ranges, np.arange(len(rules)))


def batch_of(ipv6: bool, columns: Mapping[str, Keys]) -> Packets:
    """Sampled packets as the diagram's batch."""
    found = {}
    for name, ref in refs(ipv6).items():
        column = columns[name]
        found[ref] = wide_keys(column[:, 0], column[:, 1]) if column.ndim == 2 else column
    return found


def access(ipv6: bool) -> Access:
    """How the harness's C reads a tuple."""
    scalars = {ref: f"t->{name}" for name, ref in refs(ipv6).items()}
    for name in ("sport", "dport"):
        scalars[FieldRef(name)] = f"(t->{name} | (__u64)t->no_ports << 16)"
    wides = {
        ref: (f"t->{name}", f"t->{name}_low", "1")
        for name, ref in refs(True).items()
        if name in ("src", "dst")
    }
    return Access("const struct ps_tuple *t", scalars, wides)


def tuples_of(batch: Packets, ipv6: bool) -> bytes:
    """The packets as the harness's array."""
    found = np.zeros(len(next(iter(batch.values()))), dtype=TUPLE[ipv6])
    for name, ref in refs(ipv6).items():
        if batch[ref].dtype == np.uint64:
            found[name] = (batch[ref] & np.uint64(0xFFFF)) if name.endswith("port") else batch[ref]
        else:
            found[name], found[f"{name}_low"] = halves(batch[ref])
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


def measure(rules: Rules, rounds: int) -> Measurement:
    """Build, compile, load, verify and time one rule set."""
    boxes = boxes_of(rules)
    began = time.perf_counter()
    classifier = layout(boxes)
    built = time.perf_counter()
    elf = compiled(
        HARNESS % (TUPLES_C[rules.ipv6], classifier_source(classifier, "ps_classify", access(rules.ipv6)))
    )
    made = time.perf_counter()
    data = bytes(image(classifier))
    with load_object(elf, "classifier", rodata={"ps_classify_tables": data}) as loaded:
        ready = time.perf_counter()
        uniform = batch_of(rules.ipv6, packets(rules, TUPLES, 1))
        zipf = batch_of(rules.ipv6, packets(rules, TUPLES, 2, zipf=True))
        wrong = sum(_wrong(loaded, boxes, batch, rules.ipv6) for batch in (uniform, zipf))
        base, random_ns = _timed(loaded, tuples_of(uniform, rules.ipv6), rounds)
        _, zipf_ns = _timed(loaded, tuples_of(zipf, rules.ipv6), rounds)
        one = {ref: column[:1].repeat(TUPLES) for ref, column in uniform.items()}
        _, warm_ns = _timed(loaded, tuples_of(one, rules.ipv6), rounds)
        info = loaded.programs["ps_classifier"].info
    family = classifier.main
    return Measurement(
        rules.flavour,
        len(rules),
        rules.ipv6,
        round(built - began, 3),
        round(made - built, 3),
        round(ready - made, 3),
        classifier.bytes >> 10,
        len(family.groups),
        family.notes[-1],
        info.xlated_size // 8,
        info.verified_insns,
        random_ns,
        zipf_ns,
        warm_ns,
        base,
        2 * TUPLES,
        wrong,
    )


def _wrong(loaded: BpfObject, boxes: Boxes, batch: Packets, ipv6: bool) -> int:
    """How many of the kernel's answers differ from linear search."""
    loaded.variable("ps_tuples")[:] = tuples_of(batch, ipv6)
    loaded.variable("ps_cursor")[:] = bytes(4)
    loaded.programs["ps_classifier"].test_run(FRAME, repeat=TUPLES)
    answers = np.frombuffer(loaded.variable("ps_results"), dtype=np.uint32).astype(np.int64) - 1
    return int((answers != first_rule(boxes, batch)).sum())


def _timed(loaded: BpfObject, tuples: bytes, rounds: int) -> tuple[float, float]:
    """(ns of the empty program, ns above it): least of interleaved rounds of this thread's CPU time."""
    loaded.variable("ps_tuples")[:] = tuples
    base, full = [], []
    for _ in range(rounds):
        base.append(_cpu_ns(loaded, "ps_nothing"))
        full.append(_cpu_ns(loaded, "ps_classifier"))
    return round(min(base), 1), round(min(full) - min(base), 1)


def _cpu_ns(loaded: BpfObject, program: str) -> float:
    """Thread time of a packet; other processes' turns on this CPU are not counted, what they did to its caches is."""
    began = time.thread_time_ns()
    loaded.programs[program].test_run(FRAME, repeat=REPEAT)
    return (time.thread_time_ns() - began) / REPEAT


def describe(found: Measurement) -> str:
    """One line for people."""
    return (
        f"{found.flavour}{'6' if found.ipv6 else ' '} {found.rules:>7,} rules  build {found.build_s:6.2f} s"
        f"  load {found.load_s * 1000:5.0f} ms  {found.table_kib:>7,} KiB  {found.instructions:>5} insns"
        f"  {found.verified:>5} verified  uniform {found.uniform_ns:5.0f} ns  zipf {found.zipf_ns:5.0f}"
        f"  warm {found.warm_ns:4.0f}  base {found.base_ns}  wrong {found.wrong} of {found.checked:,}"
    )


def main() -> int:
    """Measure what the command line asks for; exit code 1 if any answer was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flavour", nargs="+", default=["acl", "fw", "ipc"], choices=["acl", "fw", "ipc"])
    parser.add_argument("--rules", nargs="+", type=int, default=[100, 1000, 10_000])
    parser.add_argument("--ipv6", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    for count in options.rules:
        for flavour in options.flavour:
            found.append(measure(generate(flavour, count, options.seed, ipv6=options.ipv6), options.rounds))
            sys.stdout.write(describe(found[-1]) + "\n")
            sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in found], indent=2))
    return int(any(row.wrong for row in found))


if __name__ == "__main__":
    raise SystemExit(main())
