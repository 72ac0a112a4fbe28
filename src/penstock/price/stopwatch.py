"""Measure what programs cost a packet, side by side.

In: loaded programs and frames, both named.  Out: nanoseconds of this thread's
CPU time a run, the median over interleaved rounds: in each round every program
meets every frame once, so that what disturbs the machine disturbs all alike,
and only differences and ratios within one call mean something.

    measure({"empty": nothing, "policy": dns}, {"dns": frame})["policy"]["dns"]  ->  11.3

A frame is warm here: the same one again and again, all caches filled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from statistics import median
from time import thread_time_ns

from penstock.kernel.link import attach_xdp
from penstock.kernel.netlink import GENERIC
from penstock.kernel.netns import isolated
from penstock.kernel.program import Program

ROUNDS = 31
REPEAT = 40_000
_LOOPBACK = 1

Costs = dict[str, dict[str, float]]


def measure(
    programs: Mapping[str, Program],
    frames: Mapping[str, bytes],
    *,
    rounds: int = ROUNDS,
    repeat: int = REPEAT,
) -> Costs:
    """Nanoseconds a run, by program and frame; `repeat` runs a round.

    Raises:
        KernelError: a frame of less than 14 bytes; PrivilegeError without CAP_NET_ADMIN and CAP_SYS_ADMIN.
    """
    samples: dict[tuple[str, str], list[float]] = {(p, f): [] for p in programs for f in frames}
    with ExitStack() as held:
        for program in programs.values():
            held.enter_context(kept_busy(program))
        for _ in range(rounds):
            for (program_name, frame_name), found in samples.items():
                found.append(_once(programs[program_name], frames[frame_name], repeat))
    return {p: {f: median(samples[p, f]) for f in frames} for p in programs}


@contextmanager
def kept_busy(program: Program) -> Iterator[None]:
    """Keep an XDP program attached to the `lo` of a namespace of its own.

    A test run of a program that is attached nowhere makes the kernel patch its
    XDP dispatcher before and after, which takes 24-35 ms a call.
    """
    with isolated(), attach_xdp(program, _LOOPBACK, mode=GENERIC):
        yield


def _once(program: Program, frame: bytes, repeat: int) -> float:
    start = thread_time_ns()
    program.test_run(frame, repeat=repeat)
    return (thread_time_ns() - start) / repeat
