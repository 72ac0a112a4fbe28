"""Which boxes hold a point, for many points at once: bit vectors for every rank of every axis.

Row r of an axis has a bit for each box whose range on that axis holds rank r; the
boxes that hold a point are the conjunction of one row an axis (Lakshman and
Stiliadis, "High-speed policy-based packet forwarding", 1998).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penstock.compiler.analysis.cover import Region
from penstock.compiler.analysis.facts import ARPS, ICMP, ICMP6, IPV4, IPV6, TCP, UDP, usual_values
from penstock.compiler.diagram.axis import Ranks, keys_of
from penstock.compiler.diagram.boxes import NO_RULE, Boxes, Indices

_WORD = 64
#: More bytes than these are not worth the answer.
MOST_BYTES = 1 << 29
#: A protocol without a transport header that rules could ask for (GRE).
OTHER = 47


@dataclass(frozen=True, slots=True, eq=False)
class BitIndex:
    """One matrix (ranks, words) for each axis; box b is bit ``b % 64`` of word ``b // 64``."""

    rows: tuple[np.ndarray[tuple[int, int], np.dtype[np.uint64]], ...]

    def holding(self, points: Ranks) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
        """The boxes that hold each point, as words."""
        found = self.rows[0][points[:, 0]]
        for at, rows in enumerate(self.rows[1:], 1):
            found &= rows[points[:, at]]
        return found


def size_of(boxes: Boxes) -> int:
    """How many bytes an index of the boxes takes."""
    return sum(axis.width for axis in boxes.axes) * (len(boxes) // _WORD + 1) * 8


def index_of(boxes: Boxes) -> BitIndex:
    """The index of some boxes."""
    words = len(boxes) // _WORD + 1
    word = np.arange(len(boxes)) // _WORD
    bit = np.uint64(1) << (np.arange(len(boxes), dtype=np.uint64) % np.uint64(_WORD))
    rows = []
    for at, axis in enumerate(boxes.axes):
        changes = np.zeros((axis.width + 1, words), dtype=np.uint64)
        for ends in (boxes.low[:, at], boxes.high[:, at]):
            np.bitwise_xor.at(changes, (ends, word), bit)
        rows.append(np.bitwise_xor.accumulate(changes, axis=0)[:-1])
    return BitIndex(tuple(rows))


def first_of(words: np.ndarray[tuple[int, int], np.dtype[np.uint64]]) -> Indices:
    """The lowest box of each row, `NO_RULE` for none."""
    at = (words != 0).argmax(axis=1)
    word = words[np.arange(len(words)), at]
    lowest = word & (~word + np.uint64(1))
    bit = np.log2(np.maximum(lowest, 1).astype(np.float64)).astype(np.int64)
    return np.where(word == 0, NO_RULE, at * _WORD + bit)


def from_box(
    words: np.ndarray[tuple[int, int], np.dtype[np.uint64]], first: Indices
) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    """Each row without the boxes before box ``first[row]``."""
    at = (first // _WORD)[:, None]
    column = np.arange(words.shape[1])[None, :]
    kept = np.where(column < at, np.uint64(0), words)
    mask = ~((np.uint64(1) << (first % _WORD).astype(np.uint64)) - np.uint64(1))
    row = np.arange(len(words))
    kept[row, at[:, 0]] &= mask
    return kept


def points_in(boxes: Boxes, chosen: Indices, kind: Region, rng: np.random.Generator) -> Ranks:
    """A random point of each of the chosen boxes, of this kind of packet as far as the box allows it.

    Corners come more often than their share.
    """
    low, high = boxes.low[chosen], boxes.high[chosen]
    own_low, own_high = np.maximum(low, kind.low), np.minimum(high, kind.high)
    fits = own_low < own_high
    low, high = np.where(fits, own_low, low), np.where(fits, own_high, high)
    corner = rng.random(low.shape)
    inner = low + (rng.random(low.shape) * (high - low)).astype(np.int32)
    return np.where(corner < 0.2, low, np.where(corner < 0.4, high - 1, inner))


# ── kinds of packets ─────────────────────────────────────────────────────────


def kinds_of(boxes: Boxes) -> list[Region]:
    """TCP, UDP, ICMP and something else over either IP, and ARP: random values alone are seldom a packet.

    Each has the ranks, for each axis, of an everyday packet of its kind.
    """
    pairs = [(family, number) for family in (IPV4, IPV6) for number in (TCP, UDP, ICMP, ICMP6, OTHER)]
    return [_kind(boxes, *pair) for pair in (*pairs, (ARPS[0], None))]


def _kind(boxes: Boxes, family: int, number: int | None) -> Region:
    low, high = np.zeros((2, len(boxes.axes)), dtype=np.int32)
    for at, axis in enumerate(boxes.axes):
        values = usual_values(axis.ref, family, number)
        ends = [1 << axis.bits] * 2 if values is None else values
        low[at], high[at] = axis.ranks(keys_of(axis.bits, list(ends)))
    high += 1
    return Region(low, high)
