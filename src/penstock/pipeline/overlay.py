"""The list of added rules beside a running program's tables: read it, change it in one step.

In: the pins of a running program that takes added rules.  Out: `State`, what the
list holds; `change` puts another list in its place.

    state = overlay.read()
    overlay.change(state, records, content)      each packet meets the old list or the new one

There are two banks and a switch.  A change fills the bank that is not in use,
moves the switch, which is what counts, and waits until no packet is in the old
bank any more.  The names and texts of the rules lie in the bank as well, so a
process that is killed between any two steps leaves the old list or the new one,
and nothing to be finished; the next one only waits once more before it fills a
bank (`settled`).
"""

from __future__ import annotations

import errno
import struct
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import msgspec

from penstock.errors import KernelError
from penstock.kernel import libc
from penstock.kernel.maps import Map
from penstock.model.overlay import BANK_BYTES, COUNTS, Bank, bank, is_counting
from penstock.pipeline.identity import Added, CounterKey, Emergency

#: The pins: the switch, and the banks.
SWITCH, BANKS = "overlay", "added"
_SWITCH = struct.Struct("=III")
_KEY = struct.Struct("=I")
_OTHER = {0: 1, 1: 2, 2: 1}
_PATIENCE_S, _AGAIN_S = 1.0, 0.005
#: Where the kernel cannot say that a grace period is over: no packet is that long in a program.
_LONGEST_RUN_S = 0.1


class Held(msgspec.Struct, frozen=True):
    """A rule in the overlay: its counter's key and number, and the slot of the rule that it stands before."""

    key: CounterKey
    number: int
    position: int


class Content(msgspec.Struct, frozen=True):
    """What a bank's text says.

    `added` are all added rules in their order, those that were compiled in among
    them, without their texts; `emergencies` and `held` are of the overlay alone, `held` in the order
    in which its rules are tried.
    """

    added: tuple[Added, ...] = ()
    emergencies: tuple[Emergency, ...] = ()
    held: tuple[Held, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """The names of the rules in the overlay."""
        return frozenset(held.key.name for held in self.held)


@dataclass(frozen=True, slots=True)
class State:
    """What the overlay holds at one time; `content` is None while it is not in use."""

    bank: int
    generation: int
    is_settled: bool
    records: tuple[tuple[int, bytes], ...] = ()
    content: Content | None = None


class Overlay:
    """The two maps of an overlay, open."""

    __slots__ = ("_banks", "_switch")

    def __init__(self, switch: Map, banks: Map) -> None:
        self._switch, self._banks = switch, banks

    @classmethod
    def open(cls, directory: Path) -> Self | None:
        """The overlay in a directory of pins; None for a program that has none, or another penstock's.

        Raises:
            KernelError: the pins are not what they should be.
        """
        if not (directory / SWITCH).exists():
            return None
        with ExitStack() as undo:
            switch = undo.enter_context(Map.open(directory / SWITCH))
            banks = undo.enter_context(Map.open(directory / BANKS))
            found = cls(switch, banks)
            if banks.size != BANK_BYTES:
                found.must_be_empty()
                return None
            undo.pop_all()
            return found

    def must_be_empty(self) -> None:
        """Raise KernelError if there are added rules: they are not laid out as this penstock reads them."""
        if self._switched()[0]:
            meaning = "another version of penstock put them there"
            raise KernelError("read", "the added rules", errno.EINVAL, meaning=meaning)

    def read(self) -> State:
        """What it holds; read again while a change is under way.

        Raises:
            KernelError: it cannot be read, or is not what it should be.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            number, generation, settled = self._switched()
            found = Bank.of(self._value(number)) if number else None
            if self._switched()[:2] == (number, generation):
                if found is None:
                    return State(0, generation, settled == generation)
                if found.generation == generation:
                    content = _content(found.text)
                    return State(number, generation, settled == generation, found.records, content)
            if time.monotonic() > deadline:
                raise KernelError("read", "the added rules", errno.EIO, meaning="they do not stand still")
            time.sleep(_AGAIN_S)

    def generation(self) -> int:
        """A number that every change makes another one."""
        return self._switched()[1]

    def change(self, state: State, records: Iterable[bytes], content: Content) -> None:
        """Put these rules in the place of those of `state`; when this returns every packet meets them.

        Hold the lock of the attach point, under which `state` was read.

        Raises:
            KernelError: E2BIG if they do not fit; the old rules are in force.
        """
        number, generation = _OTHER[state.bank], state.generation + 1 & 0xFFFF_FFFF
        made = list(records)
        wanted = _value(generation, made, content)
        self.settle(state)
        if content.held:
            self._banks.update(_KEY.pack(number - 1), wanted)
            # The bank's bytes are to be there for whoever sees the switch moved.
            libc.memory_barrier()
        in_use = (number | COUNTS * any(map(is_counting, made))) if content.held else 0
        # Only the lowest byte of `in_use` changes, so that no packet reads half a number.
        self._switch.update(_KEY.pack(0), _SWITCH.pack(in_use, generation, state.generation))
        _wait_for_packets()
        self._switch.update(_KEY.pack(0), _SWITCH.pack(in_use, generation, generation))

    def settle(self, state: State) -> State:
        """Make sure that no packet is in the bank that is not in use, nor counts for a rule that is gone."""
        if not state.is_settled:
            _wait_for_packets()
        return replace(state, is_settled=True)

    def close(self) -> None:
        """Give the descriptors back."""
        self._switch.close()
        self._banks.close()

    def _switched(self) -> tuple[int, int, int]:
        value = self._switch.lookup(_KEY.pack(0)) or b""
        in_use, generation, settled = _SWITCH.unpack(value) if len(value) == _SWITCH.size else (-1, 0, 0)
        if in_use & ~COUNTS not in _OTHER:
            raise KernelError(
                "read", "the added rules", errno.EINVAL, meaning="this map holds something else"
            )
        return in_use & ~COUNTS, generation, settled

    def _value(self, number: int) -> bytes:
        return self._banks.lookup(_KEY.pack(number - 1)) or b""


def _value(generation: int, records: Sequence[bytes], content: Content) -> bytes:
    try:
        return bank(generation, records, msgspec.json.encode(content))
    except ValueError as error:
        raise KernelError("store", "the added rules", errno.E2BIG, meaning=str(error)) from error


def _content(text: bytes) -> Content:
    try:
        return msgspec.json.decode(text, type=Content)
    except ValueError as error:
        meaning = f"they were written by another version of penstock: {error}"
        raise KernelError("read", "the added rules", errno.EINVAL, meaning=meaning) from error


def _wait_for_packets() -> None:
    if not libc.synchronize_rcu():
        time.sleep(_LONGEST_RUN_S)
