"""Networks as keys that sort: each follows those that it lies in.

packed("v4", keys)      the keys of a trie as uint64: the address, and the length in the lowest byte
packed("v6", keys)      the same as 17 bytes
unpacked("v4", sorted)  the keys of a trie again
halves("v6", sorted)    address and length as numbers: first and last 64 bits, length
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DTYPES = {"v4": np.dtype(np.uint64), "v6": np.dtype("S17")}


def packed(family: str, keys: NDArray[np.uint8]) -> NDArray[Any]:
    """The keys of a trie as ones that sort, in their order."""
    words = np.ascontiguousarray(keys).view(np.uint32).reshape(-1, keys.shape[1] // 4)
    if family == "v4":
        return words[:, 1].view(">u4").astype(np.uint64) << np.uint64(8) | words[:, 0].astype(np.uint64)
    found = np.empty((len(keys), 17), np.uint8)
    found[:, :16], found[:, 16] = keys[:, 4:], words[:, 0]
    return found.view("S17").reshape(-1)


def unpacked(family: str, keys: NDArray[Any]) -> NDArray[np.uint8]:
    """The keys of a trie."""
    if family == "v4":
        found = np.empty((len(keys), 2), np.uint32)
        found[:, 0] = keys & np.uint64(255)
        found[:, 1] = (keys >> np.uint64(8)).astype(">u4").view(np.uint32)
        return found.view(np.uint8).reshape(-1, 8)
    octets = _octets(keys)
    found = np.empty((len(keys), 5), np.uint32)
    found[:, 0] = octets[:, 16]
    whole = found.view(np.uint8).reshape(-1, 20)
    whole[:, 4:] = octets[:, :16]
    return whole


def halves(
    family: str, keys: NDArray[Any]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]:
    """First and last 64 bits of the addresses, and the lengths; an IPv4 address is the first 32 bits."""
    if family == "v4":
        return (
            keys >> np.uint64(8) << np.uint64(32),
            np.zeros_like(keys),
            (keys & np.uint64(255)).astype(np.int64),
        )
    octets = _octets(keys)
    words = np.ascontiguousarray(octets[:, :16]).view(">u8").astype(np.uint64)
    return words[:, 0], words[:, 1], octets[:, 16].astype(np.int64)


def found_in(keys: NDArray[Any], asked: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Which are among sorted keys, and where each is or would come."""
    at = np.searchsorted(keys, asked)
    there = at < len(keys)
    there[there] = keys[at[there]] == asked[there]
    return there, at


def distinct(keys: NDArray[Any]) -> NDArray[Any]:
    """The keys sorted, each once."""
    ranked = np.sort(keys)
    keep = np.ones(len(ranked), bool)
    keep[1:] = ranked[1:] != ranked[:-1]
    return ranked if keep.all() else ranked[keep]


def nothing(family: str) -> NDArray[Any]:
    """No keys."""
    return np.empty(0, DTYPES[family])


def _octets(keys: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(keys).view(np.uint8).reshape(len(keys), 17)
