"""Loads that look before they leap, and the sixteen words of memory.

A load beyond the packet's end ends a classic program, and the packet is not
kept.  Here a test that lacks its bytes is false by itself, so every load comes
behind a comparison with the packet's length.  Offsets that are found while the
program runs lie in words of memory; one that was not found is ABSENT, which no
packet is as long as, so that the same comparison refuses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from penstock.compiler.classic.assemble import (
    ABS,
    ADD,
    ALU,
    IMM,
    IND,
    JGE,
    JGT,
    LD,
    LDX,
    LEN,
    MEM,
    MISC,
    SIZES,
    ST,
    SUB,
    TAX,
    Assembler,
    Label,
    X,
)
from penstock.compiler.classic.start import Start
from penstock.errors import LimitError

#: The farthest offset that is looked at, one that no packet has, and what else is beyond it: too long a chain.
FARTHEST = 0x3FFFFFFF
ABSENT = 0x40000000
OVER = ABSENT + 1
#: What a word holds of a field that is not there; no field that is kept in a word is as large.
NONE = 0xFFFFFFFF
WORDS = 16


@dataclass(frozen=True, slots=True)
class Fixed:
    """An offset that is known beforehand."""

    offset: int


@dataclass(frozen=True, slots=True)
class Kept:
    """An offset in a word of memory; with an `origin`, counted from there, where no length is known."""

    word: int
    origin: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """A header before the packet's first byte (SKF_NET_OFF, SKF_LL_OFF); nothing tells how much of it there is."""

    origin: int


Where = Fixed | Kept | Header


class Code(Assembler):
    """A program over packets that begin at `start`."""

    def __init__(self, start: Start) -> None:
        super().__init__()
        self.start = start
        self._taken = 0
        self.most_taken = 0

    # ── memory ───────────────────────────────────────────────────────────────

    def word(self) -> int:
        """A word of memory of one's own.

        Raises:
            LimitError: all are taken.
        """
        if self._taken == WORDS:
            raise LimitError(
                f"{self.owner} needs more than the {WORDS} words of memory that classic BPF has",
                limit="classic BPF memory",
                hint="an eBPF filter has room for it: leave --classic out",
            )
        self._taken += 1
        self.most_taken = max(self.most_taken, self._taken)
        return self._taken - 1

    @property
    def free_words(self) -> int:
        """How many words nobody has taken."""
        return WORDS - self._taken

    @contextmanager
    def spare(self) -> Iterator[int]:
        """A word of memory for as long as the block."""
        word = self.word()
        yield word
        self._taken -= 1

    def constant(self, value: int) -> None:
        self.emit(LD | IMM, value)

    def recall(self, word: int) -> None:
        self.emit(LD | MEM, word)

    def recall_x(self, word: int) -> None:
        self.emit(LDX | MEM, word)

    def keep(self, word: int) -> None:
        self.emit(ST, word)

    def alu(self, operation: int, k: int) -> None:
        self.emit(ALU | operation, k)

    def alu_x(self, operation: int) -> None:
        self.emit(ALU | operation | X)

    def to_x(self) -> None:
        self.emit(MISC | TAX)

    def length(self) -> None:
        self.emit(LD | LEN)

    def ancillary(self, what: int) -> None:
        """What the kernel knows of the packet besides its bytes (SKF_AD_*)."""
        self.emit(LD | ABS, what)

    # ── bytes ────────────────────────────────────────────────────────────────

    def guard(self, where: Where, end: int, absent: Label) -> None:
        """Go to `absent` unless `end` bytes from there are in the packet; X is then the offset, if it was kept."""
        match where:
            case Fixed(offset):
                self.length()
                self.unless(JGE, offset + end, absent)
            case Kept(word, 0):
                self.recall_x(word)
                self.guard_x(end, absent)
            case Kept(word, _):
                self.recall_x(word)
            case Header():
                pass

    def guard_x(self, end: int, absent: Label) -> None:
        """The same of `end` bytes from the offset in X, which is at most OVER."""
        self.length()
        self.alu_x(SUB)
        self.when(JGT, FARTHEST, absent)
        self.unless(JGE, end, absent)

    def read(self, where: Where, offset: int, size: int) -> None:
        """A is the bytes there, which were guarded before."""
        match where:
            case Fixed(base):
                self.emit(LD | ABS | SIZES[size], base + offset)
            case Kept(_, origin):
                self.emit(LD | IND | SIZES[size], origin + offset)
            case Header(origin):
                self.emit(LD | ABS | SIZES[size], origin + offset)

    def load(self, where: Where, offset: int, size: int, absent: Label) -> None:
        """A is `size` bytes from there, if they are in the packet."""
        if offset + size > FARTHEST:
            self.go(absent)
            return
        self.guard(where, offset + size, absent)
        self.read(where, offset, size)

    def advance(self, where: Where, distance: int) -> None:
        """A is the offset that lies `distance` behind."""
        match where:
            case Fixed(offset):
                self.constant(offset + distance)
            case Kept(word, _):
                self.recall(word)
                self.alu(ADD, distance)
            case Header():
                self.constant(distance)

    def plus(self, where: Where) -> None:
        """A grows by the offset."""
        match where:
            case Fixed(offset):
                if offset:
                    self.alu(ADD, offset)
            case Kept(word, _):
                self.recall_x(word)
                self.alu_x(ADD)
            case Header():
                pass
