"""Ask the kernel to do something small, and say what it answered; whatever it made is closed at once.

In: instructions, map shapes, raw BTF.  Out: `Answer`: the errno (0: it did it)
and the verifier's words.  Nothing stays behind: no try attaches or pins.

    load(XDP, RETURN_ZERO).done                    ->  True
    create_map(MapTry(kind=27, entries=4096))      ->  Answer(code=22, log="")    no ring buffer
"""

from __future__ import annotations

import os
import resource
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.kernel.libc import address_of, bpf
from penstock.kernel.syscall import Command

if TYPE_CHECKING:
    from collections.abc import Iterator

#: union bpf_attr for BPF_PROG_LOAD, BPF_MAP_CREATE and BPF_BTF_LOAD (<linux/bpf.h>).
_PROG_LOAD = struct.Struct("=IIQQIIQII16sIIIIQIIQIIII")
_MAP_CREATE = struct.Struct("=IIIIIII16sIIIIIQ")
_BTF_LOAD = struct.Struct("=QQIII4x")
_LOG_SIZE = 4096

_LICENSE = bytearray(b"GPL\0")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came to; `code` 0 is success."""

    code: int
    log: str = ""

    @property
    def done(self) -> bool:
        """Whether the kernel did what was asked."""
        return self.code == 0


@dataclass(frozen=True, slots=True)
class ProgramTry:
    """What PROG_LOAD is told beside the instructions."""

    kind: int
    attach_type: int = 0
    flags: int = 0
    attach_btf_id: int = 0


@dataclass(frozen=True, slots=True)
class MapTry:
    """A map to be made."""

    kind: int
    key: int = 4
    value: int = 4
    entries: int = 1
    flags: int = 0
    inner: int = 0
    btf: int = 0
    vmlinux_value: int = 0


# ── instructions ─────────────────────────────────────────────────────────────


def instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """One instruction, as RFC 9669 lays it out."""
    return struct.pack("=BBhi", code, src << 4 | dst, offset, value)


#: r0 = 0
ZERO = instruction(0xB7)
EXIT = instruction(0x95)
RETURN_ZERO = ZERO + EXIT


def call(number: int) -> bytes:
    """Call a helper."""
    return instruction(0x85, value=number)


@contextmanager
def locked_memory_unlimited() -> Iterator[None]:
    """Lift this process's limit of locked memory for a block: before Linux 5.11 maps and programs count against it."""
    limits = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (OSError, ValueError):
        yield  # without CAP_SYS_RESOURCE the limit stays
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, limits)


# ── calls ────────────────────────────────────────────────────────────────────


def load(wanted: ProgramTry, code: bytes, *, log: bool = True) -> Answer:
    """Load a program and close it."""
    fd, answer = _load(wanted, code, log=log)
    if fd is not None:
        os.close(fd)
    return answer


@contextmanager
def loaded(wanted: ProgramTry, code: bytes) -> Iterator[int | None]:
    """A loaded program's descriptor for a block; None where the kernel refuses it."""
    fd, _ = _load(wanted, code, log=False)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def _load(wanted: ProgramTry, code: bytes, *, log: bool) -> tuple[int | None, Answer]:
    said, held = bytearray(_LOG_SIZE if log else 0), bytearray(code)
    places = address_of(held), address_of(_LICENSE)
    log_at = (1, len(said), address_of(said)) if log else (0, 0, 0)
    attr = bytearray(
        _PROG_LOAD.pack(
            *(wanted.kind, len(code) // 8, *places, *log_at, 0, wanted.flags, b""),
            *(0, wanted.attach_type, 0, 0, 0, 0, 0, 0, 0, wanted.attach_btf_id, 0, 0),
        )
    )
    return _try(Command.PROG_LOAD, attr, said)


def create_map(wanted: MapTry) -> Answer:
    """Make a map and close it."""
    fd, answer = _create(wanted)
    if fd is not None:
        os.close(fd)
    return answer


@contextmanager
def created(wanted: MapTry) -> Iterator[int | None]:
    """A map's descriptor for a block; None where the kernel refuses it."""
    fd, _ = _create(wanted)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def _create(wanted: MapTry) -> tuple[int | None, Answer]:
    types = (1, 1) if wanted.btf else (0, 0)
    shape = wanted.kind, wanted.key, wanted.value, wanted.entries, wanted.flags, wanted.inner
    attr = bytearray(_MAP_CREATE.pack(*shape, 0, b"", 0, wanted.btf, *types, wanted.vmlinux_value, 0))
    return _try(Command.MAP_CREATE, attr)


def load_btf(data: bytes) -> Answer:
    """Load type information and close it."""
    with loaded_btf(data) as (_, answer):
        return answer


@contextmanager
def loaded_btf(data: bytes) -> Iterator[tuple[int | None, Answer]]:
    """The descriptor of type information for a block, None where the kernel refuses it, and its answer."""
    held = bytearray(data)
    fd, answer = _try(Command.BTF_LOAD, bytearray(_BTF_LOAD.pack(address_of(held), 0, len(held), 0, 0)))
    try:
        yield fd, answer
    finally:
        if fd is not None:
            os.close(fd)


def ask(command: Command, attr: bytes) -> Answer:
    """Run a command that makes no descriptor."""
    try:
        bpf(command, bytearray(attr))
    except OSError as error:
        return Answer(error.errno or 0)
    return Answer(0)


def _try(command: Command, attr: bytearray, log: bytearray | None = None) -> tuple[int | None, Answer]:
    try:
        return bpf(command, attr), Answer(0)
    except OSError as error:
        said = bytes(log or b"").split(b"\0", 1)[0].decode("utf-8", "replace")
        return None, Answer(error.errno or 0, said)
