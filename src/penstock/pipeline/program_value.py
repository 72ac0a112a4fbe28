"""The value of a global variable, as people write it, in bytes.

In: text and the variable it is for.  Out: as many bytes as the variable has.

    parse_value(elf, "limit", Symbol(".rodata", 0, 4), "100")     ->  b"d\\0\\0\\0"
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from penstock.errors import PenstockError

if TYPE_CHECKING:
    from penstock.kernel.elf import Symbol

_WORDS = {"true": 1, "false": 0}
_SCALAR_SIZES = (1, 2, 4, 8)


def parse_value(_elf: bytes, name: str, variable: Symbol, text: str) -> bytes:
    """The bytes of a value for a variable.  Raises PenstockError: it does not fit."""
    number = _number(text)
    if number is not None and variable.size in _SCALAR_SIZES:
        return _scalar(name, variable.size, number)
    data = text.encode()
    if variable.size in _SCALAR_SIZES or len(data) >= variable.size:
        raise PenstockError(f"{text!r} is no value for {name}, which has {variable.size} bytes")
    return data.ljust(variable.size, b"\0")


def _number(text: str) -> int | None:
    try:
        return _WORDS[text] if text in _WORDS else int(text, 0)
    except ValueError:
        return None


def _scalar(name: str, size: int, number: int) -> bytes:
    if not -(1 << 8 * size - 1) <= number < 1 << 8 * size:
        raise PenstockError(f"{number} does not fit {name}, which has {size} bytes")
    return (number & (1 << 8 * size) - 1).to_bytes(size, sys.byteorder)
