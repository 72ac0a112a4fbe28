"""Run a classic BPF program over a frame, and tell why it said no.

In go a program and a frame, out comes a `Result`.  A load beyond the packet, and
a division by zero, end the program with "no", as in libpcap's own interpreter;
which of these it was is told, since libpcap's does not.  A and X begin at zero, and so does M here.

>>> from penstock.model.classic import Instruction
>>> program = (Instruction(0x30, 0, 0, 9), Instruction(0x16, 0, 0, 0))        # ldb [9]; ret A
>>> run(program, bytes(9) + b"\\1"), run(program, bytes(9))
(Result(matched=True), Result(matched=False, out_of_bounds=True))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from penstock.errors import InternalError
from penstock.model.classic import (
    ABS,
    ALU_OPERATORS,
    BY_X,
    IMM,
    IND,
    JA,
    JUMP_OPERATORS,
    LEN,
    MEM,
    MEMORY_WORDS,
    MODE,
    NEG,
    OPERATION,
    RET_A,
    SIZE,
    SIZES,
    TXA,
    Instruction,
    Program,
)

WORD = 0xFFFFFFFF
#: `protochain` loops, eight bytes of the packet a round at least.
MAX_STEPS = 1_000_000


@dataclass(frozen=True, slots=True)
class Result:
    """Whether a program matched; what ended it early, if something did."""

    matched: bool
    out_of_bounds: bool = False
    zero_divisor: bool = False


class _OutOfBoundsError(Exception):
    pass


class _ZeroDivisorError(Exception):
    pass


@dataclass(slots=True)
class _Machine:
    frame: bytes
    wire_length: int
    a: int = 0
    x: int = 0
    memory: list[int] = field(default_factory=lambda: [0] * MEMORY_WORDS)

    def bytes_at(self, offset: int, size: int) -> int:
        if offset + size > len(self.frame):
            raise _OutOfBoundsError
        return int.from_bytes(self.frame[offset : offset + size], "big")

    def operand(self, one: Instruction) -> int:
        return self.x if one.code & BY_X else one.k


def run(program: Program, frame: bytes, wire_length: int | None = None) -> Result:
    """What the program says of a frame; `wire_length` is its length before a capture cut it."""
    machine = _Machine(frame, len(frame) if wire_length is None else wire_length)
    try:
        return Result(_executed(program, machine))
    except _OutOfBoundsError:
        return Result(matched=False, out_of_bounds=True)
    except _ZeroDivisorError:
        return Result(matched=False, zero_divisor=True)


def _executed(program: Program, machine: _Machine) -> bool:
    at = 0
    for _ in range(MAX_STEPS):
        one = program[at]
        at += 1
        match one.kind:
            case 0:
                machine.a = _loaded(one, machine)
            case 1:
                machine.x = _loaded(one, machine)
            case 2:
                machine.memory[one.k] = machine.a
            case 3:
                machine.memory[one.k] = machine.x
            case 4:
                machine.a = _computed(one, machine)
            case 5:
                at = _jumped(one, machine, at - 1)
            case 6:
                return bool(machine.a if one.code & SIZE == RET_A else one.k)
            case _:
                if one.code & TXA:
                    machine.a = machine.x
                else:
                    machine.x = machine.a
    raise InternalError("a classic BPF program does not end")


def _loaded(one: Instruction, machine: _Machine) -> int:
    size = SIZES[one.code & SIZE]
    mode = one.code & MODE
    if mode == IMM:
        return one.k
    if mode == ABS:
        return machine.bytes_at(one.k, size)
    if mode == IND:
        return machine.bytes_at(machine.x + one.k, size)
    if mode == MEM:
        return machine.memory[one.k]
    if mode == LEN:
        return machine.wire_length
    return 4 * (machine.bytes_at(one.k, 1) & 0x0F)


# ── arithmetic and jumps ─────────────────────────────────────────────────────

_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "<<": lambda a, b: a << b if b < 32 else 0,
    ">>": lambda a, b: a >> b,
}


def _computed(one: Instruction, machine: _Machine) -> int:
    if one.code & OPERATION == NEG:
        return -machine.a & WORD
    operator, right = ALU_OPERATORS[one.code & OPERATION], machine.operand(one)
    if operator in ("/", "%") and right == 0:
        raise _ZeroDivisorError
    return _ARITHMETIC[operator](machine.a, right) & WORD


_COMPARED: dict[str, Callable[[int, int], bool]] = {
    "==": lambda a, b: a == b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "&": lambda a, b: a & b != 0,
}


def _jumped(one: Instruction, machine: _Machine, at: int) -> int:
    """The place of the next instruction."""
    targets = one.jump_targets(at)
    if one.code & OPERATION == JA:
        return targets[0]
    holds = _COMPARED[JUMP_OPERATORS[one.code & OPERATION]](machine.a, machine.operand(one))
    return targets[0] if holds else targets[1]
