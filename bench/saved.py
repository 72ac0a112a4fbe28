"""Rule sets in iptables-save form as workloads: bench/data, or a file of one's own.

The policy is the translated chain (bench.iptables_save); packets are drawn from
what its rules ask for, and netfilter's own way through the chains says what
each must come to (bench.netfilter).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import numpy as np

from bench.feed import FRAMES
from bench.frames import frames_of
from bench.iptables_policy import Step, Translated, translate
from bench.iptables_save import Address, IcmpType, Ports, Protocol, Test, read
from bench.netfilter import deciding_steps
from bench.reference import NO_RULE
from bench.rulesets import Column, Rules, packets
from bench.workload import KINDS, Traffic, Workload

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True)
class SavedSet:
    """A rule set of bench/data: the chain that is measured, and the interface that the filter is on."""

    name: str
    chain: str
    what: str
    interface: str = "eth0"


SETS = (
    SavedSet("ufw", "INPUT", "ufw on a server, forty rules of its user's"),
    SavedSet("fail2ban", "INPUT", "fail2ban, 1,750 addresses banned from five services"),
    SavedSet(
        "docker", "FORWARD", "Docker with four bridges, sixty published ports and lists in front of them"
    ),
    SavedSet("hosts", "FORWARD", "a router with a chain for each of 200 hosts"),
)
_TCP, _ICMP = 6, 1
_ANY_ADDRESS, _ANY_PORT = (0, 0xFFFFFFFF), (0, 0xFFFF)
_FLAGS = (0x02, 0x10, 0x18, 0x12, 0x11, 0x04)
_FLAG_SHARES = (0.35, 0.3, 0.2, 0.05, 0.05, 0.05)
_ICMP_TYPES = (8, 0, 3, 11, 12, 5)


def saved(which: SavedSet, seed: int) -> tuple[Workload, Translated]:
    """The workload of a rule set, and what became of its rules."""
    return workload_of((DATA / f"{which.name}.rules").read_text(), which, seed)


def workload_of(text: str, which: SavedSet, seed: int) -> tuple[Workload, Translated]:
    """The same of any text that iptables-save has printed."""
    tables = read(text)
    translated = translate(tables, which.chain, interface=which.interface)
    traffic = {}
    for kind in KINDS:
        columns = packets_for(translated, seed, zipf=kind == "zipf")
        steps = deciding_steps(tables.chains, which.chain, which.interface, columns)
        # The policy's first rule, which lets other families pass, is not a step.
        expected = np.where(steps == NO_RULE, NO_RULE, steps + 1)
        traffic[kind] = Traffic(frames_of(columns, ipv6=False), expected)
    drops = np.array([False, *(step.drops for step in translated.steps)])
    workload = Workload(
        which.name,
        translated.text,
        drops,
        traffic,
        family="ipv4",
        seed=seed,
        default_drops=translated.drops_by_default,
    )
    return workload, translated


def packets_for(translated: Translated, seed: int, *, zipf: bool = False) -> dict[str, Column]:
    """FRAMES packets that exercise the policy's rules, with TCP flags and ICMP types."""
    boxes = _boxes(translated.steps)
    rng = np.random.default_rng([seed, 9])
    columns = packets(boxes, FRAMES, seed, zipf=zipf)
    columns["flags"] = rng.choice(_FLAGS, FRAMES, p=_FLAG_SHARES).astype(np.uint64)
    columns["icmp_type"] = rng.choice(_ICMP_TYPES, FRAMES).astype(np.uint64)
    columns["icmp_code"] = np.zeros(FRAMES, np.uint64)
    return columns


def _boxes(steps: Sequence[Step]) -> Rules:
    """For each step a box of packets that pass most of its tests: what to draw packets from, no more."""
    rows = [_box(step.tests) for step in steps]
    low = {name: np.array([row[name][0] for row in rows], np.uint64) for name in rows[0]}
    high = {name: np.array([row[name][1] for row in rows], np.uint64) for name in rows[0]}
    nothing = np.zeros(len(rows), np.int64)
    return Rules("saved", False, low, high, nothing, nothing, np.array([step.drops for step in steps]))


def _box(tests: tuple[Test, ...]) -> dict[str, tuple[int, int]]:
    box = {
        "src": _ANY_ADDRESS,
        "dst": _ANY_ADDRESS,
        "proto": (_TCP, _TCP),
        "sport": _ANY_PORT,
        "dport": _ANY_PORT,
    }
    for test in tests:
        match test:
            case Address(side, networks, False):
                network = IPv4Network(networks[0])
                box[side] = (int(network.network_address), int(network.broadcast_address))
            case Protocol(number, False):
                box["proto"] = (number, number)
            case IcmpType(negated=False):
                box["proto"] = (_ICMP, _ICMP)
            case Ports("src", ranges, False):
                box["sport"] = ranges[0]
            case Ports(_, ranges, False):
                box["dport"] = ranges[-1]
            case _:
                pass
    return box
