"""Changes of many entries, or of all: the whole content is read, and what differs is written.

    set_whole.replace(found, read_entries(found.spec, text, 0, boot_clock_ns()))

The set is locked and at rest.  `set_change` says what is to be written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from penstock.errors import KernelError
from penstock.model.boot_clock import boot_clock_ns
from penstock.model.set_text import Keys
from penstock.model.sets import HIDDEN
from penstock.pipeline import live_set
from penstock.pipeline.live_set import Changed
from penstock.pipeline.set_change import Held, change, initial, settled
from penstock.pipeline.set_keys import Content, Entries, are_among, arrays_of, comparable, nothing, size
from penstock.pipeline.set_maps import read_map

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from penstock.pipeline.live_set import LiveSet

_MOST_THREADS = {"hash": 8, "trie": 2}


def update(found: LiveSet, wanted: Content | Keys) -> Changed:
    """Add entries.  Raises: as `LiveSet.update`."""
    held, moment = _held(found), boot_clock_ns()
    joined = {
        family: Entries.joined([held[family].entries(found.spec).live(moment), more])
        for family, more in arrays_of(found.spec, wanted).items()
    }
    return _put(found, held, joined, moment)


def discard(found: LiveSet, unwanted: Content | Keys) -> Changed:
    """Remove entries.  Raises: as `LiveSet.update`."""
    return exchange(found, unwanted, nothing(found.spec))


def exchange(
    found: LiveSet, gone: Content | Keys, come: Content | Keys, more: Content | Keys | None = None
) -> Changed:
    """Remove some entries, let others be there with just their ends, and more at least until theirs.

    Raises: as `LiveSet.update`.
    """
    none = nothing(found.spec)
    away, exact, longer = ({**none, **arrays_of(found.spec, side or {})} for side in (gone, come, more))
    held, moment = _held(found), boot_clock_ns()
    after = {}
    for family, one in held.items():
        entry = one.entries(found.spec).live(moment)
        if len(away[family]) or len(exact[family]):
            goes = are_among(entry.keys, away[family].keys) & ~are_among(entry.keys, longer[family].keys)
            keep = ~(goes | are_among(entry.keys, exact[family].keys))
            entry = entry.where(keep)
        after[family] = Entries.joined([entry, exact[family], longer[family].without(exact[family])])
    return _put(found, held, after, moment)


def replace(found: LiveSet, wanted: Content | Keys) -> Changed:
    """Make these the only entries.  Raises: as `LiveSet.update`."""
    return _put(found, _held(found), arrays_of(found.spec, wanted), boot_clock_ns())


def sweep(found: LiveSet) -> Changed:
    """Remove what has expired.  Raises KernelError."""
    held, moment = _held(found), boot_clock_ns()
    left = {family: one.entries(found.spec).live(moment) for family, one in held.items()}
    done = _put(found, held, left, moment)
    found.state.has_seen(_first_ends(left))
    return done


def recover(found: LiveSet) -> None:
    """Undo, or finish, what a writer left that was killed."""
    active = found.state.active
    for family, table in found.maps.items():
        held = read_map(found.spec, table)
        if active == HIDDEN:
            table.delete_all(held.keys)
            left = 0
        else:
            kept, gone = settled(found.spec, held, active)
            if len(kept.keys):
                table.update_all(kept.keys, kept.values)
            table.delete_all(gone)
            left = len(held.keys) - len(gone)
        found.state.count(family, left)
    if active == HIDDEN:
        found.state.active = 0
    found.state.changing = False


# ── how ──────────────────────────────────────────────────────────────────────


def _held(found: LiveSet) -> dict[str, Held]:
    return {family: read_map(found.spec, table) for family, table in found.maps.items()}


def _put(found: LiveSet, held: dict[str, Held], wanted: Content, moment: int) -> Changed:
    """Let the set hold what is wanted: packets meet all of it or what was there."""
    if any(_is_too_much(found, one) for one in wanted.values()):
        _forget(found, held, moment)
        raise found.full()
    if not any(len(one.keys) for one in held.values()) or not size(wanted):
        return _put_hidden(found, held, wanted)
    state, active = found.state, found.state.active
    changes = {family: change(found.spec, held[family], wanted[family], active, moment) for family in held}
    if all(one.is_empty for one in changes.values()):
        return Changed(0, 0, 0)
    state.will_expire(_first_ends(wanted))
    state.changing = True
    _write(found, {family: one.first for family, one in changes.items()})
    state.active = 1 - active
    _write(found, {family: one.last for family, one in changes.items()})
    for family, one in changes.items():
        found.maps[family].delete_all(one.gone)
        state.count(family, len(held[family].keys) + one.added - len(one.gone))
    state.changing = False
    sums = [(one.added, one.changed, len(one.gone)) for one in changes.values()]
    return Changed(*(sum(column) for column in zip(*sums, strict=True)))


def _forget(found: LiveSet, held: dict[str, Held], moment: int) -> None:
    """Remove what has expired, if anything has; the next who finds the set full need not look before the next end."""
    before = {family: one.entries(found.spec) for family, one in held.items()}
    left = {family: entries.live(moment) for family, entries in before.items()}
    is_over = any(len(left[family]) != len(before[family]) for family in held)
    if is_over and not any(_is_too_much(found, one) for one in left.values()):
        _put(found, held, left, moment)
    found.state.has_seen(_first_ends(left))


def _first_ends(content: Content) -> list[int]:
    """The first end of each family."""
    timed = (entries.expiry[entries.expiry != 0] for entries in content.values())
    return [int(ends.min()) for ends in timed if len(ends)]


def _put_hidden(found: LiveSet, held: dict[str, Held], wanted: Content) -> Changed:
    """A change from or to nothing: the set is empty meanwhile, and each entry is written or removed once."""
    first = {family: initial(found.spec, entries) for family, entries in wanted.items()}
    state = found.state
    state.changing = True
    state.active = HIDDEN
    for family, one in held.items():
        found.maps[family].delete_all(one.keys)
    _write(found, first)
    state.will_expire(_first_ends(wanted))
    for family, one in first.items():
        state.count(family, len(one.keys))
    state.active = 0
    state.changing = False
    added = sum(len(one.keys) for one in first.values())
    return Changed(added, 0, sum(len(one.keys) for one in held.values()))


def _write(found: LiveSet, parts: dict[str, Held]) -> None:
    """Write it, a part at a time, by several threads where there are processors for them."""
    total, done = sum(len(part.keys) for part in parts.values()), 0
    pieces = [(family, *piece) for family, part in parts.items() for piece in _pieces(part)]
    try:
        for count in _written(found, pieces):
            done += count
            found.progress(done, total)
    except KernelError as error:
        raise found.refused(error) from error


def _pieces(part: Held) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint64]]]:
    for at in range(0, len(part.keys), live_set.PART):
        yield part.keys[at : at + live_set.PART], part.values[at : at + live_set.PART]


def _written(
    found: LiveSet, pieces: Sequence[tuple[str, NDArray[np.uint8], NDArray[np.uint64]]]
) -> Iterator[int]:
    """How many entries each piece had that is written now."""

    def write(piece: tuple[str, NDArray[np.uint8], NDArray[np.uint64]]) -> int:
        family, keys, values = piece
        found.maps[family].update_all(keys, values)
        return len(keys)

    # A trie has one lock, but the memory for its nodes comes before.
    most = _MOST_THREADS[found.spec.structure]
    threads = min(len(os.sched_getaffinity(0)), most)
    if threads == 1 or len(pieces) == 1:
        yield from map(write, pieces)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        try:
            yield from pool.map(write, pieces)
        finally:
            pool.shutdown(cancel_futures=True)


def _is_too_much(found: LiveSet, entries: Entries) -> bool:
    most = found.spec.size
    return len(entries) > most and len(np.unique(comparable(entries.keys))) > most
