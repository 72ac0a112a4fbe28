"""The sets that a program would share, for a look at what it would do with them.

    with as_they_are(specs, made.places) as maps:       ->  {"set_0": Map, …}, of the sets that are there
        load(policy, place, maps)

Nothing is made or changed: a program that is loaded with these has maps of its own for the others.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from penstock.model.sets import control_map, set_map
from penstock.pipeline.set_format import spec_at
from penstock.pipeline.set_store import open_maps, sets_root

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from penstock.kernel.maps import Map
    from penstock.model.sets import SetSpec


@contextmanager
def as_they_are(sets: Sequence[SetSpec], places: Mapping[str, Path]) -> Iterator[Mapping[str, Map]]:
    """Their maps by the names that they have in a program; `places` are the pins of those that lie elsewhere.

    Raises:
        KernelError: one cannot be opened.
    """
    found: dict[str, Map] = {}
    with ExitStack() as opened:
        for number, spec in enumerate(sets):
            place = places.get(spec.name, sets_root() / spec.name)
            there = spec_at(place)
            if there is None:
                continue
            maps, control, added = open_maps(place, there)
            for held in (control, *maps.values(), *added.values()):
                opened.enter_context(held)
            found[control_map(number)] = control
            found.update((set_map(number, name), table) for name, table in {**maps, **added}.items())
        yield found


__all__ = ["as_they_are"]
