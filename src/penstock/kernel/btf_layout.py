"""How a struct of BTF is written in C so that every member lies where BTF says.

In: a `Btf` and a struct or union of it.  Out: a `Layout`: whether C needs
`packed` for it, and the paddings to write before each member and at the end.

BTF has offsets and sizes, and no alignments: `aligned(64)`, `packed` and `:0`
of the source are lost.  Padding alone brings them all back: the alignment
written is that of the members, which is never more than the source's was, and so
fits wherever the struct lies in another.

Rules of C: System V ABI, section 3.1.2, as clang follows them for BPF; an
unnamed bit field takes room and does not raise the alignment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.errors import BtfError
from penstock.kernel.btf import MAX_DEPTH
from penstock.kernel.btf_types import (
    Array,
    Composite,
    Enum,
    Float,
    Int,
    Pointer,
)

if TYPE_CHECKING:
    from penstock.kernel.btf import Btf
    from penstock.kernel.btf_types import Member

_UNITS = ((64, "long"), (32, "int"), (16, "short"), (8, "char"))
#: A gap of more bytes is written as an array with a name, not as unnamed bit fields.
_LONG_GAP = 64


@dataclass(frozen=True, slots=True)
class Gap:
    """Room from bit `start` to bit `end` that no member has."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Layout:
    """How to write a composite; `gaps[n]` comes before member n, the last one behind all members."""

    is_packed: bool
    alignment: int
    gaps: tuple[Gap | None, ...]


def paddings(gap: Gap, number: int) -> list[str]:
    """The declarations that fill a gap; `number` makes a name unique in its struct."""
    at, written = gap.start, []
    if rest := min(-at % 8, gap.end - at):
        written.append(f"char: {rest}")
        at += rest
    if (gap.end - at) // 8 > _LONG_GAP:
        written.append(f"unsigned char __pad{number}[{(gap.end - at) // 8}]")
        at += (gap.end - at) // 8 * 8
    while at < gap.end:
        bits, word = next(
            ((bits, word) for bits, word in _UNITS if at % bits == 0 and at + bits <= gap.end),
            (gap.end - at, "char"),
        )
        written.append(f"{word}: {bits}")
        at += bits
    return written


class Layouts:
    """The layouts of one BTF, each worked out once."""

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._known: dict[int, Layout | None] = {}

    def layout(self, number: int, depth: int = 0) -> Layout | None:
        """How to write the composite `number`; None if C cannot lay out its members so."""
        if number not in self._known:
            found = self._btf.type(number)
            assert isinstance(found, Composite)
            if depth > MAX_DEPTH:
                raise BtfError(f"{self._btf.source}: type {number}: structs more than {MAX_DEPTH} deep")
            self._known[number] = self._place(found, depth)
        return self._known[number]

    def alignment(self, number: int, depth: int = 0) -> int:
        """The alignment that C gives a type, in bytes."""
        number = self._btf.strip(number)
        match self._btf.type(number):
            case Int(size=size) | Enum(size=size) | Float(size=size):
                return size if size in {1, 2, 4, 8, 16} else 1
            case Pointer():
                return 8
            case Array(element=element):
                if depth > MAX_DEPTH:
                    raise BtfError(f"{self._btf.source}: type {number}: arrays more than {MAX_DEPTH} deep")
                return self.alignment(element, depth + 1)
            case Composite():
                layout = self.layout(number, depth + 1)
                return layout.alignment if layout else 1
            case _:
                return 1

    def _place(self, found: Composite, depth: int) -> Layout | None:
        alignments = [self.alignment(member.type, depth) for member in found.members]
        place = self._place_union if found.is_union else self._place_struct
        return place(found, alignments) or place(found, None)

    def _place_union(self, found: Composite, alignments: list[int] | None) -> Layout | None:
        alignment = max(alignments or [1], default=1)
        widest = 0
        for member in found.members:
            if member.offset:
                return None
            widest = max(widest, member.bits or self._btf.size(member.type) * 8)
        taken = _up(widest, alignment * 8)
        if taken > found.size * 8 or found.size % alignment:
            return None
        gap = Gap(0, found.size * 8) if taken < found.size * 8 else None
        return Layout(alignments is None, alignment, (*(None for _ in found.members), gap))

    def _place_struct(self, found: Composite, alignments: list[int] | None) -> Layout | None:
        """The layout with these alignments of the members, or packed without; None if a member would lie elsewhere."""
        at, gaps = 0, list[Gap | None]()
        for number, member in enumerate(found.members):
            alignment = alignments[number] if alignments else 1
            width = self._width(member)
            start = self._start(member, at, alignment, width, is_packed=alignments is None)
            if start == member.offset:
                gaps.append(None)
            elif at < member.offset and self._can_start(
                member, alignment, width, is_packed=alignments is None
            ):
                gaps.append(Gap(at, member.offset))
            else:
                return None
            at = member.offset + width
        alignment = max(alignments or [1], default=1)
        end = found.size * 8
        if _up(at, alignment * 8) > end or found.size % alignment:
            return None
        gaps.append(Gap(at, end) if _up(at, alignment * 8) < end else None)
        return Layout(alignments is None, alignment, tuple(gaps))

    def _width(self, member: Member) -> int:
        return member.bits or self._btf.size(member.type) * 8

    def _start(self, member: Member, at: int, alignment: int, width: int, *, is_packed: bool) -> int:
        """The bit at which C puts a member that follows bit `at`."""
        if not member.bits:
            return _up(at, alignment * 8)
        unit = self._btf.size(member.type) * 8
        crosses = not is_packed and at % unit + width > unit if unit else True
        return _up(at, alignment * 8) if crosses else at

    def _can_start(self, member: Member, alignment: int, width: int, *, is_packed: bool) -> bool:
        """Whether C leaves a member where its offset says, when the room before it is taken."""
        return self._start(member, member.offset, alignment, width, is_packed=is_packed) == member.offset


def _up(bits: int, to: int) -> int:
    return -(-bits // to) * to
