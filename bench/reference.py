"""Which rule decides each packet, by linear search: what every answer of the kernel is held against.

In: rules and packets as numpy columns.  Out: for each packet the first rule
that holds it, or NO_RULE.

Every rule is compared with the packets, from the last rule to the first, so the
first one has the last word.  Packets are sorted by source and by destination:
a rule need only be shown those that lie in its narrower prefix.  Nothing here
is shared with the compiler.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from bench.rulesets import NAMES, Column, Rules

NO_RULE = -1
Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def first_rules(rules: Rules, packets: Mapping[str, Column]) -> Numbers:
    """The number of the rule that decides each packet, from 0; NO_RULE where none does."""
    found = np.full(len(packets["proto"]), NO_RULE, np.int64)
    by_source = _Sorted(packets["src"], rules.low["src"], rules.high["src"])
    by_target = _Sorted(packets["dst"], rules.low["dst"], rules.high["dst"])
    for number in reversed(range(len(rules))):
        near = min(by_source.within(number), by_target.within(number), key=len)
        if len(near):
            found[near[_holds(rules, number, packets, near)]] = number
    return found


def _holds(rules: Rules, number: int, packets: Mapping[str, Column], near: npt.NDArray[np.intp]) -> Mask:
    inside = np.ones(len(near), bool)
    for name in NAMES:
        low, high, column = rules.low[name][number], rules.high[name][number], packets[name]
        if column.ndim == 2:
            inside &= _from(column[near], low) & _from(high, column[near])
        elif name in ("sport", "dport") and (low, high) == (0, 0xFFFF):
            continue  # holds a packet without ports too
        else:
            inside &= (low <= column[near]) & (column[near] <= high)
    return inside


def _from(value: Column, least: Column) -> Mask:
    """Whether 128-bit values, the high half first, are at least others."""
    upper, bound = value[..., 0], least[..., 0]
    found: Mask = (upper > bound) | ((upper == bound) & (value[..., 1] >= least[..., 1]))
    return found


class _Sorted:
    """Packets in the order of an address, and which stretch of them each rule's prefix covers."""

    def __init__(self, column: Column, low: Column, high: Column) -> None:
        keys, first, last = (_top(part) for part in (column, low, high))
        self._order = np.argsort(keys, kind="stable")
        ordered = keys[self._order]
        self._start = np.searchsorted(ordered, first, side="left")
        self._stop = np.searchsorted(ordered, last, side="right")

    def within(self, number: int) -> npt.NDArray[np.intp]:
        """The packets whose address may lie in a rule's prefix."""
        return self._order[self._start[number] : self._stop[number]]


def _top(column: Column) -> Column:
    """An address, or the upper half of a wide one: near enough to sort by."""
    return column[:, 0] if column.ndim == 2 else column
