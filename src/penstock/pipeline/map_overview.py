"""All maps at a glance: what they are, how full, who uses them, where they are pinned."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.errors import KernelError
from penstock.kernel import map_listing
from penstock.kernel.btf_text import type_name
from penstock.kernel.map_entries import entries
from penstock.kernel.maps import MapType
from penstock.pipeline.map_names import all_maps
from penstock.pipeline.map_shapes import btf_of_map
from penstock.pipeline.typed_map import kind_name

if TYPE_CHECKING:
    from penstock.kernel.maps import Map, MapInfo

_ARRAYS = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})
#: Maps whose entries are counted by reading them, if that is no more than so many bytes.
_COUNTED = frozenset(
    {
        MapType.HASH,
        MapType.LRU_HASH,
        MapType.PERCPU_HASH,
        MapType.LRU_PERCPU_HASH,
        MapType.LPM_TRIE,
        MapType.HASH_OF_MAPS,
        MapType.DEVMAP_HASH,
    }
)
_CHEAP = 1 << 20


@dataclass(frozen=True, slots=True)
class Overview:
    """A map; `used` is None where counting its entries would cost too much or makes no sense."""

    info: MapInfo
    used: int | None
    memory: int | None
    is_frozen: bool
    key_type: str | None
    value_type: str | None
    programs: tuple[tuple[int, str], ...]
    pins: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The type as a word: `lru_hash`."""
        return kind_name(self.info.type)

    def record(self) -> dict[str, object]:
        """As plain values."""
        info = self.info
        return {
            "id": info.id,
            "name": info.name,
            "type": self.kind,
            "key_size": info.key_size,
            "value_size": info.value_size,
            "max_entries": info.max_entries,
            "used_entries": self.used,
            "memory_bytes": self.memory,
            "flags": info.flags,
            "frozen": self.is_frozen,
            "key_type": self.key_type,
            "value_type": self.value_type,
            "programs": [{"id": number, "name": name} for number, name in self.programs],
            "pins": list(self.pins),
        }


def overviews(*, count_all: bool = False) -> list[Overview]:
    """Every map, by id; with `count_all` the entries of large ones are counted too.  Raises KernelError."""
    users, pins = map_listing.users(), map_listing.pins()
    found = []
    for table in all_maps():
        with table:
            number = table.info.id
            found.append(_overview(table, users.get(number, []), pins.get(number, []), count_all=count_all))
    return found


def _overview(table: Map, users: list[tuple[int, str]], pins: list[str], *, count_all: bool) -> Overview:
    info = table.info
    memory, is_frozen = map_listing.memory(table)
    used = None
    with suppress(KernelError):  # a map that cannot be read is listed all the same
        used = _used(table, count_all=count_all)
    btf = btf_of_map(info)
    key = type_name(btf, info.key_type) if btf and info.key_type else None
    number = info.kernel_type or info.value_type
    value = type_name(btf, number) if btf and number else None
    return Overview(info, used, memory, is_frozen, key, value, tuple(users), tuple(pins))


def _used(table: Map, *, count_all: bool) -> int | None:
    info = table.info
    if info.type in _ARRAYS:
        return info.max_entries
    is_cheap = info.max_entries * (info.key_size + table.size) <= _CHEAP
    if info.type not in _COUNTED or not (is_cheap or count_all):
        return None
    return sum(1 for _ in entries(table))
