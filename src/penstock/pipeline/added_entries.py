"""What rules have added to a set: looked into, and taken away again.

    added = AddedEntries(spec, maps)          maps by SetSpec.added_tables
    added.count                               entries, those that have expired and were not removed yet among them
    added.refused                             packets whose key found no room
    added.remove("v4", key)                   what a command takes away

Programs add and remove at any time and hold no lock (added.bpf.h), so everything
here is one step for each entry.  Whoever removes holds the lock of the set: the
word of the tally that counts such removals has no other writer.
"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Iterator, Mapping

from penstock.errors import KernelError
from penstock.kernel.map_entries import entries
from penstock.kernel.maps import MMAPABLE, NOEXIST, Map, MapType
from penstock.model.boot_clock import boot_clock_ns
from penstock.model.closing import Closing
from penstock.model.sets import ADDED, TALLY, TURN, SetSpec

#: struct ps_set_tally of bpf/include/penstock/added.bpf.h: pairs of words, one for each family.
_CAME, _WENT, _SWEPT, _REFUSED = range(4)
_TALLY_BYTES = 64
#: Sums of the tally are those of 64-bit words: more may have been taken over than was removed.
_WORD = (1 << 64) - 1
_NO_PREALLOC = 1  # BPF_F_NO_PREALLOC


class AddedEntries(Closing):
    """Open maps of what rules add to one set."""

    def __init__(self, spec: SetSpec, maps: Mapping[str, Map]) -> None:
        self.spec = spec
        self.maps = maps
        self._tally = maps[TALLY].memory().cast("Q")

    def close(self) -> None:
        """Let go of the maps."""
        for held in self.maps.values():
            held.close()

    @property
    def count(self) -> int:
        """How many entries there are, expired ones that are not removed yet among them."""
        return sum(self._left(at) for at in range(len(self.spec.families)))

    @property
    def refused(self) -> int:
        """How many packets were not added because the set was full."""
        return sum(self._tally[2 * _REFUSED : 2 * _REFUSED + 2])

    def _left(self, at: int) -> int:
        gone = self._tally[2 * _WENT + at] + self._tally[2 * _SWEPT + at]
        return self._tally[2 * _CAME + at] - gone & _WORD

    def has(self, family: str, key: bytes) -> bool:
        """Whether a packet finds the key; that of a set of networks is an address, as `bare` gives it."""
        value = self.maps[f"{family}_{ADDED}"].lookup(key)
        return value is not None and _lives(value)

    def bare(self, family: str, key: bytes) -> bytes | None:
        """The key here of an entry of the set: of a network only one of a single address has one."""
        if self.spec.kind != ("net",):
            return key
        length = int.from_bytes(key[:4], sys.byteorder)
        return key[4:] if length == 8 * sum(self.spec.part_bytes(family)) else None

    def entries(self) -> Iterator[tuple[str, bytes, tuple[int, ...]]]:
        """Family, key as the set itself has it, and the words of each entry that has not expired."""
        for family in self.spec.families:
            if not self._left(self.spec.families.index(family)):
                continue
            for key, value in entries(self.maps[f"{family}_{ADDED}"]):
                if value is not None and _lives(value):
                    words = struct.unpack(f"={len(value) // 8}Q", value)
                    yield family, self._whole(family, key), words

    def _whole(self, family: str, key: bytes) -> bytes:
        if self.spec.kind != ("net",):
            return key
        return (8 * sum(self.spec.part_bytes(family))).to_bytes(4, sys.byteorder) + key

    def remove(self, family: str, key: bytes) -> bool:
        """Take one entry away; whether it was there.  Hold the set's lock.  Raises KernelError."""
        if not self.maps[f"{family}_{ADDED}"].delete(key):
            return False
        at = 2 * _SWEPT + self.spec.families.index(family)
        self._tally[at] = (self._tally[at] + 1) & _WORD
        return True

    def take(self, other: AddedEntries) -> None:
        """Add what another set of the kind has, until then; what is here already stays as it is.

        Hold the set's lock.  Raises KernelError: there is no room.
        """
        width = 3 if self.spec.counters else 1
        for family, key, words in other.entries():
            bare, at = other.bare(family, key), 2 * _SWEPT + self.spec.families.index(family)
            assert bare is not None
            value = struct.pack(f"={width}Q", words[0], *([0] * (width - 1)))
            # Counted first: the tally may be too large for a moment, never too small.
            self._tally[at] = (self._tally[at] - 1) & _WORD
            try:
                self.maps[f"{family}_{ADDED}"].update(bare, value, NOEXIST)
            except KernelError as error:
                self._tally[at] = (self._tally[at] + 1) & _WORD
                if error.errno != errno.EEXIST:
                    raise
            else:
                self.maps[f"{family}_{TURN}"].update(b"", bare)

    def clear(self, *, expired: bool = False) -> int:
        """Take all away, or those that have expired; how many went.  Hold the set's lock.  Raises KernelError."""
        gone = 0
        for family in self.spec.families:
            table = self.maps[f"{family}_{ADDED}"]
            for key in list(table.keys()):
                value = table.lookup(key) if expired else None
                if value is None or not _lives(value):
                    gone += self.remove(family, key)
        return gone


def create_added(spec: SetSpec) -> dict[str, Map]:
    """The maps of what rules will add to a set, by SetSpec.added_tables.  Raises KernelError."""
    made: dict[str, Map] = {}
    try:
        for family in spec.families if spec.dynamic else ():
            made[f"{family}_{ADDED}"] = Map.create(
                MapType.HASH,
                f"ps_{spec.name}"[:15].replace("-", "_"),
                key_size=spec.added_bytes(family),
                value_size=24 if spec.counters else 8,
                max_entries=spec.size,
                flags=_NO_PREALLOC,
            )
            made[f"{family}_{TURN}"] = Map.create(
                MapType.QUEUE,
                "ps_set_turn",
                key_size=0,
                value_size=spec.added_bytes(family),
                max_entries=spec.turns,
            )
        if spec.dynamic:
            made[TALLY] = Map.create(
                MapType.ARRAY,
                "ps_set_tally",
                key_size=4,
                value_size=_TALLY_BYTES,
                max_entries=1,
                flags=MMAPABLE,
            )
    except BaseException:
        for one in made.values():
            one.close()
        raise
    return made


def _lives(value: bytes) -> bool:
    end = int.from_bytes(value[:8], sys.byteorder)
    return not end or boot_clock_ns() < end
