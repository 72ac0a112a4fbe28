"""Which rules of a rule set could go: first the shadowed ones, then the redundant ones, one after the other.

All that are found can be removed together, and every packet fares as before.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.compiler.analysis.anomalies import Anomalies, Shadowed
from penstock.compiler.analysis.cover import Work, WorkExceededError
from penstock.compiler.diagram.boxes import Boxes


@dataclass(frozen=True, slots=True)
class Redundant:
    """Without `rule` every packet would fare the same, those found before gone as well."""

    rule: int


@dataclass(frozen=True, slots=True)
class Findings:
    """`undecided` are rules for which the work allowed did not suffice."""

    shadowed: tuple[Shadowed, ...]
    redundant: tuple[Redundant, ...]
    undecided: tuple[int, ...]


def findings(
    boxes: Boxes,
    verdicts: Sequence[Hashable],
    default: Hashable,
    work: Work | None = None,
    *,
    redundancy: bool = True,
) -> Findings:
    """The shadowed and the redundant rules of boxes by themselves; `verdicts` has one entry for each rule."""
    return found_in(Anomalies(boxes, verdicts, default), work or Work(10_000_000, 1_000_000), redundancy)


def found_in(anomalies: Anomalies, work: Work, redundancy: bool = True, needed: int = 0) -> Findings:
    """The shadowed rules, and of the others those that are redundant one after the other.

    The first `needed` rules are not: they keep packets from what rules behind
    them do besides deciding.
    """
    real = anomalies.real
    gone = np.zeros(len(real), dtype=bool)
    shadowed: list[Shadowed] = []
    redundant: list[Redundant] = []
    undecided: set[int] = set()
    decide = anomalies.cleared(gone, needed=False)
    for rule in anomalies.rules:
        if rule in decide:
            continue
        try:
            found = anomalies.shadowed(rule, work)
        except WorkExceededError:
            undecided.add(rule)
            continue
        if found is not None:
            shadowed.append(found)
            gone |= real.rule == rule
    if redundancy:
        # A rule that random packets prove needed stays so while rules before it go.
        cleared = anomalies.cleared(gone, needed=True) | {found.rule for found in shadowed}
        cleared |= set(range(needed))
        for rule in anomalies.rules:
            if rule in cleared or not anomalies.decides(rule):
                continue
            try:
                if anomalies.is_redundant(rule, gone, work):
                    redundant.append(Redundant(rule))
                    gone |= real.rule == rule
            except WorkExceededError:
                undecided.add(rule)
    return Findings(tuple(shadowed), tuple(redundant), tuple(sorted(undecided)))
