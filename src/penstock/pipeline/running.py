"""What is in place, as often as one likes: who runs where, without reading a counter.

    watch = Watch()
    watch.running()     ->  (Running(interface="eth0", hook=Hook.XDP, …), …)

An identity is read once: its pin is another file when it is another identity.
`status` is for people, and reads everything.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.errors import KernelError
from penstock.kernel import pin
from penstock.kernel.attach_point import decode
from penstock.kernel.link import LinkInfo
from penstock.kernel.lock import lock
from penstock.model.hook import Hook
from penstock.pipeline import slot as slots
from penstock.pipeline import whereabouts
from penstock.pipeline.bonds import unbound
from penstock.pipeline.identity import Identity
from penstock.pipeline.set_store import place_of
from penstock.pipeline.slot import IDENTITY

#: A command holds the lock for as long as it takes to load a program, ask it, and fill its sets.
_PATIENCE_S = 3.0


@dataclass(frozen=True, slots=True)
class Running:
    """The pins of one attach point.

    `interface` is its name now, `ifindex` 0 when the filter is on none any more;
    `program` is what the link really runs; `identity` is None for pins that
    cannot be read, and `fault` says why.
    """

    interface: str
    ifindex: int
    hook: Hook
    program: int
    identity: Identity | None
    fault: str | None = None
    #: Sets that the program asks by other maps than those that are pinned (bonds.py).
    unbound: tuple[str, ...] = ()

    @property
    def is_gone(self) -> bool:
        """Whether the filter is on no interface: that went away, or somebody took the filter off."""
        return self.ifindex == 0 and self.fault is None

    @property
    def is_current(self) -> bool:
        """Whether what runs is what penstock has put there."""
        return self.identity is not None and self.program == self.identity.program


class Watch:
    """What was read of pins that have not changed since."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[tuple[int, int], Identity]] = {}
        self._bonds: dict[str, tuple[object, tuple[str, ...]]] = {}

    def running(self) -> tuple[Running, ...]:
        """The filters that were put in place in this network namespace, or run in it.

        Raises:
            KernelError: the pins cannot be listed.
        """
        root = pin.pin_root()
        whereabouts.settle_what_is_free(root)
        places = whereabouts.Places()
        every = whereabouts.names_here(root)
        self._read = {name: known for name, known in self._read.items() if name in every}
        self._bonds = {name: known for name, known in self._bonds.items() if name in every}
        found = (self._one(root, name, places) for name in every)
        return tuple(one for one in found if one is not None)

    def _one(self, root: Path, name: str, places: whereabouts.Places) -> Running | None:
        """None for what was taken off meanwhile, or runs in another network namespace.

        Where link and pins do not belong together a command may be between changing these: its end is waited for.
        """
        found = self._seen(root, name, places)
        if found is not None and found.is_current:
            return found
        try:
            with lock(name, wait_s=_PATIENCE_S):
                return self._seen(root, name, whereabouts.Places())
        except KernelError as error:
            if error.errno != errno.EBUSY or found is None or found.identity is None or found.is_gone:
                return found
            return replace(found, program=found.identity.program)

    def _seen(self, root: Path, name: str, places: whereabouts.Places) -> Running | None:
        pinned = decode(name)
        try:
            identity = self._identity(root / name, name)
        except KernelError as error:
            if not (root / name).exists():
                return None
            return Running(pinned.ifname, 0, pinned.hook, 0, None, error.message)
        link = slots.open_holder(root / name)
        if link is None:
            return Running(
                pinned.ifname, 0, pinned.hook, 0, None, f"{root / name} has no link that can be opened"
            )
        with link:
            found = self._placed(link.info(), identity, places)
        names = self._unbound(root / name, identity) if found is not None and found.is_current else ()
        return replace(found, unbound=names) if found is not None and names else found

    def _unbound(self, directory: Path, identity: Identity) -> tuple[str, ...]:
        """Looked at anew when the filter's pins or those of a set are others than before."""
        if not identity.sets:
            return ()
        mark = _mark(directory), tuple(place_of(spec.name) for spec in identity.sets)
        known = self._bonds.get(directory.name)
        if known is None or known[0] != mark:
            known = self._bonds[directory.name] = mark, unbound(identity)
        return known[1]

    def _placed(self, info: LinkInfo, identity: Identity, places: whereabouts.Places) -> Running | None:
        hook = Hook(identity.hook)
        if info.ifindex == 0:
            return Running(identity.interface, 0, hook, 0, identity)
        place = places.of(info)
        if place is None:
            return None
        return Running(place.name, place.index, hook, info.program_id, identity)

    def _identity(self, directory: Path, name: str) -> Identity:
        mark = _mark(directory)
        known = self._read.get(name)
        if known is None or known[0] != mark:
            known = self._read[name] = mark, slots.read_identity(directory)
        return known[1]


def _mark(directory: Path) -> tuple[int, int]:
    """What changes with an identity: it is pinned anew each time."""
    try:
        return os.stat(directory).st_ino, os.stat(directory / IDENTITY).st_ino  # noqa: PTH116
    except OSError:
        return 0, 0
