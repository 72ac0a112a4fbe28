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
from penstock.kernel.attached import programs_at
from penstock.kernel.blob import read_blob
from penstock.kernel.capability import BPF, NET_ADMIN, SYS_ADMIN, kernel_errors, missing
from penstock.kernel.link import links
from penstock.kernel.netlink import interfaces
from penstock.kernel.program import Program, ProgramInfo
from penstock.kernel.syscall import Command
from penstock.model.hook import Hook
from penstock.pipeline import program_slot
from penstock.pipeline.identity import decode
from penstock.pipeline.program_slot import ProgramIdentity
from penstock.pipeline.slot import IDENTITY, PROGRAM_PIN

# enum bpf_link_type of <linux/bpf.h>
_LINK_WORDS = {
    6: "xdp",
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
_INTERFACE_LINKS = (6, 11, 13)


@dataclass(frozen=True, slots=True)
class Listed:
    """`owner` says who loaded it, as far as penstock knows: a policy, or the file that the user loaded."""

    info: ProgramInfo
    places: tuple[str, ...]
    owner: str


def listing() -> list[Listed]:
    """Every program that the kernel holds, by id; without CAP_SYS_ADMIN those that penstock has pinned.

    Raises:
        KernelError: they may not be read.
    """
    found = list(_pinned() if missing(SYS_ADMIN) and not missing(BPF, NET_ADMIN) else _programs())
    places, owners = _places(), _owners()
    return [Listed(info, tuple(places.get(info.id, ())), owners.get(info.id, "")) for info in found]


def listed(number: int) -> Listed:
    """One of them.  Raises KernelError: there is no such program."""
    with Program.by_id(number) as program:
        return Listed(program.info, tuple(_places().get(number, ())), _owners().get(number, ""))


def _pinned() -> Iterator[ProgramInfo]:
    root = pin.pin_root()
    policies = [root / name / PROGRAM_PIN for name in pin.attach_points(root)]
    others = root.with_name(root.name + "-programs").glob("*/program*")
    for path in (*policies, *others):
        # A pin may go while it is looked at, and may be no program's.
        with suppress(KernelError), Program.open(path) as program:
            yield program.info


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
        for hook in (Hook.TC_INGRESS, Hook.TC_EGRESS):
            for running in programs_at(one.index, hook):
                found.setdefault(running.program_id, []).append(f"{one.name} {hook.value} {running.mode}")
    if not missing(SYS_ADMIN):
        _add_links(found)
    return found


def _add_links(found: dict[int, list[str]]) -> None:
    """What is held by links elsewhere: in other network namespaces, and at other kinds of places."""
    here = set(found)
    kept = {one.program: one for one in program_slot.kept() if one.interface}
    for link in links():
        if link.program_id in here:
            continue
        if link.type in _INTERFACE_LINKS and not link.ifindex:
            word = "nowhere: its interface is gone"
        elif link.program_id in kept:
            word = _elsewhere(kept[link.program_id])
        else:
            word = f"{_LINK_WORDS.get(link.type, f'type {link.type}')} link {link.id}"
        found.setdefault(link.program_id, []).append(word)
    for number, identity in kept.items():  # Filters on clsact have no link.
        if identity.filter_name and number not in here and identity.netns != _here():
            found.setdefault(number, []).append(_elsewhere(identity))


def _here() -> int | None:
    return None if netns.is_initial() else netns.inode()


def _elsewhere(identity: ProgramIdentity) -> str:
    where = "" if identity.netns == _here() else f" in netns {identity.netns or 'init'}"
    return f"{identity.interface} {identity.hook} {identity.mode}{where}"


def _owners() -> dict[int, str]:
    found = {number: one.path for one in program_slot.kept() for number in (one.program, *one.beside)}
    root = pin.pin_root()
    with suppress(KernelError, OSError):
        for name in pin.attach_points(root):
            with suppress(KernelError, OSError):
                identity = decode(read_blob(root / name / IDENTITY), name)
                found[identity.program] = f"policy {identity.name}"
    return found
