"""The networks of a family that a flat set holds, as arrays, and what comes and goes; without copying those that stay.

    present = Present.of(content, "v4")
    present.has(asked)                               which keys are there
    Difference.none(present).coming(more).after      what is there behind a change
    Difference.none(present).coming(more).come       those of them that were not there

The keys that were written in order lie in the map's memory; what was changed since is
sorted beside them, so that a change of a thousand looks at these alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.model.flat import LINE_BYTES, Field
from penstock.pipeline.flat_keys import DTYPES, distinct, found_in, nothing
from penstock.pipeline.flat_log import LINE_FIELDS, OPERATIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from penstock.pipeline.flat_content import Content

LINE = np.dtype(LINE_FIELDS)
_COUNTS = {"v4": Field.COUNT_V4, "v6": Field.COUNT_V6}
_PLACES = {"v4": Field.AT_V4, "v6": Field.AT_V6}


@dataclass(frozen=True, slots=True, eq=False)
class Present:
    """Sorted keys; sorted ones of networks that came or went since, and whether they are there."""

    base: NDArray[Any]
    changed: NDArray[Any]
    is_there: NDArray[np.bool_]

    @classmethod
    def none(cls, family: str) -> Present:
        """Nothing at all."""
        return cls(nothing(family), nothing(family), np.empty(0, bool))

    @classmethod
    def of(cls, content: Content, family: str) -> Present:
        """What a content holds."""
        kind = DTYPES[family]
        at = content.header(_PLACES[family]) * LINE_BYTES
        octets = content.octets[at : at + content.header(_COUNTS[family]) * kind.itemsize]
        lines = np.frombuffer(content.log.lines, LINE)
        came, went = (OPERATIONS[family, is_added] for is_added in (True, False))
        lines = lines[(lines["operation"] == came) | (lines["operation"] == went)]
        return cls(np.frombuffer(octets, kind), *_last(_keys(family, lines), lines["operation"] == came))

    def has(self, asked: NDArray[Any]) -> NDArray[np.bool_]:
        """Which of them are there."""
        there, _ = found_in(self.base, asked)
        known, at = found_in(self.changed, asked)
        there[known] = self.is_there[at[known]]
        return there

    def but(self, come: NDArray[Any], gone: NDArray[Any]) -> Present:
        """What is there when these have come and those gone; none is in both."""
        keys = np.concatenate([self.changed, come, gone])
        is_there = np.concatenate([self.is_there, np.ones(len(come), bool), np.zeros(len(gone), bool)])
        return Present(self.base, *_last(keys, is_there))

    @property
    def count(self) -> int:
        """How many there are."""
        was, _ = found_in(self.base, self.changed)
        return len(self.base) + int(np.count_nonzero(self.is_there)) - int(np.count_nonzero(was))

    def all(self) -> NDArray[Any]:
        """All of them, sorted; a copy."""
        was, at = found_in(self.base, self.changed)
        left = np.delete(self.base, at[was]) if was.any() else self.base
        come = self.changed[self.is_there]
        return np.insert(left, np.searchsorted(left, come), come) if len(come) else left.copy()

    def between(self, first: NDArray[Any], behind: NDArray[Any]) -> NDArray[Any]:
        """Those in any of some ranges of keys, which do not overlap and are in order; sorted."""
        found = self.base[_within(self.base, first, behind)]
        part = _within(self.changed, first, behind)
        return Present(found, self.changed[part], self.is_there[part]).all()

    def no_longer(self, length: int) -> Present:
        """Those that are not longer, of IPv4."""
        base, changed = (keys.astype(np.uint8) <= length for keys in (self.base, self.changed))
        return Present(self.base[base], self.changed[changed], self.is_there[changed])


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """What is there, and sorted keys: those that come, which are not, and those that go, which are."""

    present: Present
    come: NDArray[Any]
    gone: NDArray[Any]

    @classmethod
    def none(cls, present: Present) -> Difference:
        """All stays."""
        return cls(present, present.base[:0], present.base[:0])

    def coming(self, more: NDArray[Any]) -> Difference:
        """Some more, in any order."""
        more = distinct(more)
        new = more[~self.present.has(more)]
        come = distinct(np.concatenate([self.come, new])) if len(self.come) else new
        # What goes and comes again stays.
        return Difference(self.present, come, without(self.gone, more))

    def going(self, unwanted: NDArray[Any]) -> Difference:
        """Without some, in any order."""
        unwanted = distinct(unwanted)
        old = unwanted[self.present.has(unwanted)]
        gone = distinct(np.concatenate([self.gone, old])) if len(self.gone) else old
        return Difference(self.present, without(self.come, unwanted), gone)

    def becoming(self, wanted: NDArray[Any]) -> Difference:
        """These alone, in any order."""
        wanted, present = distinct(wanted), self.present.all()
        return Difference(self.present, without(wanted, present), without(present, wanted))

    @property
    def after(self) -> Present:
        """What is there then."""
        return self.present.but(self.come, self.gone) if len(self.come) or len(self.gone) else self.present

    @property
    def count(self) -> int:
        """How many that are."""
        return self.present.count + len(self.come) - len(self.gone)


def without(keys: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    """The keys that are not among sorted ones."""
    return keys[~found_in(others, keys)[0]] if len(keys) and len(others) else keys


def _within(keys: NDArray[Any], first: NDArray[Any], behind: NDArray[Any]) -> NDArray[np.int64]:
    """The places of the keys in some ranges."""
    begins, ends = np.searchsorted(keys, first), np.searchsorted(keys, behind)
    counts = ends - begins
    return np.repeat(ends - np.cumsum(counts), counts) + np.arange(counts.sum())


def _last(keys: NDArray[Any], is_there: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Each key once, sorted, with what was said of it last."""
    order = np.argsort(keys, kind="stable")
    keys, is_there = keys[order], is_there[order]
    last = np.append(keys[1:] != keys[:-1], np.ones(min(len(keys), 1), bool))
    return keys[last], is_there[last]


def _keys(family: str, lines: NDArray[Any]) -> NDArray[Any]:
    """The networks of lines of the log."""
    if family == "v4":
        keys: NDArray[np.uint64] = lines["hi"] >> np.uint64(24) | lines["length"]
        return keys
    found = np.empty((len(lines), 17), np.uint8)
    found[:, :8] = lines["hi"].astype(">u8").view(np.uint8).reshape(-1, 8)
    found[:, 8:16] = lines["lo"].astype(">u8").view(np.uint8).reshape(-1, 8)
    found[:, 16] = lines["length"]
    return found.view("S17").reshape(-1)
