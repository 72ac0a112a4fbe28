"""Prefixes as a trie's keys, one by one, and what a map holds beneath one.

    cut(key_of("198.51.100.7/32"), 24)      ->  the key of 198.51.100.0/24
    beneath(table, key, ghost)              the entries that a prefix covers, itself left out

The kernel's trie gives its keys in postorder: what lies beneath a prefix comes
right behind what lies left of it.  Where no entry is there, one is put there for
the time of the walk: a ghost, of which `ghost` says what it answers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterator

from penstock.kernel.map_entries import entries, entries_behind
from penstock.kernel.maps import NOEXIST, Map

_LENGTH = struct.Struct("=I")
_FIRST_BATCH = 32


def length_of(key: bytes) -> int:
    """How many bits of the address count."""
    length: int = _LENGTH.unpack_from(key)[0]
    return length


def cut(key: bytes, length: int) -> bytes:
    """The prefix of so many bits that covers another, or is it."""
    free = 8 * (len(key) - 4) - length
    return _key(_address(key) >> free << free, length, len(key))


def covers(wide: bytes, key: bytes) -> bool:
    """Whether a prefix covers another, or is it."""
    length = length_of(wide)
    return length <= length_of(key) and cut(key, length) == wide


def end_of(key: bytes) -> tuple[int, int]:
    """Where a prefix lies in the kernel's order."""
    length = length_of(key)
    return _address(key) | (1 << 8 * (len(key) - 4) - length) - 1, -length


def beneath(
    table: Map, key: bytes, ghost: Callable[[bytes], bytes | None]
) -> Generator[tuple[bytes, bytes], None, None]:
    """The entries that a prefix covers, with their values, itself left out.

    `ghost` gives the value of an entry that stands for its surroundings, or None
    where a real one is in its place.  Raises KernelError.
    """
    if length_of(key) == 8 * (len(key) - 4):
        return
    left = _left_of(key)
    if left is None:
        yield from _until(key, entries(table))
        return
    value = ghost(left)
    if value is not None:
        table.update(left, value, NOEXIST)
    try:
        yield from _until(key, entries_behind(table, left, _FIRST_BATCH))
    finally:
        if value is not None:
            table.delete(left)


def _until(key: bytes, found: Iterator[tuple[bytes, bytes | None]]) -> Iterator[tuple[bytes, bytes]]:
    for one, value in found:
        if one == key or not covers(key, one):
            return
        if value is not None:
            yield one, value


def _left_of(key: bytes) -> bytes | None:
    """The prefix whose part of the trie ends where that of `key` begins; None where nothing is left of it."""
    address = _address(key)
    if not address:
        return None
    last = (address & -address).bit_length() - 1
    return _key(address ^ 1 << last, 8 * (len(key) - 4) - last, len(key))


def _address(key: bytes) -> int:
    return int.from_bytes(key[4:], "big")


def _key(address: int, length: int, size: int) -> bytes:
    return _LENGTH.pack(length) + address.to_bytes(size - 4, "big")
