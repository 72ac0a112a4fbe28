"""Measure rules added to a running policy: milliseconds to effect, and what the overlay costs a packet.

The policy is put on a veth of a namespace of its own.  A rule is in force when
the switch has been moved, which is before the grace period that `add_rule` waits
for; both times are told.  What packets pay is measured on the same program with
an empty overlay and with some that match nothing, beside one without an overlay,
in interleaved rounds.

    python -m bench.overlay --rules 10000
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.rulesets import generate, policy_text
from penstock.compiler.codegen.emit import emit
from penstock.compiler.codegen.overlay import conjunctions
from penstock.compiler.driver import object_of
from penstock.kernel import libc
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.kernel.elf import initial_value
from penstock.kernel.netns import isolated
from penstock.kernel.program import Program
from penstock.model.field import Layer
from penstock.model.overlay import BANKS_MAP, END, OFFSETS_VARIABLE, SWITCH_MAP, Record
from penstock.model.packet import build_packet, parse_packet
from penstock.model.spec import PROGRAM
from penstock.pipeline import overlay
from penstock.pipeline.added import read_added
from penstock.pipeline.apply import apply, detach
from penstock.pipeline.identity import CounterKey
from penstock.pipeline.overlay import Content, Held, Overlay
from penstock.pipeline.policy import load_policy, rule_set_of
from penstock.pipeline.rules import add_rule, remove_rule
from penstock.price.stopwatch import measure

SIZES = (0, 1, 16, 64)
DROP, PASS = 1, 2
Row = dict[str, object]


def adding(text: str, times: int) -> Row:
    """How long it takes until an added rule is in force, and until `add_rule` returns."""
    policy = load_policy(text)
    effects, cpu, returns, removals, graces = [], [], [], [], []
    with _place():
        done = apply("v0", policy)
        with Program.by_id(done.program_id) as program:
            for number in range(times + 1):
                frame = build_packet(parse_packet(f"IPv4(src='192.0.2.{number + 1}')/UDP(dport=53)"))
                before = program.test_run(frame).retval
                effect, worked, whole = _timed_add(f"drop if src host 192.0.2.{number + 1}")
                assert (before, program.test_run(frame).retval) == (PASS, DROP)
                start = time.perf_counter()
                remove_rule("v0", "timed")
                assert program.test_run(frame).retval == PASS
                # The first one has imported modules.
                if number:
                    effects.append(effect)
                    cpu.append(worked)
                    returns.append(whole)
                    removals.append(_ms(start))
                    graces.append(_grace())
        detach("v0")
    return {
        "effect_ms": round(median(effects), 1),
        "effect_least_ms": round(min(effects), 1),
        "effect_cpu_ms": round(median(cpu), 1),
        "effect_most_ms": round(max(effects), 1),
        "add_ms": round(median(returns), 1),
        "add_most_ms": round(max(returns), 1),
        "remove_ms": round(median(removals), 1),
        "grace_period_ms": round(median(graces), 1),
    }


def _timed_add(rule: str) -> tuple[float, float, float]:
    """Milliseconds until the switch is moved, those that this process worked, and those until the call returns."""
    moved: list[tuple[float, float]] = []
    wait = overlay._wait_for_packets

    def marked() -> None:
        moved.append((_ms(start), (time.process_time() - worked) * 1e3))
        wait()

    overlay._wait_for_packets = marked
    try:
        start, worked = time.perf_counter(), time.process_time()
        assert add_rule("v0", rule, label="timed").how == "overlay"
        return *moved[-1], _ms(start)
    finally:
        overlay._wait_for_packets = wait


def _grace() -> float:
    start = time.perf_counter()
    libc.synchronize_rcu()
    return _ms(start)


def _ms(start: float) -> float:
    return (time.perf_counter() - start) * 1e3


@contextmanager
def _place() -> Iterator[None]:
    """A namespace with a veth v0, and a BPF file system for its pins."""
    with tempfile.TemporaryDirectory() as folder, isolated():
        subprocess.run(["ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"], check=True)
        subprocess.run(["mount", "-t", "bpf", "bpf", folder], check=True)
        os.environ["PENSTOCK_BPFFS"] = str(Path(folder) / "penstock")
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def costs(text: str, rounds: int) -> Row:
    """Nanoseconds a packet above the same program without an overlay; the packet matches no rule."""
    rules = rule_set_of(text)
    plain, source = emit(rules, overlay=False), emit(rules)
    elf = object_of(source)
    places = memoryview(initial_value(elf, OFFSETS_VARIABLE) or b"").cast("H")
    offered = dict(zip(source.spec.overlay, places, strict=True))
    loaded = {"without": load_object(object_of(plain), "plain")}
    for size in SIZES:
        loaded[f"{size} records"] = load_object(elf, "overlaid")
        _fill(loaded[f"{size} records"], size, offered)
    frame = build_packet(parse_packet("IPv4(src='203.0.113.9',dst='198.51.100.9')/UDP(dport=9)"))
    programs = {name: one.programs[PROGRAM] for name, one in loaded.items()}
    found = {name: one["frame"] for name, one in measure(programs, {"frame": frame}, rounds=rounds).items()}
    verified = {name: program.info.verified_insns for name, program in programs.items()}
    for one in loaded.values():
        one.close()
    above = {name: round(ns - found["without"], 1) for name, ns in found.items() if name != "without"}
    return {
        "ns_without": round(found["without"], 1),
        "ns_above": above,
        "verified_without": verified["without"],
        "verified": verified["0 records"],
    }


def _fill(loaded: BpfObject, size: int, places: dict[str, int]) -> None:
    """Have so many records that no packet of the measurement fits."""
    running = Overlay(loaded.maps[SWITCH_MAP], loaded.maps[BANKS_MAP])
    held, records = [], []
    for number in range(size):
        rule = read_added(f"drop if src host 192.0.2.{number + 1} and udp dst port 53", "", "bench").rule
        (conditions,) = conjunctions(rule.condition, places, Layer.TRANSPORT)
        records.append(Record(conditions, END, number, DROP).packed())
        held.append(Held(CounterKey(f"rule#{number + 1}", "drop"), number, END))
    running.change(running.read(), records, Content(held=tuple(held)))


def main() -> None:
    """Measure and print one line of JSON for each number of rules."""
    parser = argparse.ArgumentParser(prog="python -m bench.overlay", description="Measure added rules.")
    parser.add_argument("--rules", type=int, nargs="+", default=[10_000])
    parser.add_argument("--times", type=int, default=11)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    for count in options.rules:
        text = policy_text(generate("acl", count))
        row = {"rules": count, **adding(text, options.times), **costs(text, options.rounds)}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
