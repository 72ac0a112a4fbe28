"""Thousands of networks come and go in place, at once: what of a content is new is made by numpy.

    in_place(content, {"v4": difference, "v6": difference})       False: it has to be written anew

Of IPv4 each block is made anew in which something changes, from the networks that lie in it, and
written behind the others; the words of the root that name them move together.  Networks
of IPv6 are taken one after the other (`flat_batch.py`), and happen with these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.model.flat import ALL, MARKS, MOVING, ROOT_BITS, ROOTS, Field
from penstock.pipeline.flat_batch import Batch
from penstock.pipeline.flat_blocks import NoRoomError
from penstock.pipeline.flat_build import blocks_v4, covered
from penstock.pipeline.flat_filter import mark_v4
from penstock.pipeline.flat_keys import distinct, halves
from penstock.pipeline.flat_log import OPERATIONS
from penstock.pipeline.flat_present import LINE, Difference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from penstock.pipeline.flat_content import Content

_TOP = 32 - ROOT_BITS["v4"]
_FULL = np.uint64(0xFFFFFFFFFFFFFFFF)
#: Blocks of IPv4 of which the whole content is made sooner; networks of IPv6, and of how many there are one more.
_MOST_BLOCKS, _MOST_V6, _V6_OF = 1 << 16, 64, 128


def in_place(content: Content, flat: Mapping[str, Difference]) -> bool:
    """Let networks come and go, if there is room and it is worth it; whether it was done."""
    v4, v6 = flat["v4"], flat["v6"]
    if len(v6.come) + len(v6.gone) > _MOST_V6 + v6.count // _V6_OF or _lines(flat) > content.log.room:
        return False
    try:
        batch = _batch(content, v6)
        blocks = _blocks(content, v4)
    except NoRoomError:
        return False
    moves = ManyMoves.of(content, blocks, batch)
    lines = _log(flat, moves)
    if len(lines) > content.log.room:
        return False
    content.carry_out(lines.tobytes(), moves)
    return True


def _lines(flat: Mapping[str, Difference]) -> int:
    return sum(len(one.come) + len(one.gone) for one in flat.values())


def _batch(content: Content, v6: Difference) -> Batch:
    """The networks of IPv6.  Raises NoRoomError."""
    batch = Batch(content)
    for keys, is_added in ((v6.gone, False), (v6.come, True)):
        for key in keys.tolist():
            octets = key.ljust(17, b"\0")
            batch.change("v6", int.from_bytes(octets[:16], "big"), octets[16], is_added=is_added)
    return batch


# ── IPv4 ─────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, eq=False)
class _Blocks:
    """Words of the root, by the first bits of addresses; what they are to name, and the front's two words of that.

    `come` are the networks that come.
    """

    tops: NDArray[np.int64]
    places: NDArray[np.uint32]
    fronts: NDArray[np.uint64]
    marks: NDArray[np.uint64]
    come: NDArray[np.uint64]


def _blocks(content: Content, v4: Difference) -> _Blocks:
    """The blocks in which something changes, written behind the others.  Raises NoRoomError."""
    changed = np.concatenate([v4.come, v4.gone])
    wide = (changed & np.uint64(255)).astype(np.int64) <= ROOT_BITS["v4"]
    tops = _tops(changed, wide)
    # A block takes a line and mostly two.
    if len(tops) > min(_MOST_BLOCKS, content.header(Field.END) - content.header(Field.NEXT)):
        raise NoRoomError
    places, (fronts, marks) = np.zeros(len(tops), np.uint32), np.zeros((2, len(tops)), np.uint64)
    made = _Blocks(tops, places, fronts, marks, v4.come)
    if not len(tops):
        return made
    first = tops.astype(np.uint64) << np.uint64(_TOP + 8)
    keys = v4.after.between(first, first + np.uint64(1 << _TOP + 8))
    here = content.next()
    found, named, lines = blocks_v4(keys[(keys & np.uint64(255)) > ROOT_BITS["v4"]], here)
    content.put(lines.tobytes(), here)
    at = np.searchsorted(tops, found)
    places[at], marks[at] = named, lines[named - here, 0]
    fronts[at] = marks[at] | lines[named - here, 1]
    whole = _covered(content, v4, tops, is_new=bool(wide.any()))
    places[whole], fronts[whole], marks[whole] = ALL, _FULL, _FULL
    return made


def _tops(keys: NDArray[np.uint64], wide: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The words of the root for some networks, sorted and each once."""
    tops = (keys >> np.uint64(_TOP + 8)).astype(np.int64)
    counts = np.ones(len(keys), np.int64)
    counts[wide] = 1 << ROOT_BITS["v4"] - (keys[wide] & np.uint64(255)).astype(np.int64)
    steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return distinct(np.repeat(tops, counts) + steps)


def _covered(content: Content, v4: Difference, tops: NDArray[np.int64], *, is_new: bool) -> NDArray[np.bool_]:
    """Which words of the root wide networks cover."""
    if not is_new:
        named = np.frombuffer(content.places, np.uint32)[8 * ROOTS["v4"] + tops]
        found: NDArray[np.bool_] = named == ALL
        return found
    wide = v4.after.no_longer(ROOT_BITS["v4"]).all()
    return covered(
        (wide >> np.uint64(_TOP + 8)).astype(np.int64),
        (wide & np.uint64(255)).astype(np.int64),
        ROOT_BITS["v4"],
    )[tops]


# ── both ─────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, eq=False)
class ManyMoves:
    """Words, what they name and are to name; the words of the front, and the networks of IPv6 that come."""

    content: Content
    slots: NDArray[np.int64]
    olds: NDArray[np.uint32]
    places: NDArray[np.uint32]
    blocks: _Blocks
    come: list[tuple[str, int, int]]

    @classmethod
    def of(cls, content: Content, blocks: _Blocks, batch: Batch) -> ManyMoves:
        """Those of blocks of IPv4 and of a batch."""
        moves = np.array([*batch.moves.items()], np.int64).reshape(-1, 2)
        slots = np.concatenate([8 * ROOTS["v4"] + blocks.tops, moves[:, 0]])
        places = np.concatenate([blocks.places, moves[:, 1].astype(np.uint32)])
        olds = np.frombuffer(content.places, np.uint32)[slots]
        moved = olds != places
        return cls(content, slots[moved], olds[moved], places[moved], blocks, batch.come)

    def widen(self) -> None:
        """As `Moves.widen`."""
        front, blocks = self._front(), self.blocks
        front[blocks.tops] |= blocks.fronts
        front[MARKS + blocks.tops] |= blocks.marks
        mark_v4(front, blocks.come)
        for network in self.come:
            self.content.mark(*network)

    def name_lines(self, first: int) -> None:
        """As `Moves.name_lines`."""
        lines = np.arange(first, first + len(self.slots), dtype=np.uint32)
        np.frombuffer(self.content.places, np.uint32)[self.slots] = lines | np.uint32(MOVING)

    def name_places(self) -> None:
        """As `Moves.name_places`."""
        np.frombuffer(self.content.places, np.uint32)[self.slots] = self.places

    def narrow(self) -> None:
        """As `Moves.narrow`."""
        self._front()[self.blocks.tops] = self.blocks.fronts

    def _front(self) -> NDArray[np.uint64]:
        return np.frombuffer(self.content.front, np.uint64)


def _log(flat: Mapping[str, Difference], moves: ManyMoves) -> NDArray[Any]:
    """The lines of the log: networks, and words that move, side by side."""
    lines = np.zeros(max(_lines(flat), len(moves.slots)), LINE)
    here = 0
    for family, one in flat.items():
        for is_added, keys in ((False, one.gone), (True, one.come)):
            part = lines[here : here + len(keys)]
            part["operation"] = OPERATIONS[family, is_added]
            part["hi"], part["lo"], part["length"] = halves(family, keys)
            here += len(keys)
    part = lines[: len(moves.slots)]
    part["slot"], part["old"], part["place"] = moves.slots, moves.olds, moves.places
    return lines
