"""Ask everything, or the parts that are wanted, and keep the answers together.

    survey_kernel(("behaviours",)).behaviours["xdp_frags"]   ->  Found(True)

Asking it all takes about a second, most of it for helpers: a tiny program for each helper and program type.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from penstock.kernel.probe import attempt, kinds, tries
from penstock.kernel.probe.behaviours import BEHAVIOURS, WATCHED_HELPERS
from penstock.kernel.probe.kinds import Found
from penstock.kernel.probe.tables import ATTACH_TYPES, MAP_TYPES, PROGRAM_TYPES

SECTIONS = ("behaviours", "programs", "maps", "attach", "helpers")


@dataclass(frozen=True, slots=True)
class Survey:
    """The answers, by the names of `tables` and `behaviours`; a section that was not asked is empty.

    `helpers` has the helpers of each program type, None where that cannot be told.
    """

    kernel: str
    machine: str
    behaviours: Mapping[str, Found]
    programs: Mapping[str, Found]
    maps: Mapping[str, Found]
    attach: Mapping[str, Found]
    helpers: Mapping[str, frozenset[str] | None]


def survey_kernel(sections: Collection[str] = SECTIONS, *, full: bool = False) -> Survey:
    """Ask the kernel; `full` asks also for what it writes a warning about into its log."""
    named = os.uname()
    with attempt.locked_memory_unlimited():
        return _survey(sections, named, full=full)


def _survey(sections: Collection[str], named: os.uname_result, *, full: bool) -> Survey:
    return Survey(
        kernel=named.release,
        machine=named.machine,
        behaviours=_behaviours() if "behaviours" in sections else {},
        programs={name: kinds.program_type(name) for name in PROGRAM_TYPES if "programs" in sections},
        maps={name: kinds.map_type(name) for name in MAP_TYPES if "maps" in sections},
        attach={name: kinds.attach_type(name) for name in ATTACH_TYPES if "attach" in sections},
        helpers={
            name: kinds.helpers(name, full=full)
            for name in PROGRAM_TYPES
            if "helpers" in sections and kinds.program_type(name).has is not False
        },
    )


def _behaviours() -> dict[str, Found]:
    asked = tries.tries()
    found = {behaviour.name: asked[behaviour.name]() for behaviour in BEHAVIOURS}
    return {**found, **{one.name: tries.watched_helper(one) for one in WATCHED_HELPERS}}
