"""Changes of a flat set that make its content anew: of many networks, wide ones, and entries with a time.

    flat_whole.replace(found, wanted)

A new content is made beside the old one, put into the slot of the bank that does
not count, and one store moves the banks; that moves the tries beside it, too, where
entries with a time lie.  What is in the other slot is given back when no packet looks
into it any more.  A writer that is killed leaves a slot that does not count, and the
next change empties it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.errors import KernelError
from penstock.pipeline.flat_filling import fill, filling
from penstock.pipeline.flat_filling import keys as keys_of_content
from penstock.pipeline.flat_keys import nothing, packed
from penstock.pipeline.ledger_content import without
from penstock.pipeline.live_set import Changed
from penstock.pipeline.set_change import Change, Held, change, settled
from penstock.pipeline.set_control import now
from penstock.pipeline.set_keys import Content, Entries, arrays_of
from penstock.pipeline.set_keys import nothing as no_entries
from penstock.pipeline.set_maps import create_lines, read_map

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from penstock.model.set_text import Keys
    from penstock.pipeline.flat_set import FlatSet

    Flat = dict[str, NDArray[Any]]


def update(found: FlatSet, entries: Content | Keys) -> Changed:
    """Add entries.  Raises: as `LiveSet.update`."""
    (stay, timed), moment = _split(arrays_of(found.spec, entries)), now()
    held = _held(found)
    joined = {
        family: _together(_live(held[family].entries(found.spec.timed), moment), timed[family])
        for family in timed
    }
    if not any(map(len, stay.values())):
        return _put(found, held, None, joined)
    moves = {family: _Moves.none(keys).coming(stay[family]) for family, keys in _flat(found).items()}
    return _put(found, held, moves, joined)


def discard(found: FlatSet, entries: Content | Keys) -> Changed:
    """Remove entries.  Raises: as `LiveSet.update`."""
    held, wanted = _held(found), arrays_of(found.spec, entries)
    unwanted = {family: packed(family, one.keys) for family, one in wanted.items()}
    return _put(found, held, *_left(found, held, unwanted))


def replace(found: FlatSet, entries: Content | Keys) -> Changed:
    """Make these the only entries.  Raises: as `LiveSet.update`."""
    stay, timed = _split(arrays_of(found.spec, entries))
    moves = {
        family: _Moves.none(keys).becoming(_distinct(stay[family])) for family, keys in _flat(found).items()
    }
    return _put(found, _held(found), moves, timed)


def exchange(
    found: FlatSet, gone: Content | Keys, come: Content | Keys, more: Content | Keys | None = None
) -> Changed:
    """Remove some entries, let others be there with just their ends, and more at least until theirs.

    Raises: as `LiveSet.update`.
    """
    spec = found.spec
    away, exact = arrays_of(spec, gone), arrays_of(spec, come)
    longer = arrays_of(spec, more) if more else no_entries(spec)
    longer = {f: without(one, exact[f]) for f, one in longer.items()}
    named = {
        f: packed(f, np.concatenate([without(away[f], longer[f]).keys, exact[f].keys])) for f in spec.families
    }
    held = _held(found)
    flat, timed = _left(found, held, named)
    stay, until = _split({f: _together(exact[f], longer[f]) for f in spec.families})
    return _put(
        found,
        held,
        {family: one.coming(stay[family]) for family, one in flat.items()},
        {family: _together(timed[family], until[family]) for family in timed},
    )


def sweep(found: FlatSet) -> Changed:
    """Remove what has expired.  Raises KernelError."""
    held, moment = _held(found), now()
    timed = found.spec.timed
    return _put(found, held, None, {f: _live(one.entries(timed), moment) for f, one in held.items()})


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


def _flat(found: FlatSet) -> Flat:
    """What stays."""
    content = found.content()
    return {f: keys_of_content(content, f) if content else nothing(f) for f in found.spec.families}


def _left(found: FlatSet, held: dict[str, Held], unwanted: Flat) -> tuple[dict[str, _Moves], Content]:
    """What is there without some entries."""
    flat = {family: _Moves.none(keys).going(unwanted[family]) for family, keys in _flat(found).items()}
    timed, moment = {}, now()
    for family, one in held.items():
        timed[family] = _without(
            family, _live(one.entries(found.spec.timed), moment), _distinct(unwanted[family])
        )
    return flat, timed


def _put(found: FlatSet, held: dict[str, Held], flat: dict[str, _Moves] | None, timed: Content) -> Changed:
    """Let the set hold this: packets meet all of it or what was there.  None leaves what stays as it is."""
    if flat is None:
        flat = (
            {f: _Moves.none(keys) for f, keys in _flat(found).items()}
            if any(map(len, timed.values()))
            else {}
        )
    timed = {f: _without(f, one, flat[f].after) if flat else one for f, one in timed.items()}
    after = {family: one.after for family, one in flat.items()}
    _check_size(found, after, timed)
    moment = now()
    tries = {f: change(found.spec.timed, held[f], timed[f], found.bank, moment) for f in held}
    same = not any(len(one.come) or len(one.gone) for one in flat.values())
    if same and all(one.is_empty for one in tries.values()):
        return Changed(0, 0, 0)
    _exchange(found, None if same else after, tries, timed)
    return _counted(flat, tries)


def _check_size(found: FlatSet, flat: Mapping[str, NDArray[Any]], timed: Content) -> None:
    for family, one in timed.items():
        count = len(one) and len(np.unique(packed(family, one.keys)))
        if len(flat.get(family, ())) + count > found.spec.size:
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
    _write_tries(found, {family: one.last for family, one in tries.items()})
    for family, one in tries.items():
        found.tries.maps[family].delete_all(one.gone)
    found.progress(total, total)
    found.slots.drop(active)
    _rest(found)


def _fill(found: FlatSet, slot: int, flat: Flat | None) -> None:
    """Put a content into a slot; None for the one that is in the other."""
    if flat is None:
        lines = found.slots.open(1 - slot)
        if lines is not None:
            found.slots.put(slot, lines.duplicate())
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
        timed[family] = Entries(one.keys[~stays], one.expiry[~stays])
    return stay, timed


@dataclass(frozen=True, slots=True, eq=False)
class _Moves:
    """The networks of a family that are there behind a change, sorted, and which of them come and which others go."""

    after: NDArray[Any]
    come: NDArray[Any]
    gone: NDArray[Any]

    @classmethod
    def none(cls, keys: NDArray[Any]) -> _Moves:
        """These are there and stay."""
        return cls(keys, keys[:0], keys[:0])

    def coming(self, more: NDArray[Any]) -> _Moves:
        """Some more, in any order."""
        more = _distinct(more)
        there, at = _found(self.after, more)
        new = more[~there]
        after = np.insert(self.after, at[~there], new) if len(new) else self.after
        # What goes and comes again stays.
        return _Moves(after, new[~_found(self.gone, new)[0]], self.gone[~_found(new, self.gone)[0]])

    def going(self, unwanted: NDArray[Any]) -> _Moves:
        """Without some, in any order."""
        unwanted = _distinct(unwanted)
        there, at = _found(self.after, unwanted)
        after = np.delete(self.after, at[there]) if there.any() else self.after
        return _Moves(after, self.come, unwanted[there])

    def becoming(self, wanted: NDArray[Any]) -> _Moves:
        """These alone, sorted and each once."""
        if not len(self.after):
            return _Moves(wanted, wanted, self.after)
        come = wanted[~_found(self.after, wanted)[0]]
        gone = self.after[~_found(wanted, self.after)[0]]
        return _Moves(wanted, come, gone)


def _found(keys: NDArray[Any], asked: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Which are among sorted keys, and where each is or would come."""
    at = np.searchsorted(keys, asked)
    there = at < len(keys)
    there[there] = keys[at[there]] == asked[there]
    return there, at


def _distinct(keys: NDArray[Any]) -> NDArray[Any]:
    """The keys sorted, each once."""
    ranked = np.sort(keys)
    keep = np.ones(len(ranked), bool)
    keep[1:] = ranked[1:] != ranked[:-1]
    return ranked if keep.all() else ranked[keep]


def _without(family: str, entries: Entries, keys: NDArray[Any]) -> Entries:
    """The entries that are not among sorted keys."""
    if not len(entries):
        return entries
    keep = ~_found(keys, packed(family, entries.keys))[0]
    return Entries(entries.keys[keep], entries.expiry[keep])


def _live(entries: Entries, moment: int) -> Entries:
    keep = entries.expiry > np.uint64(moment)
    return Entries(entries.keys[keep], entries.expiry[keep])


def _together(one: Entries, more: Entries) -> Entries:
    return Entries(np.concatenate([one.keys, more.keys]), np.concatenate([one.expiry, more.expiry]))


def _counted(flat: Mapping[str, _Moves], tries: Mapping[str, Change]) -> Changed:
    """What came, what stays another time, what went; an entry that gets a time, or loses it, stays."""
    added = changed = removed = 0
    for family, one in tries.items():
        moves = flat[family] if flat else _Moves.none(nothing(family))
        lost, got = packed(family, one.gone), packed(family, one.last.keys)
        moved = int(np.isin(moves.come, lost).sum() + np.isin(moves.gone, got).sum())
        added += len(moves.come) + one.added - moved
        removed += len(moves.gone) + len(one.gone) - moved
        changed += one.changed + moved
    return Changed(int(added), int(changed), int(removed))
