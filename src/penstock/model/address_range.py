"""A range of addresses as the fewest prefixes that are exactly it.

pieces_of(0xC6336400, 0xC6336405, 32)     ->  [(0xC6336400, 30), (0xC6336404, 31)]
"""

from __future__ import annotations

from typing import TypeAlias

#: address, length
Piece: TypeAlias = tuple[int, int]


def pieces_of(low: int, high: int, bits: int) -> list[Piece]:
    """The fewest prefixes that cover an inclusive range exactly."""
    found: list[Piece] = []
    while low <= high:
        aligned = (low & -low).bit_length() - 1 if low else bits
        fits = (high - low + 1).bit_length() - 1
        size = min(aligned, fits)
        found.append((low, bits - size))
        low += 1 << size
    return found
