"""The maps of a set, and what they hold.

maps, control = create_maps(spec)      {"v4": Map, "v6": Map}, and the map that says which bank counts
                                       (and "front" and "flat" of a flat set: what is asked first, and a map of maps)
read_map(spec, maps["v4"])             its keys and values as arrays
"""

from __future__ import annotations

import numpy as np

from penstock.errors import KernelError
from penstock.kernel.maps import INNER_MAP, MMAPABLE, Map, MapType
from penstock.model.flat import FRONT_BYTES, LINE_BYTES, front_lines
from penstock.model.sets import FLAT, FRONT, SetSpec
from penstock.pipeline.set_change import Held

_CONTROL_BYTES = 32
NO_PREALLOC = 1  # BPF_F_NO_PREALLOC


def create_maps(spec: SetSpec) -> tuple[dict[str, Map], Map]:
    """The maps of an empty set, one for each family, and its control.  Raises KernelError."""
    kind = MapType.LPM_TRIE if spec.kind == ("net",) else MapType.HASH
    made: dict[str, Map] = {}
    try:
        control = Map.create(
            MapType.ARRAY,
            "ps_set_control",
            key_size=4,
            value_size=_CONTROL_BYTES,
            max_entries=1,
            flags=MMAPABLE,
        )
        for family in spec.families:
            made[family] = Map.create(
                kind,
                _kernel_name(spec.name),
                key_size=spec.key_bytes(family),
                value_size=8 * spec.value_words,
                max_entries=spec.room,
                flags=NO_PREALLOC,
            )
        if spec.is_flat:
            made[FRONT] = _create_front(spec)
            made[FLAT] = _create_slots(spec.name)
    except KernelError:
        for one in made.values():
            one.close()
        raise
    return made, control


def create_lines(name: str, count: int) -> Map:
    """Memory for the content of a flat set, zero.  Raises KernelError."""
    return Map.create(
        MapType.ARRAY,
        _kernel_name(name),
        key_size=4,
        value_size=LINE_BYTES,
        max_entries=count,
        flags=MMAPABLE | INNER_MAP,
    )


def _create_front(spec: SetSpec) -> Map:
    """What packets ask first of a flat set: a part for each bank."""
    return Map.create(
        MapType.ARRAY,
        _kernel_name(spec.name),
        key_size=4,
        value_size=FRONT_BYTES,
        max_entries=2 * front_lines(spec.size),
        flags=MMAPABLE,
    )


def _create_slots(name: str) -> Map:
    """The map of maps of an empty flat set."""
    with create_lines(name, 1) as like:
        return Map.create(
            MapType.ARRAY_OF_MAPS, _kernel_name(name), key_size=4, value_size=4, max_entries=2, inner=like
        )


def _kernel_name(name: str) -> str:
    return f"ps_{name}"[:15].replace("-", "_")


def read_map(spec: SetSpec, table: Map) -> Held:
    """Everything that a map of a set holds.  Raises KernelError."""
    keys, values = table.read_all()
    return Held(keys, np.ascontiguousarray(values).view(np.uint64).reshape(-1, spec.value_words))
