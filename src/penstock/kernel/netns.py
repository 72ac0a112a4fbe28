"""The network namespace of the calling thread: which one it is, and how to enter another.

    enter("blue")                     # as `ip netns exec blue`, but bpffs and sysfs stay as they are
    with inside("/proc/4711/ns/net"):
        …                             # this thread only, and back afterwards

An interface belongs to one network namespace, a pin to a *mount* namespace, so
the name of a pin must say which network namespace it speaks of: its inode.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import KernelError
from penstock.kernel.capability import SYS_ADMIN, kernel_errors
from penstock.kernel.libc import setns, unshare

if TYPE_CHECKING:
    from collections.abc import Iterator

_OWN = Path("/proc/thread-self/ns/net")
_MOUNTS = Path("/proc/thread-self/mountinfo")
_NAMED = Path("/run/netns")
# A sysctl that the kernel registers for the initial network namespace alone,
# and readable by anyone; /proc/1/ns/net needs ptrace rights over init.
_INITIAL_ONLY = Path("/proc/sys/net/core/netdev_budget")


def inode() -> int:
    """The inode of the namespace, as `stat -L` of its file shows it."""
    return _OWN.stat().st_ino


def is_initial() -> bool:
    """Whether this is the namespace that the machine booted with."""
    return _INITIAL_ONLY.exists()


def hiding() -> str | None:
    """The namespace whose `ip netns exec` hides /sys, and a bpffs below it, from this process; None if there is none.

    ip-netns(8) mounts a new /sys there, with the namespace's name for its source.
    """
    lines = (line.split() for line in _MOUNTS.read_text().splitlines())
    sources = [words[-2] for words in lines if words[4] == "/sys" and words[-3] == "sysfs"]
    return sources[-1] if sources and (_NAMED / sources[-1]).exists() else None


def path_of(name_or_path: str) -> Path:
    """The file of a namespace: a path as it is, a bare name in the directory of `ip netns`."""
    return Path(name_or_path) if "/" in name_or_path else _NAMED / name_or_path


def enter(name_or_path: str) -> None:
    """Move this thread into a network namespace for good.

    Raises:
        KernelError: there is no such namespace; PrivilegeError without CAP_SYS_ADMIN.
    """
    path = path_of(name_or_path)
    try:
        with (
            path.open("rb") as file,
            kernel_errors("enter network namespace", name_or_path, needs=(SYS_ADMIN,)),
        ):
            setns(file.fileno())
    except FileNotFoundError as error:
        raise _unknown(name_or_path) from error
    except OSError as error:
        raise KernelError("enter network namespace", name_or_path, error.errno or 0) from error


@contextmanager
def inside(name_or_path: str) -> Iterator[None]:
    """Run the block in a network namespace; only this thread moves."""
    with _OWN.open("rb") as home:
        enter(name_or_path)
        try:
            yield
        finally:
            setns(home.fileno())


@contextmanager
def isolated() -> Iterator[None]:
    """Run the block in a new network namespace that has only `lo`, index 1; it ends with the block.

    Raises:
        PrivilegeError: without CAP_SYS_ADMIN.
    """
    with _OWN.open("rb") as home:
        with kernel_errors("make", "a network namespace", needs=(SYS_ADMIN,)):
            unshare()
        try:
            yield
        finally:
            setns(home.fileno())


def _unknown(name: str) -> KernelError:
    known = sorted(entry.name for entry in _NAMED.iterdir()) if _NAMED.is_dir() else []
    hint = (
        f"known namespaces: {', '.join(known)}" if known else "`ip netns list` shows those that have a name"
    )
    return KernelError(
        "enter network namespace", name, errno.ENOENT, meaning="there is no such network namespace", hint=hint
    )
