"""The section in which an object carries its tables: the initial values of some of its global variables.

The compiler writes it, whoever loads the object fills the variables.  In the
ELF's own `.data` the tables would lie uncompressed, and clang would have to read
them as text.

>>> unpacked(packed([("ps_run_0_tables", b"abc")]))
{'ps_run_0_tables': b'abc'}
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable

SECTION = ".penstock.tables"
#: More than this is no section of penstock's: its tables have some megabytes.
MAX_BYTES = 1 << 30
_HEAD = struct.Struct("<HI")
_VARIABLE = re.compile(r"ps_run_\d+_tables")


def variable_of(run: int) -> str:
    """The variable that holds the tables of a program's stretch of rules."""
    return f"ps_run_{run}_tables"


def missing(variables: Iterable[str], given: Iterable[str]) -> list[str]:
    """Which of an object's variables are tables that nobody gives a value: without it no rule of theirs matches."""
    return sorted(set(filter(_VARIABLE.fullmatch, variables)) - set(given))


def packed(tables: Iterable[tuple[str, bytes]]) -> bytes:
    """The section: for each variable the lengths of name and value, and both; all of it compressed."""
    parts = [(_HEAD.pack(len(name.encode()), len(data)), name.encode(), data) for name, data in tables]
    return zlib.compress(b"".join(piece for part in parts for piece in part), 6)


def unpacked(section: bytes) -> dict[str, bytes]:
    """The variables' values by name.

    Raises:
        ValueError: the section is damaged.
    """
    whole, found, at = _decompressed(section), {}, 0
    while at < len(whole):
        if at + _HEAD.size > len(whole):
            raise ValueError("its tables are cut")
        name_size, size = _HEAD.unpack_from(whole, at)
        start = at + _HEAD.size + name_size
        at = start + size
        if at > len(whole):
            raise ValueError("its tables are cut")
        found[whole[start - name_size : start].decode()] = whole[start:at]
    return found


def _decompressed(section: bytes) -> bytes:
    stream = zlib.decompressobj()
    try:
        whole = stream.decompress(section, MAX_BYTES)
    except zlib.error as error:
        raise ValueError("its tables are damaged") from error
    if not stream.eof:
        raise ValueError("its tables are cut")
    return whole
