"""What is in place: policies, rules, counters, and whether all is well with them.

    for found in status():
        found.interface, found.identity.name, found.counters["dns"].packets, found.trouble

Read only, and without the locks that changes take.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.errors import KernelError, PrivilegeError
from penstock.kernel import pin
from penstock.kernel.attach_point import decode, here
from penstock.kernel.attached import mode_on, programs_at
from penstock.kernel.link import AttachedProgram
from penstock.kernel.netlink import Interface, interface
from penstock.model.boot_clock import boot_clock_ns
from penstock.model.hook import Hook
from penstock.pipeline import bonds, whereabouts
from penstock.pipeline.counters import Counter
from penstock.pipeline.devices import astray
from penstock.pipeline.identity import Added, CounterKey, Emergency, Identity
from penstock.pipeline.limiters import Usage, usage_in
from penstock.pipeline.probation import left_s
from penstock.pipeline.refusals import Refusals, refusals_in
from penstock.pipeline.slot import BEFORE, IDENTITY, Slot, open_slot
from penstock.pipeline.whereabouts import Places

_PATIENCE_S, _AGAIN_S = 1.0, 0.02


@dataclass(frozen=True, slots=True)
class Status:
    """One filter of penstock's.

    `interface` is the interface's name now, `mode` how the program runs there
    (empty when it does not), `programs` everything that runs on that hook, this
    filter too, in the order in which packets meet it, `keys` what is counted, `emergency_rules` and
    `added` the rules that are no part of the policy's text, `trouble` a sentence
    when something is wrong, `read_at_ns` the boot clock at which the counters
    were read, `is_current` whether they are those of the program that runs,
    `refusals` what `reject` came to, None for a policy without it, `probation_left_s` how long it can
    be confirmed, None for one that is on no probation, `has_before` whether something else comes back then,
    `limiters` how full the tables of its rates are.
    """

    interface: str
    identity: Identity
    mode: str
    counters: dict[str, Counter]
    keys: tuple[CounterKey, ...]
    read_at_ns: int
    emergency_rules: tuple[Emergency, ...] = ()
    added: tuple[Added, ...] = ()
    is_current: bool = True
    trouble: str | None = None
    programs: tuple[AttachedProgram, ...] = ()
    refusals: Refusals | None = None
    probation_left_s: float | None = None
    has_before: bool = False
    limiters: tuple[Usage, ...] = ()

    @property
    def hook(self) -> Hook:
        """Where it runs."""
        return Hook(self.identity.hook)

    @property
    def others(self) -> tuple[tuple[AttachedProgram, ...], tuple[AttachedProgram, ...]]:
        """The programs of others on the hook that packets meet before this one, and behind it."""
        at = next(
            (at for at, one in enumerate(self.programs) if one.program_id == self.identity.program), None
        )
        return ((), self.programs) if at is None else (self.programs[:at], self.programs[at + 1 :])

    @property
    def rows(self) -> tuple[tuple[CounterKey, Counter], ...]:
        """What is counted, with its counter: the default, the conditions, and the rules as they are tried."""
        return tuple((key, self.counters[key.name]) for key in self.keys)

    @property
    def emergencies(self) -> tuple[tuple[Emergency, float], ...]:
        """The emergency rules that are still in force, with the seconds that they have left."""
        now = self.read_at_ns
        found = self.emergency_rules
        return tuple((rule, (rule.until_ns - now) / 1e9) for rule in found if rule.until_ns > now)


def status(ifname: str | None = None) -> tuple[Status, ...]:
    """The filters of this network namespace, or those of an interface; none is no error.

    Raises:
        KernelError: there is no such interface and it has left no filter, or pins cannot be read.
    """
    root = pin.pin_root()
    whereabouts.settle_what_is_free(root)
    deadline = time.monotonic() + _PATIENCE_S
    # Filters that are put in place together tell of it one after the other.
    while (found := _every_status(root)) != (told := _with_halves(found)) and time.monotonic() < deadline:
        time.sleep(_AGAIN_S)
    return told if ifname is None else _on(ifname, told)


def _every_status(root: Path) -> tuple[Status, ...]:
    names = whereabouts.names_here(root)
    read = (one for name in names if (one := _settled_status(root / name)) is not None)
    return tuple(sorted(read, key=lambda one: (one.interface, whereabouts.HOOKS.index(one.hook))))


def _with_halves(found: tuple[Status, ...]) -> tuple[Status, ...]:
    """With a word where filters that were put in place together are of different texts."""
    return tuple(one if one.trouble else replace(one, trouble=_half(one, found)) for one in found)


def _half(one: Status, found: tuple[Status, ...]) -> str | None:
    """What is said if a change of several filters was cut short between two of them (putting.py)."""
    own, name = one.identity, one.interface
    late = [
        other.hook.value
        for other in found
        if (other.interface, other.identity.place) == (name, own.place)
        and other.hook.value in own.together
        and other.identity.text != own.text
        # What was applied alone since is meant to be another one.
        and other.identity.program < own.program
    ]
    if not late or not own.place or not one.mode:
        return None
    command = f"penstock apply {own.path} -i {name}"
    return f"at {' and '.join(late)} an older {own.path} runs still, as after a change cut short; `{command}` mends it"


def _on(ifname: str, found: tuple[Status, ...]) -> tuple[Status, ...]:
    """The filters of the interface that has this name now, and, of hooks without, what one of that name has left."""
    left = tuple(one for one in found if one.identity.interface == ifname)
    try:
        name = interface(ifname).name
    except KernelError:
        if left:
            return left
        raise
    own = tuple(one for one in found if one.mode and one.interface == name)
    used = {one.hook for one in own}
    return (*own, *(one for one in left if one not in own and one.hook not in used))


def _settled_status(directory: Path) -> Status | None:
    """The status, read again while a change is under way; None if the filter was taken off meanwhile."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            found = _status(directory)
        except PrivilegeError:
            raise
        except KernelError as error:
            if not directory.exists():
                return None
            if time.monotonic() > deadline:
                return _damaged(directory, error)
        else:
            if found.is_current or time.monotonic() > deadline:
                return found
        time.sleep(_AGAIN_S)


def _status(directory: Path) -> Status:
    with open_slot(directory) as slot:
        counters = slot.counter_values()
        now = boot_clock_ns()
        place = Places().of(slot.info)
        name = place.name if place else slot.identity.interface
        mode = mode_on(place, slot.info) if place else ""
        # Asked once more: what was seen of the interface is about this program, and not about the next.
        is_settled = slot.link.info() == slot.info and (slot.is_current or slot.is_defunct)
        is_settled = is_settled and slot.is_unchanged()
        return Status(
            name,
            slot.identity,
            mode,
            counters,
            slot.keys_in_order(),
            now,
            slot.emergencies,
            slot.added,
            is_settled,
            _trouble(slot, place),
            programs_at(place.index, Hook(slot.identity.hook)) if place else (),
            refusals_in(directory),
            left_s(slot.identity),
            (directory / f"{BEFORE}{IDENTITY}").exists(),
            usage_in(directory, slot.identity),
        )


def _trouble(slot: Slot, place: Interface | None) -> str | None:
    name, pinned = slot.identity.interface, decode(slot.directory.name)
    if slot.is_defunct and pinned.netns == here() and _is_there(slot.identity.ifindex, name):
        return f"somebody has taken its filter off {name}; `penstock apply` attaches it again"
    if slot.is_defunct:
        return f"{name} is gone, and its filter with it; once it is back, `penstock apply` attaches it again"
    if place is None:
        return f"{name} was moved to another network namespace, and its filter runs there"
    if pinned.netns != here():
        return f"applied in another network namespace, to {name}, which was moved here"
    if place.name != name:
        return f"applied to {name}, which is now called {place.name}"
    if not slot.is_current:
        return "another program has been put on its link, so these counters stand still"
    if names := bonds.unbound(slot.identity):
        command = f"penstock apply {slot.identity.path or 'POLICY'} -i {name}"
        return f"{bonds.words(names)}; `{command}` mends it"
    return astray(slot.identity.devices)


def _is_there(ifindex: int, name: str) -> bool:
    try:
        return interface(ifindex).name == name
    except KernelError:
        return False


def _damaged(directory: Path, error: KernelError) -> Status:
    """What can be said of pins that cannot be read."""
    name, _, hook = decode(directory.name)
    identity = Identity(name="damaged", hook=hook.value, path="", text="", counters=(), interface=name)
    trouble = (
        f"its pins cannot be read ({error.message}); `penstock detach -i {name}` takes away what is left"
    )
    now = boot_clock_ns()
    return Status(name, identity, "", {}, (), now, is_current=False, trouble=trouble)
