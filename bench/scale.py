"""More and more rules, through the whole path: text, compiler, load, the program on frames.

Out: a row a rule set, with raw samples of each program's nanoseconds a packet
in interleaved rounds: `empty`, `penstock` and, where they can say the rules
and the kernel takes them, the same rules by hand.  Whatever is timed has given
the right answer to every frame first (bench.answers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from itertools import islice
from time import perf_counter

import numpy as np

from bench.answers import WrongAnswerError, check
from bench.building import Build, build
from bench.by_hand import FIRST_SLOT, ByHand, chain, hashed, linear
from bench.feed import Feed, Samples
from bench.rulesets import Rules
from bench.turns import undisturbed
from bench.workload import Workload
from penstock.errors import PenstockError
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.kernel.link import attach_xdp
from penstock.kernel.netlink import GENERIC
from penstock.kernel.netns import isolated
from penstock.kernel.program import Program
from penstock.model.spec import COUNTERS_MAP, PROGRAM

Row = dict[str, object]
Told = Callable[[str], None]
Peer = Callable[[Rules], AbstractContextManager[ByHand]]
#: Beyond this a chain of ifs is refused, and clang takes minutes to say so.
_LONGEST_CHAIN = 100
#: Programs by hand are held against fewer frames, and loops over long tables against fewer still.
_PEER_FRAMES, _COMPARISONS = 1 << 14, 1 << 26
_LOOPBACK = 1
_LOADS = 3
#: Rule sets that are ready at a time; their frames take 10 MiB each.
_AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class _Ready:
    """A rule set whose programs are loaded and right; `row` has all but the times."""

    workload: Workload
    programs: dict[str, Program]
    row: Row


def scale_rows(workloads: Iterable[Workload], rounds: int, told: Told) -> Iterator[Row]:
    """A row a rule set, in order; a set that cannot be compiled or loaded has a row that says so.

    Some are made ready and then timed one after the other, so that nobody else has to wait for long.

    Raises:
        WrongAnswerError: a program decides a packet wrongly.
    """
    remaining = iter(workloads)
    with Feed() as feed:
        while some := list(islice(remaining, _AT_ONCE)):
            with ExitStack() as held:
                made = [_attempt(workload, held, told) for workload in some]
                with undisturbed():
                    for one in made:
                        if isinstance(one, _Ready):
                            one.row["traffic"] = _timed(one, feed, rounds)
            yield from (one.row if isinstance(one, _Ready) else one for one in made)


def _attempt(workload: Workload, held: ExitStack, told: Told) -> _Ready | Row:
    named = {"set": workload.name, "family": workload.family, "rules": len(workload), "seed": workload.seed}
    told(f"{workload.name} {workload.family} {len(workload):,} rules, seed {workload.seed}")
    try:
        return _ready(workload, named, held)
    except WrongAnswerError:
        raise
    except PenstockError as error:
        told(f"  failed: {error.message}")
        return {**named, "failed": error.message.partition("\n")[0]}


def _ready(workload: Workload, named: Row, held: ExitStack) -> _Ready:
    """Build, load and verify; the programs stay loaded as long as `held`."""
    built = build(workload.text)
    loaded, load_ms, attach_ms = _loaded(built, held)
    program = loaded.programs[PROGRAM]
    checked = check("penstock", program, loaded.maps[COUNTERS_MAP], workload)
    programs, refused = {"penstock": program}, dict[str, str]()
    if workload.rules is not None:
        refused = _add_peers(workload, programs, held)
    times = {"load_ms": load_ms, "attach_ms": attach_ms}
    row = {**named, **_figures(built, loaded), **times, "checked": checked, "refused": refused}
    return _Ready(workload, programs, row)


def _timed(ready: _Ready, feed: Feed, rounds: int) -> dict[str, Samples]:
    found = {}
    for kind, one in ready.workload.traffic.items():
        feed.fill(one.frames)
        found[kind] = feed.measure(ready.programs, rounds)
    first = next(iter(ready.workload.traffic.values())).frames
    feed.fill(np.broadcast_to(first[:1], first.shape))
    return {**found, "warm": feed.measure(ready.programs, rounds)}


def _loaded(built: Build, held: ExitStack) -> tuple[BpfObject, list[float], list[float]]:
    """The object, and how long it took to load and to attach it, some times over."""
    loads, attaches = [], []
    for _ in range(_LOADS):
        begun = perf_counter()
        with load_object(built.elf, "scale") as loaded, isolated():
            loads.append(_ms_since(begun))
            begun = perf_counter()
            with attach_xdp(loaded.programs[PROGRAM], _LOOPBACK, mode=GENERIC):
                attaches.append(_ms_since(begun))
    return held.enter_context(load_object(built.elf, "scale")), loads, attaches


def _ms_since(begun: float) -> float:
    return round((perf_counter() - begun) * 1000, 2)


def _figures(built: Build, loaded: BpfObject) -> Row:
    info = loaded.programs[PROGRAM].info
    return {
        "build_ms": built.steps_ms,
        "build_cpu_ms": built.cpu_ms,
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
            refused[name] = error.message.partition("\n")[0][:160]
            continue
        frames = max(1 << 9, min(_PEER_FRAMES, _COMPARISONS // len(workload)))
        check(name, made.program, made.counters, workload, first_slot=FIRST_SLOT, most=frames)
        programs[name] = made.program
    return refused


def _peers(rules: Rules) -> Iterator[tuple[str, Peer]]:
    yield "linear", linear
    if len(rules) <= _LONGEST_CHAIN:
        yield "chain", chain
    if rules.flavour == "exact":
        yield "hash", hashed
