"""A rule set with traffic for it, and what each packet must come to.

In: rules (bench.rulesets), IPv4, IPv6 or both.  Out: `Workload`: the policy's
text and, for each kind of traffic, FRAMES different frames and the rule that
linear search finds for each.

    workload = generated("acl", 1000, seed=1)
    workload.traffic["uniform"].expected[:3]     ->  array([412, -1, 97])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.feed import FRAMES
from bench.frames import Frames, frames_of, plain
from bench.reference import NO_RULE, Numbers, first_rules
from bench.rulesets import NAMES, Flavour, Rules, generate, packets, policy_text, rule_lines

KINDS = ("uniform", "zipf")


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """FRAMES frames, and the number of the rule that decides each, NO_RULE where none does."""

    frames: Frames
    expected: Numbers


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """A policy and its traffic; `drops[n]` tells whether rule n drops, `rules` is the set where it is all of IPv4."""

    name: str
    text: str
    drops: npt.NDArray[np.bool_]
    traffic: dict[str, Traffic]
    family: str = "ipv4"
    seed: int = 1
    rules: Rules | None = None
    default_drops: bool = False

    def __len__(self) -> int:
        return len(self.drops)


def generated(flavour: Flavour, count: int, seed: int, *, ipv6: bool = False) -> Workload:
    """A generated rule set of one family, with its traffic uniform over the rules and Zipf's."""
    rules = generate(flavour, count, seed, ipv6=ipv6)
    traffic = {kind: _traffic(rules, seed, kind, FRAMES) for kind in KINDS}
    family = "ipv6" if ipv6 else "ipv4"
    return Workload(flavour, policy_text(rules), rules.drops, traffic, family, seed, None if ipv6 else rules)


def exact(count: int, seed: int) -> Workload:
    """Distinct five-tuples without a prefix or a range among them: the case for a hash; every packet matches one."""
    rules = _exact_rules(count, seed)
    rng = np.random.default_rng([seed, count])
    traffic = {}
    for kind in KINDS:
        weights = 1 / np.arange(1, count + 1) if kind == "zipf" else np.ones(count)
        chosen = rng.choice(count, FRAMES, p=weights / weights.sum())
        columns = {name: rules.low[name][chosen] for name in NAMES}
        traffic[kind] = Traffic(frames_of(columns, ipv6=False), first_rules(rules, columns))
    strangers = _exact_rules(FRAMES, seed + 1_000).low
    found = first_rules(rules, strangers)
    traffic["none matches"] = Traffic(frames_of(strangers, ipv6=False), found)
    return Workload("exact", policy_text(rules), rules.drops, traffic, seed=seed, rules=rules)


def _exact_rules(count: int, seed: int) -> Rules:
    rng = np.random.default_rng([seed, 3])
    columns = {name: rng.integers(0x0B000000, 0xDF000000, count).astype(np.uint64) for name in ("src", "dst")}
    columns |= {name: rng.integers(1, 65535, count).astype(np.uint64) for name in ("sport", "dport")}
    columns["proto"] = rng.choice((6, 17), count).astype(np.uint64)
    bits = np.full(count, 32)
    return Rules("exact", False, columns, columns, bits, bits, np.ones(count, bool))


def mixed(flavour: Flavour, count: int, seed: int) -> Workload:
    """Half the rules and half the packets are IPv4's, the others IPv6's, in turn."""
    halves = [generate(flavour, count // 2, seed, ipv6=ipv6) for ipv6 in (False, True)]
    lines = [_of_family(half) for half in halves]
    text = [
        "filter bench at xdp {",
        *(f"    {line}" for pair in zip(*lines, strict=True) for line in pair),
        "}",
    ]
    traffic = {}
    for kind in KINDS:
        parts = [_traffic(half, seed, kind, FRAMES // 2) for half in halves]
        traffic[kind] = _shuffled(parts, seed)
    drops = np.column_stack([half.drops for half in halves]).reshape(-1)
    return Workload(flavour, "\n".join([*text, ""]), drops, traffic, "mixed", seed)


def _of_family(rules: Rules) -> list[str]:
    """The rules' text, each for one family of packets alone."""
    word = "ip6" if rules.ipv6 else "ip"
    found = []
    for line in rule_lines(rules):
        action, _, condition = line.partition(" if ")
        found.append(f"{action} if {word}" + (f" and {condition}" if condition else ""))
    return found


def _traffic(rules: Rules, seed: int, kind: str, count: int) -> Traffic:
    columns = plain(packets(rules, count, seed, zipf=kind == "zipf"), ipv6=rules.ipv6)
    return Traffic(frames_of(columns, ipv6=rules.ipv6), first_rules(rules, columns))


def _shuffled(parts: Sequence[Traffic], seed: int) -> Traffic:
    """Both families' packets in a random order: a regular one would be predicted; the rules are in turn."""
    order = np.random.default_rng([seed, 6]).permutation(FRAMES)
    frames = np.concatenate([part.frames for part in parts])[order]
    expected = [
        np.where(part.expected == NO_RULE, NO_RULE, part.expected * 2 + at) for at, part in enumerate(parts)
    ]
    return Traffic(frames, np.concatenate(expected)[order])
