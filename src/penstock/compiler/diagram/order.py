"""Which axes are asked first, and which rules share a diagram.

Addresses come first: two axes that together single out a handful of rules.
What is left (protocol, ports, flags …) is then compared rule by rule, in lanes of
16 bits; an axis with more ranks than fit into one leads in an address's place.  Asking
"the smallest field first" instead multiplies every port class with every
address pair.

One diagram of all rules may explode, because rules that leave the source open
cross with rules that leave the destination open.  So boxes are divided by
shape: an axis is *wide* in a box that covers at least 1 / 2**bits of its values.
The four shapes are diagrams of their own, and the lowest rule of their answers
is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from penstock.compiler.diagram.axis import Axis, halves, is_wide
from penstock.compiler.diagram.boxes import Boxes, Indices, Truth

IPV4_ADDRESSES = frozenset({"addr.src", "addr.dst", "ip.src", "ip.dst"})
IPV6_ADDRESSES = frozenset({"ip6.src", "ip6.dst"})
ADDRESSES = IPV4_ADDRESSES | IPV6_ADDRESSES
#: Thresholds of "wide" to try, in bits; -1 keeps all boxes in one group.
THRESHOLDS = (2, 8, 12, 16, 0)
ONE_GROUP = -1
SMALL_AXIS = 6
#: The greatest rank that a lane of a record holds; its top bit is kept free for comparing all lanes at once.
MAX_LANE = 0x7FFF


@dataclass(frozen=True, slots=True)
class AxisOrder:
    """`leading` are at most two axes, the rest follow; both as indices into the boxes' axes."""

    leading: tuple[int, ...]
    rest: tuple[int, ...]

    @property
    def all(self) -> tuple[int, ...]:
        return self.leading + self.rest


def axis_order(boxes: Boxes) -> AxisOrder:
    """What no lane holds, then addresses, then axes with most cuts lead; protocol-like goes before port-like."""
    count = {at: len(boxes.projections([at])[0]) for at in range(len(boxes.axes))}

    def rank(at: int) -> tuple[bool, bool, int, int]:
        return fits_a_lane(boxes.axes[at]), not _is_address(boxes.axes[at]), -count[at], at

    leading = sorted(count, key=rank)[:2]
    if len(leading) == 2 and not _is_address(boxes.axes[leading[1]]) and count[leading[1]] < SMALL_AXIS:
        leading.pop()
    rest = sorted(set(count) - set(leading), key=lambda at: (boxes.axes[at].bits, at))
    return AxisOrder(tuple(leading), tuple(rest))


def fits_a_lane(axis: Axis) -> bool:
    """Whether every rank is a number that a list's records have room for."""
    return axis.width - 1 <= MAX_LANE


def _is_address(axis: Axis) -> bool:
    return axis.ref.name in ADDRESSES


def fewest_first(boxes: Boxes, leading: Sequence[int]) -> tuple[int, ...]:
    """The leading axes, the one with fewer distinct ranges first."""
    return tuple(sorted(leading, key=lambda at: (len(boxes.projections([at])[0]), at)))


def divide(boxes: Boxes, leading: Sequence[int], threshold: int) -> list[Indices]:
    """The boxes of each shape, shapes without boxes left out; boxes with opaque predicates are a group apart."""
    certain = boxes.opaque == 0
    groups = [np.flatnonzero(~certain)]
    shape = np.zeros(len(boxes), dtype=np.int64)
    if threshold != ONE_GROUP:
        for at in leading:
            shape = shape * 2 + _is_wide_in(boxes, at, threshold)
    groups += [np.flatnonzero(certain & (shape == number)) for number in range(1 << len(leading))]
    return [group for group in groups if len(group)]


def _is_wide_in(boxes: Boxes, at: int, threshold: int) -> Truth:
    axis = boxes.axes[at]
    cuts = halves(axis.cuts)[0].astype(float) * 2.0**64 if is_wide(axis.bits) else axis.cuts.astype(float)
    domain = 2.0**axis.bits
    cuts[-1] = domain
    places = np.append(cuts, domain)
    wide: Truth = (places[boxes.high[:, at]] - places[boxes.low[:, at]]) >= domain / 2.0**threshold
    return wide
