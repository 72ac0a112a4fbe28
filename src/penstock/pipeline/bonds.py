"""Whether programs ask the sets that are there now: those that were taken away or made anew under them they do not.

    unbound(identity)     ->  ("threats",): what commands and feeds change there does not reach this program

In: what a filter says of itself, and the pins of sets.  A program holds the maps that it was
loaded with, whatever becomes of their pins; `penstock apply` loads it anew, with those of then.
"""

from __future__ import annotations

import errno

from penstock.errors import KernelError
from penstock.kernel.maps import Map
from penstock.pipeline.identity import Identity
from penstock.pipeline.set_store import CONTROL, sets_root


def unbound(identity: Identity) -> tuple[str, ...]:
    """The sets that a filter asks by maps that are not the pinned ones; none where nobody may look."""
    each = zip(identity.sets, identity.set_ids, strict=False)
    return tuple(spec.name for spec, number in each if not _is_pinned(spec.name, number))


def _is_pinned(name: str, number: int) -> bool:
    try:
        with Map.open(sets_root() / name / CONTROL) as control:
            return control.info.id == number
    except KernelError as error:
        return error.errno != errno.ENOENT


def words(names: tuple[str, ...]) -> str:
    """What is wrong with a filter that does not ask these sets."""
    listed = ", ".join(f"@{name}" for name in names)
    return f"{listed} was taken away or made anew under it, and what is changed there does not reach it"
