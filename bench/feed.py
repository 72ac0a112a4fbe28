"""Let a program meet 65,536 different packets in turn, at the cost of a copy of seven words a packet.

In: frames, and programs as they were loaded.  Out: nanoseconds of thread CPU
time a packet, round by round, of each program and of an empty one that is fed
alike; and the programs' answers.  bench/hand/feeder.bpf.c says how.

    with Feed() as feed:
        feed.fill(frames)
        feed.measure({"policy": program}, rounds=15)       ->  {"empty": [27.1, …], "policy": [83.0, …]}
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import thread_time_ns
from typing import Self

import numpy as np

from bench.frames import Frames
from bench.turns import unpreempted
from bench.usual import HAND
from penstock.compiler.clang import compile_c
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.kernel.program import Program
from penstock.price.stopwatch import kept_busy

#: Distinct packets in a feed, a power of two.
FRAMES = 1 << 16
#: Bytes of each frame that differ from packet to packet: `FIRST` to `FIRST + VARIED`.
FIRST, VARIED = 6, 56
_RECORD = 64
#: A program's turn in a round takes about so long; the first turn shows how many packets that is.
_TURN_NS = 20e6
_FEWEST = 64
_LEAD = 4

Samples = dict[str, list[float]]
"""Nanoseconds a packet of each program, in the order of the rounds."""


@dataclass(frozen=True, slots=True)
class Fed:
    """A program behind a feeder of its own."""

    feeder: Program
    held: BpfObject
    frame: bytes

    def run(self, repeat: int) -> float:
        """ns of thread CPU time a packet; the next `repeat` frames of the feed."""
        begun = thread_time_ns()
        self.feeder.test_run(self.frame, repeat=repeat)
        return (thread_time_ns() - begun) / repeat


class Feed:
    """An array of frames in the kernel that all feeders read."""

    def __init__(self, apart: int = 0) -> None:
        """`apart` is how many instructions come before each packet that do nothing."""
        head = f"#define APART {apart}\n" if apart else ""
        self._elf = compile_c(head + (HAND / "feeder.bpf.c").read_text())
        self._held = ExitStack()
        self._first = self._held.enter_context(load_object(self._elf, "feed"))
        self._frames = self._first.maps["frames"]
        self._template = bytes(64)

    def fill(self, frames: Frames) -> None:
        """Take these frames, FRAMES of them."""
        records = np.zeros((FRAMES, _RECORD), np.uint8)
        records[:, :VARIED] = frames[:, FIRST : FIRST + VARIED]
        self._frames.view()[:] = records
        self._template = frames[0].tobytes()

    @contextmanager
    def fed(self, program: Program | None) -> Iterator[Fed]:
        """A program behind a feeder; None is the empty one."""
        with load_object(self._elf, "feed", reuse={"frames": self._frames}) as feeder:
            target = feeder.programs["empty"] if program is None else program
            feeder.maps["next"].update(bytes(4), struct.pack("=I", target.fd))
            with kept_busy(feeder.programs["feeder"]):
                yield Fed(feeder.programs["feeder"], feeder, self._template)

    def measure(self, programs: Mapping[str, Program], rounds: int) -> Samples:
        """Samples of all these and of `empty`, each in its turn in each round; dear ones meet fewer packets a turn."""
        with ExitStack() as held:
            turns = {"empty": held.enter_context(self.fed(None))}
            turns |= {name: held.enter_context(self.fed(program)) for name, program in programs.items()}
            repeats = {name: _repeat(fed) for name, fed in turns.items()}
            samples: Samples = {name: [] for name in turns}
            with unpreempted():
                for _ in range(rounds):
                    for name, fed in turns.items():
                        # What the program before it has left in the caches is fetched before the clock runs.
                        fed.run(max(_FEWEST, repeats[name] // _LEAD))
                        samples[name].append(round(fed.run(repeats[name]), 2))
        return samples

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()


def _repeat(fed: Fed) -> int:
    """How many packets one turn is to have: all frames, unless that would take long."""
    quick = fed.run(_FEWEST)
    if quick < _TURN_NS / FRAMES * 100:
        quick = fed.run(FRAMES // 8)  # a few packets show what a cold cache costs, and the call
    return int(min(FRAMES, max(_FEWEST, _TURN_NS / quick)))
