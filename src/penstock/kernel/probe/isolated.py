"""Tries that need an interface or a mount: each in namespaces of its own, in a thread of its own.

Nothing of the machine is touched: the namespaces have no name and end with the thread.  (The kernel may load
its modules `veth` and `sch_ingress`, as for anybody who uses them.)

    native_xdp_on_veth()   ->  Found(True)
    clsact()               ->  Found(None, "CAP_SYS_ADMIN is missing")
"""

from __future__ import annotations

import errno
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import KernelError
from penstock.kernel import libc, netlink
from penstock.kernel.capability import NET_ADMIN, SYS_ADMIN, describe, missing
from penstock.kernel.netlink import GENERIC, NATIVE
from penstock.kernel.probe import attempt
from penstock.kernel.probe.attempt import EXIT, ProgramTry, instruction
from penstock.kernel.probe.kinds import Found
from penstock.kernel.probe.tables import PROGRAM_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOPBACK = 1
_PASS = instruction(0xB7, value=2) + EXIT


def _alone(work: Callable[[], Found], kinds: int) -> Found:
    """The result of `work` in new namespaces, in a thread that ends with them."""
    absent = missing(SYS_ADMIN, NET_ADMIN)
    if absent:
        return Found(None, f"{describe(absent)} {'is' if len(absent) == 1 else 'are'} missing")
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_in_new, work, kinds).result()


def _in_new(work: Callable[[], Found], kinds: int) -> Found:
    try:
        libc.unshare(kinds)
        return work()
    except OSError as error:
        return Found(None, f"no namespace can be made: {error.strerror}")
    except ImportError as error:
        return Found(None, f"{error.name} is not installed")


def generic_xdp() -> Found:
    """XDP in the stack, on the loopback interface of a new network namespace."""
    return _alone(lambda: _attached(_LOOPBACK, GENERIC), libc.CLONE_NEWNET)


def native_xdp_on_veth() -> Found:
    """XDP in the driver of a veth pair in a new network namespace."""
    return _alone(_on_veth, libc.CLONE_NEWNET)


def clsact() -> Found:
    """The clsact queueing discipline on the loopback interface of a new network namespace."""
    return _alone(_clsact, libc.CLONE_NEWNET)


def bpffs_exchange() -> Found:
    """Two directories exchanged in a BPF file system that only this try has mounted."""
    return _alone(_exchanged, libc.CLONE_NEWNS)


def _attached(index: int, mode: str) -> Found:
    with attempt.loaded(ProgramTry(PROGRAM_TYPES["xdp"].number), _PASS) as fd:
        if fd is None:
            return Found(False, "no XDP program is loaded")
        try:
            netlink.set_xdp(index, fd, mode)
        except KernelError as error:
            return _refused(error.errno)
    return Found(True)


def _on_veth() -> Found:
    from pyroute2 import IPRoute, NetlinkError  # type: ignore[import-untyped,unused-ignore]

    with IPRoute() as route:
        try:
            route.link("add", ifname="ps-a", kind="veth", peer={"ifname": "ps-b"})
        except NetlinkError as error:
            return Found(None, f"no veth pair can be made: {error}")
    return _attached(netlink.interface("ps-a").index, NATIVE)


def _clsact() -> Found:
    from pyroute2 import IPRoute, NetlinkError  # type: ignore[import-untyped,unused-ignore]

    with IPRoute() as route:
        try:
            route.tc("add", "clsact", _LOOPBACK)
        except NetlinkError as error:
            return _refused(error.code)
    return Found(True)


def _refused(code: int) -> Found:
    return Found(None, "it is not permitted") if code in (errno.EPERM, errno.EACCES) else Found(False)


def _exchanged() -> Found:
    with tempfile.TemporaryDirectory() as place:
        try:
            libc.mount_private_bpffs(place)
        except OSError as error:
            return Found(None, f"no BPF file system can be mounted: {error.strerror}")
        try:
            return _exchange(Path(place))
        finally:
            libc.unmount(place)


def _exchange(place: Path) -> Found:
    for name in ("a", "b"):
        (place / name).mkdir()
    try:
        libc.exchange(place / "a", place / "b")
    except OSError:
        return Found(False)
    return Found(True)
