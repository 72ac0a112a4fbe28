"""Filters on sockets: attach a classic program or a loaded one, replace it, take it off, empty the queue.

In: a socket and a program.  Out: nothing; the socket's packets are the
program's to keep or to hide from then on, and of this socket alone.  Attaching
over a filter replaces it in one step, for every packet.

    with only_new(sock):
        attach_classic(sock, instructions)
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from penstock.errors import KernelError
from penstock.kernel.capability import kernel_error
from penstock.kernel.libc import address_of
from penstock.model.classic import RET, Instruction

if TYPE_CHECKING:
    from penstock.kernel.program import Program

# <asm-generic/socket.h>
SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_ATTACH_BPF = 26, 27, 50
_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter
_PROGRAM = struct.Struct("@HP")  # struct sock_fprog
#: What recv(2) tells of a socket once, before it goes on with the queue.
_PENDING = (errno.ENETDOWN, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EMSGSIZE)
_NOTHING = (Instruction(RET, 0, 0, 0),)


def packed(instructions: Sequence[Instruction]) -> bytearray:
    """The instructions as an array of struct sock_filter."""
    return bytearray().join(_INSTRUCTION.pack(one.code, one.jt, one.jf, one.k) for one in instructions)


def attach_classic(sock: socket.socket, instructions: Sequence[Instruction]) -> None:
    """Filter the socket's packets by a classic program; needs no privilege.

    Raises:
        KernelError: the kernel refuses the program, or the filter is locked (SO_LOCK_FILTER).
    """
    array = packed(instructions)
    _set(
        sock,
        SO_ATTACH_FILTER,
        _PROGRAM.pack(len(instructions), address_of(array)),
        "attach a classic filter to",
    )


def attach_program(sock: socket.socket, program: Program) -> None:
    """Filter the socket's packets by a loaded program; the socket keeps it in the kernel.

    Raises:
        KernelError: it is no socket filter, or the filter is locked (SO_LOCK_FILTER).
    """
    _set(sock, SO_ATTACH_BPF, struct.pack("=i", program.fd), "attach a filter to")


def detach(sock: socket.socket) -> None:
    """Take the socket's filter off, whatever it is; a socket without one is left as it is.

    Raises:
        KernelError: the filter is locked (SO_LOCK_FILTER).
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise _refused(error, "take the filter off", sock) from error


@contextmanager
def only_new(sock: socket.socket) -> Iterator[None]:
    """Let nothing in and empty the queue, then run the block, which attaches: what is read later was filtered.

    Packets that arrive in between are lost, as they are when libpcap sets a filter.
    If the block fails the socket has no filter.
    """
    attach_classic(sock, _NOTHING)
    try:
        _drain(sock)
        yield
    except BaseException:
        detach(sock)
        raise


def _drain(sock: socket.socket) -> None:
    # A socket with a timeout waits, whatever recv(2) is told.
    patience = sock.gettimeout()
    sock.setblocking(False)
    try:
        while _took_one(sock):
            pass
    finally:
        sock.settimeout(patience)


def _took_one(sock: socket.socket) -> bool:
    """Whether there was something in the queue, or an error pending, which is told once."""
    try:
        sock.recv(1, socket.MSG_TRUNC)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _PENDING:
            raise _refused(error, "read from", sock) from error
    return True


def _set(sock: socket.socket, option: int, value: bytes, operation: str) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, option, value)
    except OSError as error:
        raise _refused(error, operation, sock) from error


def _refused(error: OSError, operation: str, sock: socket.socket) -> KernelError:
    meaning = {
        errno.EPERM: "its filter is locked (SO_LOCK_FILTER)",
        errno.EINVAL: "the kernel refuses the program",
        errno.ENOMEM: "the program is larger than the socket's memory allows (sysctl net.core.optmem_max)",
        errno.ENOENT: "it has none",
        errno.EBADF: "it is closed",
    }
    code = error.errno or 0
    return kernel_error(operation, describe(sock), code, needs=(), meaning=meaning.get(code))


def describe(sock: socket.socket) -> str:
    """A socket as users know it: its kind and its descriptor."""
    kinds = {socket.SOCK_STREAM: "stream", socket.SOCK_DGRAM: "datagram", socket.SOCK_RAW: "raw"}
    family = (
        socket.AddressFamily(sock.family).name if sock.family in socket.AddressFamily else str(sock.family)
    )
    return f"the {family.removeprefix('AF_').lower()} {kinds.get(sock.type, str(sock.type))} socket {sock.fileno()}"
