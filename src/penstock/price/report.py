"""The price of a policy: its program beside an empty one and beside one written by hand.

In: a compiled policy, its rules, traffic, and optionally C that does by hand
what the policy says.  Out: `Price`, all of it measured in one run.

    price(policy, usual_classes(rules)).traffic[0].above_empty_ns   ->  1.9

A figure in nanoseconds means something beside the others of the same run alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import perf_counter

from penstock.compiler.clang import compile_c
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.kernel.program import Program
from penstock.pipeline.policy import LoadedPolicy
from penstock.price.feed import times
from penstock.price.figures import Figures, ObjectFigures, loaded_figures, object_figures, only_program
from penstock.price.stopwatch import REPEAT, ROUNDS, SAMPLES, measure, measure_cold
from penstock.price.traffic import TrafficClass

#: C of a program that does nothing: what being called costs.
EMPTY = """\
#include <penstock/uapi.bpf.h>
SEC("xdp.frags") int empty(struct xdp_md *ctx) { return 2; }
char _license[] SEC("license") = "Dual BSD/GPL";
"""

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TrafficPrice:
    """Nanoseconds a packet of one class: of the policy, of an empty program, of one by hand.

    `cold_…` is with evicted caches.  None stands for what was not measured: no
    program by hand, or packets that differ too much to be warm or cold.
    `frames` are what it was measured with: one, or a stream's.
    """

    traffic: TrafficClass
    ns: float
    empty_ns: float
    hand_written_ns: float | None
    cold_ns: float | None = None
    cold_empty_ns: float | None = None
    frames: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        return self.traffic.name

    @property
    def above_empty_ns(self) -> float:
        """What the policy itself costs."""
        return self.ns - self.empty_ns

    @property
    def cold_above_empty_ns(self) -> float | None:
        """What it costs with evicted caches."""
        if self.cold_ns is None or self.cold_empty_ns is None:
            return None
        return self.cold_ns - self.cold_empty_ns

    @property
    def ratio(self) -> float | None:
        """The policy's cost above empty as a multiple of the hand-written program's; None without one."""
        if self.hand_written_ns is None or self.hand_written_ns <= self.empty_ns:
            return None
        return self.above_empty_ns / (self.hand_written_ns - self.empty_ns)


@dataclass(frozen=True, slots=True)
class Price:
    """What a policy costs: a row for each class of traffic, and what its program is (`Figures`)."""

    policy: str
    traffic: tuple[TrafficPrice, ...]
    object: ObjectFigures
    figures: Figures

    @property
    def worst(self) -> TrafficPrice:
        """The class of traffic that is dearest above empty."""
        return max(self.traffic, key=lambda one: one.above_empty_ns)


def price(
    policy: LoadedPolicy,
    traffic: Sequence[TrafficClass],
    streams: Mapping[str, Sequence[bytes]] | None = None,
    *,
    hand_written: str | None = None,
    rounds: int = ROUNDS,
    repeat: int = REPEAT,
    samples: int = SAMPLES,
    told: Told | None = None,
) -> Price:
    """Load, measure and unload; nothing is attached to an interface of this machine.

    Each class is measured by its frame, warm and cold, each of the `streams` by
    its packets in turn.

    Raises:
        ToolchainError: clang refuses the hand-written C.
        KernelError: a program is refused, or a capability is missing.
    """
    say = told or (lambda _sentence: None)
    say("loading")
    with ExitStack() as held:
        # Before the clock runs: the first load of a process also opens libbpf.
        empty = program_of(EMPTY, "empty", held)
        start = perf_counter()
        loaded = held.enter_context(load_object(policy.elf, policy.name))
        load_s = perf_counter() - start
        programs = {"policy": only_program(loaded), "empty": empty}
        if hand_written is not None:
            programs["hand"] = program_of(hand_written, "hand", held)
        rows = [*_classes(programs, traffic, rounds, repeat, samples, say)]
        for name, frames in (streams or {}).items():
            say(f"measuring {name}")
            rows.append(_stream(programs, name, frames, rounds))
        return Price(
            policy.name, tuple(rows), object_figures(policy.elf), figures_of(policy.elf, policy.name, load_s)
        )


def figures_of(elf: bytes, name: str, load_s: float | None = None) -> Figures:
    """What the kernel says of the object's program.

    It is loaded once more for that: writing figures takes the verifier time,
    which is not to be in `load_s`.

    Raises:
        KernelError: it is refused.
    """
    if load_s is None:
        start = perf_counter()
        load_object(elf, name).close()
        load_s = perf_counter() - start
    with load_object(elf, name, statistics=True) as loaded:
        return loaded_figures(loaded, load_s)


def program_of(source: str, name: str, held: ExitStack) -> Program:
    """The XDP program of some C, loaded until `held` ends."""
    loaded: BpfObject = held.enter_context(load_object(compile_c(source), name))
    return only_program(loaded)


def _classes(
    programs: Mapping[str, Program],
    traffic: Sequence[TrafficClass],
    rounds: int,
    repeat: int,
    samples: int,
    say: Told,
) -> list[TrafficPrice]:
    frames = {one.name: one.frame for one in traffic}
    say(f"measuring {len(frames)} classes of traffic, warm")
    warm = measure(programs, frames, rounds=rounds, repeat=repeat)
    say(f"measuring {len(frames)} classes of traffic, cold")
    both = {name: programs[name] for name in ("policy", "empty")}
    cold = measure_cold(both, frames, samples=samples)
    return [
        TrafficPrice(
            one,
            warm["policy"][one.name],
            warm["empty"][one.name],
            warm["hand"][one.name] if "hand" in warm else None,
            cold["policy"][one.name],
            cold["empty"][one.name],
            (one.frame,),
        )
        for one in traffic
    ]


def _stream(programs: Mapping[str, Program], name: str, frames: Sequence[bytes], rounds: int) -> TrafficPrice:
    found = times(programs, frames, rounds)
    traffic = TrafficClass(name, frames[0], len(frames))
    return TrafficPrice(traffic, found["policy"], found["empty"], found.get("hand"), frames=tuple(frames))
