"""What a parser gives: prefixes, and the lines that it could not take.

`Parsed` is the same for every format.  A parser that can make nothing of the
bytes at all raises FeedError instead, and so does one that met a stated limit:
there is no third outcome, and no input takes it more than bounded time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from penstock.model.prefixes import Mask, Prefixes

F64: TypeAlias = npt.NDArray[np.float64]
Index: TypeAlias = npt.NDArray[np.intp]

#: So many rejects are kept with their text; all are counted.
KEPT_REJECTS = 1000
#: With more than these, no feed of at most 32 MiB could be below the share of rejects that is taken.
MOST_REJECTS = 200_000
#: Ranges may make many prefixes of few bytes; a feed of more than this is refused.
MOST_PREFIXES = 16_777_216
#: So much of an entry is shown.
SHOWN = 80


@dataclass(frozen=True, slots=True)
class Reject:
    """An entry that is not taken: its line (in JSON its number among the entries), its text, why."""

    line: int
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Until:
    """When each prefix stops to count, in seconds since 1970; infinite for one without an end."""

    v4: F64
    v6: F64


@dataclass(frozen=True, slots=True)
class Listed:
    """Prefixes with the end of each; without `until` none ends."""

    prefixes: Prefixes
    until: Until | None = None

    def ends(self) -> Until:
        """The end of each, infinite where there is none."""
        if self.until is not None:
            return self.until
        p = self.prefixes
        return Until(np.full(len(p.v4), math.inf), np.full(len(p.v6_high), math.inf))

    def take(self, v4: Mask | Index, v6: Mask | Index) -> Listed:
        """Those that two masks, or arrays of indexes, choose."""
        until = None if self.until is None else Until(self.until.v4[v4], self.until.v6[v6])
        return Listed(self.prefixes.take(v4, v6), until)


def joined(parts: Iterable[Listed]) -> Listed:
    """All of them sorted, each prefix once, with the latest of its ends."""
    each = list(parts)
    prefixes = Prefixes.joined(part.prefixes for part in each)
    nothing = np.zeros(0, np.float64)
    ends = [part.ends() for part in each]
    v4 = np.concatenate([nothing, *(end.v4 for end in ends)])
    v6 = np.concatenate([nothing, *(end.v6 for end in ends)])
    # Sorted by end first, the latest of equal prefixes comes first and is the one that is kept.
    latest = Listed(prefixes, Until(v4, v6)).take(
        np.argsort(-v4, kind="stable"), np.argsort(-v6, kind="stable")
    )
    return latest.take(*latest.prefixes.first_of_each())


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a feed says.

    `entries` is how many lines or objects spoke of an address, `rejected` how many of these were
    refused, `declared` how many the feed itself says there are (None: it does not).  `normalised`
    had bits set behind their length, `mapped` were IPv4 written as IPv6; `skipped` are entries that
    the format marks as not to be acted upon (revoked, deleted, not for detection, expired).
    """

    prefixes: Prefixes
    entries: int
    rejects: tuple[Reject, ...] = ()
    rejected: int = 0
    normalised: int = 0
    mapped: int = 0
    skipped: int = 0
    declared: int | None = None
    until: Until | None = None


@dataclass(slots=True)
class Rejects:
    """Collects rejects, the first with their text."""

    kept: list[Reject] = field(default_factory=list)
    count: int = 0

    def add(self, line: int, text: str, reason: str) -> None:
        """One more."""
        self.count += 1
        if len(self.kept) < KEPT_REJECTS:
            shown = text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
            self.kept.append(Reject(line, shown, reason))
