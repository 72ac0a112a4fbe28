"""Hold a loaded program's answers against the reference, before anybody times it.

Each frame is run by the kernel once (BPF_PROG_TEST_RUN) and its action code
read back; then all rules' counters are read, so that each packet is known to
have been decided by as many rules as it should, each as often as it should.
The program is the one that is timed, not one built for tests.
"""

from __future__ import annotations

import numpy as np

from bench.reference import NO_RULE, Numbers
from bench.workload import Traffic, Workload
from penstock.compiler.ir.ops import FIRST_RULE_SLOT
from penstock.errors import PenstockError
from penstock.kernel.maps import Map
from penstock.kernel.program import Program

DROP, PASS = 1, 2


class WrongAnswerError(PenstockError):
    """A program that is to be measured decides packets wrongly: its figures would mean nothing."""


def check(
    what: str,
    program: Program,
    counters: Map,
    workload: Workload,
    *,
    first_slot: int = FIRST_RULE_SLOT,
    most: int | None = None,
) -> int:
    """Run `most` frames of each kind of traffic, all by default; how many answers were compared.

    Slot 0 of `counters` counts packets that no rule decides, `first_slot` + n what rule n does.

    Raises:
        WrongAnswerError: an action code or a counter differs from what linear search says.
    """
    compared = 0
    for kind, traffic in workload.traffic.items():
        count = min(most or len(traffic.expected), len(traffic.expected))
        before = _counted(counters)
        codes = program.test_run_many(row.tobytes() for row in traffic.frames[:count])
        wrong = int((codes != _codes(workload, traffic, count)).sum())
        moved = _counted(counters) - before
        miscounted = int((moved != _slots(traffic, count, first_slot, len(moved))).sum())
        if wrong or miscounted:
            raise WrongAnswerError(
                f"{what}, {workload.name} {workload.family} {len(workload)} rules, seed {workload.seed}, {kind}: "
                f"{wrong} of {count} verdicts and {miscounted} counters differ from linear search"
            )
        compared += count
    return compared


def _codes(workload: Workload, traffic: Traffic, count: int) -> Numbers:
    expected = traffic.expected[:count]
    drops = np.append(workload.drops, workload.default_drops)[
        np.where(expected == NO_RULE, len(workload), expected)
    ]
    return np.where(drops, DROP, PASS)


def _slots(traffic: Traffic, count: int, first_slot: int, slots: int) -> Numbers:
    expected = traffic.expected[:count]
    return np.bincount(np.where(expected == NO_RULE, 0, expected + first_slot), minlength=slots)


def _counted(counters: Map) -> Numbers:
    _, values = counters.read_all()
    found: Numbers = values[:, :, 0].sum(axis=1).astype(np.int64)
    return found
