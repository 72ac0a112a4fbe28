"""Many entries of a set in one file: written from arrays, looked into without reading it whole.

    write_entries(path, ("net",), content)      a million in a fraction of a second
    EntryFile(path).end_of("v4", key)           by bisection in the mapped file; numpy is not needed for it
    EntryFile(path).content()                   the arrays again

A line of JSON says how many keys of which family there are and how wide; behind it the keys
of each family, sorted as bytes and each once, and behind them, unless all end alike, their
ends: 64-bit words in native order, nanoseconds on the boot clock, 0 for never.  Which boot that
was, the ledger says.
"""

from __future__ import annotations

import mmap
import os
import sys
from array import array
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeGuard

import msgspec

from penstock.errors import PenstockError
from penstock.model.state_directory import open_file, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from penstock.model.set_text import Keys
    from penstock.pipeline.set_keys import Content, Entries

SCHEMA = "penstock.entries/1"
_WORD = 8


class Family(msgspec.Struct, frozen=True):
    """The keys of one family: `end` is the end of all of them, None where each has its own."""

    name: str
    width: int
    count: int
    end: int | None


class _Head(msgspec.Struct, frozen=True):
    schema: str
    kind: tuple[str, ...]
    families: tuple[Family, ...]


def write_entries(path: Path, kind: tuple[str, ...], content: Content | Keys) -> int:
    """Put the entries into a file as a whole; gives how many different ones there are.

    Raises OSError: there is no such file then, or the old one.
    """
    families: list[Family] = []
    parts: list[bytes | memoryview] = []
    for name, entries in content.items():
        if len(entries):
            laid_out = (
                _laid_out(name, entries) if isinstance(entries, dict) else _laid_out_arrays(name, entries)
            )
            family, rows = laid_out
            families.append(family)
            parts += rows
    head = msgspec.json.encode(_Head(SCHEMA, kind, tuple(families))) + b"\n"
    write_atomically(path, head, *parts, mode=0o644)
    return sum(family.count for family in families)


def is_arrays(content: Content | Keys) -> TypeGuard[Content]:
    """Whether entries lie in arrays."""
    return not any(isinstance(one, dict) for one in content.values())


def _laid_out(name: str, entries: dict[bytes, int]) -> tuple[Family, list[bytes | memoryview]]:
    """What is written of a family, without numpy."""
    keys = sorted(entries)
    first = entries[keys[0]]
    is_uniform = all(end == first for end in entries.values())
    family = Family(name, len(keys[0]), len(keys), first if is_uniform else None)
    ends = [] if is_uniform else [memoryview(array("Q", [entries[key] for key in keys])).cast("B")]
    return family, [b"".join(keys), *ends]


def _laid_out_arrays(name: str, entries: Entries) -> tuple[Family, list[bytes | memoryview]]:
    found = _sorted(entries)
    first = int(found.expiry[0])
    is_uniform = bool((found.expiry == found.expiry[0]).all())
    family = Family(name, found.keys.shape[1], len(found), first if is_uniform else None)
    return family, [found.keys.data, *([] if is_uniform else [found.expiry.data])]


def _sorted(entries: Entries) -> Entries:
    """Sorted as bytes, each key once, with the latest of its ends."""
    import numpy as np

    from penstock.pipeline.set_keys import Entries

    width = entries.keys.shape[1]
    keys = np.ascontiguousarray(entries.keys)
    big = keys.view({4: ">u4", 8: ">u8"}.get(width, f"S{width}")).reshape(-1)
    comparable = big.astype(big.dtype.newbyteorder("=")) if width in (4, 8) else big
    late = np.where(entries.expiry == 0, np.uint64(0xFFFFFFFFFFFFFFFF), entries.expiry)
    if bool((comparable[1:] > comparable[:-1]).all()):
        return Entries(keys, np.ascontiguousarray(entries.expiry))
    if bool((late == late[:1]).all()):
        ranked = np.sort(comparable)
        first = np.concatenate([np.ones(1, np.bool_), ranked[1:] != ranked[:-1]])
        chosen = ranked[first].astype(big.dtype)
        return Entries(chosen.view(np.uint8).reshape(-1, width), entries.expiry[: len(chosen)])
    order = np.lexsort((~late, comparable))
    ranked = comparable[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = ranked[1:] != ranked[:-1]
    chosen = order[first]
    return Entries(np.ascontiguousarray(keys[chosen]), np.ascontiguousarray(entries.expiry[chosen]))


@dataclass(frozen=True, slots=True)
class _Part:
    family: Family
    keys_at: int
    ends_at: int


class EntryFile:
    """A file of entries, opened when it is first asked.

    Raises:
        PenstockError: by any question: it cannot be read, or is not what was written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _opened(self) -> tuple[mmap.mmap, _Head, dict[str, _Part]]:
        try:
            with os.fdopen(open_file(self.path, os.O_RDONLY), "rb") as file:
                data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is empty"
            raise PenstockError(f"read {self.path}: {reason}", hint=self._mend) from error
        end = data.find(b"\n")
        try:
            head = msgspec.json.decode(data[: max(end, 0)], type=_Head)
        except ValueError as error:
            raise self._damaged() from error
        at, parts = end + 1, {}
        for family in head.families:
            ends_at = at + family.width * family.count
            parts[family.name] = _Part(family, at, ends_at)
            at = ends_at + (0 if family.end is not None else _WORD * family.count)
        if head.schema != SCHEMA or len(data) != at:
            raise self._damaged()
        return data, head, parts

    def _damaged(self) -> PenstockError:
        return PenstockError(f"{self.path} is not what was written there", hint=self._mend)

    @property
    def _mend(self) -> str:
        name = self.path.parent.name
        return (
            f"`penstock feed refresh {name}` writes anew what feeds list; "
            f"`penstock set replace {name} FILE` says anew what commands have added"
        )

    def check(self) -> None:
        """Raises PenstockError: it cannot be read, or is not what was written."""
        self._opened  # noqa: B018 - opens it

    @property
    def is_whole(self) -> bool:
        """Whether it can be read."""
        try:
            self.check()
        except PenstockError:
            return False
        return True

    @property
    def kind(self) -> tuple[str, ...]:
        """What its entries are."""
        return self._opened[1].kind

    @property
    def count(self) -> int:
        """How many entries there are."""
        return sum(family.count for family in self._opened[1].families)

    @property
    def families(self) -> tuple[str, ...]:
        """The families of which there are keys."""
        return tuple(self._opened[2])

    def end_of(self, family: str, key: bytes) -> int | None:
        """The end of that entry, 0 for never; None if it is not there."""
        part = self._opened[2].get(family)
        if part is None:
            return None
        data, width = self._opened[0], part.family.width
        low, high = 0, part.family.count
        while low < high:
            middle = (low + high) // 2
            at = part.keys_at + middle * width
            if data[at : at + width] < key:
                low = middle + 1
            else:
                high = middle
        at = part.keys_at + low * width
        if low == part.family.count or data[at : at + width] != key:
            return None
        if part.family.end is not None:
            return part.family.end
        at = part.ends_at + low * _WORD
        return int.from_bytes(data[at : at + _WORD], sys.byteorder)

    @cached_property
    def last_end(self) -> int:
        """The end of the entry that stays longest, 0 for never."""
        data, _, parts = self._opened
        latest = 0
        for part in parts.values():
            last = part.ends_at + _WORD * part.family.count
            ends = (
                (part.family.end,) if part.family.end is not None else array("Q", data[part.ends_at : last])
            )
            if 0 in ends:
                return 0
            latest = max(latest, *ends)
        return latest

    def content(self) -> Content:
        """Its entries as arrays, which cannot be written to."""
        return dict(self._arrays())

    def _arrays(self) -> Iterator[tuple[str, Entries]]:
        import numpy as np

        from penstock.pipeline.set_keys import Entries

        data, _, parts = self._opened
        for name, part in parts.items():
            width, count, end = part.family.width, part.family.count, part.family.end
            keys = np.frombuffer(data, np.uint8, width * count, part.keys_at).reshape(count, width)
            ends: NDArray[np.uint64]
            if end is None:
                ends = np.frombuffer(data, np.uint64, count, part.ends_at)
            else:
                ends = np.full(count, end, np.uint64)
            yield name, Entries(keys, ends)
