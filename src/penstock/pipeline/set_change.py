"""What has to be written into a set's map so that packets meet its old content or its new, never a mix.

In: what a family's map holds and what it is to hold.  Out: a `Change`: writes
before the banks are exchanged, and writes and removals behind it.  Only what
differs is written.  Prefixes are in the order in which each follows those that
cover it: a trie is filled fastest so.

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

from penstock.model.sets import EXPIRY_MASK, REST, SetSpec
from penstock.pipeline.set_keys import Entries, comparable

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

    def chosen(self, which: NDArray[np.bool_]) -> Held:
        """Some of it."""
        return Held(self.keys[which], self.values[which])


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


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """What one content says of each key: whether it is in it, its expiry, and the latest of those that cover it."""

    asked: NDArray[np.bool_]
    own: NDArray[np.uint64]
    holds: NDArray[np.bool_]
    late: NDArray[np.uint64]


def change(spec: SetSpec, held: Held, wanted: Entries, active: int, moment: int = 0) -> Change:
    """How a map that is at rest in bank `active` comes to hold what is wanted; keys may come twice.

    What has expired by `moment` is in no content.
    """
    if (end := _end_of_all(spec, held, wanted, moment)) is not None:
        return _alike(spec, held, wanted, active, end)
    keys, before, old, new = _sides(spec, held, wanted)
    rest = before.copy()
    rest[:, 0] = new.late | np.uint64(REST)
    during = rest.copy()
    during[:, 0] = _during(old, new, active, np.uint64(moment))
    if spec.structure == "trie":
        own = np.where(new.asked, new.own, old.own)
        rest[:, 1] = during[:, 1] = own | lengths_of(keys).astype(np.uint64)
    moved = (old.asked != new.asked) | (before != rest).any(axis=1)
    late = moved & new.asked & (during[:, 0] != rest[:, 0])
    added, gone = new.asked & ~old.asked, old.asked & ~new.asked
    both = moved & old.asked & new.asked
    return Change(
        Held(keys[moved], during[moved]),
        Held(keys[late], rest[late]),
        keys[gone],
        int(np.count_nonzero(added)),
        int(np.count_nonzero(both)),
    )


def _end_of_all(spec: SetSpec, held: Held, wanted: Entries, moment: int) -> int | None:
    """The expiry that all entries of a hash have and are to have, whose keys are numbers; None if they differ."""
    is_plain = spec.structure == "hash" and spec.value_words == 1 and held.keys.shape[1] in (4, 8)
    if not is_plain or not len(held.keys) or not len(wanted):
        return None
    state, end = int(held.values[0, 0]), int(wanted.expiry[0])
    if state != end | REST or 0 < end <= moment:
        return None
    is_one = (held.values == held.values[0]).all() and (wanted.expiry == wanted.expiry[0]).all()
    return end if is_one else None


def _alike(spec: SetSpec, held: Held, wanted: Entries, active: int, end: int) -> Change:
    """The change where entries differ in nothing but their keys: a third of the time, for nearly all stay."""
    old, new = (np.sort(codes_of(spec, keys)) for keys in (held.keys, wanted.keys))
    new = new[_firsts(new)]
    at = np.searchsorted(old, new)
    there = old[np.minimum(at, len(old) - 1)] == new
    stays = np.zeros(len(old), bool)
    stays[at[there]] = True
    come, gone = (_keys_of(spec, codes) for codes in (new[~there], old[~stays]))
    states = [end | 0b0101 << bank for bank in (1 - active, active)]
    during = np.repeat(np.array(states, np.uint64), [len(come), len(gone)])
    rest = np.full((len(come), 1), end | REST, np.uint64)
    first = Held(np.concatenate([come, gone]), during.reshape(-1, 1))
    return Change(first, Held(come, rest), gone, len(come), 0)


def initial(spec: SetSpec, wanted: Entries) -> Held:
    """What is written into an empty map that no packet looks into yet: everything once."""
    if not len(wanted) or (wanted.expiry != wanted.expiry[0]).any():
        empty = Held(wanted.keys[:0], np.zeros((0, spec.value_words), np.uint64))
        return _all_of(spec, *_sides(spec, empty, wanted))
    codes = np.sort(codes_of(spec, wanted.keys))
    keys = _keys_of(spec, codes[_firsts(codes)])
    values = np.zeros((len(keys), spec.value_words), np.uint64)
    values[:, 0] = wanted.expiry[0] | np.uint64(REST)
    if spec.structure == "trie":
        values[:, 1] = wanted.expiry[0] | lengths_of(keys).astype(np.uint64)
    return Held(keys, values)


def settled(spec: SetSpec, held: Held, active: int) -> tuple[Held, NDArray[np.uint8]]:
    """What a change that was broken off leaves to be written and to be removed: the content of the active bank."""
    asked = (held.values[:, 0] >> np.uint64(active + 2) & np.uint64(1)).astype(bool)
    kept = held.chosen(asked)
    order = np.argsort(codes_of(spec, kept.keys))
    kept = Held(kept.keys[order], kept.values[order])
    own = kept.entries(spec).expiry
    whole = _side(spec, kept.keys, np.ones(len(own), bool), own)
    values = kept.values.copy()
    values[:, 0] = whole.late | np.uint64(REST)
    moved = values[:, 0] != kept.values[:, 0]
    return Held(kept.keys[moved], values[moved]), held.keys[~asked]


def _all_of(
    spec: SetSpec, keys: NDArray[np.uint8], values: NDArray[np.uint64], _old: _Side, new: _Side
) -> Held:
    values[:, 0] = new.late | np.uint64(REST)
    if spec.structure == "trie":
        values[:, 1] = new.own | lengths_of(keys).astype(np.uint64)
    return Held(keys, values)


def _during(old: _Side, new: _Side, active: int, moment: np.uint64) -> NDArray[np.uint64]:
    """States that answer for the old content while its bank counts, and for the new one from then on."""
    state = np.zeros(len(old.asked), np.uint64)
    lives = []
    for bank, side in ((active, old), (1 - active, new)):
        live = side.holds & ((side.late == 0) | (side.late > moment))
        state |= live.astype(np.uint64) << np.uint64(bank)
        asked = side.asked & ((side.own == 0) | (side.own > moment))
        state |= asked.astype(np.uint64) << np.uint64(bank + 2)
        lives.append(live)
    was, is_ = lives
    end = np.where(was, old.late, new.late)
    both = was & is_ & (old.late != new.late)
    latest = np.maximum(_late(old.late[both]), _late(new.late[both]))
    end[both] = np.where(latest == _NEVER, np.uint64(0), latest)
    return state | end


def _sides(
    spec: SetSpec, held: Held, wanted: Entries
) -> tuple[NDArray[np.uint8], NDArray[np.uint64], _Side, _Side]:
    """The keys of both contents, each once; their values in the map; what the old content and the new say of each."""
    old = held.entries(spec)
    old_codes = codes_of(spec, old.keys)
    order = np.argsort(old_codes)
    old_codes = old_codes[order]
    new_codes, at_new, new_own = _latest_of_each(spec, wanted)
    place = np.searchsorted(old_codes, new_codes)
    there = place < len(old_codes)
    there[there] = old_codes[place[there]] == new_codes[there]
    more = ~there
    keys = np.concatenate([old.keys[order], wanted.keys[at_new[more]]])
    count, was = len(keys), len(order)
    before = np.zeros((count, spec.value_words), np.uint64)
    before[:was] = held.values[order]
    in_old, in_new = np.arange(count) < was, np.arange(count) >= was
    in_new[place[there]] = True
    own_old, own_new = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    own_old[:was] = old.expiry[order]
    own_new[place[there]], own_new[was:] = new_own[there], new_own[more]
    if spec.structure == "trie" and was < count:
        # Two runs that are in order each: merged in one pass.
        merged = np.argsort(np.concatenate([old_codes, new_codes[more]]), kind="stable")
        keys, before = keys[merged], before[merged]
        in_old, in_new, own_old, own_new = in_old[merged], in_new[merged], own_old[merged], own_new[merged]
    return keys, before, _side(spec, keys, in_old, own_old), _side(spec, keys, in_new, own_new)


def _latest_of_each(
    spec: SetSpec, wanted: Entries
) -> tuple[NDArray[Any], NDArray[np.intp], NDArray[np.uint64]]:
    """The codes of the keys in their order, each once; where each is; the latest of its expiries."""
    codes = codes_of(spec, wanted.keys)
    order = np.argsort(codes)
    codes = codes[order]
    first = _firsts(codes)
    own = wanted.expiry[order]
    if len(own):
        own = np.maximum.reduceat(_late(own), np.flatnonzero(first))
    return codes[first], order[first], np.where(own == _NEVER, np.uint64(0), own)


def _side(spec: SetSpec, keys: NDArray[np.uint8], asked: NDArray[np.bool_], own: NDArray[np.uint64]) -> _Side:
    holds, late = _covered(keys, asked, own) if spec.structure == "trie" else (asked, own)
    return _Side(asked, own, holds, late)


# ── sets of keys ─────────────────────────────────────────────────────────────


def codes_of(spec: SetSpec, keys: NDArray[np.uint8]) -> NDArray[Any]:
    """Numbers or bytes that tell keys apart; those of prefixes are sorted with each behind those that cover it."""
    if spec.structure != "trie":
        return comparable(keys)
    if keys.shape[1] == 8:
        words = np.ascontiguousarray(keys).view(np.uint32)
        return words[:, 1].byteswap().astype(np.uint64) << np.uint64(6) | words[:, 0].astype(np.uint64)
    turned = np.concatenate([keys[:, 4:], lengths_of(keys).astype(np.uint8)[:, None]], axis=1)
    return turned.view("S17").reshape(len(keys))


def _keys_of(spec: SetSpec, codes: NDArray[Any]) -> NDArray[np.uint8]:
    """The keys that have these codes."""
    if spec.structure != "trie":
        return codes.view(np.uint8).reshape(len(codes), codes.itemsize)
    if codes.dtype == np.uint64:
        words = np.empty((len(codes), 2), np.uint32)
        words[:, 0] = codes & np.uint64(63)
        words[:, 1] = (codes >> np.uint64(6)).astype(">u4").view(np.uint32)
        return words.view(np.uint8).reshape(-1, 8)
    turned = codes.view(np.uint8).reshape(-1, 17)
    lengths = np.ascontiguousarray(turned[:, 16].astype(np.uint32)).view(np.uint8).reshape(-1, 4)
    return np.concatenate([lengths, turned[:, :16]], axis=1)


def _firsts(codes: NDArray[Any]) -> NDArray[np.bool_]:
    """Of codes that are sorted, the first of those that are equal."""
    first = np.ones(len(codes), bool)
    np.not_equal(codes[1:], codes[:-1], out=first[1:])
    return first


def _late(expiry: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Expiries that can be compared: never is later than any."""
    return np.where(expiry == 0, _NEVER, expiry)


# ── prefixes ─────────────────────────────────────────────────────────────────


def lengths_of(keys: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The lengths of prefixes."""
    return np.ascontiguousarray(keys[:, :4]).view(np.uint32).reshape(-1).astype(np.int64)


def _bounds(keys: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The length, first and last address of each prefix; addresses as numbers in their order.

    Those of IPv6 do not fit a word: their ranks among all that occur are as good.
    """
    lengths = lengths_of(keys)
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


def _covered(
    keys: NDArray[np.uint8], present: NDArray[np.bool_], own: NDArray[np.uint64]
) -> tuple[NDArray[np.bool_], NDArray[np.uint64]]:
    """For each prefix, in their order: whether it or one that covers it is present, and the latest expiry of those."""
    late = np.where(present, _late(own), np.uint64(0))
    ends = late[present]
    if not len(ends):
        return present, late
    if present.all() and (ends == ends[0]).all():
        return present, own
    lengths, first, last = _bounds(keys)
    # Prefixes nest: one is covered iff the farthest end before it reaches its own end.
    held = np.maximum.accumulate(np.where(present, last, -1)) >= last
    if (ends != ends[0]).any():
        late = _inherited(lengths, first, last, present, late)
    else:
        late = np.where(held, ends[0], np.uint64(0))
    return held, np.where(held & (late != _NEVER), late, np.uint64(0))


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
