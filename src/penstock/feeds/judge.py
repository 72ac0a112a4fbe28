"""Whether a parse is to be believed.

In: what a feed says now, how many entries its last good copy had, and its limits.  Out: the
reasons for which it must not be taken; none means that it may.  A refused feed changes
nothing: its last good copy goes on.

    judge(parsed, entries, 20_000, Limits())  ->  ["9000 entries, 55 % fewer than the 20000 before; …"]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penstock.feeds.result import Parsed
from penstock.model.prefixes import Mask, Prefixes

#: No feed that is honest lists more than these at once.
WIDEST_V4, WIDEST_V6 = 8, 19
#: Rejects are borne up to this share of the entries, and up to so many in any case.
REJECT_SHARE, FEW_REJECTS = 0.01, 10


@dataclass(frozen=True, slots=True)
class Limits:
    """What is expected of one feed; `shrink` and `growth` are None where any change is."""

    shrink: float | None = 0.5
    growth: float | None = 10.0
    may_be_empty: bool = False
    max_entries: int | None = None
    widest_v4: int = WIDEST_V4
    widest_v6: int = WIDEST_V6


def judge(parsed: Parsed, entries: Prefixes, previous: int | None, limits: Limits) -> list[str]:
    """The reasons against a parse; `entries` is what would be taken of it, `previous` how many were last time."""
    reasons = [*_of_form(parsed), *_of_width(entries, limits)]
    count = len(entries)
    if limits.max_entries is not None and count > limits.max_entries:
        reasons.append(f"{_entries(count)}, and there is room for {limits.max_entries}")
    if count == 0 and not limits.may_be_empty and (previous or not parsed.entries):
        before = f", where there were {previous}" if previous else ""
        reasons.append(f"it has no entries{before}")
    elif previous:
        reasons.extend(_of_change(count, previous, limits))
    return reasons


def _of_form(parsed: Parsed) -> list[str]:
    reasons = []
    if parsed.rejected > FEW_REJECTS and parsed.rejected > REJECT_SHARE * parsed.entries:
        share = 100 * parsed.rejected / parsed.entries
        reasons.append(f"{parsed.rejected} of {parsed.entries} entries ({share:.0f} %) are no addresses")
    if parsed.declared is not None and parsed.declared != parsed.entries:
        reasons.append(f"it says that it has {parsed.declared} entries and has {parsed.entries}")
    return reasons


def _of_width(entries: Prefixes, limits: Limits) -> list[str]:
    wide = entries.take(*too_wide(entries, limits))
    if not len(wide):
        return []
    more = f" and {len(wide) - 1} more" if len(wide) > 1 else ""
    first = next(wide.networks())
    widest = limits.widest_v4 if first.version == 4 else limits.widest_v6
    return [f"{first}{more} is wider than /{widest}"]


def too_wide(entries: Prefixes, limits: Limits) -> tuple[Mask, Mask]:
    """Which prefixes no feed should list."""
    v4: Mask = entries.v4_length < np.uint8(limits.widest_v4)
    return v4, entries.v6_length < np.uint8(limits.widest_v6)


def _of_change(count: int, previous: int, limits: Limits) -> list[str]:
    if limits.shrink is not None and count < previous * (1 - limits.shrink):
        share = 100 * (previous - count) / previous
        most = 100 * limits.shrink
        return [
            f"{_entries(count)}, {share:.0f} % fewer than the {previous} before; {most:.0f} % is the limit"
        ]
    if limits.growth is not None and count > previous * limits.growth:
        times = count / previous
        return [f"{_entries(count)}, {times:.1f} times the {previous} before; {limits.growth:g} is the limit"]
    return []


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"
