"""A piece of text kept in the kernel, in a map of its own, beside the pins it describes.

In: bytes, usually JSON, up to 64 MiB.  Out: a frozen map; pinned with the link
and the counters it lives as long as they do, and goes when they go, which no
file in /var could promise.

    with write_blob(b'{"policy": "edge"}', "ps_identity") as blob:
        pin(blob.fd, path)
    read_blob(path)                   ->  b'{"policy": "edge"}'

The values, one after the other, are a 32-bit length in native order, then the
bytes; text of up to 1 MiB has one entry.
"""

from __future__ import annotations

import errno
import os
import struct

from penstock.errors import KernelError
from penstock.kernel.maps import Map, MapType

LARGEST = 64 << 20
_PART = 1 << 20  # A map's value is one allocation of the kernel's, and those end at 4 MiB.
_LENGTH = struct.Struct("=I")
_KEY = struct.Struct("=I")


def write_blob(content: bytes, name: str) -> Map:
    """A new map that holds `content` and that nobody can change any more.

    Raises:
        KernelError: more than `LARGEST`, or the kernel refuses the map.
    """
    if len(content) > LARGEST:
        raise KernelError("store", name, errno.E2BIG, meaning=f"{len(content)} bytes, the most is {LARGEST}")
    whole = _LENGTH.pack(len(content)) + content
    size = min(len(whole), _PART)
    parts = [whole[at : at + size].ljust(size, b"\0") for at in range(0, len(whole), size)]
    created = Map.create(MapType.ARRAY, name, key_size=_KEY.size, value_size=size, max_entries=len(parts))
    try:
        for number, part in enumerate(parts):
            created.update(_KEY.pack(number), part)
        created.freeze()
    except KernelError:
        created.close()
        raise
    return created


def read_blob(path: str | os.PathLike[str]) -> bytes:
    """The content of the map that is pinned at `path`.

    Raises:
        KernelError: there is no such pin, or it is a map of another kind.
    """
    with Map.open(path) as found:
        whole = _joined(found)
    if len(whole) < _LENGTH.size or _LENGTH.unpack_from(whole)[0] > len(whole) - _LENGTH.size:
        raise KernelError("read", os.fspath(path), errno.EINVAL, meaning="this map holds something else")
    return whole[_LENGTH.size : _LENGTH.size + _LENGTH.unpack_from(whole)[0]]


def _joined(found: Map) -> bytes:
    """The values of an array, one after the other; nothing where it is another kind of map, or larger than any blob."""
    info = found.info
    is_blob = info.type == MapType.ARRAY and info.key_size == _KEY.size
    if not is_blob or info.value_size * info.max_entries > LARGEST + _PART + _LENGTH.size:
        return b""
    return b"".join(found.lookup(_KEY.pack(number)) or b"" for number in range(info.max_entries))
