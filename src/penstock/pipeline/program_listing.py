"""Every program in the kernel: what it is, where it is attached, who put it there.

In: the kernel's lists of programs, links and interfaces.  Out: `Listed`, one a
program; what belongs to penstock, a policy or a program of its user's, by name.

    listing()        ->  [Listed(info=ProgramInfo(id=42, …), places=("eth0 xdp native",), owner="filter.c"), …]
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from penstock.errors import KernelError
from penstock.kernel import netns, pin, syscall
from penstock.kernel.blob import read_blob
from penstock.kernel.capability import SYS_ADMIN, kernel_errors
from penstock.kernel.link import links
from penstock.kernel.netlink import interfaces
from penstock.kernel.program import Program, ProgramInfo
from penstock.kernel.syscall import Command
from penstock.pipeline import program_slot
from penstock.pipeline.identity import decode
from penstock.pipeline.program_slot import ProgramIdentity
from penstock.pipeline.slot import IDENTITY

# enum bpf_link_type of <linux/bpf.h>
_LINK_WORDS = {
    1: "raw tracepoint",
    2: "tracing",
    3: "cgroup",
    4: "iterator",
    5: "netns",
    7: "perf event",
    8: "kprobes",
    9: "struct_ops",
    10: "netfilter",
    11: "tcx",
    12: "uprobes",
    13: "netkit",
    14: "sockmap",
}


@dataclass(frozen=True, slots=True)
class Listed:
    """`owner` says who loaded it, as far as penstock knows: a policy, or the file that the user loaded."""

    info: ProgramInfo
    places: tuple[str, ...]
    owner: str


def listing() -> list[Listed]:
    """Every program that the kernel holds, by id.

    Raises:
        PrivilegeError: without CAP_SYS_ADMIN the kernel does not say.
    """
    places, owners = _places(), _owners()
    return [Listed(info, tuple(places.get(info.id, ())), owners.get(info.id, "")) for info in _programs()]


def listed(number: int) -> Listed:
    """One of them.  Raises KernelError: there is no such program."""
    with Program.by_id(number) as program:
        return Listed(program.info, tuple(_places().get(number, ())), _owners().get(number, ""))


def _programs() -> Iterator[ProgramInfo]:
    with kernel_errors("list", "programs", needs=(SYS_ADMIN,)):
        numbers = list(syscall.ids(Command.PROG_GET_NEXT_ID))
    for number in numbers:
        try:
            with Program.by_id(number) as program:
                yield program.info
        except KernelError as error:
            if error.errno != errno.ENOENT:  # It has gone since the ids were listed.
                raise


def _places() -> dict[int, list[str]]:
    """Where programs are attached, by their ids: on the interfaces here, and by links wherever these are."""
    found: dict[int, list[str]] = {}
    for one in interfaces():
        for present in one.xdp:
            found.setdefault(present.id, []).append(f"{one.name} xdp {present.mode}")
    kept = {one.program: one for one in program_slot.kept() if one.interface}
    for number, identity in kept.items():
        if not any(place.startswith(identity.interface) for place in found.get(number, [])):
            found.setdefault(number, []).append(_elsewhere(identity))
    for link in links():
        if link.type in _LINK_WORDS and link.program_id not in kept:
            found.setdefault(link.program_id, []).append(f"{_LINK_WORDS[link.type]} link {link.id}")
    return found


def _elsewhere(identity: ProgramIdentity) -> str:
    here = None if netns.is_initial() else netns.inode()
    where = "" if identity.netns == here else f" in netns {identity.netns or 'init'}"
    return f"{identity.interface} {identity.hook} {identity.mode}{where}"


def _owners() -> dict[int, str]:
    found = {one.program: one.path for one in program_slot.kept()}
    root = pin.pin_root()
    with suppress(KernelError, OSError):
        for name in pin.attach_points(root):
            with suppress(KernelError, OSError):
                identity = decode(read_blob(root / name / IDENTITY), name)
                found[identity.program] = f"policy {identity.name}"
    return found
