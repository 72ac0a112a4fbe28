"""What this kernel lets this process do, asked and not guessed from a version.

    features().missing        ->  ("CAP_BPF",)
    features().xdp_link       ->  True, False, or None where asking is not permitted

Distributions carry features to older kernels, so each answer comes from a call
that would fail without the feature and changes nothing with it.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from penstock.kernel import libc
from penstock.kernel.capability import BPF, NET_ADMIN, missing
from penstock.kernel.probe import attempt
from penstock.kernel.probe.attempt import RETURN_ZERO, ProgramTry
from penstock.kernel.syscall import Command

_BTF = Path("/sys/kernel/btf/vmlinux")
_XDP = 6  # BPF_PROG_TYPE_XDP
_XDP_HAS_FRAGS = 1 << 5
_BPFFS = Path("/sys/fs/bpf")


@dataclass(frozen=True, slots=True)
class Features:
    """`missing` names capabilities; None stands for "cannot be told"."""

    bpf_permitted: bool
    missing: tuple[str, ...]
    btf: bool
    xdp_link: bool | None
    bpffs: bool


@cache
def features() -> Features:
    """The answers, asked once in the life of the process."""
    refusal = _try(Command.LINK_DETACH, struct.pack("=i", -1))
    return Features(
        bpf_permitted=_is_permitted(),
        missing=missing(BPF, NET_ADMIN),
        btf=_BTF.exists(),
        # BPF_LINK_DETACH came with XDP links, in Linux 5.9.  With a descriptor
        # that cannot exist it answers EBADF; a kernel without it, EINVAL.
        xdp_link={errno.EBADF: True, errno.EINVAL: False}.get(refusal),
        bpffs=is_bpffs(_BPFFS),
    )


@cache
def has_atomics() -> bool | None:
    """Whether programs may exchange a word of memory in one step (Linux 5.12); None: it cannot be told."""
    from penstock.kernel.probe.tries import tries

    return tries()["atomics"]().has


@cache
def takes_frags() -> bool | None:
    """Whether XDP programs may say that they take frames of several buffers (Linux 5.18); None: it cannot be told."""
    answer = attempt.load(ProgramTry(_XDP, flags=_XDP_HAS_FRAGS), RETURN_ZERO, log=False)
    return {0: True, errno.EINVAL: False}.get(answer.code)


def is_bpffs(path: Path) -> bool:
    """Whether `path` lies in a BPF file system."""
    try:
        return libc.filesystem_magic(path) == libc.BPF_FS_MAGIC
    except OSError:
        return False


def _is_permitted() -> bool:
    """Whether bpf(2) makes a prefix tree, the smallest thing that needs CAP_BPF whatever the sysctl says."""
    one_entry = struct.pack("=IIIII28x", 11, 8, 4, 1, 1)  # BPF_MAP_TYPE_LPM_TRIE, BPF_F_NO_PREALLOC
    try:
        os.close(libc.bpf(Command.MAP_CREATE, bytearray(one_entry)))
    except OSError:
        return False
    return True


def _try(command: Command, attr: bytes) -> int:
    try:
        libc.bpf(command, bytearray(attr))
    except OSError as error:
        return error.errno or 0
    return 0
