"""A classic-BPF interpreter that tells why a program said no.

libpcap's own interpreter returns 0 both when an expression is false and when a
load ran over the packet's end, which makes the *whole* expression false.  Tests
that compare meanings need to know which it was: `run` says so.

The instructions are those of <linux/bpf_common.h>; libpcap's jumps are relative
and, for `protochain`, may go backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.compiler.libpcap import Instruction

WORD = 0xFFFFFFFF
MAX_STEPS = 20_000


@dataclass(frozen=True, slots=True)
class Result:
    """What a program returned; what ended it (as 0): a load beyond the packet, or a division by zero."""

    matched: bool
    out_of_bounds: bool = False
    zero_divisor: bool = False


class _OutOfBounds(Exception):
    pass


class _ZeroDivisor(Exception):
    pass


@dataclass(slots=True)
class _Machine:
    frame: bytes
    wire_length: int
    a: int = 0
    x: int = 0

    def load(self, offset: int, size: int) -> int:
        if offset + size > len(self.frame):
            raise _OutOfBounds
        return int.from_bytes(self.frame[offset : offset + size], "big")


def run(program: tuple[Instruction, ...], frame: bytes, wire_length: int | None = None) -> Result:
    """Run a program over a frame."""
    machine = _Machine(frame, len(frame) if wire_length is None else wire_length)
    try:
        return Result(_execute(program, machine))
    except _OutOfBounds:
        return Result(matched=False, out_of_bounds=True)
    except _ZeroDivisor:
        return Result(matched=False, zero_divisor=True)


def _execute(program: tuple[Instruction, ...], machine: _Machine) -> bool:
    memory = [0] * 16
    at = 0
    for _ in range(MAX_STEPS):
        one = program[at]
        at += 1
        match one.code & 0x07:
            case 0x00:
                machine.a = _load(one, machine, memory)
            case 0x01:
                machine.x = _load(one, machine, memory)
            case 0x02:
                memory[one.k] = machine.a
            case 0x03:
                memory[one.k] = machine.x
            case 0x04:
                machine.a = _arithmetic(one, machine)
            case 0x05:
                at += _jump(one, machine)
            case 0x06:
                return bool(machine.a if one.code & 0x18 == 0x10 else one.k)
            case 0x07:
                if one.code & 0xF8:
                    machine.a = machine.x
                else:
                    machine.x = machine.a
    raise RuntimeError("the program does not end")


_SIZES = {0x00: 4, 0x08: 2, 0x10: 1}


def _load(one: Instruction, machine: _Machine, memory: list[int]) -> int:
    size = _SIZES[one.code & 0x18]
    match one.code & 0xE0:
        case 0x00:
            return one.k
        case 0x20:
            return machine.load(one.k, size)
        case 0x40:
            return machine.load(machine.x + one.k, size)
        case 0x60:
            return memory[one.k]
        case 0x80:
            return machine.wire_length
        case 0xA0:
            return 4 * (machine.load(one.k, 1) & 0x0F)
    raise ValueError(one)


def _divisor(value: int) -> int:
    if not value:
        raise _ZeroDivisor
    return value


def _arithmetic(one: Instruction, machine: _Machine) -> int:
    a, b = machine.a, machine.x if one.code & 0x08 else one.k
    match one.code & 0xF0:
        case 0x00:
            return a + b & WORD
        case 0x10:
            return a - b & WORD
        case 0x20:
            return a * b & WORD
        case 0x30:
            return a // _divisor(b)
        case 0x40:
            return a | b
        case 0x50:
            return a & b
        case 0x60:
            return a << b & WORD if b < 32 else 0
        case 0x70:
            return a >> b if b < 32 else 0
        case 0x80:
            return -a & WORD
        case 0x90:
            return a % _divisor(b)
        case 0xA0:
            return a ^ b
    raise ValueError(one)


def _jump(one: Instruction, machine: _Machine) -> int:
    b = machine.x if one.code & 0x08 else one.k
    match one.code & 0xF0:
        case 0x00:
            return one.k - (1 << 32) if one.k >> 31 else one.k
        case 0x10:
            return one.jt if machine.a == b else one.jf
        case 0x20:
            return one.jt if machine.a > b else one.jf
        case 0x30:
            return one.jt if machine.a >= b else one.jf
        case 0x40:
            return one.jt if machine.a & b else one.jf
    raise ValueError(one)
