"""A classic program as text, in the forms that tcpdump prints and other tools read.

listing(program)    (000) ldh      [12]                               tcpdump -d
as_c(program)       { 0x28, 0, 0, 0x0000000c },                       tcpdump -dd
decimal(program)    its length, then `40 0 0 12`, a line each         tcpdump -ddd
bytecode(program)   4,40 0 0 12,…                                     iptables -m bpf --bytecode
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.compiler.classic.assemble import (
    ABS,
    ALU,
    IMM,
    IND,
    JMP,
    LD,
    LDX,
    LEN,
    MEM,
    MISC,
    MSH,
    RET,
    ST,
    STX,
    TXA,
    B,
    H,
    X,
)
from penstock.compiler.classic.start import ANCILLARY
from penstock.model.classic import Instruction

_OPERATORS = {
    0x00: "add", 0x10: "sub", 0x20: "mul", 0x30: "div", 0x40: "or", 0x50: "and",
    0x60: "lsh", 0x70: "rsh", 0x80: "neg", 0x90: "mod", 0xA0: "xor",
}  # fmt: skip
_JUMPS = {0x00: "ja", 0x10: "jeq", 0x20: "jgt", 0x30: "jge", 0x40: "jset"}
#: As `bpf_asm` of the kernel's tools names what is no byte of the packet.
_EXTENSIONS = {
    0: "proto",
    4: "type",
    8: "ifidx",
    20: "mark",
    44: "vlan_tci",
    48: "vlan_avail",
    60: "vlan_tpid",
}


def listing(program: Sequence[Instruction]) -> str:
    """One instruction a line, numbered; jumps name the number they go to."""
    return "".join(f"({at:03}) {_line(one, at)}\n" for at, one in enumerate(program))


def as_c(program: Sequence[Instruction]) -> str:
    """Initializers of `struct sock_filter`."""
    return "".join(f"{{ 0x{one.code:x}, {one.jt}, {one.jf}, 0x{one.k:08x} }},\n" for one in program)


def decimal(program: Sequence[Instruction]) -> str:
    """The length and the numbers, a line each."""
    return "".join(f"{line}\n" for line in _numbers(program))


def bytecode(program: Sequence[Instruction]) -> str:
    """The same on one line, joined by commas."""
    return ",".join(_numbers(program)) + "\n"


def _numbers(program: Sequence[Instruction]) -> list[str]:
    return [str(len(program)), *(f"{one.code} {one.jt} {one.jf} {one.k}" for one in program)]


def _line(one: Instruction, at: int) -> str:
    name, operand = _parts(one, at)
    if one.code & 0x07 != JMP or one.code & 0xF0 == 0:
        return f"{name:<8} {operand}".rstrip()
    jumps = f"jt {at + 1 + one.jt}\tjf {at + 1 + one.jf}"
    return f"{name:<8} {operand:<16} {jumps}"


def _parts(one: Instruction, at: int) -> tuple[str, str]:
    by_x = bool(one.code & X)
    match one.code & 0x07:
        case kind if kind in (LD, LDX):
            name = "ldx" if kind == LDX else "ld"
            return name + _suffix(one), _operand(one)
        case kind if kind in (ST, STX):
            return "stx" if kind == STX else "st", f"M[{one.k}]"
        case kind if kind == ALU:
            return _OPERATORS[one.code & 0xF0], "x" if by_x else f"#{_number(one)}"
        case kind if kind == JMP:
            name = _JUMPS[one.code & 0xF0]
            return (name, str(at + 1 + one.k)) if name == "ja" else (name, "x" if by_x else f"#0x{one.k:x}")
        case kind if kind == RET:
            return "ret", "a" if one.code & 0x18 else f"#{one.k}"
        case kind if kind == MISC:
            return "txa" if one.code & 0xF8 == TXA else "tax", ""
    raise ValueError(one)


def _number(one: Instruction) -> str:
    return f"0x{one.k:x}" if one.code & 0xF0 in (0x40, 0x50, 0xA0) else str(one.k)


def _suffix(one: Instruction) -> str:
    if one.code & 0xE0 in (ABS, IND, MSH):
        return {H: "h", B: "b"}.get(one.code & 0x18, "")
    return ""


def _operand(one: Instruction) -> str:
    match one.code & 0xE0:
        case mode if mode == IMM:
            return f"#0x{one.k:x}"
        case mode if mode == ABS:
            return f"#{_EXTENSIONS[one.k - ANCILLARY]}" if one.k >= ANCILLARY else f"[{one.k}]"
        case mode if mode == IND:
            return f"[x + {one.k}]"
        case mode if mode == MEM:
            return f"M[{one.k}]"
        case mode if mode == LEN:
            return "#pktlen"
        case mode if mode == MSH:
            return f"4*([{one.k}]&0xf)"
    raise ValueError(one)
