"""The few calls of libc that Python does not offer, bound with ctypes and typed.

In: integers, paths and bytearrays whose layout the caller has packed.  Out: the
call's result; every failure is an OSError that carries the kernel's errno.
What a command means, and what its errno means, is the business of the modules
above; only this one and `libbpf` import ctypes.

>>> filesystem_magic("/proc") == 0x9FA0
True
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache
from typing import TYPE_CHECKING

from penstock.errors import NotSupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BPF_FS_MAGIC = 0xCAFE4A11  # <linux/magic.h>
CLONE_NEWNET = 0x40000000
CLONE_NEWNS = 0x00020000

_TEST_RUN = 10
_MEMBARRIER_GLOBAL, _MEMBARRIER_GLOBAL_EXPEDITED = 1, 2
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_MS_PRIVATE_TREE = 1 << 14 | 1 << 18  # MS_REC | MS_PRIVATE
_MNT_DETACH = 2
_STATFS_SIZE = 256
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _SIGTERM = 1, 38, 15
_CAPABILITY_VERSION_3 = 0x20080522

# (bpf, membarrier): x86-64 and 32-bit tables differ, newer ports share asm-generic's.
_GENERIC = (280, 283)
_CALL_NUMBERS = {
    "x86_64": (321, 324),
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
    "loongarch64": _GENERIC,
    "ppc64le": (361, 365),
    "s390x": (351, 356),
}

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


@cache
def _call_number(index: int) -> int:
    machine = os.uname().machine
    if machine not in _CALL_NUMBERS:
        raise NotSupportedError(f"the {machine} processor", wanted_for="bpf(2)")
    return _CALL_NUMBERS[machine][index]


def _last_error(subject: str | None = None) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), subject)


def address_of(buffer: bytearray | memoryview) -> int:
    """The address of a writable buffer; the caller keeps the buffer alive and unresized while it is used."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer)) if len(buffer) else 0


def bpf(command: int, attr: bytearray) -> int:
    """Run one command of bpf(2); `attr` is read and, where the command says so, written.

    Raises:
        OSError: with the kernel's errno.  An interrupted call is repeated, but
            not a test run: its program has already run some of its rounds.
    """
    pointer = ctypes.byref(ctypes.c_char.from_buffer(attr))
    number, size = ctypes.c_long(_call_number(0)), ctypes.c_uint(len(attr))
    while True:
        result: int = _syscall(number, ctypes.c_int(command), pointer, size)
        if result >= 0:
            return result
        if ctypes.get_errno() != errno.EINTR or command == _TEST_RUN:
            # Not by a name: an error that its own frame holds keeps all frames above alive, and the memory
            # of maps that they hold, until the next collection.
            raise _last_error()


def bpf_each(command: int, attr: bytearray, turns: Iterable[object]) -> Iterator[int]:
    """Run one command of bpf(2) at each turn, which changes what `attr` points to; each call's errno, or 0."""
    pointer, change = ctypes.byref(ctypes.c_char.from_buffer(attr)), ctypes.c_int(command)
    number, size = ctypes.c_long(_call_number(0)), ctypes.c_uint(len(attr))
    for _ in turns:
        while _syscall(number, change, pointer, size) < 0:
            if (code := ctypes.get_errno()) != errno.EINTR:
                yield code
                break
        else:
            yield 0


def setns(fd: int, kind: int = CLONE_NEWNET) -> None:
    """Move the calling thread, and only it, into the namespace that `fd` names."""
    if _libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)) != 0:
        raise _last_error()


def unshare(kind: int = CLONE_NEWNET) -> None:
    """Move the calling thread, and only it, into a new namespace."""
    if _libc.unshare(ctypes.c_int(kind)) != 0:
        raise _last_error()


def synchronize_rcu() -> bool:
    """Wait until every BPF program that was running when this was called has returned.

    False when the kernel cannot promise that: with nohz_full CPUs membarrier(2)
    refuses MEMBARRIER_CMD_GLOBAL, and a container may forbid the call.
    """
    return _membarrier(_MEMBARRIER_GLOBAL)


def memory_barrier() -> None:
    """Make what this process has stored seen before what it stores from here on.

    (membarrier(2) begins each of its commands with a full barrier; a kernel that
    does not know this one, before Linux 4.16, passes barriers on its way.)
    """
    _membarrier(_MEMBARRIER_GLOBAL_EXPEDITED)


def _membarrier(command: int) -> bool:
    number = ctypes.c_long(_call_number(1))
    result: int = _syscall(number, ctypes.c_int(command), ctypes.c_uint(0), ctypes.c_int(0))
    return result == 0


def filesystem_magic(path: str | os.PathLike[str]) -> int:
    """The type of the file system that holds `path`, as statfs(2) numbers it."""
    buffer = ctypes.create_string_buffer(_STATFS_SIZE)
    if _libc.statfs(os.fsencode(path), buffer) != 0:
        raise _last_error(os.fspath(path))
    # f_type comes first; s390x alone makes it an int, and there the rest of the word would be another field.
    word = ctypes.c_uint if os.uname().machine == "s390x" else ctypes.c_ulong
    return int(word.from_buffer(buffer).value) & 0xFFFFFFFF


def exchange(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> None:
    """Swap the names of two files or directories in one step (renameat2, RENAME_EXCHANGE)."""
    names = os.fsencode(first), os.fsencode(second)
    if _libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_RENAME_EXCHANGE)) != 0:
        raise _last_error(os.fspath(second))


def mount_private_bpffs(place: str) -> None:
    """Mount a BPF file system where no other mount namespace sees it; the calling thread must have one of its own."""
    # What is mounted in a new namespace would be passed on to its origin where the mounts are shared.
    for source, target, kind, flags in (
        (b"none", b"/", None, _MS_PRIVATE_TREE),
        (b"bpf", os.fsencode(place), b"bpf", 0),
    ):
        if _libc.mount(source, target, kind, ctypes.c_ulong(flags), None) != 0:
            raise _last_error(place)


def unmount(place: str) -> None:
    """Take away what is mounted at `place`, at once."""
    if _libc.umount2(os.fsencode(place), _MNT_DETACH) != 0:
        raise _last_error(place)


def give_up_capabilities() -> None:
    """Leave the calling thread, and whatever it starts, without any capability; there is no way back.

    Call it before there are other threads.  A user id of 0 gives none back at execve(2): see `no_new_privs`.
    """
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))) != 0:
        raise _last_error()
    if _libc.capset(header, nothing) != 0:
        raise _last_error()


def end_with_parent() -> None:
    """Have this process end by SIGTERM when the thread that started it does, however that ends (prctl(2))."""
    if _libc.prctl(_PR_SET_PDEATHSIG, *map(ctypes.c_ulong, (_SIGTERM, 0, 0, 0))) != 0:
        raise _last_error()
