"""What is in place: policies, rules, counters, and whether all is well with them.

    for found in status():
        found.interface, found.identity.name, found.counters["dns"].packets, found.trouble

Read only, and without the locks that changes take.
"""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import KernelError
from penstock.kernel import pin
from penstock.kernel.attach_point import decode
from penstock.kernel.link import attached
from penstock.kernel.lock import lock
from penstock.kernel.netlink import Interface, interface
from penstock.pipeline import slot as slots
from penstock.pipeline.counters import Counter
from penstock.pipeline.identity import CounterKey, Emergency, Identity
from penstock.pipeline.slot import Slot, open_slot

_PATIENCE_S, _AGAIN_S = 1.0, 0.02


@dataclass(frozen=True, slots=True)
class Status:
    """One filter of penstock's.

    `interface` is the interface's name now, `mode` how the program runs there
    (empty when it does not), `trouble` a sentence when something is wrong,
    `read_at_ns` the boot clock at which the counters were read, `is_current`
    whether they are those of the program that runs.
    """

    interface: str
    identity: Identity
    mode: str
    counters: dict[str, Counter]
    read_at_ns: int
    is_current: bool = True
    trouble: str | None = None

    @property
    def rows(self) -> tuple[tuple[CounterKey, Counter], ...]:
        """Each slot with its counter, in slot order."""
        return tuple(zip(self.identity.counters, self.counters.values(), strict=True))

    @property
    def emergencies(self) -> tuple[tuple[Emergency, float], ...]:
        """The emergency rules that are still in force, with the seconds that they have left."""
        now = self.read_at_ns
        found = self.identity.emergencies
        return tuple((rule, (rule.until_ns - now) / 1e9) for rule in found if rule.until_ns > now)


def status(ifname: str | None = None) -> tuple[Status, ...]:
    """The filters of this network namespace, or the one of an interface; none is no error.

    Raises:
        KernelError: there is no such interface and it has left no filter, or pins cannot be read.
    """
    root = pin.pin_root()
    _settle_what_is_free(root)
    found = tuple(one for name in slots.names_here(root) if (one := _settled_status(root / name)) is not None)
    if ifname is None:
        return found
    wanted = tuple(one for one in found if ifname in (one.interface, one.identity.interface))
    if not wanted:
        interface(ifname)
    return wanted


def _settle_what_is_free(root: Path) -> None:
    """Finish what killed commands left, apart from what a living command is at work on."""
    for name in slots.unfinished_here(root):
        try:
            with lock(name):
                slots.settle(root, name)
        except KernelError:
            continue


def _settled_status(directory: Path) -> Status | None:
    """The status, read again while a change is under way; None if the filter was taken off meanwhile."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            found = _status(directory)
        except KernelError as error:
            if error.errno != errno.ENOENT or time.monotonic() > deadline:
                raise
            if not directory.exists():
                return None
        else:
            if found.is_current or time.monotonic() > deadline:
                return found
        time.sleep(_AGAIN_S)


def _status(directory: Path) -> Status:
    with open_slot(directory) as slot:
        counters = slot.counter_values()
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        place = None if slot.is_defunct else interface(slot.info.ifindex)
        name = place.name if place else decode(directory.name)[0]
        modes = {found.program_id: found.mode for found in attached(slot.info.ifindex)} if place else {}
        mode = modes.get(slot.info.program_id, "")
        is_current = slot.is_current or slot.is_defunct
        return Status(name, slot.identity, mode, counters, now, is_current, _trouble(slot, place))


def _trouble(slot: Slot, place: Interface | None) -> str | None:
    name = slot.identity.interface
    if place is None:
        return f"{name} is gone, and its filter with it; once it is back, `penstock apply` attaches it again"
    if place.name != name:
        return f"applied to {name}, which is now called {place.name}"
    if not slot.is_current:
        return "another program has been put on its link, so these counters stand still"
    return None
