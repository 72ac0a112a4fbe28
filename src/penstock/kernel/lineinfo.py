"""Which source line an instruction came from, as clang's -g wrote it into the object.

In: an object, a program, the index of one of its instructions.  Out: `file:line`,
and the text of that line.

    line_of(elf, "ps_filter", 7)   ->  SourceLine("edge.policy:12", "drop if tcp dst port 22")

Kernels from 6.9 on print that place into the verifier's log; for the others it
is looked up here.  Layout of `.BTF.ext`: Documentation/bpf/btf.rst, section 4.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.kernel.elf import byte_order, functions, sections, string_at

if TYPE_CHECKING:
    from collections.abc import Iterator

_INSTRUCTION_SIZE = 8
_LINE_SHIFT = 10  # line_col: the line above ten bits of column


@dataclass(frozen=True, slots=True)
class SourceLine:
    """`place` is `file:line`, `text` the line itself, empty where the compiler could not read the file."""

    place: str
    text: str


def line_of(elf: bytes, program: str, instruction: int) -> SourceLine | None:
    """Where an instruction of a program came from, or None when the object does not tell.

    Instructions beyond the program's own belong to subprograms, which libbpf
    appends in an order that the object does not show: None as well.
    """
    try:
        return _line_of(elf, program, instruction)
    except (ValueError, struct.error, KeyError):
        return None


def _line_of(elf: bytes, program: str, instruction: int) -> SourceLine | None:
    function, position = functions(elf)[program], instruction * _INSTRUCTION_SIZE
    if position >= function.size:
        return None
    lines = _lines(elf, function.section)
    before = [line for offset, line in lines if function.offset <= offset <= function.offset + position]
    return before[-1] if before else None


def _lines(elf: bytes, wanted: str) -> Iterator[tuple[int, SourceLine]]:
    """Offset in the section and line, ascending, of each line record of one section."""
    data = {section.name: section.data for section in sections(elf)}
    order, extra = byte_order(elf), data[".BTF.ext"]
    strings = _strings(data[".BTF"], order)
    header_size, _, _, start, length = struct.unpack_from(order + "IIIII", extra, 4)
    at, end = header_size + start, header_size + start + length
    (record_size,) = struct.unpack_from(order + "I", extra, at)
    at += 4
    while at < end:
        name_at, count = struct.unpack_from(order + "II", extra, at)
        at += 8
        if string_at(strings, name_at) == wanted:
            for number in range(count):
                offset, file_at, text_at, column = struct.unpack_from(
                    order + "IIII", extra, at + number * record_size
                )
                # clang writes the path whole; the kernel's log, and so we, show its last part.
                file = string_at(strings, file_at).rsplit("/", 1)[-1]
                text = string_at(strings, text_at).strip()
                yield offset, SourceLine(f"{file}:{column >> _LINE_SHIFT}", text)
        at += count * record_size


def _strings(btf: bytes, order: str) -> bytes:
    header_size, _, _, start, length = struct.unpack_from(order + "IIIII", btf, 4)
    return btf[header_size + start : header_size + start + length]
