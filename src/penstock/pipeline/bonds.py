"""Whether programs ask the sets that are there now: those that were taken away or made anew under them they do not.

    unbound(identity)     ->  ("threats",): what commands and feeds change there does not reach this program
    kept(present)         what `penstock drop` and `rule add`, which compile it again, let it go on with

In: what a filter says of itself, and the pins of sets.  A program holds the maps that it was
loaded with, whatever becomes of their pins; `penstock apply` loads it anew, with those of then.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from penstock.errors import KernelError
from penstock.kernel.capability import kernel_errors
from penstock.kernel.maps import Map
from penstock.kernel.program import Program
from penstock.kernel.program_details import map_ids
from penstock.model.sets import SetSpec
from penstock.pipeline.identity import Identity
from penstock.pipeline.set_store import CONTROL, sets_root, spec_of

if TYPE_CHECKING:
    from penstock.pipeline.slot import Slot


def unbound(identity: Identity) -> tuple[str, ...]:
    """The sets that a filter asks by maps that are not the pinned ones; none where nobody may look."""
    each = zip(identity.sets, identity.set_ids, strict=False)
    return tuple(spec.name for spec, number in each if not _is_pinned(spec.name, number))


def kept(present: Slot | None) -> Iterator[tuple[SetSpec, dict[str, int]]]:
    """The sets that a filter is not asked to give up when it is compiled again, with the ids of their maps.

    Only maps that the running program has: whoever wrote its identity may have no right to others.
    """
    if present is None:
        return
    identity, lost = present.identity, unbound(present.identity)
    for spec, ids in zip(identity.sets, identity.set_maps, strict=False):
        is_other = spec.name in lost or spec_of(spec.name) != spec
        if is_other and set(ids.values()) <= _maps_of(present):
            yield spec, ids


def _maps_of(present: Slot) -> set[int]:
    """The maps of the program that runs; none for who may not open them without a pin."""
    try:
        with Program.by_id(present.info.program_id) as program, kernel_errors("read", program.name):
            return set(map_ids(program.fd))
    except KernelError:
        return set()


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
