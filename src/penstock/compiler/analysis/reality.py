"""What packets cannot be, told as boxes, so that nothing is said about packets that do not exist.

Axes are independent numbers, headers are not: a packet with a TCP flag is TCP, a
port needs a protocol that has ports, an IPv6 source an IPv6 packet.  Boxes of the
pseudo-rule IMPOSSIBLE, put before all others, take such combinations out
(`facts.py` lists them).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise, product

import numpy as np

from penstock.compiler.analysis.facts import EVERY_FRAME, Never, Parts, World, facts, fields_beneath
from penstock.compiler.diagram.axis import Keys, integers, keys_of
from penstock.compiler.diagram.boxes import Boxes, from_ranges
from penstock.compiler.ir.ops import FieldRef
from penstock.model.net import Interval

IMPOSSIBLE = -2


def with_reality(boxes: Boxes, world: World = EVERY_FRAME) -> Boxes:
    """The boxes behind those of IMPOSSIBLE, over axes cut for both.

    Only what their own axes can say is said: see `widened`.
    """
    never = [box for combination in facts(_parts(boxes), world) for box in _boxes_of(combination)]
    ranges = {}
    for at, axis in enumerate(boxes.axes):
        low, high = key_ranges(boxes, at)
        everything = (0, 1 << axis.bits)
        ends = [box.get(axis.ref, everything) for box in never]
        first, last = (
            keys_of(axis.bits, [end[0] for end in ends]),
            keys_of(axis.bits, [end[1] for end in ends]),
        )
        ranges[axis.ref] = np.concatenate([first, low]), np.concatenate([last, high])
    nothing = np.zeros(len(never), dtype=np.int32)
    return from_ranges(
        ranges, np.concatenate([nothing + IMPOSSIBLE, boxes.rule]), np.concatenate([nothing, boxes.opaque])
    )


@lru_cache(maxsize=1024)
def impossible(
    refs: tuple[FieldRef, ...], world: World = EVERY_FRAME
) -> tuple[dict[FieldRef, Interval], ...]:
    """Combinations of ranges (inclusive) that no packet has, of these fields."""
    nothing: Parts = dict.fromkeys(refs, ())
    return tuple(box for never in facts(nothing, world) for box in _boxes_of(never))


def widened(boxes: Boxes) -> Boxes:
    """The boxes with axes for the fields on which their own depend, so that what is impossible can be said of them.

    A source port and an ICMP type exclude each other only by way of the protocol.
    """
    have = [axis.ref for axis in boxes.axes]
    ranges = {axis.ref: key_ranges(boxes, at) for at, axis in enumerate(boxes.axes)}
    for ref in fields_beneath(have):
        if ref not in ranges:
            bits = ref.field.bits
            ranges[ref] = (
                keys_of(bits, [0]).repeat(len(boxes)),
                keys_of(bits, [1 << bits]).repeat(len(boxes)),
            )
    return from_ranges(ranges, boxes.rule, boxes.opaque)


def key_ranges(boxes: Boxes, at: int) -> tuple[Keys, Keys]:
    """The boxes' ranges on an axis as keys, inclusive; a range that holds absent ends with it."""
    axis = boxes.axes[at]
    last = boxes.high[:, at] - 1
    absent = axis.cuts[-1]
    ends = before(axis.cuts[np.minimum(boxes.high[:, at], axis.width - 1)])
    return axis.cuts[boxes.low[:, at]], np.where(last == axis.width - 1, absent, ends)


def before(keys: Keys) -> Keys:
    """Each key minus one; 0 stays."""
    if keys.dtype == np.uint64:
        return keys - np.minimum(keys, np.uint64(1))
    values = [max(0, int.from_bytes(key.ljust(17, b"\0"), "big") - 1) for key in keys.tolist()]
    return keys_of(128, values)


def _parts(boxes: Boxes) -> Parts:
    """The ranges into which each axis is cut."""
    cuts = {axis.ref: integers(axis.cuts) for axis in boxes.axes if axis.bits <= 16}
    parts: dict[FieldRef, tuple[Interval, ...]] = {axis.ref: () for axis in boxes.axes}
    return parts | {
        ref: tuple((first, after - 1) for first, after in pairwise(ends)) for ref, ends in cuts.items()
    }


def _boxes_of(never: Never) -> Iterator[dict[FieldRef, Interval]]:
    for ends in product(*(values.intervals for values in never.values())):
        yield dict(zip(never, ends, strict=True))
