"""The plain list: one address, prefix or range a line.

In: bytes; `#`, `;` and `//` begin comments; a byte order mark, CRLF, blank
lines and a last line without its end are all right.  Out: the prefixes with the
line of each, and the rejects.  Plain IPv4 lines are read by numpy, a piece of
the file at a time; every other line, and every IPv4 line that is not quite
right, goes through `addresses`, which knows all forms and the reasons.

>>> found = parse_list(b"198.51.100.7\\n203.0.113.0/24 ; why\\n010.0.0.1\\n")
>>> found.prefixes.texts(), [(bad.line, bad.text) for bad in found.rejects]
(['198.51.100.7', '203.0.113.0/24'], [(3, '010.0.0.1')])
"""

from __future__ import annotations

from dataclasses import dataclass, field
from socket import AF_INET6, inet_pton

import numpy as np
import numpy.typing as npt

from penstock.errors import FeedError
from penstock.feeds.addresses import prefixes_of
from penstock.feeds.result import MOST_PREFIXES, MOST_REJECTS, Parsed, Rejects
from penstock.model.plain_lines import EndlessLineError, Index, PlainLines, read_pieces
from penstock.model.prefixes import U8, U32, U64, Prefixes

_MAPPED = bytes(10) + b"\xff\xff"
_LENGTHS = {str(length): length for length in range(129)}


@dataclass(frozen=True, slots=True)
class Scan:
    """The prefixes of a list, the line (from 0) of each, and what was refused."""

    prefixes: Prefixes
    v4_line: Index
    v6_line: Index
    rejects: Rejects
    entries: int
    normalised: int
    mapped: int


def parse_list(data: bytes) -> Parsed:
    """The prefixes of a plain list.

    Raises:
        FeedError: it is no list: a line of more than 1 MiB, rejects or ranges without end.
    """
    return parsed_of(scan(data))


def parsed_of(found: Scan, declared: int | None = None) -> Parsed:
    """The result of a scan whose lines number the entries."""
    rejects = found.rejects
    return Parsed(
        found.prefixes,
        found.entries,
        tuple(rejects.kept),
        rejects.count,
        found.normalised,
        found.mapped,
        declared=declared,
    )


def scan(data: bytes, *, is_commented: bool = True) -> Scan:
    """Read a list; without comments, blank lines are entries too, and wrong ones."""
    building = _Building()
    base = 0
    try:
        for piece in read_pieces(data, has_comments=is_commented, slashes=True):
            base = _scan_piece(building, piece, base, is_commented=is_commented)
            if building.rejects.count > MOST_REJECTS:
                raise FeedError(f"more than {MOST_REJECTS} lines are no addresses", line=base)
            if building.made > MOST_PREFIXES:
                raise FeedError(f"more than {MOST_PREFIXES} prefixes", line=base)
    except EndlessLineError as error:
        raise FeedError("a line is longer than 1 MiB: this is no list") from error
    return building.scan()


@dataclass(slots=True)
class _Building:
    """What was found so far: arrays of the quick way, lists of the exact one."""

    quick: list[tuple[U32, U8, Index]] = field(default_factory=list)
    v4: list[tuple[int, int, int]] = field(default_factory=list)
    v6: list[bytes] = field(default_factory=list)
    v6_length: list[int] = field(default_factory=list)
    v6_line: list[int] = field(default_factory=list)
    rejects: Rejects = field(default_factory=Rejects)
    entries: int = 0
    made: int = 0
    normalised: int = 0
    mapped: int = 0

    def scan(self) -> Scan:
        """All of it, as arrays."""
        address, length, line = zip(*self.v4, strict=True) if self.v4 else ((), (), ())
        self.quick.append((np.array(address, np.uint32), np.array(length, np.uint8), np.array(line, np.intp)))
        v6 = np.frombuffer(b"".join(self.v6), ">u8").astype(np.uint64).reshape(-1, 2)
        high, low, v6_length = v6[:, 0].copy(), v6[:, 1].copy(), np.array(self.v6_length, np.uint8)
        self.normalised += _clear_v6_host_bits(high, low, v6_length)
        prefixes = Prefixes(
            np.concatenate([part[0] for part in self.quick]),
            np.concatenate([part[1] for part in self.quick]),
            high,
            low,
            v6_length,
        )
        v4_line = np.concatenate([part[2] for part in self.quick])
        counts = (self.entries, self.normalised, self.mapped)
        return Scan(prefixes, v4_line, np.array(self.v6_line, np.intp), self.rejects, *counts)

    def add(self, text: str, line: int) -> None:
        """An entry that is no plain IPv4: quickly if it is plain IPv6, else by the exact way."""
        address, slash, length = text.partition("/")
        if (bits := _LENGTHS.get(length) if slash else 128) is not None and ":" in address:
            try:
                packed = inet_pton(AF_INET6, address)
            except (OSError, ValueError):
                return self.add_exact(text, line)
            if not packed.startswith(_MAPPED):
                self.made += 1
                self.v6.append(packed)
                self.v6_length.append(bits)
                self.v6_line.append(line)
                return None
        return self.add_exact(text, line)

    def add_exact(self, text: str, line: int) -> None:
        """An entry by the exact way."""
        entry = prefixes_of(text)
        if isinstance(entry, str):
            self.rejects.add(line + 1, text, entry)
            return
        self.normalised += entry.is_normalised
        self.mapped += entry.is_mapped
        self.made += len(entry.pieces)
        if entry.is_v6:
            self.v6.extend(address.to_bytes(16, "big") for address, _ in entry.pieces)
            self.v6_length.extend(length for _, length in entry.pieces)
            self.v6_line.extend(line for _ in entry.pieces)
        else:
            self.v4.extend((address, length, line) for address, length in entry.pieces)


def _scan_piece(building: _Building, piece: PlainLines, base: int, *, is_commented: bool) -> int:
    """Add the entries of a piece whose first line is number `base`; gives the number of the line behind it."""
    building.entries += int(np.count_nonzero(piece.end > piece.begin)) if is_commented else len(piece)
    address, length = piece.address, piece.length
    building.quick.append((address, length, np.flatnonzero(piece.is_plain) + base))
    building.made += len(address)
    building.normalised += _clear_host_bits(address, length)
    rest = ~piece.is_plain
    if is_commented:
        rest &= piece.end > piece.begin
    for line in np.flatnonzero(rest).tolist():
        building.add(piece.text(line), line + base)
    return base + len(piece)


def _clear_host_bits(address: U32, length: U8) -> int:
    """Clear, in place, what lies behind each length; gives how many had something there."""
    host = ((np.uint64(1) << (np.uint64(32) - length)) - np.uint64(1)).astype(np.uint32)
    changed = int(np.count_nonzero(address & host))
    np.bitwise_and(address, ~host, out=address)
    return changed


def _clear_v6_host_bits(high: U64, low: U64, length: U8) -> int:
    """The same for both halves of IPv6 addresses."""
    wide = length.astype(np.int64)
    high_host, low_host = _ones(np.clip(64 - wide, 0, 64)), _ones(np.clip(128 - wide, 0, 64))
    changed = int(np.count_nonzero((high & high_host) | (low & low_host)))
    np.bitwise_and(high, ~high_host, out=high)
    np.bitwise_and(low, ~low_host, out=low)
    return changed


def _ones(count: npt.NDArray[np.int64]) -> U64:
    """Numbers of which the last `count` of 64 bits are set."""
    # A shift by 64 is undefined (C11 6.5.7), so the last one is made by a second shift.
    shifted = np.uint64(1) << np.maximum(count, 1).astype(np.uint64) - np.uint64(1)
    ones: U64 = np.where(count == 0, np.uint64(0), shifted * np.uint64(2) - np.uint64(1))
    return ones
