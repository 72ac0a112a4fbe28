"""What older kernels say, in their words, comes to the same advice."""

from __future__ import annotations

import pytest

from penstock.kernel.advice import explain
from penstock.kernel.verifier import read_log


def mistake(log: str) -> str | None:
    advice = explain(read_log(log), log, "program")
    return advice.mistake if advice else None


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("invalid access to packet, off=12 size=2, R2(id=0,off=12,r=0)", "packet bounds missing"),
        ("invalid access to packet, off=0 size=1, R5(id=3,off=0,r=0)", "packet bounds lost"),
        (
            "math between pkt pointer and register with unbounded min value is not allowed",
            "packet bounds lost",
        ),
        ("value -2147483648 makes pkt pointer be out of bounds", "packet bounds lost"),
        ("R3 invalid mem access 'inv'", "number as pointer"),
        ("R1 type=inv expected=fp, pkt, pkt_meta, map_key, map_value", "number as pointer"),
        ("R0 invalid mem access 'map_value_or_null'", "possible NULL"),
        ("R0 invalid mem access 'mem_or_null'", "possible NULL"),
        ("R0 pointer arithmetic on map_value_or_null prohibited, null-check it first", "possible NULL"),
        ("back-edge from insn 14 to 3", "loop without bound"),
        ("infinite loop detected at insn 7", "loop without bound"),
        ("The sequence of 8193 jumps is too complex.", "loop without bound"),
        ("BPF program is too large. Proccessed 131073 insn", "too many instructions"),
        ("combined stack size of 2 calls is 544. Too large", "stack too large"),
        ("invalid stack off=-520 size=8", "stack too large"),
        ("invalid write to stack R10 off=-520 size=8", "stack too large"),
        ("invalid indirect read from stack off -8+0 size 8", "stack uninitialised"),
        ("invalid indirect read from stack R2 off -8+4 size 8", "stack uninitialised"),
        ("invalid read from stack R10 off=-8 size=8", "stack uninitialised"),
        ("R2 !read_ok", "register uninitialised"),
        ("Unreleased reference id=1, alloc_insn=7", "reference not released"),
        ("tail_call would lead to reference leak", "reference not released"),
        ("unknown func bpf_skb_load_bytes#26", "wrong helper for the program"),
        ("cannot pass map_type 1 into func bpf_tail_call#12", "wrong map for the helper"),
        ("cannot call GPL only function from proprietary program", "licence missing"),
        ("dereference of modified ctx ptr R1 off=4 disallowed", "context moved"),
        ("R0 min value is outside of the array range", "map value out of range"),
        (
            "R0 unbounded memory access, make sure to bounds check any array access into a map",
            "map value out of range",
        ),
        ("invalid access to map value, value_size=32 off=32 size=4", "map value out of range"),
        ("R4 min value is negative, either use unsigned or 'var &= const'", "size not bounded"),
        ("R2 unbounded memory access, use 'var &= const' or 'if (var < const)'", "size not bounded"),
        (
            "At program exit the register R0 has value (0x5; 0x0) should have been in (0x0; 0x1)",
            "answer out of range",
        ),
        ("invalid zero-sized read", "size not bounded"),
        ("helper access to the packet is not allowed", "helper access to the packet"),
        ("bpf_spin_lock is missing unlock", "lock held"),
        ("R1 pointer += pointer prohibited", "address leaked"),
        ("something that nobody has ever said", None),
    ],
)
def test_a_sentence_is_known(sentence: str, wanted: str | None) -> None:
    assert mistake(f"0: R1=ctx() R10=fp0\n{sentence}\nprocessed 3 insns (limit 1000000)\n") == wanted


STALE = """\
; struct ethhdr *eth = data;
2: (bf) r6 = r1
R6_w=pkt(id=0,off=0,r=14,imm=0)
; bpf_xdp_adjust_head(ctx, -4)
5: (85) call bpf_xdp_adjust_head#44
; return eth->h_proto == 8;
9: (69) r1 = *(u16 *)(r6 +12)
R6 invalid mem access 'inv'
"""
WRITES = """\
; ctx->ingress_ifindex = 1;
2: (63) *(u32 *)(r1 +12) = r2
invalid bpf_context access off=12 size=4
"""


def test_a_pointer_into_the_packet_is_stale_only_behind_such_a_call() -> None:
    assert mistake(STALE) == "packet pointer stale"
    assert mistake(STALE.replace("bpf_xdp_adjust_head#44", "bpf_get_prandom_u32#7")) == "number as pointer"
    assert mistake(STALE.replace("R6_w=pkt", "R6_w=inv")) == "number as pointer"


def test_reading_and_writing_the_context_are_told_apart() -> None:
    assert mistake(WRITES) == "context read-only"
    assert (
        mistake(WRITES.replace("*(u32 *)(r1 +12) = r2", "r2 = *(u32 *)(r1 +12)")) == "context field forbidden"
    )


def test_the_line_is_quoted_with_and_without_its_place() -> None:
    assert read_log(WRITES).source == "ctx->ingress_ifindex = 1;"
    assert read_log(WRITES.replace("= 1;", "= 1; @ a.c:7")).source == "ctx->ingress_ifindex = 1;"
    assert read_log("").source is None
