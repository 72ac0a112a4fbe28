"""Small policies at TC and at a socket, beside the same filters written by hand.

Out: a row a hook, policy and kind of traffic, nanoseconds above an empty
program of that hook, medians over several loads of all programs in interleaved
rounds.  The programs by hand are those of XDP's tables, compiled for the hook; at TC
there is also one that counts as penstock does, a tag that lies beside the packet
and an aggregate's segments included.  What they decide is compared first.

    python -m bench --only hooks
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench.turns import undisturbed, unpreempted
from bench.twenty import TRAFFIC
from bench.usual import HAND, ROOT, Row
from penstock.compiler.clang import compile_c
from penstock.compiler.codegen.emit import emit
from penstock.compiler.driver import object_of
from penstock.kernel.bpf_object import load_object
from penstock.kernel.program import Program
from penstock.model.hook import Hook
from penstock.model.packet import read_packet
from penstock.pipeline.policy import rule_set_of
from penstock.price.stopwatch import Costs, measure
from penstock.price.traffic import usual_frames

LOADS = 5
#: Hooks, what programs by hand are compiled with, and the variants that there are of them.
HOOKS = {
    Hook.TC_INGRESS: ("tc", {"hand": "AT_TC", "exact": "AT_TC\n#define AS_ON_THE_WIRE"}),
    Hook.SOCKET: ("socket", {"hand": "AT_SOCKET"}),
}
POLICIES = {
    "dns": (ROOT / "examples" / "dns.policy", HAND / "dns_linear.bpf.c"),
    "twenty": (HAND / "twenty.policy", HAND / "twenty.hand.bpf.c"),
}
EMPTY = """\
#include <penstock/uapi.bpf.h>
SEC("{section}") int empty(struct {context} *ctx) {{ return {code}; }}
char _license[] SEC("license") = "Dual BSD/GPL";
"""


def hook_rows(rounds: int, times: int = LOADS) -> list[Row]:
    """One row a hook, policy and kind of traffic."""
    return [row for hook in HOOKS for policy in POLICIES for row in _rows(hook, policy, rounds, times)]


def _rows(hook: Hook, policy: str, rounds: int, times: int) -> list[Row]:
    frames = frames_for(policy)
    made = objects(hook, policy)
    with undisturbed():
        loads = [_measured(made, frames, rounds) for _ in range(times)]
    rows: list[Row] = []
    for frame in frames:
        above = {
            name: round(median(load[name][frame] - load["empty"][frame] for load in loads), 2)
            for name in made
            if name != "empty"
        }
        empty = round(median(load["empty"][frame] for load in loads), 2)
        rows.append({"hook": hook.value, "filter": policy, "traffic": frame, "empty": empty, **above})
    return rows


def frames_for(policy: str) -> dict[str, bytes]:
    """A usual packet of each kind that the policy is measured with."""
    if policy == "dns":
        return usual_frames()
    return {name: read_packet(text) for name, text in TRAFFIC.items()}


def objects(hook: Hook, policy: str) -> dict[str, bytes]:
    """The programs' ELF objects by name."""
    section, variants = HOOKS[hook]
    file, by_hand = POLICIES[policy]
    rules = rule_set_of(file.read_text().replace("at xdp", f"at {hook.value}", 1), name=file.name)
    return {
        "empty": compile_c(EMPTY.format(section=section, context="__sk_buff", code=-1)),
        "policy": object_of(emit(rules)),
        **{name: _compiled(by_hand, defined) for name, defined in variants.items()},
    }


def _compiled(file: Path, defined: str) -> bytes:
    return compile_c(f"#define {defined}\n" + file.read_text())


def _measured(made: Mapping[str, bytes], frames: Mapping[str, bytes], rounds: int) -> Costs:
    with ExitStack() as held:
        programs = {name: only_program(elf, name, held) for name, elf in made.items()}
        agree(programs, frames)
        with unpreempted():
            return measure(programs, frames, rounds=rounds)


def agree(programs: Mapping[str, Program], frames: Mapping[str, bytes]) -> None:
    """Fail if one of the programs decides a frame in another way than the rest; the empty one decides nothing."""
    for name, frame in frames.items():
        decided = {program.test_run(frame).retval for which, program in programs.items() if which != "empty"}
        assert len(decided) == 1, name


def only_program(elf: bytes, name: str, held: ExitStack) -> Program:
    """An object's one program, loaded for as long as `held`."""
    [program] = held.enter_context(load_object(elf, name)).programs.values()
    return program
