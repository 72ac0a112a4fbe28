"""Attach an XDP program to an interface, replace it, take it away.

In: a `Program` and an interface index of the thread's network namespace.  Out:
`Link`, a bpf_link: the kernel object that ties the two.  While a link is open
or pinned nobody can replace the program but through the link, and a replacement
is one step: each packet meets the old program or the new one, never none.

    link = attach_xdp(program, 4, mode="native")
    link.update(better, expected_old=program)

A program of somebody else's is named, never removed: `attached` lists, and
`foreign` takes its place where the user says so.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from penstock.errors import KernelError, NotSupportedError
from penstock.kernel import libc, netlink, syscall
from penstock.kernel.capability import SYS_ADMIN, kernel_error, kernel_errors, missing
from penstock.kernel.libc import bpf
from penstock.kernel.netlink import MODE_FLAGS, NATIVE
from penstock.kernel.program import Program, describe_program
from penstock.kernel.syscall import Command, Descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator

_BPF_XDP = 37  # enum bpf_attach_type
XDP_LINK, TCX_LINK = 6, 11  # enum bpf_link_type
_F_REPLACE = 1 << 2
#: What the kernel answers where another program is in the way.
OCCUPIED = {errno.EBUSY, errno.EEXIST}
# EOPNOTSUPP: the driver has no XDP.  EINVAL, ERANGE: it has, but not with this
# MTU, these offloads or this number of queues (veth, ixgbe, mlx5, virtio_net).
_REFUSED_BY_DRIVER = {errno.EOPNOTSUPP, errno.EINVAL, errno.ERANGE}

_CREATE = struct.Struct("=IIII48x")
_BPF_NETFILTER = 45  # enum bpf_attach_type
_CREATE_NETFILTER = struct.Struct("=IIIIIIiI32x")
_UPDATE = struct.Struct("=IIII")
_INFO = struct.Struct("=IIIxxxxII")


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """`ifindex` is 0 once the interface is gone, and counts in the link's own network namespace.

    `attach_type` tells the TC hooks apart; it is 0 for XDP.
    """

    id: int
    type: int
    program_id: int
    ifindex: int
    attach_type: int = 0


@dataclass(frozen=True, slots=True)
class AttachedProgram:
    """A program found on an interface, whoever put it there.

    `link_id` is None when netlink put it there, and when links may not be listed;
    `priority` is that of a filter on clsact, and `kind` tells of one that is no
    BPF program (`u32`, its `program_id` is 0).
    """

    mode: str
    program_id: int
    link_id: int | None
    priority: int | None = None
    kind: str = "bpf"

    def __str__(self) -> str:
        via = f", by link {self.link_id}" if self.link_id is not None else ""
        via += f", priority {self.priority}" if self.priority is not None else ""
        what = f"program {describe_program(self.program_id)}" if self.program_id else f"a {self.kind} filter"
        return f"{what}, {self.mode} mode{via}"


class Link(Descriptor):
    """An open bpf_link.  Closing the last descriptor of an unpinned link detaches its program."""

    __slots__ = ()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """The link that is pinned at `path`.  Raises KernelError."""
        with kernel_errors("open pinned link", os.fspath(path)):
            return cls(syscall.open_pinned(path, "link"))

    @classmethod
    def by_id(cls, number: int) -> Self:
        """The link with that id.  Raises KernelError; PrivilegeError without CAP_SYS_ADMIN."""
        with kernel_errors("open link", f"id {number}", needs=(SYS_ADMIN,)):
            return cls(syscall.open_by_id(Command.LINK_GET_FD_BY_ID, number))

    @property
    def id(self) -> int:
        """The kernel's number for it."""
        return self.info().id

    def info(self) -> LinkInfo:
        """What the link ties together at this moment.  Raises KernelError."""
        with kernel_errors("describe", "a link"):
            kind, number, program, ifindex, place = _INFO.unpack(syscall.object_info(self.fd, _INFO.size))
        if kind not in (XDP_LINK, TCX_LINK):
            ifindex = 0
        return LinkInfo(number, kind, program, ifindex, place if kind == TCX_LINK and ifindex else 0)

    def update(self, program: Program, expected_old: Program | None = None) -> None:
        """Replace the program in one step; when this returns no packet is in the old one any more.

        (On a kernel with nohz_full CPUs the last is not waited for.)

        Raises:
            KernelError: the link is detached, the program is of another kind,
                or the present program is not `expected_old`; the old one stays.
        """
        old = (_F_REPLACE, expected_old.fd) if expected_old is not None else (0, 0)
        try:
            bpf(Command.LINK_UPDATE, bytearray(_UPDATE.pack(self.fd, program.fd, *old)))
        except OSError as error:
            raise _update_error(program, error.errno or 0, checked=expected_old is not None) from error
        libc.synchronize_rcu()

    def detach(self) -> None:
        """Take the program off the interface now, whoever holds or pins the link.  Raises KernelError."""
        with kernel_errors("detach", "a link"):
            bpf(Command.LINK_DETACH, bytearray(struct.pack("=I", self.fd)))


def attach_xdp(program: Program, ifindex: int, *, mode: str) -> Link:
    """Attach a program in ``native`` or ``generic`` mode; the caller pins the link, or keeps it open.

    Raises:
        NotSupportedError: the driver refuses native mode.  Generic mode may do,
            after saying so: it is several times slower.
        KernelError: errno EBUSY: another program is there, and the message names it.
    """
    attr = bytearray(_CREATE.pack(program.fd, ifindex, _BPF_XDP, MODE_FLAGS[mode]))
    try:
        return Link(bpf(Command.LINK_CREATE, attr))
    except OSError as error:
        raise _attach_error(program, ifindex, mode, error.errno or 0) from error


def attach_netfilter(program: Program, family: int, hook: int, priority: int) -> Link:
    """Attach a netfilter program to a hook (NF_INET_*) of this network namespace; `family` is NFPROTO_*.

    Raises:
        KernelError: Linux is older than 6.4, or that priority is taken.
    """
    attr = bytearray(_CREATE_NETFILTER.pack(program.fd, 0, _BPF_NETFILTER, 0, family, hook, priority, 0))
    with kernel_errors("attach to netfilter", program.name):
        return Link(bpf(Command.LINK_CREATE, attr))


def attached(ifindex: int) -> tuple[AttachedProgram, ...]:
    """The XDP programs on an interface, whoever put them there.  Raises KernelError: no such interface."""
    programs = netlink.interface(ifindex).xdp
    owners = links_of(ifindex) if programs else {}
    first = {program: candidates[0] for program, candidates in owners.items()}
    return tuple(AttachedProgram(found.mode, found.id, first.get(found.id)) for found in programs)


def links() -> Iterator[LinkInfo]:
    """Every bpf_link of the machine.  Raises PrivilegeError without CAP_SYS_ADMIN."""
    with kernel_errors("list", "links", needs=(SYS_ADMIN,)):
        for number in syscall.ids(Command.LINK_GET_NEXT_ID):
            try:
                with Link(syscall.open_by_id(Command.LINK_GET_FD_BY_ID, number)) as link:
                    yield link.info()
            except FileNotFoundError:
                continue


def links_of(ifindex: int) -> dict[int, list[int]]:
    """Ids of the XDP links on an interface index, by program id; none where links may not be listed.

    Interface indices repeat across network namespaces and a link does not tell its own.
    """
    owners: dict[int, list[int]] = {}
    if not missing(SYS_ADMIN):
        for link in links():
            if link.type == XDP_LINK and link.ifindex == ifindex:
                owners.setdefault(link.program_id, []).append(link.id)
    return owners


def _attach_error(program: Program, ifindex: int, mode: str, code: int) -> KernelError:
    place = interface_name(ifindex)
    if code in OCCUPIED:
        present = "; ".join(str(found) for found in attached(ifindex)) or "one that has just come"
        meaning, hint = f"another XDP program is there: {present}", "--replace takes over"
        return KernelError("attach to", place, errno.EBUSY, meaning=meaning, hint=hint)
    if mode == NATIVE and code in _REFUSED_BY_DRIVER:
        feature = f"native XDP on {place} (its driver, with its present MTU, queues and offloads)"
        return NotSupportedError(feature, wanted_for=f"program {program.name}", errno=code)
    return kernel_error(f"attach program {program.name} ({mode} mode) to", place, code)


def interface_name(ifindex: int) -> str:
    """What errors call an interface that may be gone."""
    try:
        return netlink.interface(ifindex).name
    except KernelError:
        return f"interface {ifindex}"


def _update_error(program: Program, code: int, *, checked: bool) -> KernelError:
    # With BPF_F_REPLACE the kernel's answer to "another program is there" is
    # EPERM, which is no matter of privilege: the link is already ours.
    if checked and code == errno.EPERM:
        meaning = "the link runs another program than the one expected: somebody else has replaced it"
        return KernelError("replace by", program.name, errno.EBUSY, meaning=meaning)
    if code == errno.ENOLINK:
        meaning = "the link is detached: its interface is gone, or it was taken off"
        return KernelError("replace by", program.name, code, meaning=meaning)
    return kernel_error("replace by", program.name, code)
