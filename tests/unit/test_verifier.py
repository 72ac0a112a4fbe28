"""Reading verifier logs.  All of them are real: Linux 6.18 wrote them about objects of clang 19."""

from __future__ import annotations

import re

import pytest

from penstock.kernel.verifier import Effort, read_log, read_statistics

STATISTICS = (
    "processed 9 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n"
)

PACKET = """\
0: R1=ctx() R10=fp0
; unsigned char *data = (void *)(long)ctx->data; @ edge.policy:2
0: (61) r1 = *(u32 *)(r1 +0)          ; R1=pkt(r=0)
; drop if udp dst port 53 @ edge.policy:4
1: (71) r1 = *(u8 *)(r1 +23)
invalid access to packet, off=23 size=1, R1(id=0,off=23,r=0)
R1 offset is outside of the packet
"""

CONTEXT = """\
0: R1=ctx() R10=fp0
;  @ edge.policy:2
0: (61) r0 = *(u32 *)(r1 +64)
invalid bpf_context access off=64 size=4
"""

MAYBE_NULL = """\
0: R1=ctx() R10=fp0
;  @ edge.policy:1
0: (b7) r1 = 9                        ; R1=9
;  @ edge.policy:2
1: (63) *(u32 *)(r10 -4) = r1         ; R1=9 R10=fp0 fp-8=mmmm????
2: (bf) r2 = r10                      ; R2=fp0 R10=fp0
3: (07) r2 += -4                      ; R2=fp-4
;  @ edge.policy:3
4: (18) r1 = 0xffff888104391800       ; R1=map_ptr(map=m,ks=4,vs=8)
6: (85) call bpf_map_lookup_elem#1    ; R0=map_value_or_null(id=1,map=m,ks=4,vs=8)
;  @ edge.policy:4
7: (79) r0 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
"""

LOOP = """\
0: R1=ctx() R10=fp0
;  @ edge.policy:2
0: (b7) r1 = 0                        ; R1=0
;  @ edge.policy:3
1: (67) r1 <<= 32                     ; R1=0
2: (77) r1 >>= 32                     ; R1=0
3: (55) if r1 != 0x1 goto pc-4        ; R1=0
infinite loop detected at insn 0
cur state: R1=0 R10=fp0
old state: R1=0 R10=fp0
"""

BRANCH = """\
0: R1=ctx() R10=fp0
;  @ edge.policy:3
0: (61) r3 = *(u32 *)(r1 +16)         ; R1=ctx() R3=scalar(smin=0,smax=umax=0xffffffff)
;  @ edge.policy:2
1: (61) r2 = *(u32 *)(r1 +0)          ; R1=ctx() R2=pkt(r=0)
;  @ edge.policy:3
2: (55) if r3 != 0x3 goto pc+5        ; R3=3
;  @ edge.policy:7
7: (b7) r0 = 1                        ; R0=1
8: (95) exit

from 2 to 8: R1=ctx() R2=pkt(r=0) R3=scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff)) R10=fp0
8: R1=ctx() R2=pkt(r=0) R3=scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff)) R10=fp0
;  @ edge.policy:9
8: (71) r0 = *(u8 *)(r2 +0)
invalid access to packet, off=0 size=1, R2(id=0,off=0,r=0)
R2 offset is outside of the packet
"""

SUBPROGRAM = """\
4: (85) call pc+1
caller:
 R10=fp0
callee:
 frame1: R1=ctx() R2=scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))
6: frame1: R1=ctx() R2=scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))
;  @ edge.policy:2
6: (61) r1 = *(u32 *)(r1 +0)          ; frame1: R1=pkt(r=0)
;  @ edge.policy:3
9: (0f) r1 += r2
value -2147483648 makes pkt pointer be out of bounds
"""

GLOBAL = """\
Validating sub() func#1...
3: R1=ctx() R2=scalar() R10=fp0
;  @ edge.policy:2
3: (61) r1 = *(u32 *)(r1 +0)          ; R1=pkt(r=0)
;  @ edge.policy:3
6: (0f) r1 += r2
value -2147483648 makes pkt pointer be out of bounds
"""

TOO_LARGE = """\
;  @ edge.policy:3
6: (07) r7 += -1                      ; R7_w=1871430
7: (55) if r7 != 0x0 goto pc-5        ; R7_w=1871430
2: (85) call bpf_get_prandom_u32#7    ; R0_w=scalar()
BPF program is too large. Processed 1000001 insn
"""

# Linux 7.3: behind the sentence comes a report, and behind that the sentence may go on.
REPORT = """\
; struct ethhdr *eth = (void *)(long)ctx->data; @ edge.policy:14
0: (61) r1 = *(u32 *)(r1 +0)          ; R1=pkt(r=0)
; drop if ether[12] = 8 @ edge.policy:16
1: (71) r2 = *(u8 *)(r1 +12)
invalid access to packet, off=23 size=1, R1(id=0,off=23,r=0)
R1 offset is outside of the packet

Verification failed: Memory Safety: Access outside bounds

Reason:
  The verifier cannot prove offset + access_size <= object_size.

At:
  refused @ edge.policy:16:14
  Instruction context:
      0 | (61) r1 = *(u32 *)(r1 +0)
  >>> 1 | (71) r2 = *(u8 *)(r1 +12)

Suggestion:
  Add or adjust a bounds check that proves offset + access_size stays within
  the object.

"""
# Linux 5.10: the state of registers stands on a line of its own.
OLD_STATE = """\
; return row->cells[ctx->rx_queue_index];
15: (61) r0 = *(u32 *)(r0 +0)
 R0_w=map_value(id=0,off=0,ks=4,vs=32,umax_value=17179869180,var_off=(0x0; 0x3fffffffc)) R10=fp0
R0 unbounded memory access, make sure to bounds check any such access
"""

OUTSIDE = "invalid access to packet, off=23 size=1, R1(id=0,off=23,r=0); R1 offset is outside of the packet"


@pytest.mark.parametrize(
    ("log", "summary", "place", "instruction"),
    [
        (PACKET, OUTSIDE, "edge.policy:4", 1),
        (CONTEXT, "invalid bpf_context access off=64 size=4", "edge.policy:2", 0),
        (MAYBE_NULL, "R0 invalid mem access 'map_value_or_null'", "edge.policy:4", 7),
        (LOOP, "infinite loop detected at insn 0", "edge.policy:3", 3),
        (BRANCH, OUTSIDE.replace("23", "0").replace("R1", "R2"), "edge.policy:9", 8),
        (SUBPROGRAM, "value -2147483648 makes pkt pointer be out of bounds", "edge.policy:3", 9),
        (GLOBAL, "value -2147483648 makes pkt pointer be out of bounds", "edge.policy:3", 6),
        ("unreachable insn 1\n", "unreachable insn 1", None, 1),
        (REPORT, OUTSIDE, "edge.policy:16", 1),
        (REPORT.partition("Suggestion")[0], OUTSIDE, "edge.policy:16", 1),
        (REPORT + "R1 may not be so\n", "R1 may not be so", "edge.policy:16", 1),
        (OLD_STATE, "R0 unbounded memory access, make sure to bounds check any such access", None, 15),
        (TOO_LARGE, "BPF program is too large. Processed 1000001 insn", "edge.policy:3", 2),
    ],
)
def test_the_decisive_line_and_its_place(log: str, summary: str, place: str | None, instruction: int) -> None:
    refusal = read_log(log + STATISTICS)
    assert (refusal.summary, refusal.place, refusal.instruction) == (summary, place, instruction)


def test_only_the_budget_is_too_complex() -> None:
    assert read_log(TOO_LARGE + STATISTICS).is_too_complex
    assert not read_log(LOOP + STATISTICS).is_too_complex


def test_further_statistics_are_no_reason() -> None:
    timed = "verification time 78 usec\nstack depth 8+0\n" + STATISTICS
    assert read_log(CONTEXT + timed).summary == "invalid bpf_context access off=64 size=4"


def test_a_log_of_an_older_kernel_has_the_instruction_for_its_place() -> None:
    refusal = read_log(re.sub(r" @ .*", "", PACKET) + STATISTICS)
    assert (refusal.summary, refusal.place, refusal.instruction) == (OUTSIDE, None, 1)


def test_a_policy_line_may_hold_an_at_sign() -> None:
    log = PACKET.replace("udp dst port 53 @ edge.policy:4", "src in @threats @ dir name/my edge.policy:31")
    assert read_log(log + STATISTICS).place == "dir name/my edge.policy:31"


def test_a_log_whose_beginning_is_lost_is_read_from_its_end() -> None:
    assert read_log(PACKET[60:] + STATISTICS).place == "edge.policy:4"


@pytest.mark.parametrize("log", ["", "\n\n", STATISTICS, "0: R1=ctx() R10=fp0\n" + STATISTICS])
def test_a_log_without_a_reason_says_so(log: str) -> None:
    refusal = read_log(log)
    assert (refusal.summary, refusal.place) == ("the log does not say why", None)


def test_a_summary_stays_short() -> None:
    assert len(read_log("x" * 10_000).summary) == 400


FIGURES = """\
verification time 1063 usec
stack depth 8+0+64
processed 13594 insns (limit 1000000) max_states_per_insn 8 total_states 576 peak_states 449 mark_read 0
"""


def test_the_figures_of_a_program_that_was_taken() -> None:
    assert read_statistics(FIGURES) == Effort(13594, 576, 449, 72)
    assert read_statistics(FIGURES.replace("8+0+64", "40")) == Effort(13594, 576, 449, 40)


@pytest.mark.parametrize("log", ["", "verification time 3 usec\n", PACKET])
def test_a_log_without_figures_has_none(log: str) -> None:
    assert read_statistics(log) is None
