"""What is in an object file, known before any kernel sees it.

Counter slot n counts what `slots[n]` says.  What a built file says of itself
on another host is `pipeline.identity`.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.model.limiter import Limiter
from penstock.model.sets import SetSpec

PROGRAM = "ps_filter"
COUNTERS_MAP = "ps_counters"
SCRATCH_MAP = "ps_scratch"
PROBE_MAP = "ps_probe"
REFUSALS_MAP = "ps_refusals"
#: Whether packets are trials; only in programs of which one packet changes what the next meets.
TRIAL_VARIABLE = "ps_trial"
OVER_VARIABLE = "ps_trial_over"


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """One rule: its name, action word, place in the policy and text, and its counter's slot."""

    name: str
    action: str
    line: int
    text: str
    slot: int
    labelled: bool = False
    until_ns: int | None = None


@dataclass(frozen=True, slots=True)
class ObjectSpec:
    """One filter's object.

    `overlay` are the fields that rules added to the running program can test,
    in the order of the variable that says where they lie; () for a program that
    takes none.  `probe` objects have the `ps_probe` map and are for tests only.
    `devices` are the network interfaces that the program knows by number (model/device.py), `sets` those
    that it asks, in the order of their numbers (model/sets.py), `limiters` its token buckets, the n-th
    those of map `ps_limit<n>` (model/limiter.py).
    """

    policy: str
    hook: str
    source: str
    default: str
    slots: tuple[str, ...]
    rules: tuple[RuleSpec, ...]
    section: str
    program: str = PROGRAM
    maps: tuple[str, ...] = (COUNTERS_MAP, SCRATCH_MAP)
    probe: bool = False
    overlay: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    sets: tuple[SetSpec, ...] = ()
    limiters: tuple[Limiter, ...] = ()


@dataclass(frozen=True, slots=True)
class ProbeLayout:
    """Where the numbers lie in the `ps_probe` map's only value (struct ps_probe), all u32 in host order.

    `wire_length` is for the caller to set, 0 meaning the frame's own, and `now_ns`
    (u64, the boot clock), 0 meaning the kernel's own clock and chance, else `chance`
    are the random bits; the rest is to be zeroed before each run.  `hits` is a bitmap over counter slots,
    `hits_words` words long; `conditions` one over `Condition`.
    """

    slots: int
    wire_length: int = 0
    slot: int = 4
    conditions: int = 8
    decided: int = 12
    now_ns: int = 16
    chance: int = 24
    hits: int = 28

    @property
    def hits_words(self) -> int:
        return (self.slots + 31) // 32

    @property
    def size(self) -> int:
        """Bytes of the whole value, which begins with a u64's alignment."""
        return (self.hits + 4 * self.hits_words + 7) // 8 * 8
