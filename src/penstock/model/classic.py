"""Classic BPF: the instructions that libpcap compiles expressions to, and what their numbers mean.

A program is a list of instructions over an accumulator A, an index register X and
sixteen words M.  It is what a socket takes by SO_ATTACH_FILTER, and what
`pcap "EXPR"` becomes.  The numbers are those of <linux/bpf_common.h>.

>>> listing((Instruction(0x28, 0, 0, 12), Instruction(0x15, 0, 1, 0x800), Instruction(6, 0, 0, 1)))
('(000) ldh  [12]', '(001) jeq  #0x800  jt 2 jf 3', '(002) ret  #1')
"""

from __future__ import annotations

from dataclasses import dataclass

#: The class of an instruction: `code & CLASS`.
CLASS = 0x07
LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)

#: How a load finds its value: `code & MODE`; and its size in bytes by `code & SIZE`.
MODE, SIZE = 0xE0, 0x18
IMM, ABS, IND, MEM, LEN, MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0
SIZES = {0x00: 4, 0x08: 2, 0x10: 1}

#: What arithmetic and jumps do: `code & OPERATION`; X is the right operand if `code & BY_X`, else k.
OPERATION, BY_X = 0xF0, 0x08
NEG, JA = 0x80, 0x00
ALU_OPERATORS = {
    0x00: "+", 0x10: "-", 0x20: "*", 0x30: "/", 0x40: "|", 0x50: "&", 0x60: "<<", 0x70: ">>",
    0x90: "%", 0xA0: "^",
}  # fmt: skip
JUMP_OPERATORS = {0x10: "==", 0x20: ">", 0x30: ">=", 0x40: "&"}

#: `ret A` rather than a constant; `txa` rather than `tax`.
RET_A, TXA = 0x10, 0x80
MEMORY_WORDS = 16
#: SKF_AD_OFF of <linux/filter.h>, and SKF_AD_MAX: "offsets" that are no place in the packet.
SOCKET_OFFSET, SOCKET_OFFSETS = 0xFFFFF000, 64
#: The kernel takes no more in one program (BPF_MAXINSNS).
MAX_INSTRUCTIONS = 4096


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of classic BPF, as in <linux/filter.h>."""

    code: int
    jt: int
    jf: int
    k: int

    @property
    def kind(self) -> int:
        """Its class: LD, LDX, ST …"""
        return self.code & CLASS

    @property
    def word(self) -> int | None:
        """The word of memory that it stores or loads, if it does."""
        loads = self.kind in (LD, LDX) and self.code & MODE == MEM
        return self.k if loads or self.kind in (ST, STX) else None

    def jump_targets(self, at: int) -> tuple[int, ...]:
        """Where a jump at place `at` may go, if it holds and if not; () of other instructions."""
        if self.kind != JMP:
            return ()
        if self.code & OPERATION == JA:
            # libpcap's loops, of `protochain`, jump backwards.
            return (at + 1 + (self.k - (1 << 32) if self.k >> 31 else self.k),)
        return at + 1 + self.jt, at + 1 + self.jf


Program = tuple[Instruction, ...]


def loops(program: Program) -> bool:
    """Whether an instruction jumps backwards, which the kernel refuses in a classic program."""
    return any(target <= at for at, one in enumerate(program) for target in one.jump_targets(at))


def asks_a_socket(program: Program) -> bool:
    """Whether it loads from the offsets at which a socket keeps what no packet holds: direction, interface …"""
    loads = (one for one in program if one.kind in (LD, LDX) and one.code & MODE == ABS)
    return any(0 <= one.k - SOCKET_OFFSET < SOCKET_OFFSETS for one in loads)


def reads_unwritten(program: Program) -> bool:
    """Whether a word of memory may be loaded that was not stored before: libpcap's interpreter gives it garbage.

    The kernel refuses such a program; libpcap makes them of `geneve and A or B`,
    where B counts on words that only the way through A stores.  No program that loops.
    """
    written = [(1 << MEMORY_WORDS) - 1] * (len(program) + 1)
    written[0] = 0
    for at, one in enumerate(program):
        known = written[at]
        if one.word is not None and one.kind in (LD, LDX) and not known >> one.word & 1:
            return True
        if one.word is not None and one.kind in (ST, STX):
            known |= 1 << one.word
        for following in one.jump_targets(at) or (at + 1,) * (one.kind != RET):
            written[following] &= known
    return False


# ── as text ──────────────────────────────────────────────────────────────────

_ALU_WORDS = {
    "+": "add", "-": "sub", "*": "mul", "/": "div", "|": "or", "&": "and", "<<": "lsh", ">>": "rsh",
    "%": "mod", "^": "xor",
}  # fmt: skip
_JUMP_WORDS = {"==": "jeq", ">": "jgt", ">=": "jge", "&": "jset"}


def listing(program: Program) -> tuple[str, ...]:
    """The program as `tcpdump -d` prints it, an instruction a line."""
    return tuple(f"({at:03}) {_text(one, at)}" for at, one in enumerate(program))


def _text(one: Instruction, at: int) -> str:
    match one.kind:
        case 0 | 1:
            return _load_text(one)
        case 2 | 3:
            return f"{'st' if one.kind == ST else 'stx':<4} M[{one.k}]"
        case 4:
            word = "neg" if one.code & OPERATION == NEG else _ALU_WORDS[ALU_OPERATORS[one.code & OPERATION]]
            return f"{word:<4} {_operand(one)}" if word != "neg" else word
        case 5:
            return _jump_text(one, at)
        case 6:
            return "ret  A" if one.code & SIZE == RET_A else f"ret  #{one.k}"
        case _:
            return "txa" if one.code & TXA else "tax"


def _operand(one: Instruction) -> str:
    return "x" if one.code & BY_X else f"#{one.k:#x}"


def _load_text(one: Instruction) -> str:
    word = "ldx" if one.kind == LDX else "ld"
    size = {4: "", 2: "h", 1: "b"}[SIZES[one.code & SIZE]]
    place = {
        IMM: f"#{one.k:#x}",
        ABS: f"[{one.k}]",
        IND: f"[x + {one.k}]",
        MEM: f"M[{one.k}]",
        LEN: "#pktlen",
        MSH: f"4*([{one.k}]&0xf)",
    }[one.code & MODE]
    return f"{word + size:<4} {place}"


def _jump_text(one: Instruction, at: int) -> str:
    targets = one.jump_targets(at)
    if len(targets) == 1:
        return f"{'ja':<4} {targets[0]}"
    word = _JUMP_WORDS[JUMP_OPERATORS[one.code & OPERATION]]
    return f"{word:<4} {_operand(one)}  jt {targets[0]} jf {targets[1]}"
