"""The compiled program in the kernel against the reference: verdict, slot, hits, conditions, counters."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.property.dataplane import DataPlane, disagreements
from tests.property.rulesets import RuleSets, frames

from penstock.compiler.clang import Clang, find_clang
from penstock.compiler.codegen.emit import emit, emit_matcher
from penstock.compiler.ir.evaluate import Packet, evaluate, holds
from penstock.compiler.ir.ops import FIRST_RULE_SLOT
from penstock.model.field import Layer

pytestmark = pytest.mark.privileged

FRAMES = frames(2, 800)
#: (seed, rules): a few rules are inlined, many become functions.
DRAWN = [(seed, rules) for rules in (1, 4, 20, 60) for seed in range(100 * rules, 100 * rules + 6)]


def oldest_clang() -> Clang:
    """The oldest clang that penstock supports, if it is here, else the newest."""
    path = "/usr/bin/clang-14"
    return Clang(path, 14) if os.access(path, os.X_OK) else find_clang()


@pytest.mark.parametrize(("seed", "rules"), DRAWN)
def test_random_rule_sets(seed: int, rules: int) -> None:
    rule_set = RuleSets(seed).rule_set(rules)
    with DataPlane.of(rule_set) as plane:
        assert disagreements(rule_set, plane, FRAMES) == []


@pytest.mark.parametrize("seed", range(7, 10))
def test_the_oldest_clang(seed: int) -> None:
    rule_set = RuleSets(seed).rule_set(10)
    with DataPlane.of(rule_set, oldest_clang()) as plane:
        assert disagreements(rule_set, plane, FRAMES) == []


def truncations() -> Iterator[bytes]:
    """Some whole frames, cut after every byte from the 14th on."""
    for frame in FRAMES[:40]:
        if len(frame) < 400:
            yield from (frame[:length] for length in range(14, len(frame) + 1))


@pytest.mark.parametrize("depth", Layer)
def test_every_length(depth: Layer) -> None:
    """A field needs its own bytes and no more, whatever else is cut off."""
    rule_set = RuleSets(31).rule_set(12, depth=depth)
    with DataPlane.of(rule_set) as plane:
        assert disagreements(rule_set, plane, list(truncations())) == []


def test_captures_that_were_cut() -> None:
    """What the capture cut off, and not the sender, makes no packet malformed."""
    rule_set = RuleSets(5).rule_set(8, depth=Layer.TRANSPORT)
    cut = [(frame[: max(14, len(frame) // 2)], len(frame)) for frame in FRAMES]
    with DataPlane.of(rule_set) as plane:
        for frame, length in cut:
            assert plane.outcome(frame, length) == evaluate(rule_set, frame, length), frame.hex()


@pytest.mark.parametrize("size", [3000, 4096, 9000])
def test_jumbo_frames(size: int) -> None:
    """Bytes beyond the linear part are read as well, and counted."""
    rule_set = RuleSets(77).rule_set(12)
    large = [frame.ljust(size, bytes([at % 256])) for at, frame in enumerate(FRAMES[:60])]
    with DataPlane.of(rule_set) as plane:
        assert disagreements(rule_set, plane, large) == []


def straddling() -> Iterator[bytes]:
    """IPv6 frames whose later headers lie around the 128th byte, as far as the parser copies a packet's head."""
    for tags in range(3):
        for options in range(5, 10):
            link = bytes(12) + b"\x81\x00\x00\x05" * tags + b"\x86\xdd"
            for last, payload in (
                (17, b"\x00\x35\x00\x35\x00\x08\x00\x00"),
                (44, b"\x11\x00\x00\x01" + bytes(12)),
            ):
                chain = bytes([last, options - 1]) + bytes(8 * options - 2) + payload
                ip = b"\x60" + bytes(3) + len(chain).to_bytes(2, "big") + b"\x3c\x40" + bytes(32)
                yield link + ip + chain


@pytest.mark.parametrize("depth", Layer)
def test_headers_around_the_end_of_the_copied_head(depth: Layer) -> None:
    rule_set = RuleSets(32).rule_set(12, depth=depth)
    found = [frame[:length] for frame in straddling() for length in range(118, len(frame) + 1)]
    with DataPlane.of(rule_set) as plane:
        assert (
            disagreements(rule_set, plane, [*found, *(frame.ljust(3000, b"\1") for frame in straddling())])
            == []
        )


def test_a_matcher_of_many_predicates() -> None:
    draw = RuleSets(9)
    predicates = [draw.predicate() for _ in range(64)]
    with DataPlane(emit_matcher(predicates)) as plane:
        for frame in FRAMES[:200]:
            expected = [n for n, predicate in enumerate(predicates) if holds(predicate, Packet(frame))]
            assert [slot - FIRST_RULE_SLOT for slot in plane.outcome(frame).hits] == expected, frame.hex()


def test_the_same_text_each_time() -> None:
    assert emit(RuleSets(3).rule_set(9)).text == emit(RuleSets(3).rule_set(9)).text
