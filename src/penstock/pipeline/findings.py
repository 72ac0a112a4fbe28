"""What a machine and an interface mean for penstock: findings, each with the command that mends it.

    of_machine(facts)  ->  (Finding("bpffs", Level.FAULT, "no BPF file system is mounted …", "mount -t bpf …"), …)

In: facts as `doctor` gathers them, or as a test makes them up.  Out: findings, in the order in which they are
best mended.  This is pure: nothing is asked and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from penstock.model.hook import Hook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.kernel.device import Channels, Offload

#: Frames longer than this take more than a page of memory with what a driver puts before and behind them.
LARGEST_PLAIN_MTU = 3498
_SYSTEM_BPFFS = "/sys/fs/bpf"


class Level(Enum):
    """How much a finding matters: `FAULT` keeps penstock from running here."""

    FINE = "fine"
    NOTE = "note"
    ADVICE = "advice"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `command` is what mends it, where a command does."""

    check: str
    level: Level
    text: str
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """What was found out about the machine; None in place of what cannot be told."""

    kernel: str
    missing: tuple[str, ...]
    bpf_permitted: bool
    kernel_btf: bool
    links: bool | None
    tcx: bool | None
    memcg: bool | None
    memlock_bytes: int | None
    bpffs: bool
    bpffs_path: str
    bpffs_writable: bool
    bpffs_hidden_by: str | None
    jit: int | None
    jit_harden: int | None
    unprivileged_disabled: int | None
    clang: str | None
    clang_trouble: str
    libbpf: str | None
    libbpf_trouble: str
    #: Capabilities that some features ask for beyond those that everything needs.
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OnHook:
    """A program that was found on an interface.

    `ours`: it is a policy of penstock's; `path` is the file from which `penstock program load` made it,
    `link` the id of the bpf_link that holds it, None where netlink put it there.
    """

    hook: Hook
    text: str
    ours: bool
    program: int = 0
    path: str | None = None
    link: int | None = None

    @property
    def whose(self) -> str:
        """Who put it there, as far as penstock knows."""
        return f"from {self.path}" if self.path else "not penstock's"

    def taken_off(self, ifname: str) -> str:
        """The command that takes it off."""
        if self.path:
            return f"penstock program detach {self.program}"
        # What a link holds, netlink does not take off.
        return f"bpftool link detach id {self.link}" if self.link else f"ip link set dev {ifname} xdp off"


@dataclass(frozen=True, slots=True)
class Device:
    """What was found out about an interface; `xdp` is None where the kernel does not tell."""

    name: str
    driver: str | None
    mtu: int
    xdp: frozenset[str] | None
    xdp_mode: str | None
    offloads: Mapping[str, Offload]
    channels: Channels | None
    processors: int
    programs: tuple[OnHook, ...]


_WITHOUT = {
    "CAP_PERFMON": "CAP_PERFMON is missing: packets are read by the kernel's helpers, which takes Linux 6.18 and "
    "several times as long, and no policy can `reject`",
    "CAP_SYS_ADMIN": "CAP_SYS_ADMIN is missing: programs and maps of others have no names, --replace and --netns "
    "are refused",
}


# ── the machine ──────────────────────────────────────────────────────────────


def of_machine(machine: Machine) -> tuple[Finding, ...]:
    """What the machine means for penstock, on whatever interface."""
    return (
        *_permission(machine),
        *_kernel(machine),
        *_bpffs(machine),
        *_memlock(machine),
        *_jit(machine),
        *_unprivileged(machine),
        *_toolchain(machine),
    )


def _permission(machine: Machine) -> Iterator[Finding]:
    if machine.missing:
        absent = " + ".join(machine.missing)
        yield Finding("privilege", Level.FAULT, f"{absent} is missing", "sudo penstock …")
    elif not machine.bpf_permitted:
        text = "bpf(2) is refused although every capability is here: a lockdown, a container or a sandbox"
        yield Finding("privilege", Level.FAULT, text, "cat /sys/kernel/security/lockdown")
    else:
        yield Finding("privilege", Level.FINE, "bpf(2) is permitted")
        yield from (Finding("privilege", Level.ADVICE, _WITHOUT[name]) for name in machine.lacks)


def _kernel(machine: Machine) -> Iterator[Finding]:
    if machine.links is False:
        text = f"Linux {machine.kernel} has no links for XDP; 5.9 and newer have them"
        yield Finding("kernel", Level.FAULT, text)
    elif not machine.kernel_btf:
        text = f"Linux {machine.kernel} does not show its types: it was built without CONFIG_DEBUG_INFO_BTF"
        yield Finding("kernel", Level.FAULT, text)
    else:
        way = {True: "tcx", False: "clsact, as before Linux 6.6", None: "what cannot be told"}[machine.tcx]
        yield Finding("kernel", Level.FINE, f"Linux {machine.kernel}: XDP by links, TC by {way}")


def _bpffs(machine: Machine) -> Iterator[Finding]:
    if not machine.bpffs and machine.bpffs_hidden_by:
        # What is mounted there goes with the mount namespace, the pins with it.
        text = f"{machine.bpffs_path} is no BPF file system here: `ip netns exec` hides it"
        yield Finding("bpffs", Level.FAULT, text, f"penstock --netns {machine.bpffs_hidden_by} …")
    elif not machine.bpffs:
        command = f"mount -t bpf bpf {_SYSTEM_BPFFS}"
        text = (
            f"no BPF file system is mounted at {machine.bpffs_path}: policies could not outlive the command"
        )
        yield Finding("bpffs", Level.FAULT, text, command)
    elif not machine.bpffs_writable:
        command = f"mount -o remount,rw {_SYSTEM_BPFFS}"
        yield Finding("bpffs", Level.FAULT, f"{machine.bpffs_path} is mounted read-only", command)
    else:
        yield Finding("bpffs", Level.FINE, f"a BPF file system is mounted at {machine.bpffs_path}")


def _memlock(machine: Machine) -> Iterator[Finding]:
    """Before Linux 5.11 maps count against RLIMIT_MEMLOCK."""
    if machine.memcg is not False or machine.memlock_bytes is None:
        return
    text = f"maps count against the limit of locked memory, {machine.memlock_bytes >> 10} KiB"
    yield Finding("memlock", Level.ADVICE, text, "ulimit -l unlimited")


def _jit(machine: Machine) -> Iterator[Finding]:
    if machine.jit == 0:
        text = "programs are interpreted, which is several times slower"
        yield Finding("jit", Level.ADVICE, text, "sysctl -w net.core.bpf_jit_enable=1")
    elif machine.jit is not None:
        yield Finding("jit", Level.FINE, "programs are compiled (bpf_jit_enable)")
    if machine.jit_harden == 2:
        text = "constants of everybody's programs are blinded, those of root too: programs are slower"
        yield Finding("jit-harden", Level.ADVICE, text, "sysctl -w net.core.bpf_jit_harden=1")


def _unprivileged(machine: Machine) -> Iterator[Finding]:
    if machine.unprivileged_disabled == 0:
        text = "every user may load BPF programs; penstock does not need that"
        command = "sysctl -w kernel.unprivileged_bpf_disabled=2"
        yield Finding("unprivileged-bpf", Level.ADVICE, text, command)


def _toolchain(machine: Machine) -> Iterator[Finding]:
    if machine.clang is None:
        text = f"{machine.clang_trouble}: only what `penstock build` made elsewhere can be applied here"
        yield Finding("clang", Level.ADVICE, text, "apt install clang")
    else:
        yield Finding("clang", Level.FINE, machine.clang)
    if machine.libbpf is None:
        yield Finding("libbpf", Level.FAULT, machine.libbpf_trouble, "apt install libbpf1")
    else:
        yield Finding("libbpf", Level.FINE, machine.libbpf)


# ── an interface ─────────────────────────────────────────────────────────────


def of_device(device: Device) -> tuple[Finding, ...]:
    """What an interface means for a policy on it."""
    return (
        *_mode(device),
        *_mtu(device),
        *_merging(device),
        *_vlan(device),
        *_queues(device),
        *_others(device),
    )


def _mode(device: Device) -> Iterator[Finding]:
    named = f"driver {device.driver}" if device.driver else device.name
    if device.xdp is None:
        now = f"; a program runs in {device.xdp_mode} mode" if device.xdp_mode else ""
        text = f"{named}: before Linux 6.3 only attaching shows whether it has XDP{now}"
        yield Finding("driver", Level.NOTE, text)
    elif "basic" not in device.xdp:
        text = f"{named} has no XDP: policies at xdp run in the stack (generic mode), several times slower"
        yield Finding("driver", Level.ADVICE, text)
    else:
        yield Finding("driver", Level.FINE, f"{named} has XDP ({', '.join(sorted(device.xdp))})")


def _is_native(device: Device) -> bool:
    """Whether the driver may be expected to run a program."""
    return device.xdp is None or "basic" in device.xdp


def _mtu(device: Device) -> Iterator[Finding]:
    if not _is_native(device):
        return
    if device.mtu <= LARGEST_PLAIN_MTU:
        yield Finding("mtu", Level.FINE, f"frames of {device.mtu} bytes fit a page")
    elif device.xdp is not None and "rx-sg" in device.xdp:
        text = f"frames of {device.mtu} bytes come in several buffers, which the driver gives to XDP"
        yield Finding("mtu", Level.FINE, text)
    else:
        text = (
            f"frames of {device.mtu} bytes do not fit a page, and the driver "
            f"{'does not say that it gives' if device.xdp is None else 'does not give'} several buffers to XDP: "
            "it may refuse native mode"
        )
        command = f"ip link set dev {device.name} mtu {LARGEST_PLAIN_MTU}"
        yield Finding("mtu", Level.ADVICE, text, command)


_MERGES = (
    ("rx-lro", "lro", "packets are merged before a program sees them (LRO); native XDP is refused meanwhile"),
    (
        "rx-gro-hw",
        "rx-gro-hw",
        "the device merges packets (hardware GRO); a program at XDP may see merged ones",
    ),
)


def _merging(device: Device) -> Iterator[Finding]:
    for name, word, text in _MERGES:
        offload = device.offloads.get(name)
        if offload is None or not offload.on or not _is_native(device):
            continue
        if offload.fixed:
            yield Finding(word, Level.NOTE, f"{text}; it cannot be switched by hand here, the driver does it")
        else:
            yield Finding(word, Level.ADVICE, text, f"ethtool -K {device.name} {word} off")


def _vlan(device: Device) -> Iterator[Finding]:
    offload = device.offloads.get("rx-vlan-hw-parse")
    if offload is None or not offload.on:
        return
    text = (
        "VLAN tags are taken out of frames before a program at XDP sees them: `vlan` may match nothing there"
    )
    command = None if offload.fixed else f"ethtool -K {device.name} rxvlan off"
    yield Finding("rxvlan", Level.ADVICE, text, command)


def _queues(device: Device) -> Iterator[Finding]:
    queues = device.channels
    if queues is None or not queues.now:
        return
    wanted = min(device.processors, queues.most)
    if queues.now < wanted:
        text = f"{queues.now} queue{'s' * (queues.now > 1)} for {device.processors} processors: some do not receive"
        yield Finding("queues", Level.ADVICE, text, f"ethtool -L {device.name} combined {wanted}")
    else:
        text = f"{queues.now} of {queues.most} queues, {device.processors} processors"
        yield Finding("queues", Level.FINE, text)


def _others(device: Device) -> Iterator[Finding]:
    for found in device.programs:
        if found.ours:
            yield Finding("programs", Level.FINE, f"{found.hook.value}: {found.text} (penstock's)")
        elif found.hook is Hook.XDP:
            text = f"xdp: {found.text}, {found.whose}: `apply` refuses without --replace"
            yield Finding("programs", Level.ADVICE, text, found.taken_off(device.name))
        else:
            yield Finding("programs", Level.NOTE, f"{found.hook.value}: {found.text}, {found.whose}")
    if not device.programs:
        yield Finding("programs", Level.FINE, "no BPF program on any hook")
