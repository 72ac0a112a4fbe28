"""What has to be written into a set's map so that packets meet its old content or its new, never a mix.

In: what a family's map holds and what it is to hold.  Out: a `Change`: writes
before the banks are exchanged, and writes and removals behind it.  Only what
differs is written.

The map is at all times a union of the old content and the new.  What the union's
longest match for an address says of a bank is right for both: an entry of a trie
holds in a bank if it, or any that covers it, is in that content.  So an entry that
comes, goes or expires never hides a wider one, and the same is true of expiries:
that of a trie's entry is the latest of its own and those that cover it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.model.sets import ASKED, EXPIRY_MASK, HOLDS, REST, SetSpec
from penstock.pipeline.set_keys import Entries

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NEVER = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What a map holds: keys and whole values, shape (n, words) uint64."""

    keys: NDArray[np.uint8]
    values: NDArray[np.uint64]

    def entries(self, spec: SetSpec) -> Entries:
        """The entries that were asked for, with the expiries that they were given."""
        own = self.values[:, 1 if spec.structure == "trie" else 0] & np.uint64(EXPIRY_MASK)
        return Entries(self.keys, own)


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """`first` is written before the banks are exchanged, `last` behind it, and `gone` removed then."""

    first: Held
    last: Held
    gone: NDArray[np.uint8]
    added: int
    changed: int

    @property
    def is_empty(self) -> bool:
        return len(self.first.keys) == 0


def change(spec: SetSpec, held: Held, wanted: Entries, active: int) -> Change:
    """How a map that is at rest in bank `active` comes to hold what is wanted; keys may come twice."""
    old = held.entries(spec)
    union, at_old, at_new = _union(old.keys, wanted.keys)
    count = len(union)
    in_old, in_new = np.zeros(count, bool), np.zeros(count, bool)
    in_old[at_old] = in_new[at_new] = True
    own_old, own_new = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    own_old[at_old] = old.expiry
    np.maximum.at(own_new, at_new, _late(wanted.expiry))
    own_new[own_new == _NEVER] = 0
    if spec.structure == "trie":
        order = trie_order(union)
        sides = [_covered(union, order, *one) for one in ((in_old, own_old), (in_new, own_new))]
        (holds_old, late_old), (holds_new, late_new) = sides
    else:
        holds_old, late_old, holds_new, late_new = in_old, own_old, in_new, own_new
    end = np.where(in_new | ~in_old, late_new, _latest(late_old, late_new, holds_new))
    bits = _bits(holds_old, holds_new, in_old, in_new, active)
    values = np.zeros((count, spec.value_words), np.uint64)
    values[at_old] = held.values
    before = values.copy()
    values[:, 0] = end | bits
    if spec.structure == "trie":
        values[:, 1] = np.where(in_new, own_new, own_old)
    written = (in_old != in_new) | (before[:, :2] != values[:, :2]).any(axis=1)
    added, gone = in_new & ~in_old, in_old & ~in_new
    rest = values[added]
    rest[:, 0] = end[added] | np.uint64(REST)
    first = Held(union[written], values[written])
    return Change(
        first, Held(union[added], rest), union[gone], int(added.sum()), int((written & in_old & in_new).sum())
    )


def initial(spec: SetSpec, wanted: Entries) -> Held:
    """What is written into an empty map that no packet looks into yet: everything once."""
    if spec.structure == "hash" and len(wanted) and (wanted.expiry == wanted.expiry[0]).all():
        keys = wanted.keys[np.unique(comparable(wanted.keys), return_index=True)[1]]
        values = np.zeros((len(keys), spec.value_words), np.uint64)
        values[:, 0] = wanted.expiry[0] | np.uint64(REST)
        return Held(keys, values)
    empty = Held(wanted.keys[:0], np.zeros((0, spec.value_words), np.uint64))
    return change(spec, empty, wanted, 0).last


def _bits(
    holds_old: NDArray[np.bool_],
    holds_new: NDArray[np.bool_],
    in_old: NDArray[np.bool_],
    in_new: NDArray[np.bool_],
    active: int,
) -> NDArray[np.uint64]:
    """The state's lowest bits: the old content is in the active bank, the new one in the other."""
    found = np.zeros(len(in_old), np.uint64)
    for bank, holds, asked in ((active, holds_old, in_old), (1 - active, holds_new, in_new)):
        found |= holds.astype(np.uint64) << np.uint64(bank)
        found |= asked.astype(np.uint64) << np.uint64(bank + 2)
    return found


def settled(spec: SetSpec, held: Held, active: int) -> tuple[Held, NDArray[np.uint8]]:
    """What a change that was broken off leaves to be written and to be removed: the content of the active bank."""
    asked = (held.values[:, 0] >> np.uint64(active + 2) & np.uint64(1)).astype(bool)
    kept = Held(held.keys[asked], held.values[asked])
    entries = kept.entries(spec)
    values = kept.values.copy()
    end = entries.expiry
    if spec.structure == "trie":
        every = np.ones(len(entries), bool)
        end = _covered(entries.keys, trie_order(entries.keys), every, entries.expiry)[1]
    values[:, 0] = end | np.uint64(REST)
    moved = values[:, 0] != kept.values[:, 0]
    return Held(kept.keys[moved], values[moved]), held.keys[~asked]


# ── sets of keys ─────────────────────────────────────────────────────────────


def comparable(keys: NDArray[np.uint8]) -> NDArray[Any]:
    """The keys as numbers or bytes that can be sorted and compared, one each."""
    width = keys.shape[1]
    kind = {4: "u4", 8: "u8"}.get(width, f"S{width}")
    return np.ascontiguousarray(keys).view(kind).reshape(len(keys))


def _union(
    old: NDArray[np.uint8], new: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.intp], NDArray[np.intp]]:
    """The keys of both, each once, and the places there of the old ones and of the new ones."""
    both = np.concatenate([old, new])
    _, first, places = np.unique(comparable(both), return_index=True, return_inverse=True)
    return both[first], places[: len(old)], places[len(old) :]


def _late(expiry: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Expiries that can be compared: never is later than any."""
    return np.where(expiry == 0, _NEVER, expiry)


def _latest(
    one: NDArray[np.uint64], other: NDArray[np.uint64], where: NDArray[np.bool_]
) -> NDArray[np.uint64]:
    """The later of two expiries, where the other counts."""
    found = np.where(where, np.maximum(_late(one), _late(other)), _late(one))
    return np.where(found == _NEVER, np.uint64(0), found)


# ── prefixes ─────────────────────────────────────────────────────────────────


def _bounds(keys: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The length, first and last address of each prefix; addresses as numbers in their order.

    Those of IPv6 do not fit a word: their ranks among all that occur are as good.
    """
    lengths = np.ascontiguousarray(keys[:, :4]).view(np.uint32).reshape(-1).astype(np.int64)
    address = np.ascontiguousarray(keys[:, 4:])
    if address.shape[1] == 4:
        first = address.view(">u4").reshape(-1).astype(np.int64)
        return lengths, first, first + (1 << 32 - lengths) - 1
    halves = address.view(">u8").astype(np.uint64).reshape(-1, 2)
    ends = halves | _host_bits(lengths)
    packed = np.concatenate([halves, ends]).astype(">u8").view("S16").reshape(-1)
    ranks = np.unique(packed, return_inverse=True)[1].astype(np.int64)
    return lengths, ranks[: len(keys)], ranks[len(keys) :]


def _host_bits(lengths: NDArray[np.int64]) -> NDArray[np.uint64]:
    """What lies behind prefixes of 128 bits, as two words each."""
    free = np.stack([np.clip(64 - lengths, 0, 64), np.clip(128 - lengths, 0, 64)], axis=1)
    one = np.uint64(1)
    # A shift by 64 does nothing on some processors.
    return np.where(free == 64, _NEVER, (one << (free % 64).astype(np.uint64)) - one)


def trie_order(keys: NDArray[np.uint8]) -> NDArray[np.intp]:
    """The prefixes in the order in which each follows those that cover it: a trie is filled fastest so."""
    lengths, first, _ = _bounds(keys)
    return np.lexsort((lengths, first))


def _covered(
    keys: NDArray[np.uint8], order: NDArray[np.intp], present: NDArray[np.bool_], own: NDArray[np.uint64]
) -> tuple[NDArray[np.bool_], NDArray[np.uint64]]:
    """For each prefix, whether it or one that covers it is present, and the latest expiry of those that are."""
    lengths, first, last = (one[order] for one in _bounds(keys))
    here = present[order]
    # Prefixes nest: one is covered iff the farthest end before it reaches its own end.
    reach = np.maximum.accumulate(np.where(here, last, -1)) if len(order) else last
    held = reach >= last
    late = np.where(here, _late(own[order]), np.uint64(0))
    if len(np.unique(late[here])) > 1:
        late = _inherited(lengths, first, last, here, late)
    elif here.any():
        late = np.where(held, late[here][0], np.uint64(0))
    late[late == _NEVER] = 0
    found, ends = np.zeros(len(order), bool), np.zeros(len(order), np.uint64)
    found[order], ends[order] = held, np.where(held, late, np.uint64(0))
    return found, ends


def _inherited(
    lengths: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    here: NDArray[np.bool_],
    late: NDArray[np.uint64],
) -> NDArray[np.uint64]:
    """The latest expiry of each prefix and those that cover it, one length of covering prefixes after the other."""
    found = late.copy()
    for length in np.unique(lengths[here]).tolist():
        covering = np.flatnonzero(here & (lengths == length))
        at = np.searchsorted(first[covering], first, "right") - 1
        inside = (at >= 0) & (lengths > length)
        inside[inside] = last[covering][at[inside]] >= last[inside]
        found[inside] = np.maximum(found[inside], late[covering[at[inside]]])
    return found


assert REST == HOLDS | ASKED
