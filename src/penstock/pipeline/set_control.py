"""The control map of a set: which bank counts, whether a change is under way, how many entries there are.

    state = Control(control, ("v4", "v6"))
    state.active            0 or 1; 2 while the set is empty whatever its maps hold
    state.active = 1        seen by the next packet

It is memory that programs read, and is read and written as such.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from penstock.model.sets import EXPIRY_MASK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from penstock.kernel.maps import Map

_ACTIVE, _CHANGING, _EXPIRING, _TIMED = 0, 1, 2, 3
#: In place of the second of the boot clock in which the first expiry may lie: it is not known.
_AT_ANY_TIME = 1
_SECOND = 1_000_000_000
_COUNTS_AT = 2  # in 64-bit words
_STATE = struct.Struct("=Q")


class Control:
    """The words of a control map."""

    def __init__(self, control: Map, families: Sequence[str]) -> None:
        memory = control.memory()
        self._words, self._counts = memory.cast("I"), memory.cast("Q")
        self._at = {family: _COUNTS_AT + number for number, family in enumerate(families)}

    @property
    def active(self) -> int:
        """The bank that counts."""
        return self._words[_ACTIVE]

    @active.setter
    def active(self, bank: int) -> None:
        self._words[_ACTIVE] = bank

    @property
    def changing(self) -> bool:
        """Whether a change has begun that has not ended."""
        return bool(self._words[_CHANGING])

    @changing.setter
    def changing(self, is_changing: bool) -> None:
        self._words[_CHANGING] = is_changing

    @property
    def expiring(self) -> bool:
        """Whether an entry has had an expiry since the set was last seen without any."""
        return bool(self._words[_EXPIRING])

    def will_expire(self, ends: Iterable[int]) -> None:
        """Say that entries come with these expiries, of which 0 is never."""
        first = min(filter(None, ends), default=0)
        known = self._words[_EXPIRING]
        if first and known != _AT_ANY_TIME:
            second = max(first // _SECOND, _AT_ANY_TIME)
            self._words[_EXPIRING] = min(known or second, second)

    def has_seen(self, ends: Iterable[int]) -> None:
        """Say that these are all expiries that there are."""
        self._words[_EXPIRING] = 0
        self.will_expire(ends)

    def may_have_expired(self, moment: int) -> bool:
        """Whether there may be an entry whose time is over."""
        return self.expiring and self._words[_EXPIRING] <= moment // _SECOND

    @property
    def timed(self) -> bool:
        """Of a flat set: whether the tries beside it may hold an entry."""
        return bool(self._words[_TIMED])

    @timed.setter
    def timed(self, is_timed: bool) -> None:
        self._words[_TIMED] = is_timed

    @property
    def counts(self) -> dict[str, int]:
        """The entries of each family."""
        return {family: self._counts[at] for family, at in self._at.items()}

    def count(self, family: str, entries: int) -> None:
        """Say how many entries a family has."""
        self._counts[self._at[family]] = entries

    def grow(self, family: str, by: int) -> None:
        """Say that a family has more entries, or fewer."""
        at = self._at[family]
        self._counts[at] = max(self._counts[at] + by, 0)

    @staticmethod
    def holds(value: bytes, bank: int) -> bool:
        """Whether a value's entry is in the set while that bank counts, if it has not ended."""
        return bool((_STATE.unpack_from(value)[0] & 3) >> bank & 1)

    @staticmethod
    def has_ended(value: bytes, moment: int) -> bool:
        """Whether the time of a value's entry and of all that cover it is over."""
        expiry: int = _STATE.unpack_from(value)[0] & EXPIRY_MASK
        return 0 < expiry <= moment


class AtRest:
    """The lock of a set, and behind it the set at rest."""

    def __init__(self, lock: AbstractContextManager[None], recover: Callable[[], None]) -> None:
        self._lock, self._recover = lock, recover

    def __enter__(self) -> None:
        self._lock.__enter__()
        try:
            self._recover()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise

    def __exit__(self, *details: object) -> None:
        self._lock.__exit__(None, None, None)
