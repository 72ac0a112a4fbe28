"""Look at a machine and an interface, and gather what `findings` judges.  Nothing is changed.

of_machine(examine_machine())            ->  findings
of_device(examine_device("eth0"))        ->  findings, those of the interface
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import KernelError, ToolchainError
from penstock.kernel import clsact, device, libbpf, netlink, netns, tcx
from penstock.kernel.capability import BPF, NET_ADMIN, PERFMON, SYS_ADMIN, missing
from penstock.kernel.features import features, is_bpffs
from penstock.kernel.link import Link, attached
from penstock.kernel.pin import pin_root
from penstock.kernel.probe.tries import tries
from penstock.kernel.program import Program, describe_program
from penstock.model.hook import Hook
from penstock.pipeline import program_slot
from penstock.pipeline.findings import Device, Machine, OnHook

if TYPE_CHECKING:
    from collections.abc import Iterator

_SETTINGS = Path("/proc/sys")
_TC_HOOKS = (Hook.TC_INGRESS, Hook.TC_EGRESS)


def examine_machine() -> Machine:
    """What penstock needs of the machine, whatever the interface."""
    asked, root = tries(), _existing(pin_root())
    clang, clang_trouble = _clang()
    library, library_trouble = _libbpf()
    return Machine(
        kernel=os.uname().release,
        missing=missing(BPF, NET_ADMIN),
        bpf_permitted=features().bpf_permitted,
        kernel_btf=features().btf,
        links=features().xdp_link,
        tcx=asked["tcx"]().has,
        memcg=asked["memcg_accounting"]().has,
        memlock_bytes=_memlock(),
        bpffs=is_bpffs(root),
        bpffs_path=str(root),
        bpffs_writable=not os.statvfs(root).f_flag & os.ST_RDONLY,
        bpffs_hidden_by=netns.hiding(),
        jit=_setting("net/core/bpf_jit_enable"),
        jit_harden=_setting("net/core/bpf_jit_harden"),
        unprivileged_disabled=_setting("kernel/unprivileged_bpf_disabled"),
        clang=clang,
        clang_trouble=clang_trouble,
        libbpf=library,
        libbpf_trouble=library_trouble,
        lacks=missing(PERFMON, SYS_ADMIN),
    )


def examine_device(ifname: str) -> Device:
    """What a policy would meet on an interface of this network namespace.

    Raises:
        KernelError: there is no such interface.
    """
    found = netlink.interface(ifname)
    return Device(
        name=found.name,
        driver=device.driver(found.name),
        mtu=found.mtu,
        xdp=device.xdp_features(found.index),
        xdp_mode=found.xdp[0].mode if found.xdp else None,
        offloads=device.offloads(found.name),
        channels=device.channels(found.name),
        processors=len(os.sched_getaffinity(0)),
        programs=tuple(_programs(found.index)),
    )


def _programs(index: int) -> Iterator[OnHook]:
    """Whoever is on a hook of the interface; what may not be read is left out."""
    own, loaded = _own_programs(), _loaded_programs()
    for program in attached(index):
        number = program.program_id
        yield OnHook(
            Hook.XDP,
            str(program),
            number in own,
            program=number,
            path=loaded.get(number),
            link=program.link_id,
        )
    for hook in _TC_HOOKS:
        for number in _tc_programs(index, hook):
            text = f"program {describe_program(number)}"
            yield OnHook(hook, text, number in own, program=number, path=loaded.get(number))


def _tc_programs(index: int, hook: Hook) -> list[int]:
    found: list[int] = []
    # Before Linux 6.6 there are none, and without CAP_NET_ADMIN nobody is told.
    with suppress(KernelError):
        found += [program.id for program in tcx.query(index, hook).programs]
    return found + [one.program_id for one in clsact.filters(index, hook) if one.program_id]


def _own_programs() -> set[int]:
    """The ids of programs of penstock's policies, which its pins hold."""
    found = set()
    for name, program_of in (("link", _of_link), ("program", _of_program)):
        # A pin may go while it is looked at, and may not be for this user to read; nor may their directory.
        with suppress(PermissionError):
            for pin in pin_root().glob(f"**/{name}"):
                with suppress(KernelError):
                    found.add(program_of(pin))
    return found


def _loaded_programs() -> dict[int, str]:
    """The files of the programs that `penstock program load` has loaded, by their ids."""
    with suppress(KernelError):
        return {one.program: one.path for one in program_slot.kept()}
    return {}


def _of_link(pin: Path) -> int:
    with Link.open(pin) as link:
        return link.info().program_id


def _of_program(pin: Path) -> int:
    with Program.open(pin) as program:
        return program.id


def _existing(path: Path) -> Path:
    """The path, or the nearest directory above it that is there, as far as this user may look."""
    # The root of bpffs is root's alone by default, so that even `exists` is refused to others.
    with suppress(PermissionError):
        if path.exists():
            return path
    return _existing(path.parent)


def _setting(name: str) -> int | None:
    try:
        return int((_SETTINGS / name).read_text())
    except (OSError, ValueError):
        return None


def _memlock() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY else soft


def _clang() -> tuple[str | None, str]:
    from penstock.compiler.clang import find_clang

    try:
        found = find_clang()
    except ToolchainError as error:
        return None, error.message
    return f"clang {found.version} ({found.path})", ""


def _libbpf() -> tuple[str | None, str]:
    try:
        return f"libbpf {libbpf.version()}", ""
    except ToolchainError as error:
        return None, error.message
