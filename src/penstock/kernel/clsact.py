"""TC programs without tcx: cls_bpf filters in direct action, on a clsact qdisc.

In: a `Program` of type SCHED_CLS, an interface index and a TC hook.  Out: a
`Filter` that has the verbs of a `Link`; but nothing holds the program except
the qdisc itself, whoever made it, and anyone with CAP_NET_ADMIN can take it
away.  So a filter is found again by what nobody else has: a name of its own.

    plan = plan_filter(4, Hook.TC_EGRESS, LAST)      nothing is changed yet
    plan.attach(program)
    plan.update(better)                              in one step, by NLM_F_REPLACE
    plan.detach()                                    clsact goes too if it was made for this

The kernel asks filters by ascending priority, and those by tcx before them all.
Changes go by pyroute2, which is imported when one is made; filters are read
here, since pyroute2 leaves out the id of their program.  Message layouts:
rtnetlink(7), <linux/rtnetlink.h>, <linux/pkt_cls.h>.
"""

from __future__ import annotations

import errno
import os
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from penstock.errors import KernelError, ToolchainError
from penstock.kernel import libc, netlink, netns
from penstock.kernel.capability import NET_ADMIN, kernel_error
from penstock.kernel.link import LinkInfo, interface_name
from penstock.kernel.order import LEAST_PRIORITY, MOST_PRIORITY, Order
from penstock.kernel.syscall import Descriptor
from penstock.kernel.tcx import ATTACH_TYPES
from penstock.model.hook import Hook

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from penstock.kernel.program import Program

#: In the place of a link's type.
CLSACT_FILTER = -1
_PARENTS = {Hook.TC_INGRESS: 0xFFFF_FFF2, Hook.TC_EGRESS: 0xFFFF_FFF3}
_MAJOR = 0xFFFF_0000
_CLSACT, _INGRESS = b"clsact\0", b"ingress\0"
_HANDLE = 1
_FIRST_PRIORITY = 1000  # where nobody else is: room on both sides
_ETH_P_ALL = 3

_RTM_NEWQDISC, _RTM_GETQDISC, _RTM_NEWTFILTER, _RTM_GETTFILTER = 36, 38, 44, 46
_TCMSG = struct.Struct("=BxHiIII")
_KIND, _OPTIONS = 1, 2
_BPF_NAME, _BPF_ID = 7, 11


@dataclass(frozen=True, slots=True)
class TcFilter:
    """A filter on a clsact or ingress qdisc; `program_id` is 0 for one that is no BPF program."""

    kind: str
    priority: int
    handle: int
    name: str
    program_id: int


class Filter(Descriptor):
    """A place for one program; it is looked for in the network namespace in which this was made."""

    __slots__ = ("hook", "ifindex", "name", "owns_qdisc", "priority")

    def __init__(self, ifindex: int, hook: Hook, name: str, priority: int, *, owns_qdisc: bool) -> None:
        super().__init__(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        self.ifindex, self.hook, self.name, self.priority = ifindex, hook, name, priority
        self.owns_qdisc = owns_qdisc

    def info(self) -> LinkInfo:
        """What is there at this moment; interface and program are 0 when the filter is not.  Raises KernelError."""
        with self._there():
            found = self._found()
        place = (self.ifindex, ATTACH_TYPES[self.hook]) if found else (0, 0)
        return LinkInfo(0, CLSACT_FILTER, found.program_id if found else 0, *place)

    def attach(self, program: Program) -> Self:
        """Put a program there, where none is; the qdisc is made if it is missing.

        Raises:
            KernelError: another filter has taken the place meanwhile, or the kernel refuses.
        """
        with self._there():
            _make_qdisc(self.ifindex, self.hook)
            self._change("add-filter", f"attach program {program.name} at", program)
        return self

    def update(self, program: Program, expected_old: Program | None = None) -> None:
        """Replace the program in one step; when this returns no packet is in the old one any more.

        Raises:
            KernelError: the filter is gone, or its program is not `expected_old`.
        """
        with self._there():
            found = self._found()
            if found is None:
                raise _gone(program)
            if expected_old is not None and found.program_id != expected_old.id:
                meaning = (
                    "the filter runs another program than the one expected: somebody else has replaced it"
                )
                raise KernelError("replace by", program.name, errno.EBUSY, meaning=meaning)
            self._change("change-filter", f"replace by {program.name} the program at", program)
        libc.synchronize_rcu()

    def detach(self) -> None:
        """Take the filter off, and the qdisc if it was made for this one and nobody uses it.  Raises KernelError."""
        with self._there():
            if self._found() is not None:
                self._change("del-filter", "detach the filter at", None)
            self.clear_qdisc()

    def clear_qdisc(self) -> None:
        """Remove the qdisc if it was made for this filter and no filter is left on it.  Raises KernelError."""
        with self._there():
            if self.owns_qdisc and _is_unused(self.ifindex):
                _tc("remove clsact from", self.ifindex, "del", "clsact", self.ifindex)

    def _found(self) -> TcFilter | None:
        own = (self.name, self.priority)
        return next(
            (one for one in filters(self.ifindex, self.hook) if (one.name, one.priority) == own), None
        )

    def _change(self, command: str, operation: str, program: Program | None) -> None:
        wanted: dict[str, Any] = {"handle": _HANDLE, "prio": self.priority, "protocol": _ETH_P_ALL}
        if program is not None:
            wanted |= {"fd": program.fd, "name": self.name, "direct_action": True}
        parent = _PARENTS[self.hook]
        _tc(
            f"{operation} {self.hook.value} of",
            self.ifindex,
            command,
            "bpf",
            self.ifindex,
            parent=parent,
            **wanted,
        )

    @contextmanager
    def _there(self) -> Iterator[None]:
        """Be in the network namespace of the interface."""
        if os.fstat(self.fd).st_ino == netns.inode():
            yield
        else:
            with netns.inside(f"/proc/self/fd/{self.fd}"):
                yield


def plan_filter(ifindex: int, hook: Hook, order: Order) -> Filter:
    """A place that is free, not yet taken.

    Raises:
        KernelError: there is no such interface, no such place, or a qdisc of another kind is in the way.
    """
    priority = _priority(order, filters(ifindex, hook), hook, ifindex)
    name = f"penstock-{os.urandom(4).hex()}"
    return Filter(ifindex, hook, name, priority, owns_qdisc=not _qdisc(ifindex))


def filters(ifindex: int, hook: Hook) -> tuple[TcFilter, ...]:
    """The filters of a TC hook that are no tcx programs, in the order in which they run; none without a qdisc.

    Of the parts of one that is no BPF program (the tables of a u32 filter) only the first is given.
    """
    request = _TCMSG.pack(0, 0, ifindex, 0, _PARENTS[hook], 0)
    found: dict[tuple[str, int, int], TcFilter] = {}
    for kind, body in netlink.ask(_RTM_GETTFILTER, request):
        if kind == _RTM_NEWTFILTER and (one := _filter(body)) is not None:
            found.setdefault((one.kind, one.priority, one.handle * (one.kind == "bpf")), one)
    return tuple(found.values())


def _filter(body: bytes) -> TcFilter | None:
    _, _, _, handle, _, info = _TCMSG.unpack_from(body)
    found = dict(netlink.attributes(body[_TCMSG.size :]))
    kind = found.get(_KIND, b"").rstrip(b"\0").decode()
    options = dict(netlink.attributes(found.get(_OPTIONS, b"")))
    if not handle:  # The head of a priority, not a filter.
        return None
    is_bpf = kind == "bpf"
    name = options.get(_BPF_NAME, b"").rstrip(b"\0").decode("utf-8", "replace") if is_bpf else ""
    number = struct.unpack("=I", options[_BPF_ID])[0] if is_bpf and _BPF_ID in options else 0
    return TcFilter(kind, info >> 16, handle, name, number)


def _priority(order: Order, present: Sequence[TcFilter], hook: Hook, ifindex: int) -> int:
    """A priority that nobody has."""
    taken = sorted({one.priority for one in present})
    if order.word == "priority":
        wanted = order.number
    elif not taken and order.word in ("first", "last"):
        return _FIRST_PRIORITY
    elif order.word == "first":
        wanted = taken[0] - 1
    elif order.word == "last":
        wanted = taken[-1] + 1
    else:
        beside = next((one.priority for one in present if one.program_id == order.number), None)
        if beside is None:
            raise _no_place(ifindex, hook, f"there is no program {order.number} on this hook", errno.ENOENT)
        wanted = beside - 1 if order.word == "before" else beside + 1
    if wanted in taken or not LEAST_PRIORITY <= wanted <= MOST_PRIORITY:
        raise _no_place(ifindex, hook, f"no priority is free to stand {order}", errno.EBUSY)
    return wanted


def _no_place(ifindex: int, hook: Hook, meaning: str, code: int) -> KernelError:
    hint = f"`tc filter show dev {interface_name(ifindex)} {hook.value.split()[-1]}` lists its filters"
    operation = f"attach at {hook.value} of"
    return KernelError(operation, interface_name(ifindex), code, meaning=meaning, hint=hint)


def _gone(program: Program) -> KernelError:
    meaning = "the filter is gone: its interface is, or somebody has taken it off"
    return KernelError("replace by", program.name, errno.ENOLINK, meaning=meaning)


# ── the qdisc ────────────────────────────────────────────────────────────────


def _qdisc(ifindex: int) -> bytes | None:
    """The kind of the qdisc that holds filters of both directions, or of packets that come in."""
    for kind, body in netlink.ask(_RTM_GETQDISC, _TCMSG.pack(0, 0, ifindex, 0, 0, 0)):
        _, _, index, handle, _, _ = _TCMSG.unpack_from(body)
        # The kernel dumps the qdiscs of every interface.
        if kind == _RTM_NEWQDISC and index == ifindex and handle == _MAJOR:
            return dict(netlink.attributes(body[_TCMSG.size :])).get(_KIND)
    return None


def _make_qdisc(ifindex: int, hook: Hook) -> None:
    found = _qdisc(ifindex)
    if found == _CLSACT or (found == _INGRESS and hook is Hook.TC_INGRESS):
        return
    if found is not None:
        meaning = f"an {found.rstrip(bytes(1)).decode()} qdisc is there, and is in the way of clsact"
        raise KernelError(
            "attach at", f"{hook.value} of {interface_name(ifindex)}", errno.EEXIST, meaning=meaning
        )
    _tc("put clsact on", ifindex, "add", "clsact", ifindex)


def _is_unused(ifindex: int) -> bool:
    if _qdisc(ifindex) != _CLSACT:
        return False
    return not any(filters(ifindex, hook) for hook in _PARENTS)


def _tc(operation: str, ifindex: int, *arguments: object, **named: object) -> None:
    """One change by pyroute2.  Raises KernelError."""
    from concurrent.futures import ThreadPoolExecutor

    try:
        from pyroute2 import IPRoute  # type: ignore[import-untyped,unused-ignore]
        from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        hint = "`pip install pyroute2`"
        raise ToolchainError(f"pyroute2 cannot be imported: {error}", hint=hint) from error

    def change() -> None:
        with IPRoute() as route:
            route.tc(*arguments, **named)

    try:
        # pyroute2 runs an event loop, and a thread that has one running already takes no
        # second one.  A new thread is in the network namespace of the one that starts it.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(change).result()
    except NetlinkError as error:
        code = int(error.code)
        raise kernel_error(operation, interface_name(ifindex), code, needs=(NET_ADMIN,)) from error
