"""examples/dns.policy beside the same filter written by hand, for each kind of traffic.

Out: a row a kind of traffic: nanoseconds above an empty program, all measured
in one interleaved run.  `jumbo` is examples/dns.hand.bpf.c, which takes jumbo
frames as the policy does; `linear` is dns_linear.bpf.c, which does not; neither
looks for malformed packets.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench.turns import undisturbed, unpreempted
from penstock.compiler.clang import compile_c
from penstock.kernel.bpf_object import load_object
from penstock.kernel.program import XDP, Program
from penstock.pipeline.policy import load_policy
from penstock.price.report import EMPTY
from penstock.price.stopwatch import Costs, measure
from penstock.price.traffic import odd_frames, usual_frames

ROOT = Path(__file__).parent.parent
HAND = ROOT / "bench" / "hand"
POLICY = ROOT / "examples" / "dns.policy"
#: Each program is loaded afresh so often: where it comes to lie in memory moves it by as much as rounds do.
LOADS = 7
NAMES = ("policy", "jumbo", "linear")

Row = dict[str, float | str]


def usual_rows(rounds: int, times: int = LOADS) -> list[Row]:
    """One row a kind of traffic, the usual ones first."""
    frames = {**usual_frames(), **odd_frames()}
    objects = {
        "empty": compile_c(EMPTY),
        "policy": load_policy(POLICY.read_text(), name=POLICY.name).elf,
        "jumbo": compile_c((ROOT / "examples" / "dns.hand.bpf.c").read_text()),
        "linear": compile_c((HAND / "dns_linear.bpf.c").read_text()),
    }
    with undisturbed():
        loads = [measured(objects, frames, rounds) for _ in range(times)]
    return [_row(name, loads) for name in frames]


def measured(objects: dict[str, bytes], frames: dict[str, bytes], rounds: int) -> Costs:
    """Nanoseconds a packet by program and frame; the programs are loaded for the time being."""
    with ExitStack() as held:
        programs = {name: xdp_program(elf, name, held) for name, elf in objects.items()}
        with unpreempted():
            return measure(programs, frames, rounds=rounds)


def xdp_program(elf: bytes, name: str, held: ExitStack) -> Program:
    """An object's one XDP program, loaded for as long as `held`."""
    loaded = held.enter_context(load_object(elf, name))
    return next(program for program in loaded.programs.values() if program.info.type == XDP)


def _row(frame: str, loads: list[Costs]) -> Row:
    """Medians over the loads; `…_spread` is the largest figure less the smallest."""
    row: Row = {"traffic": frame, "empty": round(median(costs["empty"][frame] for costs in loads), 2)}
    for name in NAMES:
        above = [costs[name][frame] - costs["empty"][frame] for costs in loads]
        row[name] = round(median(above), 2)
        row[f"{name}_spread"] = round(max(above) - min(above), 2)
    return row
