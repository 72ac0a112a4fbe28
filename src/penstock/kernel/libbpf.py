"""libbpf.so.1 bound with ctypes: open an object from memory, set it up, load it.

In: the bytes of an ELF object.  Out: a `RawObject` whose programs and maps have
descriptors once `load` has succeeded.  libbpf prints nothing: what it would
have said is in `RawObject.messages`.  Loading is all that libbpf is used for;
attaching and maps go to the kernel by bpf(2), which is the same everywhere.

Works from libbpf 1.0 on (tested with 1.1.2); the 0.x series reports errors in
another way and is refused.
"""

from __future__ import annotations

import ctypes
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SONAME = "libbpf.so.1"
_PLACES = ("usr/lib/*-linux-gnu", "usr/lib64", "usr/lib", "lib64", "usr/local/lib64", "usr/local/lib")
_LEAST_IMPORTANT = 1  # LIBBPF_INFO; 2 would be its debugging chatter
_MESSAGE_SIZE = 1 << 16
_PROG_TYPE_XDP, _ATTACH_XDP = 6, 37  # BPF_PROG_TYPE_XDP, BPF_XDP
_LOG_STATISTICS = 4  # BPF_LOG_STATS of <linux/bpf_verifier.h>: the figures and no more
_INSTALL = (
    "install it: `apt install libbpf1` (Debian, Ubuntu), `dnf install libbpf` (Fedora, RHEL), "
    "`pacman -S libbpf` (Arch), `apk add libbpf` (Alpine); or name the file in PENSTOCK_LIBBPF"
)

_PrintFunction = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_vsnprintf = ctypes.CDLL(None).vsnprintf
# A va_list argument is passed as one pointer on x86-64 (an array decays) and on
# AArch64 (by reference), so an untyped pointer can be handed on.
_vsnprintf.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p)


class _OpenOptions(ctypes.Structure):
    """The head of struct bpf_object_open_opts; libbpf takes the rest as zero from `sz`."""

    _fields_ = (("sz", ctypes.c_size_t), ("object_name", ctypes.c_char_p))


_POINTER, _TEXT, _INT, _UINT, _SIZE = (
    ctypes.c_void_p,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_uint32,
    ctypes.c_size_t,
)
_PROTOTYPES: dict[str, tuple[object, tuple[object, ...]]] = {
    "libbpf_version_string": (_TEXT, ()),
    "libbpf_set_print": (_POINTER, (_PrintFunction,)),
    "bpf_object__open_mem": (_POINTER, (_POINTER, _SIZE, ctypes.POINTER(_OpenOptions))),
    "bpf_object__load": (_INT, (_POINTER,)),
    "bpf_object__close": (None, (_POINTER,)),
    "bpf_object__next_program": (_POINTER, (_POINTER, _POINTER)),
    "bpf_object__next_map": (_POINTER, (_POINTER, _POINTER)),
    "bpf_program__name": (_TEXT, (_POINTER,)),
    "bpf_program__fd": (_INT, (_POINTER,)),
    "bpf_program__flags": (_UINT, (_POINTER,)),
    "bpf_program__set_flags": (_INT, (_POINTER, _UINT)),
    "bpf_program__set_autoload": (_INT, (_POINTER, ctypes.c_bool)),
    "bpf_program__autoload": (ctypes.c_bool, (_POINTER,)),
    "bpf_program__section_name": (_TEXT, (_POINTER,)),
    "bpf_program__type": (_INT, (_POINTER,)),
    "libbpf_register_prog_handler": (_INT, (_TEXT, _INT, _INT, _POINTER)),
    "bpf_program__set_type": (_INT, (_POINTER, _INT)),
    "bpf_program__set_expected_attach_type": (_INT, (_POINTER, _INT)),
    "bpf_program__set_log_level": (_INT, (_POINTER, _UINT)),
    "bpf_program__set_log_buf": (_INT, (_POINTER, _POINTER, _SIZE)),
    "bpf_map__name": (_TEXT, (_POINTER,)),
    "bpf_map__fd": (_INT, (_POINTER,)),
    "bpf_map__type": (_INT, (_POINTER,)),
    "bpf_map__key_size": (_UINT, (_POINTER,)),
    "bpf_map__value_size": (_UINT, (_POINTER,)),
    "bpf_map__max_entries": (_UINT, (_POINTER,)),
    "bpf_map__is_internal": (ctypes.c_bool, (_POINTER,)),
    "bpf_map__initial_value": (_POINTER, (_POINTER, ctypes.POINTER(_SIZE))),
    "bpf_map__set_pin_path": (_INT, (_POINTER, _TEXT)),
    "bpf_map__reuse_fd": (_INT, (_POINTER, _INT)),
}


@cache
def library() -> ctypes.CDLL:
    """The shared library, with typed functions and a silent print function.

    Raises:
        ToolchainError: it is not installed, or it is older than 1.0; the hint says how to get it.
    """
    loaded = _find()
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(loaded, name, None)
        if function is None:
            raise ToolchainError(f"this libbpf is older than 1.0: it has no {name}", hint=_INSTALL)
        function.restype, function.argtypes = result, arguments
    loaded.libbpf_set_print(_print)
    return loaded


def _find() -> ctypes.CDLL:
    chosen = os.environ.get("PENSTOCK_LIBBPF")
    places = [str(path) for place in _PLACES for path in Path("/").glob(f"{place}/{_SONAME}")]
    reason = ""
    for path in [chosen] if chosen else [_SONAME, *places]:
        try:
            return ctypes.CDLL(path, use_errno=True)
        except OSError as error:
            reason = reason or str(error)
    raise ToolchainError(f"libbpf cannot be loaded: {reason}", hint=_INSTALL)


# libbpf has one print function for the whole process; each thread that loads has its own list to fill.
_local = threading.local()


@_PrintFunction  # type: ignore[untyped-decorator]
def _print(level: int, template: bytes, arguments: int) -> int:
    messages: list[str] | None = getattr(_local, "messages", None)
    if messages is not None and level <= _LEAST_IMPORTANT:
        text = ctypes.create_string_buffer(_MESSAGE_SIZE)
        _vsnprintf(text, _MESSAGE_SIZE, template, arguments)
        messages.append(text.value.decode("utf-8", "replace").rstrip("\n"))
    return 0


@contextmanager
def _collecting(messages: list[str]) -> Iterator[None]:
    _local.messages = messages
    try:
        yield
    finally:
        _local.messages = None


@cache
def load_frags_as_plain_xdp() -> None:
    """From now on, programs of sections `xdp.frags` are loaded without the flag that those sections ask for."""
    _check(library().libbpf_register_prog_handler(b"xdp.frags+", _PROG_TYPE_XDP, _ATTACH_XDP, None))


def version() -> str:
    """Its version, as it says itself.  Raises ToolchainError: it cannot be loaded."""
    return str(library().libbpf_version_string().decode("ascii", "replace").removeprefix("v"))


def _check(result: int) -> None:
    if result < 0:
        raise OSError(-result, os.strerror(-result))


@dataclass(frozen=True, slots=True)
class RawProgram:
    """A program of an opened object."""

    pointer: int
    name: str

    @property
    def fd(self) -> int:
        """The descriptor, owned by the object; negative when it was not loaded."""
        return int(library().bpf_program__fd(self.pointer))

    @property
    def section(self) -> str:
        """The section of the object that it lies in."""
        return str(library().bpf_program__section_name(self.pointer).decode("utf-8", "replace"))

    @property
    def kind(self) -> int:
        """Its bpf_prog_type as its section says; 0 where libbpf does not know that section."""
        return int(library().bpf_program__type(self.pointer))

    @property
    def is_wanted(self) -> bool:
        """Whether `load` loads it."""
        return bool(library().bpf_program__autoload(self.pointer))

    def want(self, wanted: bool) -> None:
        """Choose whether `load` loads it."""
        _check(library().bpf_program__set_autoload(self.pointer, wanted))

    def set_kind(self, kind: int, attach_type: int) -> None:
        """Say what the program is (bpf_prog_type, bpf_attach_type) where libbpf does not know its section."""
        _check(library().bpf_program__set_type(self.pointer, kind))
        _check(library().bpf_program__set_expected_attach_type(self.pointer, attach_type))


@dataclass(frozen=True, slots=True)
class RawMap:
    """A map of an opened object.  A data section is a map too, named after it: ``.rodata``."""

    pointer: int
    name: str

    @property
    def fd(self) -> int:
        """The descriptor, owned by the object."""
        return int(library().bpf_map__fd(self.pointer))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Type, key size, value size and entries, as the object declares them."""
        read = library()
        names = ("type", "key_size", "value_size", "max_entries")
        kind, key, value, entries = (int(getattr(read, f"bpf_map__{name}")(self.pointer)) for name in names)
        return kind, key, value, entries

    def initial_value(self) -> memoryview:
        """The contents that a data section will have, writable until the load."""
        size = ctypes.c_size_t()
        start = library().bpf_map__initial_value(self.pointer, ctypes.byref(size))
        if not start:
            raise ValueError(f"map {self.name} has no initial value")
        return memoryview((ctypes.c_char * size.value).from_address(start)).cast("B")

    def forget_pin(self) -> None:
        """Make it anew and pin it nowhere, whatever the object declares (LIBBPF_PIN_BY_NAME)."""
        _check(library().bpf_map__set_pin_path(self.pointer, None))

    def reuse(self, fd: int) -> None:
        """Use an existing map in place of a new one.  libbpf compares nothing: the caller has."""
        _check(library().bpf_map__reuse_fd(self.pointer, fd))


class RawObject:
    """An object as libbpf holds it, from `open_object` to `close`."""

    def __init__(self, pointer: int, elf: bytes, messages: list[str]) -> None:
        self._pointer = pointer
        self._elf = elf  # libbpf reads from these bytes until the load
        self._logs: dict[str, ctypes.Array[ctypes.c_char]] = {}
        self.messages = messages
        self.programs = tuple(self._programs())
        self.maps = tuple(self._maps())

    def _programs(self) -> Iterator[RawProgram]:
        at = None
        while at := library().bpf_object__next_program(self._pointer, at):
            yield RawProgram(at, library().bpf_program__name(at).decode())

    def _maps(self) -> Iterator[RawMap]:
        at = None
        while at := library().bpf_object__next_map(self._pointer, at):
            name = library().bpf_map__name(at).decode()
            # libbpf puts the object's name before a plain section's: "edge.rodata".
            internal = library().bpf_map__is_internal(at)
            yield RawMap(at, name[name.index(".") :] if internal else name)

    def reserve_logs(self, size: int, *, statistics: bool = False) -> None:
        """Give each wanted program `size` bytes for the verifier's log; `statistics` asks for its figures."""
        for program in self.programs:
            if program.is_wanted:
                log = self._logs[program.name] = ctypes.create_string_buffer(size)
                _check(library().bpf_program__set_log_buf(program.pointer, log, size))
                if statistics:
                    _check(library().bpf_program__set_log_level(program.pointer, _LOG_STATISTICS))

    def logs(self) -> dict[str, str]:
        """What the verifier wrote, for the programs it wrote about: those that it refused, or all with `statistics`."""
        texts = {name: log.value.decode("utf-8", "replace") for name, log in self._logs.items()}
        return {name: text for name, text in texts.items() if text}

    def load(self) -> None:
        """Create the maps and load the wanted programs.  Raises OSError; an object loads once."""
        with _collecting(self.messages):
            _check(library().bpf_object__load(self._pointer))

    def close(self) -> None:
        """Release libbpf's memory and descriptors; programs and maps live on in copies of these."""
        pointer, self._pointer = self._pointer, 0
        if pointer:
            library().bpf_object__close(pointer)


@contextmanager
def open_object(elf: bytes, name: str) -> Iterator[RawObject]:
    """Open an object from memory; `name` prefixes the maps of its data sections.

    Raises:
        OSError: not a BPF object.  The errno may be one of libbpf's own, from 4000 up.
        ToolchainError: no libbpf.
    """
    read, messages = library(), list[str]()
    options = _OpenOptions(ctypes.sizeof(_OpenOptions), name.encode())
    with _collecting(messages):
        pointer = read.bpf_object__open_mem(elf, len(elf), ctypes.byref(options))
    if not pointer:
        raise OSError(ctypes.get_errno(), messages[-1] if messages else "not a BPF object")
    opened = RawObject(pointer, elf, messages)
    try:
        yield opened
    finally:
        opened.close()
