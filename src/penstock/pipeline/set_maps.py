"""The maps of a set, and what they hold.

maps, control = create_maps(spec)      {"v4": Map, "v6": Map}, and the map that says which bank counts
read_map(spec, maps["v4"])             its keys and values as arrays
"""

from __future__ import annotations

import numpy as np

from penstock.errors import KernelError
from penstock.kernel.maps import MMAPABLE, Map, MapType
from penstock.model.sets import SetSpec
from penstock.pipeline.set_change import Held

_CONTROL_BYTES = 32
NO_PREALLOC = 1  # BPF_F_NO_PREALLOC


def create_maps(spec: SetSpec) -> tuple[dict[str, Map], Map]:
    """The maps of an empty set, one for each family, and its control.  Raises KernelError."""
    kind = MapType.LPM_TRIE if spec.structure == "trie" else MapType.HASH
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
                f"ps_{spec.name}"[:15].replace("-", "_"),
                key_size=spec.key_bytes(family),
                value_size=8 * spec.value_words,
                max_entries=spec.room,
                flags=NO_PREALLOC,
            )
    except KernelError:
        for one in made.values():
            one.close()
        raise
    return made, control


def read_map(spec: SetSpec, table: Map) -> Held:
    """Everything that a map of a set holds.  Raises KernelError."""
    keys, values = table.read_all()
    return Held(keys, np.ascontiguousarray(values).view(np.uint64).reshape(-1, spec.value_words))
