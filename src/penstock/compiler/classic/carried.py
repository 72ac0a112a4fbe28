"""Another classic program as one test among others: what `pcap "EXPR"` became.

Its loads get a comparison with the packet's length before them, so that one
beyond the packet makes the test false instead of ending the whole program; its
answers become jumps, and its words of memory are moved to free ones.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from penstock.compiler.classic.assemble import (
    DIV,
    IND,
    JEQ,
    JGE,
    JGT,
    LDX,
    LSH,
    MISC,
    MOD,
    MSH,
    RSH,
    ST,
    STX,
    TXA,
    Label,
    X,
)
from penstock.compiler.classic.packet import FARTHEST, Code, Fixed
from penstock.model.classic import (
    ABS,
    JA,
    JMP,
    MODE,
    OPERATION,
    RET,
    RET_A,
    SIZE,
    SIZES,
    Instruction,
    Program,
)


def carry(code: Code, program: Program, yes: Label, no: Label) -> None:
    """Write the program, of an Ethernet frame, as a test; it has no loops and asks no socket."""
    with ExitStack() as spares:
        used = sorted({one.word for one in program if one.word is not None})
        words = {word: spares.enter_context(code.spare()) for word in used}
        _Carried(code, words, spares.enter_context(code.spare()), yes, no).write(program)


@dataclass(slots=True)
class _Carried:
    code: Code
    words: dict[int, int]
    accumulator: int
    yes: Label
    no: Label

    def write(self, program: Program) -> None:
        labels = {
            target: self.code.label() for at, one in enumerate(program) for target in one.jump_targets(at)
        }
        for at, one in enumerate(program):
            if at in labels:
                self.code.place(labels[at])
            if one.kind == JMP:
                first, *other = (labels[target] for target in one.jump_targets(at))
                if one.code & OPERATION == JA:
                    self.code.go(first)
                else:
                    self.code.jump(one.code & ~JMP, one.k, first, other[0])
            else:
                self._plain(one)

    def _plain(self, one: Instruction) -> None:
        code = self.code
        match one.kind:
            case 0 | 1:
                self._load(one)
            case kind if kind in (ST, STX):
                code.emit(one.code, self.words[one.k])
            case 4:
                self._arithmetic(one)
            case kind if kind == RET:
                if one.code & SIZE == RET_A:
                    code.jump(JEQ, 0, self.no, self.yes)
                else:
                    code.go(self.yes if one.k else self.no)
            case _:
                code.emit(one.code)

    def _load(self, one: Instruction) -> None:
        code, size = self.code, SIZES[one.code & SIZE]
        mode = one.code & MODE
        if one.word is not None:
            code.emit(one.code, self.words[one.k])
            return
        if mode in (ABS, IND, MSH) and one.k + size > FARTHEST:
            code.go(self.no)
            return
        if one.kind == LDX and mode == MSH:
            code.keep(self.accumulator)
            code.guard(Fixed(one.k), 1, self.no)
            code.emit(one.code, one.k)
            code.recall(self.accumulator)
            return
        if mode == ABS:
            code.guard(Fixed(one.k), size, self.no)
        if mode == IND:
            code.emit(MISC | TXA)
            code.when(JGT, FARTHEST, self.no)
            code.guard_x(one.k + size, self.no)
        code.emit(one.code, one.k)

    def _arithmetic(self, one: Instruction) -> None:
        """What would end the program or has no meaning in the kernel is decided before it: x / 0, x << 32."""
        code, operation, by_x = self.code, one.code & OPERATION, bool(one.code & X)
        divides, shifts = operation in (DIV, MOD), operation in (LSH, RSH)
        if not by_x:
            if divides and one.k == 0:
                code.go(self.no)
            elif shifts and one.k >= 32:
                code.constant(0)
            else:
                code.emit(one.code, one.k)
            return
        shifted = code.label()
        if divides or shifts:
            code.keep(self.accumulator)
            code.emit(MISC | TXA)
        if divides:
            code.when(JEQ, 0, self.no)
        if shifts:
            near = code.label()
            code.unless(JGE, 32, near)
            code.constant(0)
            code.go(shifted)
            code.place(near)
        if divides or shifts:
            code.recall(self.accumulator)
        code.emit(one.code, one.k)
        code.place(shifted)
