"""Whatever bytes a capture file has: frames or a CaptureError, and soon."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.captures import PcapngBlocks
from tests.fuzz.effort import often, within

from penstock.errors import CaptureError
from penstock.observe.capture import ethernet_frames, read_capture
from penstock.observe.frame import MAX_CAPTURED
from penstock.observe.pcap import frames_of, pcap_chunks

PACKETS = [bytes([number]) * (number * 11) for number in range(1, 12)]


def _pcapng(order: str) -> bytes:
    make = PcapngBlocks(order)
    options = (
        make.option(2, b"eth0") + make.option(9, b"\x09") + make.option(14, bytes(8)) + make.option(0, b"")
    )
    blocks = [make.section(), make.interface(snap=500, options=options), make.block(4, b"names")]
    blocks += [make.enhanced(packet, stamp=number << 33) for number, packet in enumerate(PACKETS)]
    blocks += [make.section(), make.interface(), make.simple(PACKETS[3]), make.obsolete(PACKETS[4])]
    return b"".join(blocks)


SEEDS = [
    *(
        b"".join(pcap_chunks(frames_of(PACKETS), order=order, nanoseconds=ns))
        for order in "<>"
        for ns in (False, True)
    ),
    *(_pcapng(order) for order in "<>"),
]
NUMBERS = st.sampled_from(
    [0, 1, 2, 3, 6, 11, 12, 13, 16, 28, 32, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
)

scratch = tempfile.TemporaryDirectory(prefix="penstock-fuzz-")
PATH = Path(scratch.name) / "capture"


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good capture with some bytes changed, words overwritten, pieces cut out or repeated."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(content)))
        match draw(st.sampled_from(["byte", "word", "cut", "drop", "repeat"])):
            case "byte":
                content[at : at + 1] = draw(st.binary(max_size=2))
            case "word":
                order = draw(st.sampled_from("<>"))
                content[at & ~3 : (at & ~3) + 4] = struct.pack(f"{order}I", draw(NUMBERS))
            case "cut":
                del content[at:]
            case "drop":
                del content[at : at + draw(st.integers(1, 40))]
            case "repeat":
                content[at:at] = content[at : at + draw(st.integers(1, 200))]
    return bytes(content)


def read_fully(content: bytes) -> None:
    PATH.write_bytes(content)
    try:
        with read_capture(PATH) as capture:
            frames = list(capture.frames)
            count = len(capture.interfaces)
    except CaptureError:
        return
    assert sum(len(frame.data) for frame in frames) <= len(content)
    assert all(len(frame.data) <= MAX_CAPTURED and 0 <= frame.interface < count for frame in frames)
    assert len(capture.warnings) <= 2
    assert all(isinstance(frame.timestamp_ns, int) for frame in frames)


@settings(max_examples=often(300))
@given(st.binary(max_size=400))
@within(2)
def test_arbitrary_bytes(content: bytes) -> None:
    read_fully(content)


@settings(max_examples=often(300))
@given(st.sampled_from(SEEDS), st.integers(4, 60), st.binary(max_size=300))
@within(2)
def test_a_good_beginning_and_then_anything(seed: bytes, kept: int, rest: bytes) -> None:
    read_fully(seed[:kept] + rest)


@settings(max_examples=often(600))
@given(mutated())
@within(2)
def test_mutated_captures(content: bytes) -> None:
    read_fully(content)


@settings(max_examples=often(200))
@given(mutated())
@within(2)
def test_as_ethernet(content: bytes) -> None:
    PATH.write_bytes(content)
    warnings: list[str] = []
    try:
        frames = list(ethernet_frames(PATH, warnings))
    except CaptureError:
        return
    assert all(isinstance(frame.data, bytes) for frame in frames)
