"""TC programs by tcx links: attach at a place among others, and see who is there.

In: a `Program` of type SCHED_CLS, an interface index of the thread's network
namespace and a TC hook.  Out: a `Link` as for XDP: pinned it outlives its
maker, `Link.update` replaces the program in one step, and nobody else can take
it away.  tcx is in Linux 6.6 and newer; `has_tcx` asks the kernel.

    link = attach_tcx(program, 4, Hook.TC_INGRESS, Order("before", 42))
    query(4, Hook.TC_INGRESS).programs    ->  (TcxProgram(id=57, link_id=9), TcxProgram(42, None))

Layouts: BPF_LINK_CREATE and BPF_PROG_QUERY in `union bpf_attr` of <linux/bpf.h>.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from penstock.errors import KernelError, NotSupportedError
from penstock.kernel.capability import NET_ADMIN, kernel_error
from penstock.kernel.libc import address_of, bpf
from penstock.kernel.link import Link, interface_name
from penstock.kernel.order import LAST, Order
from penstock.kernel.program import Program
from penstock.kernel.syscall import Command
from penstock.model.hook import Hook

#: enum bpf_attach_type
ATTACH_TYPES = {Hook.TC_INGRESS: 46, Hook.TC_EGRESS: 47}
_MOST = 64  # BPF_MPROG_MAX: programs on one hook
_BEFORE, _AFTER, _RELATIVE_BY_ID = 1 << 3, 1 << 4, 1 << 5
_FLAGS = {
    "first": _BEFORE,
    "last": _AFTER,
    "before": _BEFORE | _RELATIVE_BY_ID,
    "after": _AFTER | _RELATIVE_BY_ID,
}
_CREATE = struct.Struct("=IIIIIxxxxQ")
# target, type, query and attach flags, program ids, count, their flags, link ids, their flags, revision
_QUERY = struct.Struct("=IIIIQIxxxxQQQQ")
_COUNT_AT, _REVISION_AT = 24, 56


@dataclass(frozen=True, slots=True)
class TcxProgram:
    """A program on a TC hook; `link_id` is None for one that was attached without a link."""

    id: int
    link_id: int | None


@dataclass(frozen=True, slots=True)
class Tcx:
    """The tcx programs of a hook in the order in which they run; every change makes `revision` another one."""

    revision: int
    programs: tuple[TcxProgram, ...]


def has_tcx(ifindex: int) -> bool:
    """Whether this kernel has tcx, found by asking it who is on an interface.

    Raises:
        KernelError: there is no such interface; PrivilegeError without CAP_NET_ADMIN.
    """
    try:
        query(ifindex, Hook.TC_INGRESS)
    except NotSupportedError:
        return False
    return True


def query(ifindex: int, hook: Hook) -> Tcx:
    """Who is on a TC hook by tcx, with or without a link.

    Raises:
        NotSupportedError: Linux is older than 6.6.
        KernelError: there is no such interface; PrivilegeError without CAP_NET_ADMIN.
    """
    programs, links = bytearray(4 * _MOST), bytearray(4 * _MOST)
    addresses = address_of(programs), address_of(links)
    attr = bytearray(
        _QUERY.pack(ifindex, ATTACH_TYPES[hook], 0, 0, addresses[0], _MOST, 0, addresses[1], 0, 0)
    )
    try:
        bpf(Command.PROG_QUERY, attr)
    except FileNotFoundError:  # Nothing has ever been attached there.
        return Tcx(0, ())
    except OSError as error:
        raise _query_error(ifindex, hook, error.errno or 0) from error
    (count,) = struct.unpack_from("=I", attr, _COUNT_AT)
    (revision,) = struct.unpack_from("=Q", attr, _REVISION_AT)
    ids, owners = (struct.unpack_from(f"={count}I", found) for found in (programs, links))
    return Tcx(
        revision, tuple(TcxProgram(one, owner or None) for one, owner in zip(ids, owners, strict=True))
    )


def attach_tcx(program: Program, ifindex: int, hook: Hook, order: Order = LAST, *, revision: int = 0) -> Link:
    """Attach a program at its place among others; the caller pins the link, or keeps it open.

    With `revision`, that of `query`, nothing may have changed since.

    Raises:
        NotSupportedError: Linux is older than 6.6.
        KernelError: the program that it is to stand beside is not there, somebody was
            quicker (errno ESTALE), or the hook is full.
    """
    if order.word == "priority":
        raise KernelError(
            "attach to",
            interface_name(ifindex),
            errno.EINVAL,
            meaning="programs attached by tcx have no priority",
            hint="--order first, last, before:ID or after:ID; or --mode clsact",
        )
    attr = _CREATE.pack(program.fd, ifindex, ATTACH_TYPES[hook], _FLAGS[order.word], order.number, revision)
    try:
        return Link(bpf(Command.LINK_CREATE, bytearray(attr)))
    except OSError as error:
        raise _attach_error(program, ifindex, hook, order, error.errno or 0) from error


def _query_error(ifindex: int, hook: Hook, code: int) -> KernelError:
    if code == errno.EINVAL:
        return NotSupportedError("tcx links", wanted_for=hook.value, least_kernel="6.6", errno=code)
    needs = (NET_ADMIN,)
    return kernel_error(f"list the programs at {hook.value} of", interface_name(ifindex), code, needs=needs)


def _attach_error(program: Program, ifindex: int, hook: Hook, order: Order, code: int) -> KernelError:
    operation, place = f"attach program {program.name} at {hook.value} of", interface_name(ifindex)
    if code == errno.EINVAL and not has_tcx(ifindex):
        return NotSupportedError("tcx links", wanted_for=hook.value, least_kernel="6.6", errno=code)
    meanings = {
        errno.ENOENT: f"there is no program {order.number} on this hook",
        errno.ESTALE: "its programs have changed meanwhile",
        errno.ERANGE: f"{_MOST} programs are there already",
    }
    hint = "`penstock program list` tells where programs are attached" if code == errno.ENOENT else None
    return kernel_error(operation, place, code, meaning=meanings.get(code), hint=hint)
