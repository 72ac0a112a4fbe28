"""The pins of one attach point: what is running there, and a crash-safe way to change it.

    /sys/fs/bpf/penstock/eth0/
        link        the bpf_link: as long as this name exists the filter runs
        counters    the running program's own counters
        carried     what programs before it had counted for rules that are the same
        identity    who it is: the policy's text, path, rules, program id

A change is staged in a directory of its own, the link is updated, and then the
directories are exchanged.  The link update is what counts; if the process dies
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
from penstock.kernel.blob import read_blob
from penstock.kernel.capability import kernel_errors
from penstock.kernel.link import Link, LinkInfo
from penstock.kernel.maps import Map, MapType
from penstock.pipeline.counters import (
    PAIR,
    Counter,
    Totals,
    added,
    carried_over,
    named,
    pack_totals,
    read_totals,
    unpack_totals,
)
from penstock.pipeline.identity import Identity, kept_slots
from penstock.pipeline.identity import decode as decode_identity

LINK, COUNTERS, CARRIED, IDENTITY = "link", "counters", "carried", "identity"
_ONLY_KEY = bytes(4)


@dataclass(frozen=True, slots=True)
class Slot:
    """A directory of pins, opened.  Close it, or use it as a context."""

    directory: Path
    link: Link
    counters: Map
    carried: Map
    identity: Identity
    info: LinkInfo
    _owned: ExitStack = field(repr=False)

    @property
    def is_defunct(self) -> bool:
        """Whether the interface that the link was on is gone."""
        return self.info.ifindex == 0

    @property
    def is_current(self) -> bool:
        """Whether the pins describe the program that the link runs."""
        return self.info.program_id == self.identity.program

    def totals(self) -> Totals:
        """The counter of each slot since its rule first came."""
        return added(read_totals(self.counters, len(self.identity.counters)), read_carried(self.carried))

    def counter_values(self) -> dict[str, Counter]:
        """The totals by the names of their slots."""
        return named(self.identity.counters, self.totals())

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
        link = opened.enter_context(Link.open(place / LINK))
        counters = opened.enter_context(Map.open(place / COUNTERS))
        carried = opened.enter_context(Map.open(place / CARRIED))
        identity = decode_identity(read_blob(place / IDENTITY), str(directory / IDENTITY))
        return Slot(directory, link, counters, carried, identity, link.info(), opened.pop_all())


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
    Doing it twice is the same as once.
    """
    pairs = kept_slots(old.identity.counters, new_identity.counters)
    base = carried_over(pairs, old.totals(), len(new_identity.counters))
    new_carried.update(_ONLY_KEY, pack_totals(base))


def settle(root: Path, name: str) -> None:
    """Finish or forget what a killed command left of a change.  Hold the lock of `name`.

    Raises:
        KernelError: the pins cannot be read or changed.
    """
    for staged in pin.leftovers(root, name):
        if _was_put_in_place(staged):
            _finish(root, name, staged)
        else:
            pin.discard(staged)


def _was_put_in_place(staged: Path) -> bool:
    """Whether the link already runs the program of a staged directory; false for one that was never filled."""
    try:
        with open_slot(staged) as slot:
            return slot.is_current and not slot.is_defunct
    except KernelError:
        return False


def _finish(root: Path, name: str, staged: Path) -> None:
    if (root / name).exists():
        with open_slot(root / name) as old, open_slot(staged) as new:
            carry(old, new.identity, new.carried)
    pin.publish(root, name, staged)
