"""A whole content of a flat set, made by numpy and written into the memory of its maps.

made = filling({"v4": keys, "v6": keys})       sorted, each once
fill(memory, made)                             memory that is zero, of made.total lines
fill_front(front, made)                        a part of the front, whatever was there
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.model.flat import ALL, FIRST, HEADER, LINE_BYTES, ROOTS, SEED, SLOTS, TABLE, Field
from penstock.model.sets import FAMILIES
from penstock.pipeline.flat_build import Built, build
from penstock.pipeline.flat_filter import mark_v6
from penstock.pipeline.flat_keys import DTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_COUNTS = {"v4": Field.COUNT_V4, "v6": Field.COUNT_V6}
_PLACES = {"v4": Field.AT_V4, "v6": Field.AT_V6}
_LEAST_ROOM, _LEAST_LOG, _MOST_LOG = 1024, 256, 65_536


@dataclass(frozen=True, slots=True, eq=False)
class Filling:
    """A content that has been made, but for the memory to lie in."""

    keys: Mapping[str, NDArray[Any]]
    built: Mapping[str, Built]
    header: Mapping[Field, int]
    #: The first line of the table of IPv6.
    table: int
    total: int


def filling(keys: Mapping[str, NDArray[Any]]) -> Filling:
    """The lines of these networks, of each family sorted and each once; with room for changes."""
    here, table, built = FIRST, FIRST, {}
    for family in FAMILIES:
        table, built[family] = here, build(family, keys[family], here)
        here += len(built[family].lines) + 1 & ~1
    # A table has room of its own.
    room = max(_LEAST_ROOM, (here - FIRST - built["v6"].table) // 3)
    header = {Field.NEXT: here, Field.END: here + room}
    here = header[Field.END]
    for family in FAMILIES:
        header[_PLACES[family]], header[_COUNTS[family]] = here, len(keys[family])
        here += -(-keys[family].nbytes // LINE_BYTES)
    room = min(_MOST_LOG, max(_LEAST_LOG, sum(map(len, keys.values())) // 16))
    header |= dict.fromkeys((Field.LOG, Field.LOGGED, Field.BEGUN, Field.SETTLED), here)
    header[Field.LOG_END] = here + room
    return Filling(keys, built, header, table, here + room)


def fill(memory: memoryview, made: Filling) -> None:
    """Write a whole content into memory that is zero, and that no packet reads yet."""
    lines = np.frombuffer(memory, np.uint64).reshape(-1, 4)
    roots = lines[:FIRST].reshape(-1).view(np.uint32)
    here = FIRST
    for family, one in made.built.items():
        lines[here : here + len(one.lines)] = one.lines
        here += len(one.lines) + 1 & ~1
        roots[8 * ROOTS[family] :][: len(one.root)] = one.root
    lines[ALL, 0::2] = lines[ALL + 1, 0::2] = np.uint64(0xFFFFFFFFFFFFFFFF)
    header = lines[HEADER : HEADER + 4].reshape(-1)
    for name, value in made.header.items():
        header[name] = value
    for family, found in made.keys.items():
        octets = lines[made.header[_PLACES[family]] :].reshape(-1).view(np.uint8)
        octets[: found.nbytes].view(DTYPES[family])[:] = found


def fill_front(front: memoryview, made: Filling) -> None:
    """Write a part of the front, which no packet reads yet."""
    words, of_v4 = np.frombuffer(front, np.uint64), made.built["v4"].front
    words[: len(of_v4)], words[len(of_v4) :] = of_v4, 0
    words[TABLE], words[SLOTS], words[SEED] = made.table, made.built["v6"].slots, made.built["v6"].seed
    mark_v6(words, made.keys["v6"])
