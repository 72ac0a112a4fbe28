"""What a feed lists, as entries of a set.

In: prefixes with ends on the wall clock of the moment when they were fetched.  Out: keys as
the kernel has them, with ends on the boot clock, whatever was done to the wall clock since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penstock.errors import FeedError
from penstock.model.moment import Moment
from penstock.model.sets import EXPIRY_MASK, GRAIN, SetSpec
from penstock.pipeline.set_keys import Content, Entries, comparable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from penstock.feeds.result import F64, Listed
    from penstock.model.prefixes import Prefixes

_SECOND = 1_000_000_000


def content_of(spec: SetSpec, listed: Listed, fetched: Moment, now: Moment) -> Content:
    """The prefixes as entries of a set of networks or of addresses.

    Raises:
        FeedError: there are networks among them, and the set is of addresses; or it is of neither.
    """
    prefixes, ends = listed.prefixes, listed.ends()
    match spec.kind:
        case ("net",):
            v4, v6 = _networks(prefixes)
        case ("host",):
            v4, v6 = _addresses(spec, prefixes)
        case _:
            raise FeedError(f"@{spec.name} is a set of {' . '.join(spec.kind)}, and feeds list addresses")
    elapsed = fetched.elapsed_s(now)
    sides = {"v4": (v4, ends.v4), "v6": (v6, ends.v6)}
    return {
        family: _live(keys, _boot_ends(end - fetched.wall - elapsed, now), now)
        for family, (keys, end) in sides.items()
    }


def _networks(p: Prefixes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Keys of tries: the length in host order, the address."""
    v4 = np.empty((len(p.v4), 2), np.uint32)
    v4[:, 0], v4[:, 1] = p.v4_length, p.v4.astype(">u4").view(np.uint32)
    v6 = np.empty((len(p.v6_high), 20), np.uint8)
    v6[:, :4] = p.v6_length.astype(np.uint32).view(np.uint8).reshape(-1, 4)
    v6[:, 4:12] = p.v6_high.astype(">u8").view(np.uint8).reshape(-1, 8)
    v6[:, 12:] = p.v6_low.astype(">u8").view(np.uint8).reshape(-1, 8)
    return v4.view(np.uint8).reshape(-1, 8), v6


def _addresses(spec: SetSpec, p: Prefixes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    wide = int(np.count_nonzero(p.v4_length != 32) + np.count_nonzero(p.v6_length != 128))
    if wide:
        raise FeedError(
            f"it lists {wide} networks, and @{spec.name} is a set of addresses",
            hint=f"`set {spec.name} : net` holds both",
        )
    v4, v6 = _networks(p)
    return np.ascontiguousarray(v4[:, 4:]), np.ascontiguousarray(v6[:, 4:])


def _boot_ends(left_s: F64, now: Moment) -> NDArray[np.uint64]:
    """Ends on the boot clock of what has so many seconds left; 0 for what has no end."""
    lasts = np.isfinite(left_s)
    ends = np.zeros(len(left_s), np.uint64)
    moved = np.clip(left_s[lasts], -1e9, 1e9) * _SECOND
    ends[lasts] = np.maximum(moved.astype(np.int64) + now.boot_ns, GRAIN).astype(np.uint64)
    return ends & np.uint64(EXPIRY_MASK)


def _live(keys: NDArray[np.uint8], ends: NDArray[np.uint64], now: Moment) -> Entries:
    keep = (ends == 0) | (ends > np.uint64(now.boot_ns))
    return Entries(keys, ends) if keep.all() else Entries(keys[keep], ends[keep])


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
