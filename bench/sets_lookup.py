"""What asking a set of networks costs a packet: flat beside a trie and beside an empty program, in one run.

A feeder (bench/hand/addresses.bpf.c) gives each run another source address, of 2^20
or of 1,000, and goes on to a policy of one rule, `drop if src in @nets`.

    rows = lookups(1_000_000)            -> [Row("net", "v4", "flat", 956082, "random", 52.1, …), …]
    python -m bench.sets_lookup --entries 100000 1000000

`random` packets come from anywhere, `hit` ones from within a network of the set,
`miss` ones from outside of all.  Networks have the lengths of blocklists: more than
half are single addresses, a quarter are /24.
"""

from __future__ import annotations

import argparse
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from time import thread_time_ns

import numpy as np
import numpy.typing as npt

from bench.turns import undisturbed, unpreempted
from bench.usual import HAND
from penstock.compiler.clang import compile_c
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.kernel.maps import Map
from penstock.kernel.program import Program
from penstock.model.packet import build_packet, parse_packet
from penstock.model.sets import control_map, set_map
from penstock.model.spec import PROGRAM
from penstock.pipeline.live_set import LiveSet
from penstock.pipeline.policy import load_policy
from penstock.pipeline.set_keys import Content, Entries
from penstock.pipeline.set_store import live
from penstock.price.stopwatch import kept_busy

PACKETS = 1 << 20
FEW = 1000
#: Prefix lengths of IPv4 and IPv6 networks, and how often each occurs.
LENGTHS = {
    "v4": {20: 1, 21: 1, 22: 2, 23: 2, 24: 24, 25: 2, 26: 2, 27: 2, 28: 2, 29: 2, 30: 2, 31: 2, 32: 56},
    "v6": {32: 0.3, 36: 2, 40: 4, 44: 4, 48: 35, 56: 14, 64: 25, 128: 15},
}
_POLICY = (
    "set nets : net size {size} as {structure}\n"
    "filter bench at xdp {{\n default pass\n drop if src in @nets\n}}\n"
)
_PACKETS = {"v4": "Ether()/IPv4()/UDP(dport=53)", "v6": "Ether()/IPv6()/UDP(dport=53)"}
_TURN_PACKETS = {"empty": PACKETS, "flat": PACKETS, "trie": PACKETS // 8}

Words = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Row:
    """Nanoseconds a packet above the empty program, the median of the rounds."""

    family: str
    structure: str
    entries: int
    traffic: str
    packets: int
    ns: float
    bytes_per_entry: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Networks:
    """Networks of a family: the first 64 bits and the last of each, and its length; IPv4 is the first 32 bits."""

    family: str
    hi: Words
    lo: Words
    length: npt.NDArray[np.int64]

    def content(self) -> Content:
        """As sets take them."""
        of_family = _entries(self.family, self.hi, self.lo, self.length)
        other = "v6" if self.family == "v4" else "v4"
        nothing = _entries(other, *(np.zeros(0, np.uint64),) * 2, np.zeros(0, np.int64))
        return {self.family: of_family, other: nothing}


def networks(family: str, count: int, seed: int = 1) -> Networks:
    """About so many different random networks; IPv6 ones out of 65,536 /32."""
    rng = np.random.default_rng([seed, count, family == "v6"])
    lengths = LENGTHS[family]
    weight = np.array(list(lengths.values()), float)
    length = rng.choice(list(lengths), count, p=weight / weight.sum())
    hi, lo = rng.integers(0, 1 << 64, (2, count), np.uint64)
    if family == "v4":
        hi, lo = hi >> np.uint64(32) << np.uint64(32), lo * np.uint64(0)
    else:
        places = rng.integers(1 << 29, (1 << 29) + (1 << 24), 1 << 16, np.uint64) << np.uint64(32)
        hi = places[rng.integers(0, len(places), count)] | hi >> np.uint64(32)
    hi, lo = _cut(hi, lo, length)
    whole = np.stack([hi, lo, length.astype(np.uint64)], axis=1)
    hi, lo, kept = np.unique(whole, axis=0).T if family == "v6" else _distinct(hi, length)
    return Networks(family, np.ascontiguousarray(hi), np.ascontiguousarray(lo), kept.astype(np.int64))


def _distinct(hi: Words, length: npt.NDArray[np.int64]) -> tuple[Words, Words, Words]:
    keys = np.sort(hi | length.astype(np.uint64))
    keys = keys[np.append(True, keys[1:] != keys[:-1])]
    return keys & ~np.uint64(0xFF), np.zeros_like(keys), keys & np.uint64(0xFF)


def _cut(hi: Words, lo: Words, length: npt.NDArray[np.int64]) -> tuple[Words, Words]:
    """Without what lies behind the prefixes."""
    masks = [_mask(np.clip(length - at, 0, 64)) for at in (0, 64)]
    return hi & masks[0], lo & masks[1]


def _mask(count: npt.NDArray[np.int64]) -> Words:
    full = np.uint64(0xFFFFFFFFFFFFFFFF)
    return np.where(count == 0, np.uint64(0), full << ((64 - count) % 64).astype(np.uint64))


def _entries(family: str, hi: Words, lo: Words, length: npt.NDArray[np.int64]) -> Entries:
    octets = np.stack([hi, lo], axis=1).astype(">u8").view(np.uint8)[:, : 4 if family == "v4" else 16]
    keys = np.concatenate([length.astype(np.uint32).reshape(-1, 1).view(np.uint8), octets], axis=1)
    return Entries(np.ascontiguousarray(keys), np.zeros(len(keys), np.uint64))


# ── packets ──────────────────────────────────────────────────────────────────


def addresses(nets: Networks, traffic: str, count: int, seed: int = 2) -> tuple[Words, Words]:
    """PACKETS addresses, of which `count` are different."""
    rng = np.random.default_rng([seed, count])
    hi, lo = rng.integers(0, 1 << 64, (2, count), np.uint64)
    if nets.family == "v6":
        places = nets.hi[rng.integers(0, len(nets.hi), count)]
        hi = places >> np.uint64(32) << np.uint64(32) | hi >> np.uint64(32)
    if traffic == "miss":
        hi = _outside(nets, hi) if nets.family == "v4" else _outside_v6(nets, hi)
    if traffic == "hit":
        chosen = rng.integers(0, len(nets.hi), count)
        inside_hi, inside_lo = _cut(hi, lo, nets.length[chosen])
        hi, lo = nets.hi[chosen] | hi ^ inside_hi, nets.lo[chosen] | lo ^ inside_lo
    if nets.family == "v4":
        hi, lo = hi >> np.uint64(32) << np.uint64(32), lo * np.uint64(0)
    again = np.arange(PACKETS) % count
    return hi[again], lo[again]


def _outside(nets: Networks, hi: Words) -> Words:
    """Those addresses that are in no network, again and again."""
    first = nets.hi >> np.uint64(32)
    ends = np.maximum.accumulate(first + (np.uint64(1) << (32 - nets.length).astype(np.uint64)))
    at = np.searchsorted(first, hi >> np.uint64(32), "right") - 1
    free = hi[(at < 0) | (ends[at] <= hi >> np.uint64(32))]
    return free[np.arange(len(hi)) % len(free)]


def _outside_v6(nets: Networks, hi: Words) -> Words:
    """The same; longer networks than /64 are met by nobody by chance."""
    is_in = np.zeros(len(hi), bool)
    for length in np.unique(nets.length[nets.length <= 64]):
        masked = hi & _mask(np.array([length]))
        is_in |= np.isin(masked, nets.hi[nets.length == length])
    free = hi[~is_in]
    return free[np.arange(len(hi)) % len(free)]


class Source:
    """Addresses in the kernel that all feeders read."""

    def __init__(self, family: str) -> None:
        self._elf = compile_c((HAND / "addresses.bpf.c").read_text())
        self._held = ExitStack()
        self._map: Map = self._held.enter_context(load_object(self._elf, "addresses")).maps["addresses"]
        self._name = "feeder" if family == "v4" else "feeder6"
        self._frame = build_packet(parse_packet(_PACKETS[family]))

    def fill(self, family: str, hi: Words, lo: Words) -> None:
        """Take these PACKETS addresses."""
        words = self._map.view(np.uint64)
        words[:, 0] = (hi >> np.uint64(32)).astype(">u4").view(np.uint32) if family == "v4" else _swapped(hi)
        words[:, 1] = _swapped(lo)

    @contextmanager
    def fed(self, program: Program | None) -> Iterator[tuple[Program, bytes]]:
        """A feeder before a program; None is the empty one."""
        with load_object(self._elf, "addresses", reuse={"addresses": self._map}) as feeder:
            target = feeder.programs["empty"] if program is None else program
            feeder.maps["next"].update(bytes(4), struct.pack("=I", target.fd))
            with kept_busy(feeder.programs[self._name]):
                yield feeder.programs[self._name], self._frame

    def close(self) -> None:
        """Let go of the map."""
        self._held.close()


def _swapped(words: Words) -> Words:
    return words.astype(">u8").view(np.uint64)


# ── figures ──────────────────────────────────────────────────────────────────


@contextmanager
def asked(structure: str, nets: Networks) -> Iterator[tuple[Program, LiveSet]]:
    """A loaded policy of one rule that asks a set of these networks."""
    size = max(4096, len(nets.hi))
    policy = load_policy(_POLICY.format(size=size, structure=structure))
    with load_object(policy.elf, policy.name) as loaded:
        yield loaded.programs[PROGRAM], _filled(loaded, policy.identity.sets[0], nets)


def _filled(loaded: BpfObject, spec: object, nets: Networks) -> LiveSet:
    from penstock.model.sets import SetSpec

    assert isinstance(spec, SetSpec)
    maps = {table: loaded.maps[set_map(0, table)].duplicate() for table in spec.tables}
    found = live(spec, maps, loaded.maps[control_map(0)].duplicate(), {})
    found.update(nets.content())
    return found


def lookups(count: int, family: str = "v4", rounds: int = 5) -> list[Row]:
    """A row for each structure and kind of traffic, all of one run, in turns."""
    nets = networks(family, count)
    rows = []
    with ExitStack() as held:
        source = Source(family)
        held.callback(source.close)
        programs: dict[str, Program | None] = {"empty": None}
        memory: dict[str, float | None] = {}
        for structure in ("flat", "trie"):
            programs[structure], found = held.enter_context(asked(structure, nets))
            memory[structure] = found.memory / len(nets.hi) if structure == "flat" else None
        feeders = {name: held.enter_context(source.fed(one)) for name, one in programs.items()}
        for traffic, different in (
            ("random", PACKETS),
            ("miss", PACKETS),
            ("hit", PACKETS),
            ("miss", FEW),
            ("hit", FEW),
        ):
            source.fill(family, *addresses(nets, traffic, different))
            times = _times(feeders, rounds)
            rows += [
                Row(
                    family,
                    one,
                    len(nets.hi),
                    traffic,
                    different,
                    round(times[one] - times["empty"], 1),
                    memory[one],
                )
                for one in ("flat", "trie")
            ]
    return rows


def _times(feeders: Mapping[str, tuple[Program, bytes]], rounds: int) -> dict[str, float]:
    samples: dict[str, list[float]] = {name: [] for name in feeders}
    with undisturbed(), unpreempted():
        for _ in range(rounds):
            for name, (feeder, frame) in feeders.items():
                repeat = _TURN_PACKETS[name]
                # All of them once: the turn before, of a trie, has driven from the caches what these packets meet.
                feeder.test_run(frame, repeat=repeat)
                begun = thread_time_ns()
                feeder.test_run(frame, repeat=repeat)
                samples[name].append((thread_time_ns() - begun) / repeat)
    return {name: median(taken) for name, taken in samples.items()}


def main() -> None:
    """Print the rows of some numbers of entries."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--entries", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--family", nargs="+", default=["v4"], choices=["v4", "v6"])
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    for family in chosen.family:
        for count in chosen.entries:
            for row in lookups(count, family, chosen.rounds):
                print(row)


if __name__ == "__main__":
    main()
