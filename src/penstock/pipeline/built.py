"""A built policy as one file: the ELF object, with a section that says who it is.

    join(elf, identity)         ->  bytes to write to edge.pso
    split(data, "edge.pso")     ->  (elf, identity)

With the identity, policy text included, a host without a compiler can put the
file in place, show its rules and keep their counters.  Tools that read ELF
(bpftool, llvm-objdump) see one more section that nothing loads.
"""

from __future__ import annotations

import struct
from hashlib import sha256

from penstock.compiler.objectfile import add_section, section
from penstock.errors import KernelError, PenstockError
from penstock.pipeline.identity import Identity, decode, encode

SECTION = ".penstock"
_ELF = b"\x7fELF"
# The section begins with the file's SHA-256 in hexadecimal digits, for which these stand when it is computed.
_UNSIGNED = b"0" * 64


def is_built(data: bytes) -> bool:
    """Whether a file's first bytes are those of an object and not of a policy text."""
    return data.startswith(_ELF)


def join(elf: bytes, identity: Identity) -> bytes:
    """The file of an object and its identity."""
    body = _UNSIGNED + encode(identity)
    whole = add_section(elf, SECTION, body)
    at = whole.index(body, len(elf))
    return whole[:at] + _digest(whole) + whole[at + len(_UNSIGNED) :]


def split(data: bytes, name: str) -> tuple[bytes, Identity]:
    """The object and the identity in a built file; `name` is what it is called in errors.

    Raises:
        PenstockError: it is an object, but not one that `penstock build` made, or not
            every byte is as it was made.
    """
    try:
        body = section(data, SECTION)
    except (ValueError, IndexError, struct.error) as error:
        raise PenstockError(f"{name} is not a whole object file: {error}", hint="build it again") from error
    if body is None:
        raise PenstockError(
            f"{name} is an object file, but not one of `penstock build`",
            hint="`penstock program load` loads programs of everybody's, in C or from an object file",
        )
    if not _is_unchanged(data, body):
        raise PenstockError(f"{name} is damaged: its checksum does not match", hint="build it again")
    try:
        return data, decode(body[len(_UNSIGNED) :], name)
    except KernelError as error:
        raise PenstockError(f"{name} is not usable: {error.message}", hint="build it again") from error


def _is_unchanged(data: bytes, body: bytes) -> bool:
    """Whether the file has the checksum that it carries; what loads into a kernel is not left to chance."""
    digest, at = body[: len(_UNSIGNED)], data.find(body)
    return digest == _digest(data[:at] + _UNSIGNED + data[at + len(_UNSIGNED) :])


def _digest(whole: bytes) -> bytes:
    return sha256(whole).hexdigest().encode()
