"""The value of a global variable, as people write it, in bytes.

In: an object, one of its variables, and text as `penstock map update` takes it.
Out: as many bytes as the variable has.  The types are those of the object's
BTF; without BTF a value is a number or bytes.

    parse_value(elf, "limit", Symbol(".rodata", 0, 4), "100")         ->  b"d\\0\\0\\0"
    parse_value(elf, "home", Symbol(".rodata", 4, 4), "192.0.2.1")    ->  b"\\xc0\\0\\2\\1", of a __be32
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from penstock.compiler.lang.source import Source
from penstock.errors import BtfError, PolicyError
from penstock.kernel.btf_source import btf_of_object
from penstock.kernel.btf_types import Kind, Variable
from penstock.kernel.elf import initial_value
from penstock.observe.typed.notation import parse
from penstock.observe.typed.number import Number
from penstock.observe.typed.octets import Bytes
from penstock.observe.typed.of_btf import shape_of
from penstock.observe.typed.shape import Writing

if TYPE_CHECKING:
    from penstock.kernel.elf import Symbol
    from penstock.observe.typed.shape import Shape

_NUMBERS = (1, 2, 4, 8)


def parse_value(elf: bytes, name: str, variable: Symbol, text: str) -> bytes:
    """The bytes of a value for a variable; members of a struct that the text does not name stay as they are.

    Raises:
        PolicyError: the text is no value of its type.
    """
    source = Source(f"--set {name}", text)
    writing, out = Writing(source), bytearray(initial_value(elf, name) or b"")
    out += bytes(variable.size - len(out))  # .bss has no contents.
    _shape(elf, name, variable.size).encode(parse(source), out, 0, writing)
    if writing.found:
        raise PolicyError(writing.sorted())
    return bytes(out)


def _shape(elf: bytes, name: str, size: int) -> Shape:
    with suppress(BtfError):
        types = btf_of_object(elf)
        found = types.find(name, Kind.VAR)
        variable = types.type(found) if found is not None else None
        if isinstance(variable, Variable):
            return shape_of(types, variable.type, size)
    return Number(size, sys.byteorder) if size in _NUMBERS else Bytes(size, sys.byteorder)
