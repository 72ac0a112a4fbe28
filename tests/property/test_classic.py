"""`pcap "EXPR"` three ways: libpcap's own interpreter, the reference, the kernel."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests import frames
from tests.property import expressions
from tests.property.dataplane import DataPlane
from tests.property.test_kernel_agrees import oldest_clang

from penstock.compiler.codegen.emit import emit_matcher
from penstock.compiler.ir.evaluate import Packet, holds
from penstock.compiler.ir.ops import FIRST_RULE_SLOT, Classic
from penstock.compiler.libpcap import LibpcapError, Program, compile_filter
from penstock.model.classic import loops, reads_unwritten

#: What shifts offsets in libpcap, also beyond the `or` that may follow.
QUIRKS = (
    "vlan",
    "vlan 5",
    "vlan and vlan",
    "mpls",
    "mpls 16 and mpls",
    "pppoes",
    "geneve",
    "geneve 5",
    "not vlan",
)


def _quirky() -> st.SearchStrategy[str]:
    some = expressions.on_any_link()
    shifted = st.tuples(st.sampled_from(QUIRKS), some, some)
    return shifted.map(lambda parts: f"{parts[0]} and ({parts[1]}) or {parts[2]}") | shifted.map(
        lambda parts: f"({parts[1]} or {parts[0]}) and {parts[2]}"
    )


TEXTS = st.one_of(expressions.plain(), expressions.plain(), _quirky())


def _compiled(text: str) -> tuple[Classic, Program] | None:
    """The text's program, None where libpcap refuses it, or where it loops or reads garbage, which penstock refuses."""
    try:
        program = compile_filter(text)
    except LibpcapError:
        return None
    if loops(program.instructions) or reads_unwritten(program.instructions):
        return None
    return Classic(program.instructions, text), program


@cache
def cut_frames() -> tuple[tuple[bytes, int], ...]:
    """Every known frame as it is, and as a capture or a short packet may show it: (bytes, length on the wire)."""
    found = []
    for number, frame in enumerate(frames.frames()):
        found.append((frame, len(frame)))
        at = 14 + number * 7 % max(1, len(frame) - 14)
        found += [(frame[:at], at), (frame[:at], len(frame))]
    return tuple((frame, length) for frame, length in found if len(frame) >= 14)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(TEXTS)
def test_the_reference_says_what_libpcap_says(text: str) -> None:
    compiled = _compiled(text)
    if compiled is None:
        return
    classic, program = compiled
    for frame, length in cut_frames():
        assert holds(classic, Packet(frame, length)) == program.matches(frame, length), (text, frame.hex())


@pytest.mark.privileged
@pytest.mark.parametrize("oldest", [False, True])
def test_the_kernel_says_what_libpcap_says(oldest: bool) -> None:
    @settings(max_examples=2, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(TEXTS, min_size=50, max_size=50, unique=True))
    def check(texts: list[str]) -> None:
        both = list(filter(None, map(_compiled, texts)))
        source = emit_matcher([classic for classic, _ in both])
        with DataPlane(source, oldest_clang() if oldest else None) as plane:
            assert plane.verified_insns < 300_000
            for frame, length in cut_frames()[::2]:
                expected = [n for n, (_, program) in enumerate(both) if program.matches(frame, length)]
                found = [slot - FIRST_RULE_SLOT for slot in plane.outcome(frame, length).hits]
                assert found == expected, (frame.hex(), [both[n][0].text for n in set(found) ^ set(expected)])

    check()
