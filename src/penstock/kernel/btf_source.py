"""Where BTF comes from: the running kernel, its modules, loaded objects, object files.

kernel_btf()             ->  Btf of the running kernel
btf_by_id(12)            ->  Btf of a loaded object, as a map's `info.btf_id` names it
btf_of_object(elf)       ->  Btf of an object file
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import BtfError, NotSupportedError
from penstock.kernel import syscall
from penstock.kernel.btf import Btf
from penstock.kernel.capability import SYS_ADMIN, kernel_error, kernel_errors
from penstock.kernel.elf import sections
from penstock.kernel.libc import address_of
from penstock.kernel.syscall import Command, Descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator

KERNEL = "vmlinux"
_FOLDER = Path("/sys/kernel/btf")
_INFO = struct.Struct("=QIIQII")  # struct bpf_btf_info
_NAME_SIZE = 128


@dataclass(frozen=True, slots=True)
class BtfInfo:
    """What the kernel tells of a BTF it holds; `name` is `vmlinux`, a module's, or empty."""

    id: int
    size: int
    name: str
    is_kernel: bool


@cache
def kernel_btf(name: str = KERNEL) -> Btf:
    """The types of the running kernel, or of its module `name` on top of these.

    Raises:
        KernelError: this kernel has none, or no such module is loaded.
    """
    try:
        data = (_FOLDER / name).read_bytes()
    except FileNotFoundError as error:
        if name != KERNEL:
            raise kernel_error(
                "read BTF of module", name, errno.ENOENT, hint="lsmod lists the modules"
            ) from error
        wanted = "the types of the running kernel; it is built with CONFIG_DEBUG_INFO_BTF"
        raise NotSupportedError("/sys/kernel/btf/vmlinux", wanted_for=wanted, least_kernel="5.4") from error
    except OSError as error:
        raise kernel_error("read", str(_FOLDER / name), error.errno or 0) from error
    return Btf(data, None if name == KERNEL else kernel_btf(), source=name)


def is_kernel_btf(name: str) -> bool:
    """Whether /sys/kernel/btf has that name: `vmlinux`, or a module's."""
    return "/" not in name and name not in {"", ".", ".."} and (_FOLDER / name).exists()


def btf_of_object(elf: bytes, *, source: str = "object") -> Btf:
    """The types of an object file.

    Raises:
        BtfError: it has none (it was compiled without -g), or is no object file.
    """
    try:
        found = next((section.data for section in sections(elf) if section.name == ".BTF"), None)
    except ValueError as error:
        raise BtfError(f"{source}: {error}") from error
    if found is None:
        raise BtfError(f"{source}: it has no BTF", hint="compile it with `clang -g -target bpf`")
    return Btf(found, source=source)


def btf_by_id(number: int) -> Btf:
    """The BTF that the kernel holds under an id.  Raises KernelError, BtfError."""
    with _opened(number) as held:
        info = _describe(held.fd)
        if info.is_kernel and info.name == KERNEL:
            return kernel_btf()
        data = bytearray(info.size)
        with kernel_errors("read BTF", f"id {number}"):
            _ask(held.fd, data, bytearray())
    return Btf(bytes(data), kernel_btf() if info.is_kernel else None, source=f"BTF id {number}")


def btf_infos() -> Iterator[BtfInfo]:
    """Every BTF that the kernel holds, by id.  Raises KernelError."""
    with kernel_errors("list", "BTF", needs=(SYS_ADMIN,)):
        for number in syscall.ids(Command.BTF_GET_NEXT_ID):
            try:
                with Descriptor(syscall.open_by_id(Command.BTF_GET_FD_BY_ID, number)) as held:
                    yield _describe(held.fd)
            except FileNotFoundError:
                continue  # it went meanwhile


def _opened(number: int) -> Descriptor:
    with kernel_errors("open BTF", f"id {number}", needs=(SYS_ADMIN,), absent="there is none"):
        return Descriptor(syscall.open_by_id(Command.BTF_GET_FD_BY_ID, number))


def _describe(fd: int) -> BtfInfo:
    name = bytearray(_NAME_SIZE)
    with kernel_errors("describe", "a BTF"):
        _, size, number, _, _, is_kernel = _INFO.unpack(_ask(fd, bytearray(), name))
    return BtfInfo(number, size, name.partition(b"\0")[0].decode("utf-8", "replace"), bool(is_kernel))


def _ask(fd: int, data: bytearray, name: bytearray) -> bytes:
    info = bytearray(_INFO.pack(address_of(data), len(data), 0, address_of(name), len(name), 0))
    syscall.fill_object_info(fd, info)
    return bytes(info)
