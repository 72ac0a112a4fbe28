"""Measure what programs cost a packet, side by side.

In: loaded programs and frames, both named.  Out: nanoseconds of this thread's
CPU time a run, the median over interleaved rounds: in each round every program
meets every frame once, so that what disturbs the machine disturbs all alike,
and only differences and ratios within one call mean something.

    measure({"empty": nothing, "policy": dns}, {"dns": frame})["policy"]["dns"]  ->  11.3

`measure` is warm: the same frame again and again, all caches filled.  `measure_cold`
is the other end: before every single run, memory of four times the second-level
cache is written to, a word of every line, so that tables, counters, the code and
the address translations for them have to be fetched from the third level or
from memory.  The kernel times that one run itself.  Real traffic lies between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from statistics import median
from time import thread_time_ns

from penstock.kernel.link import attach_xdp
from penstock.kernel.netlink import GENERIC
from penstock.kernel.netns import isolated
from penstock.kernel.program import XDP, Program

ROUNDS = 31
REPEAT = 40_000
SAMPLES = 101
_LOOPBACK = 1
_EVICTED, _CACHE_LINE = 4, 64
_CACHE_SIZE = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")

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


def measure_cold(
    programs: Mapping[str, Program], frames: Mapping[str, bytes], *, samples: int = SAMPLES
) -> Costs:
    """Nanoseconds of a run with evicted caches, by program and frame.  Raises as `measure`.

    What reading the clock takes is in it, as it is in the empty program's figure.
    """
    import numpy as np

    memory = np.zeros(_EVICTED * _second_level_cache(), dtype=np.uint8)
    lines = memory[::_CACHE_LINE]
    found: dict[tuple[str, str], list[float]] = {(p, f): [] for p in programs for f in frames}
    with ExitStack() as held:
        for program in programs.values():
            held.enter_context(kept_busy(program))
        # In another order each time: what ran before has taught the branch predictor, whatever was evicted.
        order, shuffled = list(found), Random(1)  # noqa: S311 - an order, no secret
        for _ in range(samples):
            shuffled.shuffle(order)
            for program_name, frame_name in order:
                lines += 1
                run = programs[program_name].test_run(frames[frame_name])
                found[program_name, frame_name].append(run.duration_ns)
    return {p: {f: float(median(found[p, f])) for f in frames} for p in programs}


def _second_level_cache() -> int:
    """Bytes of a processor's second-level cache, as sysfs tells; 1 MiB where it does not."""
    try:
        text = _CACHE_SIZE.read_text().strip()
        return int(text.removesuffix("K")) << 10
    except (OSError, ValueError):
        return 1 << 20


@contextmanager
def kept_busy(program: Program) -> Iterator[None]:
    """Keep an XDP program attached to the `lo` of a namespace of its own.

    A test run of a program that is attached nowhere makes the kernel patch its
    XDP dispatcher before and after, which takes 24-35 ms a call.  Other hooks have
    no dispatcher.
    """
    if program.info.type != XDP:
        yield
        return
    with isolated(), attach_xdp(program, _LOOPBACK, mode=GENERIC):
        yield


def _once(program: Program, frame: bytes, repeat: int) -> float:
    start = thread_time_ns()
    program.test_run(frame, repeat=repeat)
    return (thread_time_ns() - start) / repeat
