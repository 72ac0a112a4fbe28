"""No frame that can be made is one that `diagram.facts` calls impossible."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import frames as kinds
from tests.property.rulesets import frames

from penstock.compiler.analysis.facts import World
from penstock.compiler.analysis.reality import IMPOSSIBLE, with_reality
from penstock.compiler.diagram.axis import keys_of
from penstock.compiler.diagram.boxes import Boxes, batch_ranks, from_ranges
from penstock.compiler.ir.evaluate import Packet, conditions_of
from penstock.compiler.ir.ops import FieldRef
from penstock.model.field import FIELDS, Layer
from penstock.model.verdict import Condition

#: Fields that are others in packets of one kind: no axis is theirs (convert.py).
RENAMED = {"tcp.sport", "tcp.dport", "udp.sport", "udp.dport", "ip.src", "ip.dst", "ip.proto", "ip6.proto"}
REFS = [
    FieldRef(name, (), index)
    for name in FIELDS
    if name not in RENAMED
    for index in (range(4) if name.startswith("vlan.") else (0,))
]
TYPES = (0x0800, 0x0806, 0x8035, 0x8100, 0x86DD, 0x88A8, 0x9100)


def anything(seed: int) -> Boxes:
    """Boxes over every field that together cut its values into many parts."""
    draw = random.Random(seed)
    ranges = {}
    for ref in REFS:
        top = (1 << ref.field.bits) - 1
        small = [min(value, top) for value in range(70)]
        some = [draw.randint(0, top) for _ in range(20)]
        types = [min(value + more, top) for value in TYPES for more in (0, 1, 8)]
        values = (small + some + types)[:110]
        ranges[ref] = keys_of(ref.field.bits, values), keys_of(ref.field.bits, values)
    return from_ranges(ranges, np.zeros(len(values)))


CUT = anything(1)
KINDLESS = CUT.over([at for at, axis in enumerate(CUT.axes) if axis.ref.name not in ("eth.type", "proto")])


def reaching(world: World, some: Sequence[bytes]) -> list[Packet]:
    """The frames that no decided condition keeps from the rules."""
    packets = [Packet(frame) for frame in some]
    return [packet for packet in packets if not world.decided & conditions_of(packet, world.depth)]


def called_impossible(world: World, some: Sequence[bytes], cut: Boxes = CUT) -> list[str]:
    """The frames, as hex, that fall into a box of IMPOSSIBLE."""
    real = with_reality(cut, world)
    real = real.take(np.flatnonzero(real.rule == IMPOSSIBLE))
    packets = reaching(world, some)
    keys = {}
    for axis in real.axes:
        values = [packet.value(axis.ref) for packet in packets]
        keys[axis.ref] = keys_of(axis.bits, [1 << axis.bits if value is None else value for value in values])
    ranks = batch_ranks(real.axes, keys)
    wrong = np.zeros(len(packets), dtype=bool)
    for low, high in zip(real.low, real.high, strict=True):
        wrong |= ((low <= ranks) & (ranks < high)).all(axis=1)
    return [packets[at].frame.hex() for at in np.flatnonzero(wrong).tolist()]


WORLDS = [
    World(),
    World(frozenset({Condition.MALFORMED}), Layer.LINK),
    World(frozenset({Condition.MALFORMED}), Layer.NETWORK),
    World(frozenset({Condition.MALFORMED}), Layer.TRANSPORT),
    World(frozenset({Condition.EXTHDR_LIMIT, Condition.FRAGMENT}), Layer.NETWORK),
    World(frozenset(Condition), Layer.NETWORK),
    World(frozenset(Condition), Layer.TRANSPORT),
]


@pytest.mark.parametrize("world", WORLDS, ids=range(len(WORLDS)))
def test_no_frame_is_impossible(world: World) -> None:
    some = [part for frame in kinds.frames() for part in kinds.truncations(frame)[::4]]
    assert not called_impossible(world, [*frames(11, 800), *some])


def test_no_frame_is_impossible_by_fields_of_other_kinds() -> None:
    assert not called_impossible(World(), frames(12, 800), KINDLESS)


@given(st.sampled_from(WORLDS), st.lists(kinds.broken(), min_size=20, max_size=20))
@settings(max_examples=25, deadline=None)
def test_no_broken_frame_is_impossible(world: World, some: list[bytes]) -> None:
    assert not called_impossible(world, some)


def test_every_decided_condition_makes_more_impossible() -> None:
    counts = [int((with_reality(CUT, world).rule == IMPOSSIBLE).sum()) for world in WORLDS]
    assert counts[0] < counts[1] < counts[2] < counts[3]
    assert counts[0] < counts[4] < counts[5] < counts[6]
