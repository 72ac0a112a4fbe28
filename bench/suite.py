"""What the suite measures: its tables, each a list of rows, and how much of each is measured.

    rows = TABLES["scale"](Plan(), print)

`Plan()` is the full run, some twenty minutes; `QUICK` the one of two minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import product
from typing import get_args

from bench.actions import action_rows
from bench.answers import WrongAnswerError
from bench.classifier import Kind
from bench.classifier import measure as measure_classifier
from bench.hooks import hook_rows
from bench.linear import loading_rows
from bench.overlay import adding, costs
from bench.rates import between_rows, rate_rows
from bench.rulesets import Flavour, generate, policy_text
from bench.saved import SETS, saved
from bench.scale import scale_rows
from bench.sets import set_rows
from bench.sets_daemon import ban_rows
from bench.sets_hash import hash_rows
from bench.sets_lookup import lookups
from bench.sets_wire import set_wire_rows
from bench.twenty import twenty_rows
from bench.usual import usual_rows
from bench.wire import sets, wire_row
from bench.workload import exact, generated, mixed

Row = dict[str, object]
Told = Callable[[str], None]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured; `seeds` has (sizes up to, how many seeds)."""

    sizes: tuple[int, ...] = (1, 10, 100, 1_000, 10_000)
    large: tuple[int, ...] = (100_000,)
    seeds: tuple[tuple[int, int], ...] = ((100, 3), (1_000, 2), (100_000, 1))
    seeds_alone: tuple[tuple[int, int], ...] = ((100, 1), (10_000, 3), (100_000, 1))
    small: tuple[int, ...] = (1, 20)
    family_sizes: tuple[int, ...] = (1_000, 10_000)
    exact_sizes: tuple[int, ...] = (10, 100, 1_000, 10_000)
    wire_sizes: tuple[int, ...] = (10, 100, 1_000, 10_000)
    overlay_sizes: tuple[int, ...] = (1_000, 10_000)
    rounds: int = 21
    wire_packets: int = 16_384
    wire_rounds: int = 5
    loading_runs: int = 7
    usual_loads: int = 7
    hook_loads: int = 5
    action_samples: int = 2_001
    saved_sets: int = len(SETS)
    set_sizes: tuple[int, ...] = (100_000, 1_000_000)
    set_turns: int = 3
    hash_sizes: tuple[int, ...] = (1_000, 100_000, 1_000_000)
    lookup_sizes: tuple[int, ...] = (100_000, 1_000_000)
    between_sizes: tuple[int, ...] = (10, 100, 1_000, 10_000)

    def seeds_of(self, size: int, *, alone: bool = False) -> range:
        """The seeds of rule sets of a size; `alone` where the classifier alone is measured."""
        seeds = self.seeds_alone if alone else self.seeds
        return range(1, 1 + next(count for most, count in seeds if size <= most))


QUICK = Plan(
    sizes=(10, 1_000),
    large=(),
    seeds=((1_000, 1),),
    seeds_alone=((1_000, 1),),
    small=(20,),
    family_sizes=(100,),
    exact_sizes=(1_000,),
    wire_sizes=(100,),
    overlay_sizes=(1_000,),
    rounds=9,
    wire_packets=8_192,
    wire_rounds=3,
    loading_runs=2,
    usual_loads=2,
    hook_loads=2,
    action_samples=301,
    saved_sets=2,
    set_sizes=(100_000,),
    set_turns=1,
    hash_sizes=(1_000,),
    lookup_sizes=(100_000,),
    between_sizes=(1_000,),
)


def _usual(plan: Plan, _told: Told) -> list[Row]:
    return [dict(row) for row in usual_rows(plan.rounds, plan.usual_loads)]


def _twenty(plan: Plan, _told: Told) -> list[Row]:
    return [dict(row) for row in twenty_rows(plan.rounds)]


def _hooks(plan: Plan, _told: Told) -> list[Row]:
    return [dict(row) for row in hook_rows(plan.rounds, plan.hook_loads)]


def _actions(plan: Plan, _told: Told) -> list[Row]:
    return [dict(row) for row in action_rows(plan.action_samples)]


def _scale(plan: Plan, told: Told) -> list[Row]:
    return _flavours(plan.sizes, plan, told)


def _large(plan: Plan, told: Told) -> list[Row]:
    """A table of its own, since compiling these takes longer than all others together."""
    return _flavours(plan.large, plan, told)


def _flavours(sizes: Iterable[int], plan: Plan, told: Told) -> list[Row]:
    sets = (
        generated(flavour, size, seed)
        for size in sizes
        for flavour in FLAVOURS
        for seed in plan.seeds_of(size)
    )
    return list(scale_rows(sets, plan.rounds, told))


def _small(plan: Plan, told: Told) -> list[Row]:
    sets = (exact(size, seed) for size in plan.small for seed in plan.seeds_of(size))
    return list(scale_rows(sets, plan.rounds, told))


def _families(plan: Plan, told: Told) -> list[Row]:
    """IPv6 alone, and both; the same number of rules of IPv4 is in the table `scale`."""
    sets = (
        generated(flavour, size, 1, ipv6=True) if family == "ipv6" else mixed(flavour, size, 1)
        for size in plan.family_sizes
        for flavour in FLAVOURS
        for family in ("ipv6", "both")
    )
    return list(scale_rows(sets, plan.rounds, told))


def _exact(plan: Plan, told: Told) -> list[Row]:
    return list(scale_rows((exact(size, 1) for size in plan.exact_sizes), plan.rounds, told))


def _saved(plan: Plan, told: Told) -> list[Row]:
    sets = [saved(which, 1) for which in SETS[: plan.saved_sets]]
    rows = scale_rows((workload for workload, _ in sets), plan.rounds, told)
    return [
        {
            **row,
            "what": which.what,
            "left_out": [one.reason for one in translated.left_out],
            "changed": len(translated.changed),
        }
        for which, row, (_, translated) in zip(SETS, rows, sets, strict=False)
    ]


def _classifier(plan: Plan, told: Told) -> list[Row]:
    rows = []
    for size, flavour in product((*plan.sizes, *plan.large), FLAVOURS):
        kinds: tuple[Kind, ...] = ("ipv4", "ipv6", "both") if size in plan.family_sizes else ("ipv4",)
        for kind, seed in product(kinds, plan.seeds_of(size, alone=True)):
            told(f"classifier alone, {flavour} {size:,} rules, {kind}, seed {seed}")
            found = measure_classifier(flavour, size, seed, kind, plan.rounds)
            if found.wrong:
                raise WrongAnswerError(f"the classifier of {flavour} {size}: {found.wrong} wrong answers")
            rows.append(asdict(found))
    return rows


def _overlay(plan: Plan, told: Told) -> list[Row]:
    rows = []
    for size in plan.overlay_sizes:
        told(f"rules added to {size:,} running ones")
        text = policy_text(generate("acl", size))
        rows.append({"rules": size, **adding(text, plan.loading_runs), **costs(text, plan.rounds)})
    return rows


def _wire(plan: Plan, told: Told) -> list[Row]:
    rows = []
    for which in sets(plan.wire_sizes):
        told(f"over veth: {which.name}, {which.size:,}")
        rows.append(wire_row(which, plan.wire_packets, plan.wire_rounds))
    return rows


def _loading(plan: Plan, _told: Told) -> list[Row]:
    return [dict(row) for row in loading_rows(plan.loading_runs)]


def _sets(plan: Plan, told: Told) -> list[Row]:
    return set_rows(plan.set_sizes, plan.set_turns, told)


def _hashes(plan: Plan, _told: Told) -> list[Row]:
    return hash_rows(plan.hash_sizes, plan.rounds)


def _lookups(plan: Plan, told: Told) -> list[Row]:
    rows = []
    for size, family in product(plan.lookup_sizes, ("v4", "v6")):
        told(f"sets of networks: {size:,} of {family}")
        rows += [asdict(row) for row in lookups(size, family, plan.wire_rounds)]
    return rows


def _sets_wire(plan: Plan, told: Told) -> list[Row]:
    return set_wire_rows(plan.lookup_sizes, plan.wire_rounds, told)


def _rates(plan: Plan, _told: Told) -> list[Row]:
    return [asdict(row) for row in rate_rows(plan.rounds)]


def _between(plan: Plan, told: Told) -> list[Row]:
    rows = []
    for size in plan.between_sizes:
        told(f"a set and a rate between {size:,} rules")
        rows += [asdict(row) for row in between_rows(size, plan.rounds)]
    return rows


def _bans(_plan: Plan, _told: Told) -> list[Row]:
    return ban_rows()


#: What needs more than one processor, or ksoftirqd's turns.
SPREAD = frozenset({"wire", "sets", "sets_wire", "bans"})
TABLES: dict[str, Callable[[Plan, Told], list[Row]]] = {
    "usual": _usual,
    "twenty": _twenty,
    "hooks": _hooks,
    "actions": _actions,
    "small": _small,
    "scale": _scale,
    "families": _families,
    "exact": _exact,
    "saved": _saved,
    "classifier": _classifier,
    "overlay": _overlay,
    "wire": _wire,
    "loading": _loading,
    "sets": _sets,
    "lookups": _lookups,
    "hashes": _hashes,
    "sets_wire": _sets_wire,
    "rates": _rates,
    "between": _between,
    "bans": _bans,
    "large": _large,
}
