"""What an object file says of itself: its sections, functions and global variables.

In: the bytes of a 64-bit ELF object.  Out: symbols by name, so that a variable
can be set before the load and seen after it under the name it has in C, and an
instruction of a function can be found in its section.

    variables(elf)["ps_sample"]  ->  Symbol(section=".rodata", offset=8, size=4)
    functions(elf)["ps_filter"]     ->  Symbol(section="xdp.frags", offset=0, size=48)

Layouts: elf(5).
"""

from __future__ import annotations

import re
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.model import tables

if TYPE_CHECKING:
    from collections.abc import Iterator

_SYMTAB = 2
_STT_OBJECT, _STT_FUNC = 1, 2
_SHN_LORESERVE = 0xFF00
_UNGUARDED = 0x70735F30
_DATA_SECTIONS = (".rodata", ".data", ".bss")


@dataclass(frozen=True, slots=True)
class Symbol:
    """A variable or function of the object: `size` bytes at `offset` of `section`."""

    section: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Section:
    """A section: its name, type, the section it refers to, and its contents."""

    name: str
    kind: int
    link: int
    data: bytes


def variables(elf: bytes) -> dict[str, Symbol]:
    """Every variable in `.rodata`, `.data`, `.bss` and their named parts.

    Raises:
        ValueError: these bytes are not a 64-bit ELF object.
    """
    found = _symbols(elf, _STT_OBJECT)
    return {name: symbol for name, symbol in found.items() if symbol.section.startswith(_DATA_SECTIONS)}


def initial_value(elf: bytes, name: str) -> bytes | None:
    """The bytes that a variable has in the object, None if there is no such variable.  Raises ValueError."""
    symbol = variables(elf).get(name)
    if symbol is None:
        return None
    data = next(section.data for section in sections(elf) if section.name == symbol.section)
    return data[symbol.offset : symbol.offset + symbol.size]


def guarded(elf: bytes) -> bytes:
    """The object for a verifier that guards against speculation: what `ps_is_guarded` (uapi.bpf.h) asks is true.

    Raises ValueError.
    """
    order = byte_order(elf)
    mark = re.compile(rb"(\xb7.\0\0)" + re.escape(struct.pack(order + "i", _UNGUARDED)), re.DOTALL)
    return mark.sub(rb"\g<1>" + bytes(4), elf)


def functions(elf: bytes) -> dict[str, Symbol]:
    """Every function, programs and subprograms alike.  Raises ValueError."""
    return _symbols(elf, _STT_FUNC)


def tables_in(elf: bytes) -> dict[str, bytes]:
    """The initial values that the object carries for its large variables.  Raises ValueError."""
    found = (section.data for section in sections(elf) if section.name == tables.SECTION)
    return {name: value for data in found for name, value in tables.unpacked(data).items()}


def sections(elf: bytes) -> list[Section]:
    """Every section, by index.  Raises ValueError."""
    order = byte_order(elf)
    with _only_value_errors():
        (start,) = struct.unpack_from(order + "Q", elf, 0x28)
        size, count, names_at = struct.unpack_from(order + "HHH", elf, 0x3A)
        headers = [
            struct.unpack_from(order + "IIQQQQI", elf, start + size * number) for number in range(count)
        ]
        names = _contents(elf, headers[names_at])
        return [
            Section(string_at(names, head[0]), head[1], head[6], _contents(elf, head)) for head in headers
        ]


def byte_order(elf: bytes) -> str:
    """The object's byte order as `struct` writes it.  Raises ValueError: this is no 64-bit ELF object."""
    if elf[:5] != b"\x7fELF\x02" or len(elf) < 64:
        raise ValueError("not a 64-bit ELF object")
    return "<" if elf[5] == 1 else ">"


def string_at(table: bytes, at: int) -> str:
    """The zero-terminated string at an offset of a string table.  Raises ValueError."""
    return table[at : table.index(b"\0", at)].decode("utf-8", "replace")


def _symbols(elf: bytes, kind: int) -> dict[str, Symbol]:
    order, found = byte_order(elf), sections(elf)
    with _only_value_errors():
        return dict(
            symbol for table in found if table.kind == _SYMTAB for symbol in _table(table, found, order, kind)
        )


def _table(table: Section, found: list[Section], order: str, kind: int) -> Iterator[tuple[str, Symbol]]:
    strings = found[table.link].data
    for name_at, info, _, index, value, size in struct.iter_unpack(order + "IBBHQQ", table.data):
        if info & 0xF == kind and 0 < index < min(_SHN_LORESERVE, len(found)):
            yield string_at(strings, name_at), Symbol(found[index].name, value, size)


@contextmanager
def _only_value_errors() -> Iterator[None]:
    try:
        yield
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError("the ELF object is cut or damaged") from error


def _contents(elf: bytes, header: tuple[int, ...]) -> bytes:
    offset, size = header[4], header[5]
    return elf[offset : offset + size]
