"""A piece of text kept in the kernel, in a map of one entry, beside the pins it describes.

In: bytes, usually JSON, up to 4 MiB.  Out: a frozen map; pinned with the link
and the counters it lives as long as they do, and goes when they go, which no
file in /var could promise.

    with write_blob(b'{"policy": "edge"}', "ps_identity") as blob:
        pin(blob.fd, path)
    read_blob(path)                   ->  b'{"policy": "edge"}'

The value is a 32-bit length in native order, then the bytes.
"""

from __future__ import annotations

import errno
import os
import struct

from penstock.errors import KernelError
from penstock.kernel.maps import Map, MapType

LARGEST = (4 << 20) - 64  # A map's value is one allocation of the kernel's, and those end at 4 MiB.
_LENGTH = struct.Struct("=I")
_ONLY_KEY = struct.pack("=I", 0)


def write_blob(content: bytes, name: str) -> Map:
    """A new map that holds `content` and that nobody can change any more.

    Raises:
        KernelError: more than `LARGEST`, or the kernel refuses the map.
    """
    if len(content) > LARGEST:
        raise KernelError("store", name, errno.E2BIG, meaning=f"{len(content)} bytes, the most is {LARGEST}")
    value = _LENGTH.pack(len(content)) + content
    created = Map.create(MapType.ARRAY, name, key_size=4, value_size=len(value), max_entries=1)
    try:
        created.update(_ONLY_KEY, value)
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
        value = (
            found.lookup(_ONLY_KEY) if found.info.type == MapType.ARRAY and found.info.key_size == 4 else None
        )
    if (
        value is None
        or len(value) < _LENGTH.size
        or _LENGTH.unpack_from(value)[0] > len(value) - _LENGTH.size
    ):
        raise KernelError("read", os.fspath(path), errno.EINVAL, meaning="this map holds something else")
    return value[_LENGTH.size : _LENGTH.size + _LENGTH.unpack_from(value)[0]]
