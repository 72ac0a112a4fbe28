"""How full the tables of a filter's limiters are, and what became of keys that found no place.

    read_usage(loaded.maps["ps_limit0"], limiter, now)   ->  Usage(held=12, places=65536, given=0, refused=0, …)

A place is held while its bucket is not full: then it would be missed.

A policy that is put in another's place goes on with the tables of limiters that
are the same: the new program is given the very maps, and the seed with which keys
are found in them.  The old program and the new one may both be at work meanwhile.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from msgspec import structs

from penstock.errors import KernelError
from penstock.kernel.map_pieces import value_pieces
from penstock.kernel.maps import Map
from penstock.model.boot_clock import boot_clock_ns
from penstock.model.limiter import KEY_WORDS, SEED_VARIABLE, WAYS, Limiter, limiter_map
from penstock.pipeline.identity import CounterKey, Identity, kept_slots

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.pipeline.policy import LoadedPolicy
    from penstock.pipeline.slot import Slot

#: struct ps_row of bpf/include/penstock/limit.bpf.h, in words of 64 bits, and what a bucket has before its key.
_HEAD_WORDS, _BUCKET_WORDS = 4, 2


@dataclass(frozen=True, slots=True)
class Usage:
    """One limiter's table.

    `held` of `places` count at the moment; `given` is how often a place, its
    bucket full, went to another key; `refused` how many packets found no place
    and were judged by the bucket that such packets have in common.
    """

    limiter: Limiter
    held: int
    places: int
    given: int
    refused: int


def read_usage(table: Map, limiter: Limiter, now_ns: int) -> Usage:
    """What is in a table at a time of the boot clock.  Raises KernelError."""
    import numpy as np

    words = _HEAD_WORDS + WAYS * (_BUCKET_WORDS + KEY_WORDS[limiter.key.kind])
    if (table.info.value_size, table.info.max_entries) != (8 * words, limiter.rows + 1):
        meaning = f"it is not the table of {limiter.name}"
        raise KernelError("read", table.name, errno.ESTALE, meaning=meaning)
    left, held, given, refused = limiter.rows, 0, 0, 0
    for raw in value_pieces(table):
        # Behind the rows is the bucket that all have who find no place.
        rows = raw.view(np.uint64)[:left]
        left -= len(rows)
        ends = rows[:, _HEAD_WORDS :: _BUCKET_WORDS + KEY_WORDS[limiter.key.kind]]
        held += int((ends > now_ns).sum())
        given, refused = given + int(rows[:, 1].sum()), refused + int(rows[:, 2].sum())
    return Usage(limiter, held, limiter.places, given, refused)


def usage_in(directory: Path, identity: Identity) -> tuple[Usage, ...]:
    """Of the filter whose pins lie in this directory, each limiter's.  Raises KernelError: they cannot be read."""
    now = boot_clock_ns()
    found = []
    for number, limiter in enumerate(identity.limiters):
        with Map.open(directory / pin_name(number)) as table:
            found.append(read_usage(table, limiter, now))
    return tuple(found)


def pin_name(number: int) -> str:
    """The name of a table's pin."""
    return f"limit{number}"


# ── one policy in another's place ────────────────────────────────────────────


def seeded(policy: LoadedPolicy, before: Identity | None = None) -> LoadedPolicy:
    """The policy with a seed for its tables: that of the policy before it, or one that nobody can foresee."""
    if not policy.identity.limiters or policy.identity.limit_seed:
        return policy
    seed = (before.limit_seed if before else 0) or secrets.randbits(64) | 1
    return replace(policy, identity=structs.replace(policy.identity, limit_seed=seed))


def seed_values(identity: Identity) -> dict[str, bytes | int]:
    """The constants of a program with limiters."""
    return {SEED_VARIABLE: identity.limit_seed} if identity.limiters else {}


def kept_limiters(
    old: Identity, old_keys: tuple[CounterKey, ...], new: Identity
) -> Iterator[tuple[int, int]]:
    """(old number, new number) of each limiter that goes on: the same one, of a rule that keeps its counter."""
    if old.limit_seed != new.limit_seed:
        return
    kept = {new.counters[slot].name for _, slot in kept_slots(old_keys, new.counters)}
    numbers = {limiter: number for number, limiter in enumerate(old.limiters)}
    for number, limiter in enumerate(new.limiters):
        if limiter in numbers and {limiter.name, limiter.name.rpartition(".")[0]} & kept:
            yield numbers[limiter], number


@contextmanager
def kept_tables(present: Slot | None, new: Identity) -> Iterator[Mapping[str, Map]]:
    """The tables with which the program of a policy goes on, by their names in it."""
    if present is None:
        yield {}
        return
    pairs = kept_limiters(present.identity, present.keys, new)
    with ExitStack() as opened:
        yield {
            limiter_map(number): opened.enter_context(Map.open(present.directory / pin_name(old)))
            for old, number in pairs
        }


def tables_by_name(maps: Mapping[str, Map], limiters: Iterable[Limiter]) -> Iterator[tuple[str, Map]]:
    """The name of each table's pin, and the table."""
    for number, _ in enumerate(limiters):
        yield pin_name(number), maps[limiter_map(number)]
