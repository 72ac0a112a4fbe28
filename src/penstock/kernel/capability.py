"""Which capabilities the process has, so that a refusal can say which one it lacks.

The kernel answers EPERM and nothing else.  `/proc/self/status` tells the rest:

    CapEff: 000001ffffffffff  ->  {"CAP_BPF", "CAP_NET_ADMIN", …}

A process that is root in a user namespace of its own shows every bit there,
but bpf(2) asks for them in the initial one, so there they do not count.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import KernelError, PrivilegeError

if TYPE_CHECKING:
    from collections.abc import Iterator

NET_ADMIN = "CAP_NET_ADMIN"
SYS_ADMIN = "CAP_SYS_ADMIN"
PERFMON = "CAP_PERFMON"
BPF = "CAP_BPF"

# Bit numbers of <linux/capability.h>.
_BITS = {NET_ADMIN: 12, SYS_ADMIN: 21, PERFMON: 38, BPF: 39}
# CAP_SYS_ADMIN still stands for the two that were split from it in Linux 5.8.
_IMPLIED_BY_SYS_ADMIN = {BPF, PERFMON}
_WHOLE_ID_RANGE = "4294967295"


def effective() -> frozenset[str]:
    """The capabilities of interest that bpf(2) would find in this process."""
    if in_user_namespace():
        return frozenset()
    mask = _effective_mask()
    held = {name for name, bit in _BITS.items() if mask >> bit & 1}
    return frozenset(held | _IMPLIED_BY_SYS_ADMIN if SYS_ADMIN in held else held)


def missing(*wanted: str) -> tuple[str, ...]:
    """Those of `wanted` that the process does not have, in their order."""
    held = effective()
    return tuple(name for name in wanted if name not in held)


def in_user_namespace() -> bool:
    """Whether the process lives in a user namespace other than the initial one."""
    try:
        ranges = Path("/proc/self/uid_map").read_text().split()
    except OSError:
        return False
    return ranges != ["0", "0", _WHOLE_ID_RANGE]


def _effective_mask() -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    lines = (line.partition(":") for line in status.splitlines())
    return next((int(value, 16) for name, _, value in lines if name == "CapEff"), 0)


def describe(names: tuple[str, ...]) -> str:
    """The missing capabilities as one phrase: ``CAP_BPF + CAP_NET_ADMIN``."""
    place = " in the initial user namespace" if in_user_namespace() else ""
    return " + ".join(names) + place


def kernel_error(
    operation: str,
    subject: str,
    code: int,
    *,
    needs: tuple[str, ...] = (BPF, NET_ADMIN),
    meaning: str | None = None,
    hint: str | None = None,
) -> KernelError:
    """The error for a refused call: a PrivilegeError when a capability of `needs` is what is missing."""
    if code in (errno.EPERM, errno.EACCES):
        absent = missing(*needs)
        if absent:
            return PrivilegeError(operation, subject, code, capability=describe(absent))
    return KernelError(operation, subject, code, meaning=meaning, hint=hint)


@contextmanager
def kernel_errors(
    operation: str, subject: str, *, needs: tuple[str, ...] = (BPF, NET_ADMIN), absent: str | None = None
) -> Iterator[None]:
    """Turn an OSError of the block into the KernelError that names operation and subject; `absent` says ENOENT."""
    try:
        yield
    except OSError as error:
        meaning = absent if absent and error.errno == errno.ENOENT else error.strerror
        raise kernel_error(operation, subject, error.errno or 0, needs=needs, meaning=meaning) from error
