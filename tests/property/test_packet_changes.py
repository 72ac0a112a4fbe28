"""What `penstock program run` says of a packet's changes, put into the packet before, gives the packet after."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.pipeline.program_run import Change, changes_between

FRAMES = st.binary(min_size=14, max_size=60)


def applied(before: bytes, changes: tuple[Change, ...], grown: int) -> bytes:
    """The packet that the changes make of `before`; a change of another length is at one end."""
    after = before
    for one in changes:
        end = one.offset + len(one.before)
        assert after[one.offset : end] == one.before
        after = after[: one.offset] + one.after + after[end:]
    assert len(after) == len(before) + grown
    return after


@given(FRAMES, FRAMES)
def test_changes_lead_from_one_packet_to_the_other(before: bytes, after: bytes) -> None:
    changes, grown = changes_between(before, after)
    assert applied(before, changes, grown) == after


def test_a_header_in_front_and_a_cut_tail_are_one_change_each() -> None:
    frame, header = bytes(range(1, 61)), b"\xaa\xbb\xcc\xdd"
    assert changes_between(frame, header + frame) == ((Change(0, b"", header),), 4)
    assert changes_between(header + frame, frame) == ((Change(0, header, b""),), -4)
    assert changes_between(frame, frame[:50]) == ((Change(50, frame[50:], b""),), -10)


def test_a_frame_as_it_was_has_none() -> None:
    assert changes_between(bytes(60), bytes(60)) == ((), 0)
