"""Check what the other modules promise: a diagram's invariants; and draw packets to try diagrams and tables with.

Packets are drawn from inside the boxes: corners, mixtures of two boxes, and noise.
"""

from __future__ import annotations

import numpy as np

from penstock.compiler.diagram.axis import Axis, Keys, Ranks, keys_of, successors
from penstock.compiler.diagram.boxes import Boxes, Packets, Truth
from penstock.compiler.diagram.node import Diagram, Level
from penstock.compiler.diagram.order import IPV4_ADDRESSES, IPV6_ADDRESSES
from penstock.compiler.ir.ops import FieldRef
from penstock.errors import InternalError

CORNERS, MIXED, NOISE = 0.3, 0.12, 0.03


def check(diagram: Diagram) -> None:
    """Ordered, consistent, complete: every axis once, and each node's edges partition its axis.

    Raises:
        InternalError: an invariant is broken; this is a bug in penstock.
    """
    refs = [axis.ref for axis in diagram.axes]
    _insist(len(set(refs)) == len(refs), "an axis occurs twice")
    below = [*(level.nodes for level in diagram.levels[1:]), len(diagram.terminals)]
    for level, children in zip(diagram.levels, below, strict=True):
        _check_level(level, children)
    for terminal in diagram.terminals:
        _insist(
            all(opaque != 0 for _, opaque in terminal[:-1]), "a terminal goes on behind a rule that decides"
        )


def _check_level(level: Level, children: int) -> None:
    name = level.axis.ref.name
    _insist(bool((np.diff(level.ptr) > 0).all()), f"a node of {name} has no edge")
    _insist(int(level.ptr[-1]) == len(level.start), f"edges of {name} belong to no node")
    _insist(bool((level.start[level.ptr[:-1]] == 0).all()), f"a node of {name} leaves a gap")
    inner = np.ones(len(level.start), dtype=bool)
    inner[level.ptr[:-1]] = False
    steps = np.diff(level.start, prepend=-1)
    _insist(bool((steps[inner] > 0).all()), f"edges of {name} overlap")
    _insist(bool((level.start < level.axis.width).all()), f"an edge of {name} is outside its axis")
    _insist(bool(((level.child >= 0) & (level.child < children)).all()), f"an edge of {name} leads nowhere")


def _insist(holds: bool, broken: str) -> None:
    if not holds:
        raise InternalError(f"the decision diagram is broken: {broken}")


def probes(boxes: Boxes, count: int, seed: int) -> Packets:
    """Packets that exercise the boxes, as keys of each axis."""
    rng = np.random.default_rng([seed, len(boxes)])
    chosen = rng.integers(0, len(boxes), count)
    mixed, noise = rng.random(count) < MIXED, rng.random(count) < NOISE
    found = {}
    for at, axis in enumerate(boxes.axes):
        swapped = mixed & (rng.random(count) < 0.5)
        box = np.where(swapped, rng.integers(0, len(boxes), count), chosen)
        low, high = boxes.low[box, at].astype(np.int64), boxes.high[box, at].astype(np.int64)
        corner = rng.random(count)
        rank = low + (rng.random(count) * (high - low)).astype(np.int64)
        rank = np.where(corner < CORNERS / 2, low, np.where(corner < CORNERS, high - 1, rank))
        rank = np.where(noise, rng.integers(0, axis.width, count), rank).astype(np.int32)
        found[axis.ref] = _keys_within(axis, rank, rng)
    return _of_one_family(found, rng.random(count) < 0.5)


def _of_one_family(found: dict[FieldRef, Keys], prefers_ipv4: Truth) -> dict[FieldRef, Keys]:
    """No packet has addresses of IPv4 and of IPv6; tables for both rely on it."""
    has = {
        family: [found[ref] != absent(ref) for ref in found if ref.name in family]
        for family in (IPV4_ADDRESSES, IPV6_ADDRESSES)
    }
    if not all(has.values()):
        return found
    four, six = (np.logical_or.reduce(present) for present in has.values())
    loses = {IPV4_ADDRESSES: six & ~(four & prefers_ipv4), IPV6_ADDRESSES: four & prefers_ipv4}
    for family, gone in loses.items():
        for ref in [ref for ref in found if ref.name in family]:
            found[ref] = np.where(gone, absent(ref), found[ref])
    return found


def absent(ref: FieldRef) -> Keys:
    """The key of a packet without the field, as an array of one."""
    return keys_of(ref.field.bits, [1 << ref.field.bits])


def _keys_within(axis: Axis, rank: Ranks, rng: np.random.Generator) -> Keys:
    """A value of each rank: its first, its second, or (of narrow fields) any."""
    first = axis.cuts[rank]
    after = axis.cuts[np.minimum(rank + 1, axis.width - 1)]
    if first.dtype == np.uint64:
        size = np.where(rank == axis.width - 1, 1, after - first)
        return first + (rng.random(len(rank)) * size).astype(np.uint64)
    second = successors(first)
    usable = (second < after) & (rng.random(len(rank)) < 0.5)
    return np.where(usable, second, first)
