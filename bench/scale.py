"""More and more rules, through the whole path: text, compiler, load, the program on frames.

Out: a row a rule set, with raw samples of each program's nanoseconds a packet
in interleaved rounds: `empty`, `penstock` and, where they can say the rules
and the kernel takes them, the same rules by hand.  Whatever is timed has given
the right answer to every frame first (bench.answers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from time import perf_counter

from bench.answers import check
from bench.building import Build, build
from bench.by_hand import FIRST_SLOT, ByHand, chain, hashed, linear
from bench.feed import Feed
from bench.rulesets import Rules
from bench.workload import Workload
from penstock.errors import PenstockError
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.kernel.link import attach_xdp
from penstock.kernel.netlink import GENERIC
from penstock.kernel.netns import isolated
from penstock.kernel.program import Program
from penstock.model.spec import COUNTERS_MAP, PROGRAM

Row = dict[str, object]
Peer = Callable[[Rules], AbstractContextManager[ByHand]]
#: Beyond this a chain of ifs is refused, and clang takes minutes to say so.
_LONGEST_CHAIN = 100
#: Loops over long tables are held against fewer frames than everything else: each takes them so long.
_COMPARISONS = 1 << 27
_LOOPBACK = 1
_LOADS = 3


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure."""

    rounds: int = 21
    with_peers: bool = True


def scale_row(workload: Workload, effort: Effort, feed: Feed) -> Row:
    """Build, load, verify and time one rule set.

    Raises:
        WrongAnswerError: a program decides a packet wrongly.
        PenstockError: the policy does not compile or load.
    """
    built = build(workload.text)
    with ExitStack() as held:
        loaded, load_ms, attach_ms = _loaded(built, held)
        program = loaded.programs[PROGRAM]
        checked = check("penstock", program, loaded.maps[COUNTERS_MAP], workload)
        programs, refused = {"penstock": program}, {}
        if effort.with_peers and workload.rules is not None and workload.family == "ipv4":
            refused = _add_peers(workload, programs, held)
        traffic = {}
        for kind, one in workload.traffic.items():
            feed.fill(one.frames)
            traffic[kind] = feed.measure(programs, effort.rounds)
        return {
            "set": workload.name,
            "family": workload.family,
            "rules": len(workload),
            "seed": workload.seed,
            **_figures(built, loaded),
            "load_ms": load_ms,
            "attach_ms": attach_ms,
            "checked": checked,
            "refused": refused,
            "traffic": traffic,
        }


def _loaded(built: Build, held: ExitStack) -> tuple[BpfObject, list[float], list[float]]:
    """The object, and how long it took to load and to attach it, some times over."""
    loads, attaches = [], []
    for _ in range(_LOADS):
        begun = perf_counter()
        loaded = load_object(built.elf, "scale")
        loads.append(_ms_since(begun))
        with isolated():
            begun = perf_counter()
            with attach_xdp(loaded.programs[PROGRAM], _LOOPBACK, mode=GENERIC):
                attaches.append(_ms_since(begun))
        if len(loads) < _LOADS:
            loaded.close()
    return held.enter_context(loaded), loads, attaches


def _ms_since(begun: float) -> float:
    return round((perf_counter() - begun) * 1000, 2)


def _figures(built: Build, loaded: BpfObject) -> Row:
    info = loaded.programs[PROGRAM].info
    return {
        "build_ms": built.steps_ms,
        "build_peak_mib": built.peak_mib,
        "object_bytes": len(built.elf),
        "table_bytes": built.tables,
        "map_bytes": sum(m.size * m.info.max_entries for m in loaded.maps.values()),
        "instructions": info.xlated_size // 8,
        "verified": info.verified_insns,
    }


def _add_peers(workload: Workload, programs: dict[str, Program], held: ExitStack) -> dict[str, str]:
    """The same rules by hand among the programs, each verified; what could not be had, and why."""
    assert workload.rules is not None
    refused = {}
    for name, peer in _peers(workload.rules):
        try:
            made = held.enter_context(peer(workload.rules))
        except PenstockError as error:
            refused[name] = error.message.splitlines()[0][:160]
            continue
        frames = max(1 << 10, min(1 << 16, _COMPARISONS // len(workload))) if name == "linear" else None
        check(name, made.program, made.counters, workload, first_slot=FIRST_SLOT, most=frames)
        programs[name] = made.program
    return refused


def _peers(rules: Rules) -> Iterator[tuple[str, Peer]]:
    yield "linear", linear
    if len(rules) <= _LONGEST_CHAIN:
        yield "chain", chain
    if rules.flavour == "exact":
        yield "hash", hashed
