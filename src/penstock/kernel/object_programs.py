"""What an object file offers to load: its programs, where each belongs, and how they refer to one another.

In: the bytes of an object, whoever's clang made them.  Out: names, sections and
kinds, before anything is loaded, so that one of several can be chosen.

    contents_of(elf, "filter.o").programs   ->  (ProgramSpec("drop_dns", "xdp", kind=6),)
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from penstock.errors import KernelError
from penstock.kernel import elf as elf_file
from penstock.kernel.libbpf import open_object
from penstock.kernel.maps import MapType

#: enum bpf_prog_type, those of them that `kind_name` can say in a word of its own.
SOCKET_FILTER, SCHED_CLS, SCHED_ACT, XDP = 1, 3, 4, 6
_KIND_NAMES = {
    0: "of no known kind",
    1: "socket filter",
    2: "kprobe",
    3: "TC classifier",
    4: "TC action",
    5: "tracepoint",
    6: "XDP",
    7: "perf event",
    8: "cgroup skb",
    9: "cgroup sock",
    10: "LWT in",
    11: "LWT out",
    12: "LWT xmit",
    13: "sock_ops",
    14: "sk_skb",
    15: "cgroup device",
    16: "sk_msg",
    17: "raw tracepoint",
    18: "cgroup sock_addr",
    19: "LWT seg6local",
    20: "lirc",
    21: "sk_reuseport",
    22: "flow dissector",
    23: "cgroup sysctl",
    24: "writable raw tracepoint",
    25: "cgroup sockopt",
    26: "tracing",
    27: "struct_ops",
    28: "extension",
    29: "LSM",
    30: "sk_lookup",
    31: "syscall",
    32: "netfilter",
}
_OLD_MAPS = "maps"


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """A program of an object; `kind` is its bpf_prog_type, 0 where its section tells none that libbpf knows."""

    name: str
    section: str
    kind: int


@dataclass(frozen=True, slots=True)
class ObjectContents:
    """`has_tail_calls`: the object has a map of programs, so its programs may call one another."""

    programs: tuple[ProgramSpec, ...]
    has_btf: bool
    has_tail_calls: bool
    variables: dict[str, elf_file.Symbol]


def kind_name(kind: int) -> str:
    """A bpf_prog_type in words: 6 is `XDP`."""
    return _KIND_NAMES.get(kind, f"type {kind}")


def contents_of(elf: bytes, name: str) -> ObjectContents:
    """What is in an object file that libbpf can open.

    Raises:
        KernelError: it is none, or has maps as they were written before libbpf 1.0.
        ToolchainError: libbpf is not installed.
    """
    try:
        sections = {section.name for section in elf_file.sections(elf)}
        _refuse_old_maps(sections, name)
        with open_object(elf, name) as raw:
            programs = tuple(ProgramSpec(one.name, one.section, one.kind) for one in raw.programs)
            has_tail_calls = any(one.shape[0] == MapType.PROG_ARRAY for one in raw.maps)
        return ObjectContents(programs, ".BTF" in sections, has_tail_calls, elf_file.variables(elf))
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise KernelError(
            "open object", name, errno.ENOEXEC, meaning=f"this is no BPF object: {said}"
        ) from error


def _refuse_old_maps(sections: set[str], name: str) -> None:
    if _OLD_MAPS in sections:
        raise KernelError(
            "open object",
            name,
            errno.EOPNOTSUPP,
            meaning='its maps are in a section "maps", which libbpf 1.0 no longer reads',
            hint='declare them in SEC(".maps") with __uint(type, …), __type(key, …), and build it with -g',
        )
