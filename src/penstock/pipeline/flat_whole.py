"""Changes of a flat set that make its content anew: of many networks, wide ones, and entries with a time.

    flat_whole.replace(found, wanted)

A new content is made beside the old one, put into the slot of the bank that does
not count, and one store moves the banks; that moves the tries beside it, too, where
entries with a time lie.  What is in the other slot is given back when no packet looks
into it any more.  A writer that is killed leaves a slot that does not count, and the
next change empties it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.errors import KernelError
from penstock.kernel.libc import synchronize_rcu
from penstock.model.boot_clock import boot_clock_ns
from penstock.pipeline.flat_filling import fill, fill_front, filling
from penstock.pipeline.flat_keys import distinct, found_in, packed
from penstock.pipeline.flat_many import in_place
from penstock.pipeline.flat_present import Difference, Present
from penstock.pipeline.live_set import Changed
from penstock.pipeline.set_change import Change, Held, change, settled
from penstock.pipeline.set_keys import Content, Entries, arrays_of
from penstock.pipeline.set_keys import nothing as no_entries
from penstock.pipeline.set_maps import create_lines, read_map

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from penstock.model.set_text import Keys
    from penstock.pipeline.flat_set import FlatSet

    Flat = dict[str, NDArray[Any]]
    Moves = dict[str, Difference]


def update(found: FlatSet, entries: Content | Keys) -> Changed:
    """Add entries.  Raises: as `LiveSet.update`."""
    (stay, timed), moment = _split(arrays_of(found.spec, entries)), boot_clock_ns()
    held = _held(found)
    joined = {
        family: Entries.joined([held[family].entries(found.spec.timed).live(moment), timed[family]])
        for family in timed
    }
    if not any(map(len, stay.values())):
        return _put(found, held, None, joined)
    moves = {family: one.coming(stay[family]) for family, one in _flat(found).items()}
    return _put(found, held, moves, joined)


def discard(found: FlatSet, entries: Content | Keys) -> Changed:
    """Remove entries.  Raises: as `LiveSet.update`."""
    held, wanted = _held(found), arrays_of(found.spec, entries)
    unwanted = {family: packed(family, one.keys) for family, one in wanted.items()}
    return _put(found, held, *_left(found, held, unwanted))


def replace(found: FlatSet, entries: Content | Keys) -> Changed:
    """Make these the only entries.  Raises: as `LiveSet.update`."""
    stay, timed = _split(arrays_of(found.spec, entries))
    moves = {family: one.becoming(stay[family]) for family, one in _flat(found).items()}
    return _put(found, _held(found), moves, timed)


def exchange(found: FlatSet, gone: Content | Keys, come: Content | Keys, more: Content | Keys) -> Changed:
    """Remove some entries, let others be there with just their ends, and more at least until theirs.

    Raises: as `LiveSet.update`.
    """
    spec = found.spec
    away, exact = arrays_of(spec, gone), arrays_of(spec, come)
    longer = arrays_of(spec, more) if more else no_entries(spec)
    longer = {f: one.without(exact[f]) for f, one in longer.items()}
    named = {
        f: packed(f, np.concatenate([away[f].without(longer[f]).keys, exact[f].keys])) for f in spec.families
    }
    held = _held(found)
    flat, timed = _left(found, held, named)
    stay, until = _split({f: Entries.joined([exact[f], longer[f]]) for f in spec.families})
    return _put(
        found,
        held,
        {family: one.coming(stay[family]) for family, one in flat.items()},
        {family: Entries.joined([timed[family], until[family]]) for family in timed},
    )


def sweep(found: FlatSet) -> Changed:
    """Remove what has expired.  Raises KernelError."""
    held, moment = _held(found), boot_clock_ns()
    timed = found.spec.timed
    return _put(found, held, None, {f: one.entries(timed).live(moment) for f, one in held.items()})


def recover(found: FlatSet) -> None:
    """Undo, or finish, what a writer left in the tries that was killed."""
    for table in found.tries.maps.values():
        kept, gone = settled(found.spec.timed, read_map(found.spec.timed, table), found.bank)
        if len(kept.keys):
            table.update_all(kept.keys, kept.values)
        table.delete_all(gone)
    _rest(found)


# ── how ──────────────────────────────────────────────────────────────────────


def _held(found: FlatSet) -> dict[str, Held]:
    """What the tries hold."""
    return {family: read_map(found.spec.timed, table) for family, table in found.tries.maps.items()}


def _flat(found: FlatSet) -> Moves:
    """What is there that stays, and no change of it."""
    content = found.content()
    return {
        family: Difference.none(Present.of(content, family) if content else Present.none(family))
        for family in found.spec.families
    }


def _left(found: FlatSet, held: dict[str, Held], unwanted: Flat) -> tuple[Moves, Content]:
    """What is there without some entries."""
    flat = {family: one.going(unwanted[family]) for family, one in _flat(found).items()}
    timed, moment = {}, boot_clock_ns()
    for family, one in held.items():
        timed[family] = _without(
            family, one.entries(found.spec.timed).live(moment), distinct(unwanted[family])
        )
    return flat, timed


def _put(found: FlatSet, held: dict[str, Held], flat: Moves | None, timed: Content) -> Changed:
    """Let the set hold this: packets meet all of it or what was there.  None leaves what stays as it is."""
    if flat is None:
        flat = _flat(found) if any(map(len, timed.values())) else {}
    timed = {f: _without(f, one, flat[f].after) if flat else one for f, one in timed.items()}
    _check_size(found, flat, timed)
    moment = boot_clock_ns()
    tries = {f: change(found.spec.timed, held[f], timed[f], found.bank, moment) for f in held}
    same = not any(len(one.come) or len(one.gone) for one in flat.values())
    if all(one.is_empty for one in tries.values()):
        content = found.content()
        if same or (content and any(one.count for one in flat.values()) and in_place(content, flat)):
            return _counted(flat, tries)
    _exchange(found, None if same else {f: one.after.all() for f, one in flat.items()}, tries, timed)
    return _counted(flat, tries)


def _check_size(found: FlatSet, flat: Mapping[str, Difference], timed: Content) -> None:
    for family, one in timed.items():
        count = len(one) and len(distinct(packed(family, one.keys)))
        if (flat[family].count if flat else 0) + count > found.spec.size:
            raise found.full()


def _exchange(found: FlatSet, flat: Flat | None, tries: dict[str, Change], timed: Content) -> None:
    active = found.bank
    total = sum(map(len, (flat or {}).values()))
    found.progress(0, total)
    _fill(found, 1 - active, flat)
    found.progress(3 * total // 4, total)
    found.state.changing = True
    if any(map(len, timed.values())):
        found.state.timed = True
        found.state.will_expire(int(one.expiry.min()) for one in timed.values() if len(one))
    try:
        _write_tries(found, {family: one.first for family, one in tries.items()})
    except KernelError as error:
        raise found.refused(error) from error
    found.state.active = 1 - active
    # Packets that have read the other bank need what it had in the tries, too.
    if not found.slots.drop(active) and any(len(one.gone) for one in tries.values()):
        synchronize_rcu()
    _write_tries(found, {family: one.last for family, one in tries.items()})
    for family, one in tries.items():
        found.tries.maps[family].delete_all(one.gone)
    found.progress(total, total)
    _rest(found)


def _fill(found: FlatSet, slot: int, flat: Flat | None) -> None:
    """Put a content into a slot; None for the one that is in the other."""
    if flat is None:
        lines = found.slots.open(1 - slot)
        if lines is not None:
            found.slots.put(slot, lines.duplicate())
            found.front(slot)[:] = found.front(1 - slot)
        return
    if not any(map(len, flat.values())):
        return
    made = filling(flat)
    lines = create_lines(found.spec.name, made.total)
    try:
        fill(lines.memory(), made)
        found.slots.put(slot, lines)
    except BaseException:
        lines.close()
        raise
    # Behind `put` no packet is left that asks this part.
    fill_front(found.front(slot), made)


def _write_tries(found: FlatSet, parts: dict[str, Held]) -> None:
    for family, part in parts.items():
        if len(part.keys):
            found.tries.maps[family].update_all(part.keys, part.values)


def _rest(found: FlatSet) -> None:
    """Nothing is under way any more; count the tries."""
    timed = False
    for family, table in found.tries.maps.items():
        count = len(table.read_all()[0]) if found.state.timed else 0
        found.state.count(family, count)
        timed = timed or count > 0
    found.state.timed, found.state.changing = timed, False


def _split(wanted: Content) -> tuple[Flat, Content]:
    """The keys of entries that stay, and the entries with a time."""
    stay, timed = {}, {}
    for family, one in wanted.items():
        stays = one.expiry == 0
        stay[family] = packed(family, one.keys[stays])
        timed[family] = one.where(~stays)
    return stay, timed


def _without(family: str, entries: Entries, present: Present | NDArray[Any]) -> Entries:
    """The entries that are not there, or not among sorted keys."""
    if not len(entries):
        return entries
    keys = packed(family, entries.keys)
    keep = ~(present.has(keys) if isinstance(present, Present) else found_in(present, keys)[0])
    return entries.where(keep)


def _counted(flat: Mapping[str, Difference], tries: Mapping[str, Change]) -> Changed:
    """What came, what stays another time, what went; an entry that gets a time, or loses it, stays."""
    added = changed = removed = 0
    for family, one in tries.items():
        moves = flat[family] if flat else Difference.none(Present.none(family))
        lost, got = packed(family, one.gone), packed(family, one.last.keys)
        moved = int(np.isin(moves.come, lost).sum() + np.isin(moves.gone, got).sum())
        added += len(moves.come) + one.added - moved
        removed += len(moves.gone) + len(one.gone) - moved
        changed += one.changed + moved
    return Changed(int(added), int(changed), int(removed))
