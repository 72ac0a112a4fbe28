"""What the actions beyond pass and drop cost: one rule each, at XDP and at TC ingress, on a packet that it takes.

Out: a row an action and hook, nanoseconds above an empty program of that hook.  A
refused packet is no longer the packet that it was, so each run is a call of its
own, timed by the kernel: what the way there left in the caches is in it, for which
the row of `drop` is the measure.  Refusals are not limited here.  What is mirrored
goes to a device without a carrier, which throws it away.

    python -m bench --only actions
"""

from __future__ import annotations

import struct
import subprocess
from contextlib import ExitStack
from statistics import mean

from bench.hooks import EMPTY, only_program
from bench.turns import undisturbed, unpreempted
from bench.usual import Row
from penstock.compiler.clang import compile_c
from penstock.kernel.bpf_object import load_object
from penstock.kernel.netns import isolated
from penstock.kernel.program import Program
from penstock.model.hook import Hook
from penstock.model.packet import read_packet
from penstock.model.spec import PROGRAM
from penstock.pipeline.devices import fill, located, values
from penstock.pipeline.policy import load_policy
from penstock.price.stopwatch import kept_busy

SAMPLES = 1001
_SECTIONS = {Hook.XDP: ("xdp.frags", "xdp_md", 2), Hook.TC_INGRESS: ("tc", "__sk_buff", -1)}
_ACTIONS = {
    Hook.XDP: ("pass", "drop", "redirect out", "bounce", "reject"),
    Hook.TC_INGRESS: ("pass", "drop", "redirect out", "reject", "mark 7", "dscp ef", "mirror out"),
}
_TRAFFIC = {
    "udp": 'IPv4(src="198.51.100.7")/UDP(dport=53)/Raw(len=32)',
    "tcp": 'IPv4(src="198.51.100.7")/TCP(dport=53, flags="S")',
}
_UNLIMITED = {"ps_reject_burst": struct.pack("=Q", 1 << 32)}


def action_rows(samples: int = SAMPLES) -> list[Row]:
    """One row an action and hook, a figure for each kind of traffic."""
    return [row for hook in _ACTIONS for row in _rows(hook, samples)]


def _rows(hook: Hook, samples: int) -> list[Row]:
    frames = {name: read_packet(text) for name, text in _TRAFFIC.items()}
    with ExitStack() as held:
        held.enter_context(undisturbed())
        held.enter_context(isolated())
        subprocess.run(["ip", "link", "add", "out", "type", "veth", "peer", "far"], check=True)
        subprocess.run(["ip", "link", "set", "out", "up"], check=True)
        programs = {"empty": _empty(hook, held)}
        programs |= {action: _loaded(hook, action, held) for action in _ACTIONS[hook]}
        for program in programs.values():
            held.enter_context(kept_busy(program))
        with unpreempted():
            found = _sampled(programs, frames, samples)
    return [
        {
            "hook": hook.value,
            "action": action,
            **{f: round(found[action, f] - found["empty", f], 1) for f in frames},
        }
        for action in _ACTIONS[hook]
    ]


def _empty(hook: Hook, held: ExitStack) -> Program:
    section, context, code = _SECTIONS[hook]
    return only_program(compile_c(EMPTY.format(section=section, context=context, code=code)), "empty", held)


def _loaded(hook: Hook, action: str, held: ExitStack) -> Program:
    policy = load_policy(f"filter one at {hook.value} {{\n    {action} if dst port 53\n}}\n")
    devices = located(policy.identity.devices)
    constants = values(devices) | (_UNLIMITED if action == "reject" else {})
    loaded = held.enter_context(load_object(policy.elf, policy.name, rodata=constants))
    fill(loaded, devices)
    return loaded.programs[PROGRAM]


def _sampled(
    programs: dict[str, Program], frames: dict[str, bytes], samples: int
) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], list[int]] = {(p, f): [] for p in programs for f in frames}
    for _ in range(samples):
        for (program, frame), durations in found.items():
            durations.append(programs[program].test_run(frames[frame]).duration_ns)
    return {key: _middle(durations) for key, durations in found.items()}


def _middle(durations: list[int]) -> float:
    """The mean of the middle half: the clock that a single run is timed by may have a grain of 10 ns."""
    ordered = sorted(durations)
    return mean(ordered[len(ordered) // 4 : -(len(ordered) // 4) or None])
