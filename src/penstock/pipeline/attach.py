"""A filter that lasts as long as a block of Python.

    with attach("eth0", "filter guard at xdp { drop if udp dst port 53 }") as running:
        running.counters()["guard:1"]       ->  Counter(packets=3, bytes=180)
        running.replace(better)

Nothing is pinned: when the block ends, or the process however it ends, the
kernel takes the filter off.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from penstock.errors import NotSupportedError
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.kernel.foreign import taken_place
from penstock.kernel.link import Link, attach_xdp
from penstock.kernel.netlink import GENERIC, NATIVE, interface, interfaces
from penstock.model.closing import Closing
from penstock.model.spec import COUNTERS_MAP, PROGRAM
from penstock.pipeline.counters import Counter, Totals, added, carried_over, named, read_totals
from penstock.pipeline.identity import kept_slots
from penstock.pipeline.policy import LoadedPolicy, load_policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.kernel.program import Program, ProgramInfo

AUTO = "auto"


def load(policy: LoadedPolicy) -> BpfObject:
    """The policy's program and maps in the kernel, attached nowhere.  Close it.

    Raises:
        KernelError: VerifierError, PrivilegeError, NotSupportedError among them.
    """
    return load_object(policy.elf, policy.name)


def dry_run(ifname: str, policy: LoadedPolicy) -> ProgramInfo:
    """What the kernel tells of the policy's program once it is loaded; it is attached nowhere and unloaded again.

    Raises:
        KernelError: there is no such interface, or the kernel refuses the program.
    """
    interface(ifname)
    with load(policy) as loaded:
        return loaded.programs[PROGRAM].info


@contextmanager
def put_on(
    program: Program, ifindex: int, mode: str, notices: list[str], *, replace: bool = False
) -> Iterator[Link]:
    """Attach a program for good if the block succeeds; if it does not, what was there is there again.

    Gives the link; what had to be done differently is added to `notices`.

    Raises:
        KernelError: another program is there and `replace` is false, or the kernel refuses.
    """
    with ExitStack() as undo:
        if replace:
            taken = undo.enter_context(taken_place(ifindex))
            notices.extend(f"took the place of {found}" for found in taken)
        link = _attach(program, ifindex, mode, notices)
        undo.push(partial(_detach_after_failure, link))
        yield link


def _detach_after_failure(link: Link, kind: object, _error: object, _at: object) -> None:
    # Closing would do it too, but later: the place must be free before its former owner comes back.
    if kind is not None:
        with link:
            link.detach()


def _attach(program: Program, ifindex: int, mode: str, notices: list[str]) -> Link:
    if mode != AUTO:
        return attach_xdp(program, ifindex, mode=mode)
    try:
        return attach_xdp(program, ifindex, mode=NATIVE)
    except NotSupportedError:
        name = interface(ifindex).name
        notices.append(
            f"the driver of {name} refuses native XDP: generic mode is used, which is several times slower"
        )
        return attach_xdp(program, ifindex, mode=GENERIC)


def mode_of(ifindex: int, program_id: int) -> str:
    """The mode in which a program runs on an interface; empty when either is not here."""
    here = (program for found in interfaces() if found.index == ifindex for program in found.xdp)
    return next((program.mode for program in here if program.id == program_id), "")


class Attached(Closing):
    """A filter on an interface; `notices` tells what was done differently from what was asked."""

    def __init__(self, policy: LoadedPolicy, loaded: BpfObject, link: Link, notices: tuple[str, ...]) -> None:
        self.policy = policy
        self.notices = notices
        self._object = loaded
        self._link = link
        self._base = carried_over((), (), len(policy.counters))

    @property
    def program_id(self) -> int:
        """The kernel's id of the program that decides at this moment."""
        return self._object.programs[PROGRAM].id

    @property
    def mode(self) -> str:
        """``native`` or ``generic``; empty once the interface is gone, and in another network namespace."""
        info = self._link.info()
        return mode_of(info.ifindex, info.program_id) if info.ifindex else ""

    def counters(self) -> dict[str, Counter]:
        """Packets and bytes by name: ``default``, ``on malformed`` and so on, then the rules in order."""
        return named(self.policy.counters, self._totals())

    def replace(self, policy: LoadedPolicy | str) -> None:
        """Put another policy in place in one step; rules with the same label keep their counters.

        Raises:
            PenstockError: the new one cannot be compiled or loaded; the old one runs on.
        """
        new = policy if isinstance(policy, LoadedPolicy) else load_policy(policy)
        loaded = load(new)
        try:
            self._link.update(loaded.programs[PROGRAM], self._object.programs[PROGRAM])
        except BaseException:
            loaded.close()
            raise
        pairs = kept_slots(self.policy.counters, new.counters)
        self._base = carried_over(pairs, self._totals(), len(new.counters))
        self._object.close()
        self.policy, self._object = new, loaded

    def close(self) -> None:
        """Take the filter off the interface."""
        self._link.close()
        self._object.close()

    def _totals(self) -> Totals:
        own = read_totals(self._object.maps[COUNTERS_MAP], len(self.policy.counters))
        return added(own, self._base)


def attach(ifname: str, policy: LoadedPolicy | str, mode: str = AUTO, *, replace: bool = False) -> Attached:
    """Put a policy on an interface until the result is closed; `mode` is native, generic or auto.

    Raises:
        PolicyError: the text is no policy.
        KernelError: there is no such interface, it carries another program (`replace`
            takes over), a capability is missing, or the kernel refuses the program.
    """
    wanted = policy if isinstance(policy, LoadedPolicy) else load_policy(policy)
    place = interface(ifname)
    notices: list[str] = []
    with ExitStack() as opened:
        loaded = opened.enter_context(load(wanted))
        with put_on(loaded.programs[PROGRAM], place.index, mode, notices, replace=replace) as link:
            opened.pop_all()
    return Attached(wanted, loaded, link, tuple(notices))
