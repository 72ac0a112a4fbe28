"""The claims of a ledger as the arrays that a change of the kernel's maps wants.

In: files of entries and single claims, whose ends lie on the boot clock of their own moment.
Out: `Content`, whose ends lie on that of now, without what is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.errors import PenstockError
from penstock.model.moment import Moment, boot_ns_of
from penstock.model.sets import EXPIRY_MASK, GRAIN, SetSpec
from penstock.pipeline.set_keys import Content, Entries, keys_of, nothing, read_entries

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from penstock.pipeline.ledger_book import Claim, Lot

_NUMBERS = {4: ">u4", 8: ">u8"}


def of_claims(spec: SetSpec, claims: Iterable[Claim], now: Moment) -> Content:
    """Single claims."""
    keys: dict[str, list[bytes]] = {family: [] for family in spec.families}
    ends: dict[str, list[int]] = {family: [] for family in spec.families}
    for claim in claims:
        end = boot_ns_of(claim.at, claim.end_ns, now)
        if end and end <= now.boot_ns:
            continue
        for family, key in _keys(spec, claim.entry):
            keys[family].append(key)
            ends[family].append(end & EXPIRY_MASK)
    return {family: _entries(spec, family, keys[family], ends[family]) for family in spec.families}


def _keys(spec: SetSpec, entry: str) -> list[tuple[str, bytes]]:
    try:
        return list(keys_of(spec, entry))
    except ValueError:
        return []


def _entries(spec: SetSpec, family: str, keys: list[bytes], ends: list[int]) -> Entries:
    flat = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), spec.key_bytes(family))
    return Entries(flat, np.array(ends, np.uint64))


def of_lot(spec: SetSpec, lot: Lot, now: Moment) -> Content:
    """The entries of a file without those that were taken back since."""
    if lot.file.kind != spec.kind:
        return nothing(spec)
    gone = taken_back(spec, lot)
    return {
        family: _live(_without(entries, gone[family]), lot.line.at, now)
        for family, entries in lot.file.content().items()
    }


def taken_back(spec: SetSpec, lot: Lot) -> Content:
    """What was taken back of a file since."""
    parts = [file.content() for file in lot.without if file.kind == spec.kind]
    return together(spec, [*parts, of_texts(spec, lot.gone)] if lot.gone else parts)


def listed_in(lots: Sequence[Lot], entries: Content) -> Content:
    """Those of the entries that the files of lots have, too."""
    found = {family: np.zeros(len(some), np.bool_) for family, some in entries.items()}
    for lot in lots:
        for family, there in lot.file.content().items():
            if family in entries and len(there):
                asked, held = (_sortable(one) for one in (entries[family].keys, there.keys))
                at = np.minimum(np.searchsorted(held, asked), len(held) - 1)
                found[family] |= held[at] == asked
    return {family: some.where(found[family]) for family, some in entries.items()}


def _sortable(keys: NDArray[np.uint8]) -> NDArray[Any]:
    width = keys.shape[1]
    if width in _NUMBERS:
        return _numbers(keys, _NUMBERS[width])
    return np.ascontiguousarray(keys).view(f"S{width}").reshape(-1)


def _without(entries: Entries, gone: Entries) -> Entries:
    """The entries of a file, which are sorted as bytes, without some: these are few, so they are what is looked for."""
    width = entries.keys.shape[1]
    if width not in _NUMBERS or not len(gone) or not len(entries):
        return entries.without(gone)
    there, unwanted = (_numbers(one.keys, _NUMBERS[width]) for one in (entries, gone))
    at = np.minimum(np.searchsorted(there, unwanted), len(there) - 1)
    stays = np.ones(len(there), np.bool_)
    stays[at[there[at] == unwanted]] = False
    return entries.where(stays)


def _numbers(keys: NDArray[np.uint8], kind: str) -> NDArray[np.uint64]:
    """Keys as numbers that are in order as their bytes are."""
    return np.ascontiguousarray(keys).view(kind).reshape(-1).astype(np.uint64)


def of_texts(spec: SetSpec, texts: Iterable[str]) -> Content:
    """Entries without an end."""
    every = list(texts)
    try:
        return read_entries(spec, "\n".join(every).encode(), 0, 0)
    except PenstockError:
        return _of_each(spec, every)


def _of_each(spec: SetSpec, texts: Iterable[str]) -> Content:
    """The same, without those that are no entries of such a set."""
    keys: dict[str, list[bytes]] = {family: [] for family in spec.families}
    for text in texts:
        for family, key in _keys(spec, text):
            keys[family].append(key)
    return {family: _entries(spec, family, found, [0] * len(found)) for family, found in keys.items()}


def _live(entries: Entries, at: Moment, now: Moment) -> Entries:
    if not entries.expiry.any():
        return entries
    ends = entries.expiry
    if at.boot_id != now.boot_id:
        moved = ends.astype(np.int64) - at.boot_ns - int(at.elapsed_s(now) * 1e9) + now.boot_ns
        ends = np.where(ends == 0, np.uint64(0), np.maximum(moved, GRAIN).astype(np.uint64))
        ends &= np.uint64(EXPIRY_MASK)
    return Entries(entries.keys, ends).live(now.boot_ns)


def together(spec: SetSpec, parts: Sequence[Content]) -> Content:
    """All of them, one behind the other."""
    empty = nothing(spec)
    return {
        family: Entries.joined([part[family] for part in parts if family in part] or [empty[family]])
        for family in spec.families
    }
