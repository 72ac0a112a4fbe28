"""The same rules in other filters, with real frames over a veth pair (penstock.price.peers).

Out: a row a rule set: for each filter that can say it nanoseconds a packet,
sending and receiving included, beside XDP programs that drop or pass
everything; for each other one the reason.  Before it is timed a filter has to
deliver just the packets that the reference evaluator passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.frames import Frames, frames_of
from bench.rulesets import generate, packets, policy_text
from bench.turns import undisturbed
from penstock.pipeline.policy import load_policy
from penstock.price.peers import compare

Row = dict[str, object]
#: The reference evaluator has to try every rule on each of them, and so long others wait for their turn to measure.
FRAMES, _FEWEST = 1024, 128
_TRIED = 1 << 20
_SEED = 1


@dataclass(frozen=True, slots=True)
class WireSet:
    """A rule set for the wire; `make` gives its text and frames, `size` is how many rules or addresses it has."""

    name: str
    size: int
    make: Callable[[int], tuple[str, Frames]]


def sets(sizes: tuple[int, ...]) -> tuple[WireSet, ...]:
    """One rule, a list of 1,000 addresses, and access lists of these sizes."""
    lists = (WireSet("access list", size, _access_list) for size in sizes)
    return (WireSet("udp dst port 53", 1, _dns), WireSet("addresses in one rule", 1000, _blocklist), *lists)


def wire_row(which: WireSet, packets_sent: int, rounds: int) -> Row:
    """Measure one rule set in everything that can say it."""
    text, frames = which.make(which.size)
    policy = load_policy(text)
    assert policy.rule_set is not None
    traffic = {"uniform": [row.tobytes() for row in frames]}
    with undisturbed():
        found = compare(policy.rule_set, policy.elf, traffic, packets=packets_sent, rounds=rounds)
    return {
        "set": which.name,
        "rules": which.size,
        "frames": found.sent["uniform"],
        "packets": found.packets,
        "rounds": found.rounds,
        "ns": {price.peer: round(price.ns["uniform"], 1) for price in found.prices},
        "left_out": {one.peer: one.reason.partition("\n")[0][:160] for one in found.left_out},
    }


def _dns(_size: int) -> tuple[str, Frames]:
    rng = np.random.default_rng(_SEED)
    columns = _anything(rng)
    columns["dport"] = rng.choice((53, 53, 53, 80, 443, 4000), FRAMES).astype(np.uint64)
    return "filter bench at xdp {\ndrop if udp dst port 53\n}\n", frames_of(columns, ipv6=False)


def _blocklist(size: int) -> tuple[str, Frames]:
    rng = np.random.default_rng(_SEED)
    columns = _anything(rng)
    blocked = np.unique(rng.integers(0x0B000000, 0xDF000000, size))
    half = rng.random(FRAMES) < 0.5
    columns["src"] = np.where(half, rng.choice(blocked, FRAMES), columns["src"]).astype(np.uint64)
    listed = ", ".join(".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0)) for number in blocked)
    text = f"let blocked = {listed}\nfilter bench at xdp {{\ndrop if src host $blocked\n}}\n"
    return text, frames_of(columns, ipv6=False)


def _access_list(size: int) -> tuple[str, Frames]:
    rules = generate("acl", size, _SEED)
    count = max(_FEWEST, min(FRAMES, _TRIED // size))
    return policy_text(rules), frames_of(packets(rules, count, _SEED), ipv6=False)


def _anything(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random addresses and ports, TCP and UDP."""
    found = {name: rng.integers(0x0B000000, 0xDF000000, FRAMES).astype(np.uint64) for name in ("src", "dst")}
    found |= {name: rng.integers(1024, 65535, FRAMES).astype(np.uint64) for name in ("sport", "dport")}
    found["proto"] = rng.choice((6, 17), FRAMES).astype(np.uint64)
    return found
