"""The bpf(2) commands that penstock uses, one function each.

In: file descriptors, ids and paths.  Out: what the command gives.  Layouts are
those of `union bpf_attr` in <linux/bpf.h>; every failure is an OSError, because
only the caller knows what the object means to the user.

    fd = open_pinned("/sys/fs/bpf/penstock/eth0/link", "link")
    info = object_info(fd, 40)
"""

from __future__ import annotations

import errno
import os
import struct
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.kernel.libc import address_of, bpf
from penstock.model.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Iterator

#: <linux/errno.h>: the kernel's own, which it lets out here and there.
ENOTSUPP = 524


class Command(IntEnum):
    """enum bpf_cmd."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_ATTACH = 8
    PROG_TEST_RUN = 10
    PROG_GET_NEXT_ID = 11
    MAP_GET_NEXT_ID = 12
    PROG_GET_FD_BY_ID = 13
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    PROG_QUERY = 16
    BTF_LOAD = 18
    BTF_GET_FD_BY_ID = 19
    MAP_LOOKUP_AND_DELETE_ELEM = 21
    MAP_FREEZE = 22
    BTF_GET_NEXT_ID = 23
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_GET_FD_BY_ID = 30
    LINK_GET_NEXT_ID = 31
    LINK_DETACH = 34
    TOKEN_CREATE = 36


_OBJ = struct.Struct("=QII")
_INFO = struct.Struct("=IIQ")
_ID = struct.Struct("=III")
_NAME_LENGTH = 16


class Descriptor(Closing):
    """A file descriptor that is closed once: by `close`, at the end of a `with`, or when dropped."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def fd(self) -> int:
        """The open descriptor.  Raises ValueError after `close`."""
        if self._fd < 0:
            raise ValueError(f"this {type(self).__name__} is closed")
        return self._fd

    @property
    def is_open(self) -> bool:
        """Whether it was not closed."""
        return self._fd >= 0

    def close(self) -> None:
        """Give the descriptor back; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


def object_info(fd: int, size: int) -> bytes:
    """The first `size` bytes of the bpf_*_info of a map, program or link.

    Fields that the kernel is too old to know are zero.
    """
    info = bytearray(size)
    fill_object_info(fd, info)
    return bytes(info)


def fill_object_info(fd: int, info: bytearray) -> None:
    """The same, for arrays that the info points to: `info` says where there is room for them, and how much."""
    bpf(Command.OBJ_GET_INFO_BY_FD, bytearray(_INFO.pack(fd, len(info), address_of(info))))


def pin(fd: int, path: str | os.PathLike[str]) -> None:
    """Give the object a name in a BPF file system; it lives until the last name and descriptor are gone."""
    name = bytearray(os.fsencode(path) + b"\0")
    bpf(Command.OBJ_PIN, bytearray(_OBJ.pack(address_of(name), fd, 0)))


def open_pinned(path: str | os.PathLike[str], kind: str | None) -> int:
    """A new descriptor of a pinned object that is a `kind`: ``map``, ``prog`` or ``link``; None: whatever it is."""
    name = bytearray(os.fsencode(path) + b"\0")
    fd = bpf(Command.OBJ_GET, bytearray(_OBJ.pack(address_of(name), 0, 0)))
    found = _kind_of(fd)
    if kind is not None and found != kind:
        os.close(fd)
        raise OSError(errno.EINVAL, f"it is a {found}, not a {kind}", os.fspath(path))
    return fd


def open_by_id(command: Command, number: int) -> int:
    """A new descriptor of the object with an id; `command` is one of the ``*_GET_FD_BY_ID``."""
    return bpf(command, bytearray(_ID.pack(number, 0, 0)))


def ids(command: Command) -> Iterator[int]:
    """Every id of a kind, ascending; `command` is one of the ``*_GET_NEXT_ID``."""
    attr = bytearray(_ID.size)
    while True:
        try:
            bpf(command, attr)
        except FileNotFoundError:
            return
        _, number, _ = _ID.unpack(attr)
        yield number
        _ID.pack_into(attr, 0, number, 0, 0)


def _kind_of(fd: int) -> str:
    target = str(Path(f"/proc/self/fd/{fd}").readlink())
    return target.removeprefix("anon_inode:").removeprefix("bpf").lstrip("-_")


def object_name(field: bytes) -> str:
    """A name as the kernel keeps it: at most 15 bytes, zero padded."""
    return field[:_NAME_LENGTH].split(b"\0", 1)[0].decode("ascii", "replace")
