"""What a feed lists, as entries of a set.

In: prefixes with ends on the wall clock of the moment when they were fetched.  Out: keys as
the kernel has them, with ends on the boot clock, whatever was done to the wall clock since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penstock.errors import FeedError, PenstockError
from penstock.model.moment import Moment
from penstock.model.sets import EXPIRY_MASK, GRAIN, SetSpec
from penstock.pipeline.set_arrays import keys_of_prefixes
from penstock.pipeline.set_keys import Content, Entries, comparable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from penstock.feeds.result import F64, Listed

_SECOND = 1_000_000_000


def content_of(spec: SetSpec, listed: Listed, fetched: Moment, now: Moment) -> Content:
    """The prefixes as entries of a set of networks or of addresses.

    Raises:
        FeedError: there are networks among them, and the set is of addresses; or it is of neither.
    """
    prefixes, ends = listed.prefixes, listed.ends()
    try:
        v4, v6 = keys_of_prefixes(spec, prefixes)
    except PenstockError as error:
        raise FeedError(error.message, hint=error.hint) from error
    elapsed = fetched.elapsed_s(now)
    sides = {"v4": (v4, ends.v4), "v6": (v6, ends.v6)}
    return {
        family: Entries(keys, _boot_ends(end - fetched.wall - elapsed, now)).live(now.boot_ns)
        for family, (keys, end) in sides.items()
    }


def _boot_ends(left_s: F64, now: Moment) -> NDArray[np.uint64]:
    """Ends on the boot clock of what has so many seconds left; 0 for what has no end."""
    lasts = np.isfinite(left_s)
    ends = np.zeros(len(left_s), np.uint64)
    moved = np.clip(left_s[lasts], -1e9, 1e9) * _SECOND
    ends[lasts] = np.maximum(moved.astype(np.int64) + now.boot_ns, GRAIN).astype(np.uint64)
    return ends & np.uint64(EXPIRY_MASK)


def settled(new: Content, old: Content) -> Content:
    """The new entries, with the ends that they had where these differ by less than a second: no write is worth that."""
    return {family: _settled(entries, old[family]) for family, entries in new.items()}


def _settled(new: Entries, old: Entries) -> Entries:
    if not len(new) or not len(old) or not new.expiry.any():
        return new
    order = np.argsort(comparable(old.keys), kind="stable")
    ranked = comparable(old.keys)[order]
    at = np.minimum(np.searchsorted(ranked, comparable(new.keys)), len(ranked) - 1)
    before = old.expiry[order[at]]
    near = np.abs(before.astype(np.int64) - new.expiry.astype(np.int64)) < _SECOND
    same = (ranked[at] == comparable(new.keys)) & near & (before != 0) & (new.expiry != 0)
    return Entries(new.keys, np.where(same, before, new.expiry))
