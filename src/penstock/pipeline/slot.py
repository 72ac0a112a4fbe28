"""The pins of one attach point: what is running there, and a crash-safe way to change it.

    /sys/fs/bpf/penstock/eth0/
        link        the bpf_link: as long as this name exists the filter runs
        program     in its place, of a filter on clsact: the program (`Holder`)
        counters    the running program's own counters
        carried     what programs before it had counted for rules that are the same
        identity    who it is: the policy's text, path, rules, program id
        overlay, added    of a large policy: rules added while it runs (overlay.py)
    before-…    of one on probation: the same of what was there before (probation.py)

A change is staged in a directory of its own, the link (or filter) is updated, and
then the directories are exchanged.  The update is what counts; if the process dies
beside it, `settle` finds from the program's id which side of it the kernel is
on, and finishes or forgets the change.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock.errors import KernelError
from penstock.kernel import pin
from penstock.kernel.attach_point import decode, here
from penstock.kernel.blob import read_blob
from penstock.kernel.capability import kernel_errors
from penstock.kernel.clsact import Filter
from penstock.kernel.link import Link, LinkInfo
from penstock.kernel.maps import Map, MapType
from penstock.kernel.program import Program
from penstock.kernel.syscall import Descriptor, open_pinned
from penstock.model.hook import Hook
from penstock.pipeline.counters import (
    PAIR,
    Counter,
    Totals,
    added,
    carried_over,
    named,
    pack_totals,
    read_total,
    read_totals,
    unpack_totals,
)
from penstock.pipeline.identity import Added, CounterKey, Emergency, Identity, kept_slots
from penstock.pipeline.identity import decode as decode_identity
from penstock.pipeline.overlay import Held, Overlay, State

LINK, PROGRAM_PIN = "link", "program"
COUNTERS, CARRIED, IDENTITY = "counters", "carried", "identity"
#: What ties a program to its hook, and can replace it in one step.
Holder = Link | Filter
_ONLY_KEY = bytes(4)
#: The pins of what a policy on probation has replaced; its counters stand still, and `before-carried` has all of them.
BEFORE = "before-"
BEFORE_CARRIED = f"{BEFORE}{CARRIED}"


@dataclass(frozen=True, slots=True)
class Slot:
    """A directory of pins, opened.  Close it, or use it as a context."""

    directory: Path
    link: Holder
    counters: Map
    carried: Map
    identity: Identity
    info: LinkInfo
    overlay: Overlay | None
    state: State
    _owned: ExitStack = field(repr=False)

    @property
    def is_defunct(self) -> bool:
        """Whether the interface that the link was on is gone, or somebody has taken the filter off."""
        return self.info.ifindex == 0

    @property
    def is_current(self) -> bool:
        """Whether the pins describe the program that the link runs."""
        return self.info.program_id == self.identity.program

    @property
    def held(self) -> tuple[Held, ...]:
        """The rules in the overlay, in the order in which they are tried."""
        return self.state.content.held if self.state.content else ()

    @property
    def added(self) -> tuple[Added, ...]:
        """The rules that were added to the policy, in their order, wherever they are."""
        own = {rule.name: rule for rule in self.identity.added}
        found = self.state.content.added if self.state.content else self.identity.added
        return tuple(own.get(rule.name, rule) for rule in found)

    @property
    def emergencies(self) -> tuple[Emergency, ...]:
        """The emergency rules, compiled in or in the overlay."""
        held = self.state.content.emergencies if self.state.content else ()
        return (*self.identity.emergencies, *held)

    @property
    def keys(self) -> tuple[CounterKey, ...]:
        """What is counted: the program's own slots, then the rules in the overlay."""
        return (*self.identity.counters, *(held.key for held in self.held))

    def keys_in_order(self) -> tuple[CounterKey, ...]:
        """The `keys`, those of rules in the order in which they are tried."""
        if not self.held:
            return self.identity.counters
        waiting, found = list(self.held), []
        for slot, key in enumerate(self.identity.counters):
            while waiting and waiting[0].position <= slot:
                found.append(waiting.pop(0).key)
            found.append(key)
        return (*found, *(held.key for held in waiting))

    def is_unchanged(self) -> bool:
        """Whether the rules in the overlay are still those that were read when this was opened."""
        return self.overlay is None or self.overlay.generation() == self.state.generation

    def totals(self) -> Totals:
        """The counter of each of the `keys` since its rule first came."""
        count = len(self.identity.counters)
        own = added(read_totals(self.counters, count), read_carried(self.carried))
        return (*own, *(read_total(self.counters, count + held.number) for held in self.held))

    def counter_values(self) -> dict[str, Counter]:
        """The totals by the names of their slots."""
        return named(self.keys, self.totals())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._owned.close()


def open_slot(directory: Path) -> Slot:
    """The pins in a directory.

    All of one directory, although its name may be given to another one meanwhile.

    Raises:
        KernelError: one of them is missing (errno ENOENT), or not what it should be.
    """
    with _held(directory) as place, ExitStack() as opened:
        identity = _read_identity(place, directory)
        link: Holder = _holder(place, identity)
        opened.enter_context(link)
        counters = opened.enter_context(Map.open(place / COUNTERS))
        carried = opened.enter_context(Map.open(place / CARRIED))
        overlay = Overlay.open(place)
        if overlay is not None:
            opened.callback(overlay.close)
        state = overlay.read() if overlay is not None else State(0, 0, is_settled=True)
        return Slot(
            directory, link, counters, carried, identity, link.info(), overlay, state, opened.pop_all()
        )


def open_pins(directory: Path, held: ExitStack) -> dict[str, Descriptor]:
    """Every pin of a directory by its name, opened as it is; `held` closes them.  Raises KernelError."""
    with kernel_errors("open pins in", str(directory)):
        return {
            path.name: held.enter_context(Descriptor(open_pinned(path, None)))
            for path in sorted(directory.iterdir())
        }


def open_holder(directory: Path) -> Holder | None:
    """What holds the program of a directory of pins; None where that cannot be told."""
    try:
        if (directory / LINK).exists():
            return Link.open(directory / LINK)
        if (directory / PROGRAM_PIN).exists():
            return _holder(directory, _read_identity(directory, directory))
    except KernelError:
        return None
    return None


def _holder(place: Path, identity: Identity) -> Holder:
    found = identity.clsact
    if found is None:
        return Link.open(place / LINK)
    Program.open(place / PROGRAM_PIN).close()
    hook = Hook(identity.hook)
    return Filter(identity.ifindex, hook, found.name, found.priority, owns_qdisc=found.owns_qdisc)


def read_identity(directory: Path, prefix: str = "") -> Identity:
    """Who a directory of pins says it is; with BEFORE, whom it has replaced.  Raises KernelError."""
    return decode_identity(read_blob(directory / f"{prefix}{IDENTITY}"), str(directory / IDENTITY))


def _read_identity(place: Path, directory: Path) -> Identity:
    return decode_identity(read_blob(place / IDENTITY), str(directory / IDENTITY))


@contextmanager
def _held(directory: Path) -> Iterator[Path]:
    """A path that goes on meaning this directory when its name is exchanged."""
    with kernel_errors("open", str(directory)):
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{fd}")
    except KernelError as error:
        error.message = error.message.replace(f"/proc/self/fd/{fd}", str(directory))
        raise
    finally:
        os.close(fd)


def create_carried(slots: int) -> Map:
    """The map of carried totals: one entry, so that one call changes all of it or nothing."""
    size = slots * PAIR.size
    return Map.create(MapType.ARRAY, "ps_carried", key_size=4, value_size=size, max_entries=1)


def read_carried(carried: Map) -> Totals:
    """The carried totals, one a slot."""
    return unpack_totals(carried.lookup(_ONLY_KEY) or b"")


def carry(old: Slot, new_identity: Identity, new_carried: Map) -> None:
    """Give a new program's counters the old one's totals where the rule is the same.

    The old program must be running no more (`Link.update` waits for that).
    A rule that the old one does not have keeps what was carried for it already.
    Doing it twice is the same as once.
    """
    pairs = kept_slots(old.keys, new_identity.counters)
    base = carried_over(pairs, old.totals(), read_carried(new_carried))
    new_carried.update(_ONLY_KEY, pack_totals(base))


def remember(old: Slot, before_carried: Map) -> None:
    """Write down the totals of what was replaced, to be carried back to it.  It must be running no more."""
    write_carried(before_carried, old.totals()[: len(old.identity.counters)])


def write_carried(carried: Map, totals: Totals) -> None:
    """Replace the carried totals, in one step."""
    carried.update(_ONLY_KEY, pack_totals(totals))


def settle(root: Path, name: str) -> None:
    """Finish or forget what a killed command left of a change.  Hold the lock of `name`.

    Raises:
        KernelError: the pins cannot be read or changed.
    """
    for staged in pin.leftovers(root, name):
        if _was_put_in_place(staged):
            _finish(root, name, staged)
        else:
            _forget(staged, name)


def _was_put_in_place(staged: Path) -> bool:
    """Whether the link already runs the program of a staged directory; false for one that was never filled."""
    try:
        with open_slot(staged) as slot:
            return slot.is_current and not slot.is_defunct
    except KernelError:
        return False


def _forget(staged: Path, name: str) -> None:
    """Take a staged directory away, with the empty clsact that may have been made for it."""
    with ExitStack() as held:
        found = open_holder(staged)
        if isinstance(found, Filter) and decode(name).netns == here():
            held.callback(held.enter_context(found).clear_qdisc)
        pin.discard(staged)


def _finish(root: Path, name: str, staged: Path) -> None:
    if (root / name).exists():
        with open_slot(root / name) as old, open_slot(staged) as new:
            carry(old, new.identity, new.carried)
            if (staged / BEFORE_CARRIED).exists() and old.identity.probation is None:
                with Map.open(staged / BEFORE_CARRIED) as before:
                    remember(old, before)
    pin.publish(root, name, staged)
