"""The price of a policy: its program beside an empty one and beside one written by hand.

In: a policy's text, frames, and optionally C that does by hand what the policy
says.  Out: `Price`, all of it measured in one run.

    price(load_policy(text), {"dns": frame}).traffic[0].above_empty_ns   ->  1.9
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter

from penstock.compiler.clang import compile_c
from penstock.errors import KernelError
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.kernel.program import XDP, Program
from penstock.pipeline.policy import LoadedPolicy
from penstock.price.stopwatch import REPEAT, ROUNDS, Costs, measure

#: C of a program that does nothing: what being called costs.
EMPTY = """\
#include <penstock/uapi.bpf.h>
SEC("xdp.frags") int empty(struct xdp_md *ctx) { return 2; }
char _license[] SEC("license") = "Dual BSD/GPL";
"""
_INSTRUCTION_SIZE = 8


@dataclass(frozen=True, slots=True)
class TrafficPrice:
    """Nanoseconds a packet of one kind; `hand_written_ns` is None where there is no program to compare with."""

    name: str
    ns: float
    empty_ns: float
    hand_written_ns: float | None

    @property
    def above_empty_ns(self) -> float:
        """What the policy itself costs."""
        return self.ns - self.empty_ns

    @property
    def ratio(self) -> float | None:
        """The policy's cost above empty as a multiple of the hand-written program's; None without one."""
        if self.hand_written_ns is None or self.hand_written_ns <= self.empty_ns:
            return None
        return self.above_empty_ns / (self.hand_written_ns - self.empty_ns)


@dataclass(frozen=True, slots=True)
class Price:
    """What a policy costs.

    `instructions` is what the kernel runs from, `verified_instructions` what
    its verifier walked through, `map_bytes` the values of the maps (per CPU
    where they are), `load_s` from object to loaded program.
    """

    policy: str
    traffic: tuple[TrafficPrice, ...]
    instructions: int
    verified_instructions: int
    jited_bytes: int
    map_bytes: int
    load_s: float


def price(
    policy: LoadedPolicy,
    frames: Mapping[str, bytes],
    *,
    hand_written: str | None = None,
    rounds: int = ROUNDS,
    repeat: int = REPEAT,
) -> Price:
    """Load, measure and unload; nothing is attached to an interface of this machine.

    Raises:
        ToolchainError: clang refuses the hand-written C.
        KernelError: a program is refused, or a capability is missing.
    """
    with ExitStack() as held:
        start = perf_counter()
        loaded = held.enter_context(load_object(policy.elf, policy.name))
        load_s = perf_counter() - start
        programs = {
            "policy": _only(loaded),
            "empty": _only(held.enter_context(load_object(compile_c(EMPTY), "empty"))),
        }
        if hand_written is not None:
            programs["hand"] = _only(held.enter_context(load_object(compile_c(hand_written), "hand")))
        costs = measure(programs, frames, rounds=rounds, repeat=repeat)
        info = programs["policy"].info
        return Price(
            policy=policy.name,
            traffic=tuple(_traffic_price(name, costs) for name in frames),
            instructions=info.xlated_size // _INSTRUCTION_SIZE,
            verified_instructions=info.verified_insns,
            jited_bytes=info.jited_size,
            map_bytes=sum(
                bpf_map.info.value_size * bpf_map.info.max_entries for bpf_map in loaded.maps.values()
            ),
            load_s=load_s,
        )


def _only(loaded: BpfObject) -> Program:
    found = [program for program in loaded.programs.values() if program.info.type == XDP]
    if len(found) != 1:
        raise KernelError("measure", loaded.name, 0, meaning=f"it has {len(found)} XDP programs, not one")
    return found[0]


def _traffic_price(name: str, costs: Costs) -> TrafficPrice:
    hand = costs["hand"][name] if "hand" in costs else None
    return TrafficPrice(name, costs["policy"][name], costs["empty"][name], hand)
