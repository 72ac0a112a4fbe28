"""The shapes of a map's keys and values: from its BTF, and from what its kind says.

shapes_of_map(info, btf_of_map(info))    ->  (Prefix(8), Struct(16, …))
"""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

from penstock.errors import BtfError, KernelError
from penstock.kernel.btf_source import btf_by_id, kernel_btf
from penstock.kernel.maps import MapType
from penstock.kernel.program import Program
from penstock.observe.typed.compound import List, Part, Struct
from penstock.observe.typed.number import Named, Number, Pointer
from penstock.observe.typed.octets import Bytes
from penstock.observe.typed.of_btf import lpm_key, shape_of
from penstock.observe.typed.reference import Reference
from penstock.pipeline.map_names import map_called

if TYPE_CHECKING:
    from penstock.kernel.btf import Btf
    from penstock.kernel.maps import MapInfo
    from penstock.observe.typed.shape import Shape

#: The types whose keys are numbers of slots.
INDEXED = frozenset(
    {
        MapType.ARRAY,
        MapType.PERCPU_ARRAY,
        MapType.PROG_ARRAY,
        MapType.PERF_EVENT_ARRAY,
        MapType.CGROUP_ARRAY,
        MapType.ARRAY_OF_MAPS,
        MapType.DEVMAP,
        MapType.CPUMAP,
        MapType.XSKMAP,
        MapType.SOCKMAP,
        MapType.REUSEPORT_SOCKARRAY,
    }
)
OF_MAPS = frozenset({MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS})
DEVICES = frozenset({MapType.DEVMAP, MapType.DEVMAP_HASH})


def btf_of_map(info: MapInfo) -> Btf | None:
    """The BTF with the types of a map; None if it was made without, or that is damaged or not to be had."""
    try:
        if info.kernel_type:
            return kernel_btf()
        return btf_by_id(info.btf_id) if info.btf_id else None
    except (BtfError, KernelError):
        return None


def shapes_of_map(
    info: MapInfo, btf: Btf | None, *, addresses: bool = False, is_raw: bool = False
) -> tuple[Shape, Shape]:
    """The shapes of a key and of one value.

    With `addresses`, unsigned integers of 4 bytes in keys are IPv4 addresses; `is_raw`: bytes, whatever is known.
    """
    if is_raw:
        return Bytes(info.key_size, sys.byteorder), Bytes(info.value_size, sys.byteorder)
    return _key(info, btf, addresses=addresses), _value(info, btf)


def _key(info: MapInfo, btf: Btf | None, *, addresses: bool) -> Shape:
    key: Shape = Bytes(info.key_size, sys.byteorder)
    if btf and info.key_type:
        key = shape_of(btf, info.key_type, info.key_size, addresses=addresses)
    elif (info.type in INDEXED or info.type == MapType.DEVMAP_HASH) and info.key_size == 4:
        key = Number(4, sys.byteorder)
    return lpm_key(key, sys.byteorder) if info.type == MapType.LPM_TRIE else key


def _value(info: MapInfo, btf: Btf | None) -> Shape:
    by_kind = _value_of_kind(info)
    if by_kind is not None:
        return by_kind
    number = info.kernel_type or info.value_type
    if btf and number:
        return shape_of(btf, number, info.value_size)
    return Bytes(info.value_size, sys.byteorder)


def _value_of_kind(info: MapInfo) -> Shape | None:
    """What the kernel itself keeps as the values of some kinds, whatever type the program gives them."""
    size = info.value_size
    word = Number(4, sys.byteorder)
    if info.type in OF_MAPS and size == 4:
        return Reference(4, sys.byteorder, _map_id)
    if info.type == MapType.PROG_ARRAY and size == 4:
        return _program()
    if info.type in DEVICES and size in {4, 8}:
        # struct bpf_devmap_val
        device = Named(4, word, dict(socket.if_nameindex()))
        parts = (Part("device", 0, device), Part("program", 4, _program()))
        return device if size == 4 else Struct(8, parts)
    if info.type == MapType.CPUMAP and size == 4:
        return word
    if info.type == MapType.CPUMAP and size == 8:
        return Struct(8, (Part("queue_size", 0, word), Part("program", 4, _program())))
    if info.type == MapType.STACK_TRACE:
        return List(size, Pointer(8, sys.byteorder), size // 8)
    return None


def _program() -> Shape:
    return Reference(4, sys.byteorder, _program_id)


def _map_id(name: str) -> int:
    with map_called(name) as found:
        return found.info.id


def _program_id(path: str) -> int:
    with Program.open(path) as found:
        return found.info.id
