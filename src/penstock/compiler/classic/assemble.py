"""Instructions with labels in, a classic BPF program out.

A conditional jump of classic BPF reaches 255 instructions far, so one whose
target lies further jumps to an unconditional jump behind itself, which reaches
any distance.  All jumps go forward.

    code = Assembler()
    yes, no = code.label(), code.label()
    code.emit(LDH_ABS, 12)
    code.jump(JEQ, 0x800, yes, no)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from penstock.errors import InternalError
from penstock.model.classic import Instruction

# <linux/bpf_common.h>: class, size and mode of loads; X as an operand.
W, H, B = 0x00, 0x08, 0x10
LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
IMM, ABS, IND, MEM, LEN, MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0
K, X = 0x00, 0x08
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, MOD, XOR = 0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x90, 0xA0
JA, JEQ, JGT, JGE, JSET = 0x00, 0x10, 0x20, 0x30, 0x40
TAX, TXA = 0x00, 0x80
SIZES = {4: W, 2: H, 1: B}

#: How many instructions a conditional jump can leave out.
FAR = 255

Label = int


@dataclass(frozen=True, slots=True)
class _Plain:
    code: int
    k: int


@dataclass(frozen=True, slots=True)
class _Branch:
    """A conditional jump; `code` JA: an unconditional one, to `yes`."""

    code: int
    k: int
    yes: Label
    no: Label


@dataclass(frozen=True, slots=True)
class _Place:
    label: Label


class Assembler:
    """A program as it grows; `owner` is what the instructions to come are written for."""

    def __init__(self) -> None:
        self._items: list[_Plain | _Branch | _Place] = []
        self._owners: list[str] = []
        self._labels = 0
        self._asked: set[Label] = set()
        self._is_reached = True
        self.owner = ""

    def label(self) -> Label:
        """A new label, to be placed later."""
        self._labels += 1
        return self._labels - 1

    def place(self, label: Label) -> None:
        """What comes next is where jumps to the label go."""
        self._items.append(_Place(label))
        self._owners.append(self.owner)
        self._is_reached = self._is_reached or label in self._asked

    def emit(self, code: int, k: int = 0) -> None:
        """An instruction that is no jump."""
        self._add(_Plain(code, k))

    def jump(self, condition: int, k: int, yes: Label, no: Label) -> None:
        """Compare A with `k`, or with X if the condition has that bit, and go on at one of two labels."""
        self._add(_Branch(JMP | condition, k, yes, no))

    def unless(self, condition: int, k: int, no: Label) -> None:
        """Go to `no` unless A compares so with `k`; else on with what comes next."""
        here = self.label()
        self.jump(condition, k, here, no)
        self.place(here)

    def when(self, condition: int, k: int, yes: Label) -> None:
        """Go to `yes` if A compares so with `k`; else on with what comes next."""
        here = self.label()
        self.jump(condition, k, yes, here)
        self.place(here)

    def go(self, label: Label) -> None:
        """On at a label."""
        self._add(_Branch(JMP | JA, 0, label, label))

    def finish(self) -> tuple[Instruction, ...]:
        """The program, of whatever length."""
        sizes = self._sizes()
        starts = _starts(sizes)
        targets = self._targets(starts)
        program: list[Instruction] = []
        for item, start, size in zip(self._items, starts, sizes, strict=False):
            match item:
                case _Plain(code, k):
                    program.append(Instruction(code, 0, 0, k))
                case _Branch():
                    program += _jumps(item, start, size, targets)
        return tuple(program)

    def owner_of(self, instruction: int) -> str:
        """What the instruction with that number was written for."""
        starts = _starts(self._sizes())
        return next(owner for owner, end in zip(self._owners, starts[1:], strict=True) if end > instruction)

    def _add(self, item: _Plain | _Branch) -> None:
        """All jumps go forward, so what none has asked for by now is never reached, and left out."""
        if not self._is_reached:
            return
        self._items.append(item)
        self._owners.append(self.owner)
        if isinstance(item, _Branch):
            self._asked |= {item.yes, item.no}
            self._is_reached = False

    def _sizes(self) -> list[int]:
        """Instructions of each item: jumps grow while their targets turn out to be far, and never shrink."""
        sizes = [int(not isinstance(item, _Place)) for item in self._items]
        # A jump to what comes next is none.  Only places may lie between, whatever sizes come out.
        for at, item in enumerate(self._items):
            if isinstance(item, _Branch) and item.code == JMP | JA and self._is_next(at, item.yes):
                sizes[at] = 0
        while True:
            starts = _starts(sizes)
            targets = self._targets(starts)
            grown = [
                max(size, _size(item, start, targets)) if isinstance(item, _Branch) and size else size
                for item, start, size in zip(self._items, starts, sizes, strict=False)
            ]
            if grown == sizes:
                return sizes
            sizes = grown

    def _is_next(self, at: int, label: Label) -> bool:
        for item in self._items[at + 1 :]:
            if not isinstance(item, _Place):
                return False
            if item.label == label:
                return True
        return False

    def _targets(self, starts: list[int]) -> dict[Label, int]:
        return {
            item.label: start
            for item, start in zip(self._items, starts, strict=False)
            if isinstance(item, _Place)
        }


def _starts(sizes: list[int]) -> list[int]:
    return list(accumulate(sizes, initial=0))


def _size(item: _Branch, start: int, targets: dict[Label, int]) -> int:
    """One instruction, and one more for each of its targets that is far; told for the longest form."""
    if item.code == JMP | JA:
        return 1
    return 1 + sum(targets[label] - start - 1 > FAR for label in (item.yes, item.no))


def _jumps(item: _Branch, start: int, size: int, targets: dict[Label, int]) -> list[Instruction]:
    """The jump, with those that carry it further behind it."""
    if size == 0:
        return []
    if item.code == JMP | JA:
        return [Instruction(item.code, 0, 0, _distance(start, targets[item.yes]))]
    carried: list[Instruction] = []
    offsets: list[int] = []
    for label in (item.yes, item.no):
        distance = _distance(start, targets[label])
        if distance > FAR:
            offsets.append(len(carried))
            carried.append(Instruction(JMP | JA, 0, 0, distance - 1 - len(carried)))
        else:
            offsets.append(distance)
    # Grown once and near again: the room is kept, or the sizes would never settle.
    spare = [Instruction(JMP | JA, 0, 0, 0)] * (size - 1 - len(carried))
    return [Instruction(item.code, offsets[0], offsets[1], item.k), *carried, *spare]


def _distance(start: int, target: int) -> int:
    if target <= start:
        raise InternalError("a classic BPF program jumps backwards")
    return target - start - 1
