"""A built policy as one file: the ELF object, and behind it who it is.

    ELF object | identity (JSON) | length of the identity, 8 bytes, little-endian | "penstock"

Tools that read ELF (bpftool, llvm-objdump) do not see what follows the object.
With the identity a host without a compiler can put the file in place, name its
rules and keep their counters.
"""

from __future__ import annotations

import struct

from penstock.errors import KernelError, PenstockError
from penstock.pipeline.identity import Identity, decode, encode

_MAGIC = b"penstock"
_LENGTH = struct.Struct("<Q8s")
_ELF = b"\x7fELF"


def is_built(data: bytes) -> bool:
    """Whether a file's first bytes are those of an object and not of a policy text."""
    return data.startswith(_ELF)


def join(elf: bytes, identity: Identity) -> bytes:
    """The file of an object and its identity."""
    blob = encode(identity)
    return elf + blob + _LENGTH.pack(len(blob), _MAGIC)


def split(data: bytes, name: str) -> tuple[bytes, Identity]:
    """The object and the identity in a built file; `name` is what it is called in errors.

    Raises:
        PenstockError: it is an object, but not one that `penstock build` made, or it is cut.
    """
    length, magic = _LENGTH.unpack(data[-_LENGTH.size :]) if len(data) > _LENGTH.size else (0, b"")
    start = len(data) - _LENGTH.size - length
    if magic != _MAGIC or start < len(_ELF):
        raise PenstockError(f"{name} is an object file, but not a whole one of `penstock build`")
    try:
        return data[:start], decode(data[start : -_LENGTH.size], name)
    except KernelError as error:
        raise PenstockError(f"{name} is not usable: {error.message}", hint="build it again") from error
