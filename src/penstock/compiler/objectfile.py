"""Sections of an ELF object: read them, and add one that travels with it.

    add_section(elf, ".penstock", b"{…}")      ->  the object, one section longer
    section(grown, ".penstock")                ->  b"{…}"

libbpf skips a section that it does not know, and the kernel never sees it.
ELF layout: elf(5).  Only what clang writes for BPF is understood: 64 bits, the
section names in a table of their own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_HEADER = 64
_SECTION_SIZE = 64
_SHT_PROGBITS = 1


@dataclass(frozen=True, slots=True)
class _Table:
    """The section header table: where it is, how many entries, which one holds the names; byte order."""

    order: str
    start: int
    count: int
    names: int

    @classmethod
    def of(cls, elf: bytes) -> _Table:
        if elf[:5] != b"\x7fELF\x02":
            raise ValueError("it is no 64-bit ELF")
        order = "<" if elf[5] == 1 else ">"
        (start,) = struct.unpack_from(order + "Q", elf, 40)
        size, count, names = struct.unpack_from(order + "HHH", elf, 58)
        if size != _SECTION_SIZE or names >= count or start + count * size > len(elf):
            raise ValueError("its section table is damaged")
        return cls(order, start, count, names)

    def header(self, elf: bytes, index: int) -> tuple[int, ...]:
        """name, type, flags, address, offset, size, link, info, alignment, entry size"""
        return struct.unpack_from(self.order + "IIQQQQIIQQ", elf, self.start + index * _SECTION_SIZE)

    def body(self, elf: bytes, index: int) -> bytes:
        _, _, _, _, offset, size, *_ = self.header(elf, index)
        if offset + size > len(elf):
            raise ValueError("it is cut")
        return elf[offset : offset + size]


def sections(elf: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and contents of every section that has a name and lies in the file.

    Raises:
        ValueError, struct.error: these bytes are no ELF, or are cut.
    """
    table = _Table.of(elf)
    names = table.body(elf, table.names)
    for index in range(1, table.count):
        header = table.header(elf, index)
        if header[1] == _SHT_PROGBITS:
            name = names[header[0] : names.index(b"\0", header[0])]
            yield name.decode("utf-8", "replace"), table.body(elf, index)


def section(elf: bytes, name: str) -> bytes | None:
    """The contents of the section of that name, None if there is none.  Raises as `sections`."""
    return next((body for found, body in sections(elf) if found == name), None)


def add_section(elf: bytes, name: str, body: bytes) -> bytes:
    """The ELF with one more section, that nothing loads or relocates.

    Contents, a longer name table and a new header table go behind what is
    there, so that no offset in the file changes its meaning.
    """
    table = _Table.of(elf)
    names = table.body(elf, table.names)
    grown = names + name.encode() + b"\0"
    body_at = _aligned(len(elf))
    names_at = _aligned(body_at + len(body))
    headers_at = _aligned(names_at + len(grown))
    headers = bytearray(elf[table.start : table.start + table.count * _SECTION_SIZE])
    struct.pack_into(table.order + "QQ", headers, table.names * _SECTION_SIZE + 24, names_at, len(grown))
    headers += struct.pack(
        table.order + "IIQQQQIIQQ", len(names), _SHT_PROGBITS, 0, 0, body_at, len(body), 0, 0, 1, 0
    )
    head = bytearray(elf)
    struct.pack_into(table.order + "Q", head, 40, headers_at)
    struct.pack_into(table.order + "H", head, 60, table.count + 1)
    return b"".join(
        (
            _padded(bytes(head), body_at),
            _padded(body, names_at - body_at),
            _padded(grown, headers_at - names_at),
            bytes(headers),
        )
    )


def _aligned(size: int) -> int:
    return (size + 7) & ~7


def _padded(data: bytes, size: int) -> bytes:
    return data + bytes(size - len(data))
