"""Test runs: the program's answer to a frame, without an interface."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from penstock.errors import KernelError
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.kernel.program import XDP, Program, describe_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.conftest import CompileC

pytestmark = pytest.mark.privileged

# The answer is the frame's first byte modulo 5, so that each frame has its own; the second byte is rewritten.
ECHO = """
SEC("xdp.frags") int ps_echo(struct xdp_md *ctx) {
    __u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    if (data + 14 > end)
        return XDP_ABORTED;
    data[1] = 0xee;
    return data[0] % 5;
}
SEC("xdp") int ps_linear(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp.frags") int ps_length(struct xdp_md *ctx) { return bpf_xdp_get_buff_len(ctx); }
SEC("xdp.frags") int ps_queue(struct xdp_md *ctx) { return ctx->rx_queue_index + ctx->data - ctx->data_meta; }
SEC("xdp.frags") int ps_grow(struct xdp_md *ctx) {
    return bpf_xdp_adjust_head(ctx, -20) ? XDP_ABORTED : XDP_TX;
}
"""


@pytest.fixture
def echo(compile_c: CompileC) -> Iterator[BpfObject]:
    """The programs of ECHO."""
    with load_object(compile_c(ECHO), "echo") as loaded:
        yield loaded


def test_a_run_gives_answer_and_frame(echo: BpfObject) -> None:
    ran = echo.programs["ps_echo"].test_run(b"\x08" + bytes(63))
    assert ran.retval == 3
    assert ran.data_out == b"\x08\xee" + bytes(62)


def test_a_grown_frame_comes_back_whole(echo: BpfObject) -> None:
    ran = echo.programs["ps_grow"].test_run(bytes(64))
    assert ran.retval == 3
    assert len(ran.data_out) == 84


def test_repeated_runs_are_timed(echo: BpfObject) -> None:
    assert 0 < echo.programs["ps_linear"].test_run(bytes(64), repeat=1000).duration_ns < 10_000


def test_many_frames_get_their_own_answers_in_order(echo: BpfObject) -> None:
    frames = [bytes([number % 251]) + bytes(13 + number % 3000) for number in range(5000)]
    answers = echo.programs["ps_echo"].test_run_many(frames)
    assert answers.dtype == np.uint32
    assert answers.tolist() == [number % 251 % 5 for number in range(5000)]


def test_no_frames_give_no_answers(echo: BpfObject) -> None:
    assert echo.programs["ps_echo"].test_run_many([]).shape == (0,)


@pytest.mark.parametrize("size", [14, 1514, 3500, 4096, 9014, 60_000, 66_000])
def test_a_frame_of_any_size_is_seen_whole(echo: BpfObject, size: int) -> None:
    program = echo.programs["ps_length"]
    assert program.test_run(bytes(size)).retval == size
    assert program.test_run_many([bytes(14), bytes(size), bytes(15)]).tolist() == [14, size, 15]


def test_the_context_is_handed_in(echo: BpfObject) -> None:
    meta = struct.pack("=IIIIII", 8, 72, 0, 0, 0, 0)
    assert echo.programs["ps_queue"].test_run(bytes(72), ctx=meta).retval == 8


def test_a_frame_shorter_than_ethernet_is_refused_by_name(echo: BpfObject) -> None:
    with pytest.raises(KernelError, match=r"at least 14 bytes, this one has 13"):
        echo.programs["ps_echo"].test_run(bytes(13))
    with pytest.raises(KernelError, match=r"at least 14 bytes, this one has 0"):
        echo.programs["ps_echo"].test_run_many([bytes(14), b""])


def test_a_program_is_found_by_its_id(echo: BpfObject) -> None:
    wanted = echo.programs["ps_echo"]
    with Program.by_id(wanted.id) as again:
        assert again.info == wanted.info
        assert again.info.type == XDP
        assert again.info.btf_id > 0
    assert describe_program(wanted.id) == f"id {wanted.id} (ps_echo)"
    with pytest.raises(KernelError):
        Program.by_id((1 << 31) - 1)
    assert describe_program((1 << 31) - 1) == f"id {(1 << 31) - 1}"
