"""Where the content of a flat set is: a slot of a map of maps for each bank.

    slots = Slots(outer, place)         place: the set's directory of pins; None for one that has no pins
    slots.put(1, lines)                 from now on a packet that looks into slot 1 finds those lines
    slots.open(1)                       the map in it, or None
    slots.drop(1)

A map is pinned beside the others before a slot names it, so that it can be opened
without the right to open any map by its number.
"""

from __future__ import annotations

import errno
import struct
from pathlib import Path

from penstock.errors import KernelError
from penstock.kernel import pin
from penstock.kernel.capability import kernel_errors
from penstock.kernel.maps import Map
from penstock.model.flat import LINES

_NUMBER = struct.Struct("=I")


class Slots:
    """The two slots of a flat set."""

    __slots__ = ("_held", "_outer", "_place")

    def __init__(self, outer: Map, place: Path | None = None) -> None:
        self._outer, self._place = outer, place
        self._held: dict[int, Map] = {}

    def open(self, slot: int) -> Map | None:
        """The map in a slot; it stays this object's.  Raises KernelError."""
        found = self._outer.lookup(_NUMBER.pack(slot))
        if found is None:
            return None
        (number,) = _NUMBER.unpack(found)
        held = self._held.get(slot)
        if held is None or held.info.id != number:
            if held is not None:
                held.close()
            self._held[slot] = held = self._found(slot, number)
        return held

    def _found(self, slot: int, number: int) -> Map:
        if self._place is not None:
            try:
                pinned = Map.open(self._pin(slot))
            except KernelError as error:
                if error.errno != errno.ENOENT:
                    raise
            else:
                if pinned.info.id == number:
                    return pinned
                pinned.close()
        return Map.by_id(number)

    def is_used(self, slot: int) -> bool:
        """Whether there is a map in a slot.  Raises KernelError."""
        return self._outer.lookup(_NUMBER.pack(slot)) is not None

    def put(self, slot: int, lines: Map) -> None:
        """Put a map into a slot; it is this object's from now on.  Raises KernelError."""
        if self._place is not None:
            path = self._pin(slot)
            with kernel_errors("pin", str(path)):
                path.unlink(missing_ok=True)
                pin.put(lines, path)
        self._outer.update(_NUMBER.pack(slot), _NUMBER.pack(lines.fd))
        if (old := self._held.pop(slot, None)) is not None:
            old.close()
        self._held[slot] = lines

    def drop(self, slot: int) -> bool:
        """Empty a slot; packets that are in its map leave it first.  False if it was.  Raises KernelError."""
        was_used = self._outer.delete(_NUMBER.pack(slot))
        if self._place is not None:
            with kernel_errors("remove", str(self._pin(slot))):
                self._pin(slot).unlink(missing_ok=True)
        if (old := self._held.pop(slot, None)) is not None:
            old.close()
        return was_used

    def take(self, other: Slots) -> None:
        """Go on with what another object of the same slots holds open, which it gives away."""
        self._held, other._held = {**other._held, **self._held}, {}

    def close(self) -> None:
        """Let go of the maps."""
        for held in (*self._held.values(), self._outer):
            held.close()
        self._held = {}

    def _pin(self, slot: int) -> Path:
        assert self._place is not None
        return self._place / LINES[slot]
