"""libpcap as a second opinion: compile a filter expression, run the result over bytes.

In goes an expression, out comes classic BPF, exactly as tcpdump would run it,
with libpcap's message when it refuses.  Nothing is captured and no privilege is
needed; the library is the one that the machine has.

>>> compile_filter("udp port 53").matches(bytes(60))
False

Threads: libpcap's compiler is reentrant from 1.8 on, but one handle must not be
used by two at a time.  Each thread has its own handle per link type and snap
length, opened when first needed.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import threading
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from penstock.errors import PenstockError
from penstock.model.classic import Instruction

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What stands for "no netmask is known" (PCAP_NETMASK_UNKNOWN).
NETMASK_UNKNOWN = 0xFFFFFFFF
#: LINKTYPE_ETHERNET, which is DLT_EN10MB.
ETHERNET = 1


class LibpcapError(PenstockError):
    """libpcap refused an expression, in its own words, or is not there."""


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction)))


class _PacketHeader(ctypes.Structure):
    _fields_ = (
        ("seconds", ctypes.c_long),
        ("microseconds", ctypes.c_long),
        ("captured", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
    )


@dataclass(frozen=True)
class Program:
    """A compiled expression.  Equal programs have equal instructions."""

    instructions: tuple[Instruction, ...]
    _native: _Program = field(compare=False, repr=False)
    _array: object = field(compare=False, repr=False)

    def matches(self, frame: bytes, wire_length: int | None = None) -> bool:
        """Whether libpcap's own interpreter accepts the frame; see `pcap_offline_filter(3PCAP)`."""
        length = len(frame) if wire_length is None else wire_length
        header = _PacketHeader(0, 0, len(frame), length)
        return bool(_library().pcap_offline_filter(ctypes.byref(self._native), ctypes.byref(header), frame))


def compile_filter(
    expression: str,
    *,
    link_type: int = ETHERNET,
    snaplen: int = 262144,
    netmask: int = NETMASK_UNKNOWN,
    optimize: bool = True,
) -> Program:
    """The program that libpcap makes of an expression.

    Raises:
        LibpcapError: the expression is refused; the message is libpcap's.
    """
    if "\0" in expression:
        raise LibpcapError("an expression cannot contain a NUL character")
    library, native = _library(), _Program()
    handle = _handle(link_type, snaplen)
    text = expression.encode("utf-8", "surrogateescape")
    if library.pcap_compile(handle, ctypes.byref(native), text, int(optimize), netmask) != 0:
        raise LibpcapError(library.pcap_geterr(handle).decode("utf-8", "replace").strip())
    try:
        return _copied(native)
    finally:
        library.pcap_freecode(ctypes.byref(native))


def program_of(instructions: Sequence[Instruction]) -> Program:
    """Instructions from elsewhere as a program that libpcap's interpreter runs.

    Raises:
        LibpcapError: bpf_validate(3) refuses them.
    """
    array = (_Instruction * len(instructions))()
    for at, one in enumerate(instructions):
        array[at] = _Instruction(one.code, one.jt, one.jf, one.k)
    pointer = ctypes.cast(array, ctypes.POINTER(_Instruction))
    if not _library().bpf_validate(pointer, len(instructions)):
        raise LibpcapError("libpcap finds that this is no program")
    return Program(tuple(instructions), _Program(len(instructions), pointer), array)


def _copied(native: _Program) -> Program:
    """The program in memory of our own, since libpcap's is freed."""
    array = (_Instruction * native.length)()
    ctypes.memmove(array, native.instructions, ctypes.sizeof(array))
    instructions = tuple(Instruction(one.code, one.jt, one.jf, one.k) for one in array)
    pointer = ctypes.cast(array, ctypes.POINTER(_Instruction))
    return Program(instructions, _Program(native.length, pointer), array)


def version() -> str:
    """What the library calls itself: `libpcap version 1.10.3 …`.

    Raises:
        LibpcapError: there is no libpcap.
    """
    text: bytes = _library().pcap_lib_version()
    return text.decode("ascii", "replace")


# ── the library ──────────────────────────────────────────────────────────────

_opened = threading.local()


def _handle(link_type: int, snaplen: int) -> int:
    """This thread's handle; it lives as long as the thread's process, and holds no resource but memory."""
    handles: dict[tuple[int, int], int] = _opened.__dict__.setdefault("handles", {})
    key = (link_type, snaplen)
    if key not in handles:
        handle = _library().pcap_open_dead(link_type, snaplen)
        if not handle:
            raise LibpcapError("libpcap could not open a handle: out of memory")
        handles[key] = handle
    return handles[key]


@cache
def _library() -> ctypes.CDLL:
    name = ctypes.util.find_library("pcap") or "libpcap.so.0.8"
    try:
        library = ctypes.CDLL(name)
    except OSError:
        raise LibpcapError(
            "libpcap is not installed, and only libpcap can do this",
            hint="install it: the package is libpcap0.8 on Debian and Ubuntu, libpcap elsewhere",
        ) from None
    library.pcap_open_dead.argtypes = (ctypes.c_int, ctypes.c_int)
    library.pcap_open_dead.restype = ctypes.c_void_p
    program = ctypes.POINTER(_Program)
    compile_arguments = (ctypes.c_void_p, program, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32)
    library.pcap_compile.argtypes = compile_arguments
    library.pcap_compile.restype = ctypes.c_int
    library.pcap_geterr.argtypes = (ctypes.c_void_p,)
    library.pcap_geterr.restype = ctypes.c_char_p
    library.pcap_freecode.argtypes = (program,)
    library.pcap_freecode.restype = None
    library.pcap_offline_filter.argtypes = (program, ctypes.POINTER(_PacketHeader), ctypes.c_char_p)
    library.pcap_offline_filter.restype = ctypes.c_int
    library.bpf_validate.argtypes = (ctypes.POINTER(_Instruction), ctypes.c_int)
    library.bpf_validate.restype = ctypes.c_int
    library.pcap_lib_version.argtypes = ()
    library.pcap_lib_version.restype = ctypes.c_char_p
    return library
