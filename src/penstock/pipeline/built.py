"""A built policy as one file: the ELF object, with a section that says who it is.

    join(elf, identity)         ->  bytes to write to edge.pso
    split(data, "edge.pso")     ->  (elf, identity)

With the identity, policy text included, a host without a compiler can put the
file in place, show its rules and keep their counters.  Tools that read ELF
(bpftool, llvm-objdump) see one more section that nothing loads.
"""

from __future__ import annotations

import struct

from penstock.compiler.objectfile import add_section, section
from penstock.errors import KernelError, PenstockError
from penstock.pipeline.identity import Identity, decode, encode

SECTION = ".penstock.identity"
_ELF = b"\x7fELF"


def is_built(data: bytes) -> bool:
    """Whether a file's first bytes are those of an object and not of a policy text."""
    return data.startswith(_ELF)


def join(elf: bytes, identity: Identity) -> bytes:
    """The file of an object and its identity."""
    return add_section(elf, SECTION, encode(identity))


def split(data: bytes, name: str) -> tuple[bytes, Identity]:
    """The object and the identity in a built file; `name` is what it is called in errors.

    Raises:
        PenstockError: it is an object, but not one that `penstock build` made, or it is cut.
    """
    try:
        blob = section(data, SECTION)
    except (ValueError, IndexError, struct.error) as error:
        raise PenstockError(f"{name} is not a whole object file: {error}", hint="build it again") from error
    if blob is None:
        raise PenstockError(f"{name} is an object file, but not one of `penstock build`")
    try:
        return data, decode(blob, name)
    except KernelError as error:
        raise PenstockError(f"{name} is not usable: {error.message}", hint="build it again") from error
