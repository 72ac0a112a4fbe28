"""Thousands of entries of a hash come and go, and nothing else of the set is looked at.

    set_many.exchange(found, gone, come)     ->  Changed, or None where another way is better

In: a set that is locked and at rest, and what goes and what comes as arrays; what both name comes, and what is
there stays longer, never shorter.  As in every change entries are written so that packets meet the old content until
the banks are exchanged, and the new one behind that.  The kernel does rows of work (`kernel/map_rows.py`): what
comes is put in if it is not there, and of what goes the word is stored into that says in which bank it is.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from penstock.errors import KernelError
from penstock.kernel.map_rows import MapRows, map_rows
from penstock.model.boot_clock import boot_clock_ns
from penstock.model.sets import EXPIRY_MASK, REST
from penstock.pipeline.live_set import Changed
from penstock.pipeline.set_few import Few, Step
from penstock.pipeline.set_keys import Content, Entries, comparable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from penstock.pipeline.live_set import LiveSet

#: Of so many entries that are there one is changed, or all are read sooner.
_RATHER_ALL = 4
_NEVER = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True, slots=True, eq=False)
class _Family:
    """What is done in one map; of what comes some `is_new`, and `more` is of the rest; `gone` was there."""

    family: str
    rows: MapRows
    come: Entries
    is_new: NDArray[np.bool_]
    gone: NDArray[np.uint8]
    more: Step


def exchange(found: LiveSet, gone: Content, come: Content) -> Changed | None:
    """Remove some entries and add others, in one step; None, and nothing is done, where another way has to be gone.

    Raises: as `LiveSet.update`.
    """
    moment, counts = boot_clock_ns(), found.state.counts
    come = {family: _once(one) for family, one in come.items() if len(one)}
    gone = {
        family: _once(one.without(come[family]) if family in come else one)
        for family, one in gone.items()
        if len(one)
    }
    every = sum(map(len, (*come.values(), *gone.values())))
    if every * _RATHER_ALL > found.count or any(len(one.live(moment)) < len(one) for one in come.values()):
        return None
    if any(counts[family] + len(one) > found.spec.size for family, one in come.items()):
        return None
    with ExitStack() as held:
        rows = dict[str, MapRows]()
        for family in sorted(come.keys() | gone.keys()):
            most = max(len(side[family]) for side in (come, gone) if family in side)
            one = held.enter_context(map_rows(found.maps[family], most))
            if one is None:
                return None
            rows[family] = one
        try:
            return _carry_out(found, rows, gone, come, moment)
        except KernelError as error:
            raise found.refused(error) from error


def _once(entries: Entries) -> Entries:
    """Each key once, with the latest of its ends."""
    codes = comparable(entries.keys)
    order = np.argsort(codes, kind="stable")
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = codes[order][1:] != codes[order][:-1]
    if is_first.all():
        return entries
    ends = np.where(entries.expiry == 0, _NEVER, entries.expiry)[order]
    latest = np.maximum.reduceat(ends, np.flatnonzero(is_first))
    return Entries(entries.keys[order[is_first]], np.where(latest == _NEVER, np.uint64(0), latest))


def _carry_out(
    found: LiveSet, rows: dict[str, MapRows], gone: Content, come: Content, moment: int
) -> Changed:
    state, active, had_ends = found.state, found.state.active, found.state.expiring
    state.will_expire(int(ends.min()) for one in come.values() if len(ends := one.expiry[one.expiry != 0]))
    state.changing = True
    steps, done = count(1), list[_Family]()
    for family, some in rows.items():
        sides = come.get(family), gone.get(family)
        done.append(_first(found, family, some, *sides, moment, has_ends=had_ends))
        found.progress(next(steps), 4 * len(rows))
    if any(one.is_new.any() or len(one.gone) or one.more.first for one in done):
        state.active = 1 - active
        for one in done:
            _last(found, one, steps, 4 * len(rows))
    state.changing = False
    added = sum(int(one.is_new.sum()) + one.more.added for one in done)
    return Changed(added, sum(one.more.changed for one in done), sum(len(one.gone) for one in done))


def _last(found: LiveSet, one: _Family, steps: Iterator[int], total: int) -> None:
    """Write what is at rest in either bank, and remove what is in none."""
    found.progress(next(steps), total)
    new = one.come.where(one.is_new)
    one.rows.turn(new.keys, new.expiry | np.uint64(REST))
    if one.more.last:
        found.maps[one.family].update_many(one.more.last)
    found.progress(next(steps), total)
    one.rows.remove(one.gone)
    found.state.grow(one.family, len(new) + one.more.grown - len(one.gone))
    found.progress(next(steps), total)


def _first(
    found: LiveSet,
    family: str,
    rows: MapRows,
    come: Entries | None,
    gone: Entries | None,
    moment: int,
    *,
    has_ends: bool,
) -> _Family:
    """Write what answers for the old content, and for the new one once the banks are exchanged."""
    active, table = found.state.active, found.maps[family]
    come, gone = come or _none(table.info.key_size), gone or _none(table.info.key_size)
    values = np.zeros((len(come), found.spec.value_words), np.uint64)
    values[:, 0] = come.expiry | _in_bank(1 - active)
    is_new = rows.put(come.keys, values)
    more = Step()
    # Where nothing has ever had an end, what is there stays for ever.
    if has_ends and not is_new.all():
        there = come.where(~is_new).by_key()
        few = Few(found.spec, table, active=active, moment=moment, folded=False)
        more = few.becoming(there, there.keys())
        if more.first:
            table.update_many(more.first)
    was_there = rows.turn(gone.keys, np.full(len(gone), _in_bank(active)), EXPIRY_MASK)
    return _Family(family, rows, come, is_new, gone.keys[was_there], more)


def _none(width: int) -> Entries:
    return Entries(np.zeros((0, width), np.uint8), np.zeros(0, np.uint64))


def _in_bank(bank: int) -> np.uint64:
    """The state of an entry that is in one bank alone."""
    return np.uint64(0b0101 << bank)
