"""Entries of a set as arrays: a text of a million lines, and the keys that its maps have.

    read_entries(spec, b"192.0.2.0/24\\n2001:db8::/32 timeout 1h\\n", 0, now)   ->  {"v4": Entries, "v6": Entries}

The form of the lines is told in `set_text`, which reads those that are no plain
IPv4, a million of plain IPv6 in a second or two; the others are read by numpy, a
million of them in a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from penstock.errors import PenstockError
from penstock.model.plain_lines import EndlessLineError, PlainLines, read_pieces
from penstock.model.prefixes import MASKS32, U8, U32
from penstock.model.set_text import (
    Keys,
    entries_of,
    expiry_after,
    keys_of,
    later,
    placed,
    plain_reader,
    text_of,
    wrong_entries,
)
from penstock.model.sets import SetSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FAULTS_TOLD = 3


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """Keys as the kernel has them, shape (n, key bytes) uint8, and their expiries, uint64, 0 for never."""

    keys: NDArray[np.uint8]
    expiry: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.keys)

    def items(self) -> Iterator[tuple[bytes, int]]:
        """Key and expiry of each, as those of `Keys` are."""
        width = self.keys.shape[1]
        raw = self.keys.tobytes()
        for at, end in enumerate(self.expiry.tolist()):
            yield raw[at * width : (at + 1) * width], end

    @classmethod
    def joined(cls, parts: Sequence[Entries]) -> Self:
        """All of them, one behind the other; there is at least one part."""
        return cls(np.concatenate([one.keys for one in parts]), np.concatenate([one.expiry for one in parts]))

    def where(self, chosen: NDArray[np.bool_]) -> Entries:
        """Those that a mask, shape (n,), chooses."""
        return Entries(self.keys[chosen], self.expiry[chosen])

    def without(self, others: Entries) -> Entries:
        """Those whose keys the others do not have."""
        if not len(others) or not len(self):
            return self
        return self.where(~are_among(self.keys, others.keys))

    def live(self, moment_ns: int) -> Entries:
        """Those that are not over at that time of the boot clock."""
        lasts = (self.expiry == 0) | (self.expiry > np.uint64(moment_ns))
        return self if lasts.all() else self.where(lasts)

    def by_key(self) -> dict[bytes, int]:
        """The expiry of each key; of one that comes twice the later."""
        ends: dict[bytes, int] = {}
        for key, end in self.items():
            ends[key] = later(end, ends.get(key, end))
        return ends


Content = dict[str, Entries]
"""Entries of each family of a set."""


def nothing(spec: SetSpec) -> Content:
    """The content of an empty set."""
    return {family: _listed(spec, family, [], []) for family in spec.families}


def size(content: Content) -> int:
    """How many entries there are, of all families."""
    return sum(len(entries) for entries in content.values())


def arrays_of(spec: SetSpec, read: Content | Keys) -> Content:
    """The same entries as arrays."""
    return {
        family: _listed(spec, family, list(some), list(some.values())) if isinstance(some, dict) else some
        for family, some in read.items()
    }


def comparable(keys: NDArray[np.uint8]) -> NDArray[Any]:
    """The keys as numbers or bytes that can be sorted and compared, one each."""
    width = keys.shape[1]
    kind = {4: "u4", 8: "u8"}.get(width, f"S{width}")
    return np.ascontiguousarray(keys).view(kind).reshape(len(keys))


def are_among(keys: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of the keys are among the others: by sorting, of a million several times as quick as by hashing."""
    wanted = np.sort(comparable(others))
    asked = comparable(keys)
    if not len(wanted):
        return np.zeros(len(asked), np.bool_)
    at = np.searchsorted(wanted, asked)
    found: NDArray[np.bool_] = wanted[np.minimum(at, len(wanted) - 1)] == asked
    return found


def read_entries(spec: SetSpec, text: bytes, expiry: int, now_ns: int, name: str = "entry") -> Content:
    """The entries of a text; those without a time of their own get `expiry`.

    Raises:
        PenstockError: with the first few faults and how many there are; `name` is what the text is called.
    """
    reading = _Reading(spec, expiry, now_ns, name)
    try:
        for piece in read_pieces(text):
            reading.add(piece)
    except EndlessLineError as error:
        raise PenstockError(f"{name}: a line is longer than 1 MiB: this is no list") from error
    return reading.content()


@dataclass(slots=True)
class _Reading:
    """What was read so far: arrays of plain IPv4, keys of other plain lines, keys and ends of all else."""

    spec: SetSpec
    expiry: int
    now_ns: int
    name: str
    quick: list[NDArray[np.uint8]] = field(default_factory=list)
    plain: dict[str, list[bytes]] = field(default_factory=lambda: {"v4": [], "v6": []})
    keys: dict[str, list[bytes]] = field(default_factory=dict)
    ends: dict[str, list[int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    faulty: int = 0
    lines: int = 0

    def add(self, piece: PlainLines) -> None:
        slow = piece.end > piece.begin
        if self.spec.kind in (("host",), ("net",)):
            key, fits = _keys_of_numbers(self.spec, piece.address, piece.length)
            self.quick.append(key if fits.all() else key[fits])
            quick = piece.is_plain
            quick[piece.is_plain] = fits
            slow &= ~quick
        plain = plain_reader(self.spec)
        for line, text in piece.texts(np.flatnonzero(slow)):
            if (found := plain(text)) is None:
                self._add_line(text, self.lines + line + 1)
            else:
                self.plain[found[0]].append(found[1])
        self.lines += len(piece)

    def _add_line(self, text: str, number: int) -> None:
        try:
            for family, key, end in entries_of(self.spec, text, self.expiry, self.now_ns):
                self.keys.setdefault(family, []).append(key)
                self.ends.setdefault(family, []).append(end)
        except ValueError as fault:
            self.faulty += 1
            if self.faulty <= _FAULTS_TOLD:
                self.faults.append(placed(self.name, number, text, fault))

    def content(self) -> Content:
        if self.faulty:
            raise wrong_entries(self.spec, self.faults, self.faulty)
        found = {
            family: _listed(self.spec, family, self.keys.get(family, []), self.ends.get(family, []))
            for family in self.spec.families
        }
        quick: dict[str, list[NDArray[np.uint8]]] = {"v4": self.quick, "v6": []}
        for family, more in self.plain.items():
            if quick[family] or more:
                rest = found[family]
                keys = np.concatenate([*quick[family], _rows(self.spec, family, more), rest.keys])
                plain = np.full(len(keys) - len(rest), self.expiry, np.uint64)
                found[family] = Entries(keys, np.concatenate([plain, rest.expiry]))
        return found


def _listed(spec: SetSpec, family: str, keys: list[bytes], ends: list[int]) -> Entries:
    return Entries(_rows(spec, family, keys), np.array(ends, np.uint64))


def _rows(spec: SetSpec, family: str, keys: list[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), spec.key_bytes(family))


def _keys_of_numbers(spec: SetSpec, address: U32, length: U8) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """As keys, and which are right; a prefix where none may be, or with bits beyond it, is not."""
    packed = address.astype(">u4")
    if spec.kind == ("host",):
        return packed.view(np.uint8).reshape(-1, 4), length == 32
    keys = np.empty((len(address), 2), np.uint32)
    keys[:, 0], keys[:, 1] = length, packed.view(np.uint32)
    return keys.view(np.uint8).reshape(-1, 8), address & ~MASKS32[length] == 0


__all__ = ["Content", "Entries", "Keys", "expiry_after", "keys_of", "read_entries", "text_of"]
