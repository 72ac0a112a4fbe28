"""The entries of a map, a few thousand at a time: what is read is shown before the rest is asked for.

In: an open map.  Out: keys with their values, in the kernel's order.

    for key, value in entries(table): …        value is None where the kernel does not hand it out

One call gives many where the kernel has batches for the type (Linux 5.6), else
each entry takes two.  A queue or stack shows only its next value, and `pop` takes it.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from penstock.kernel.capability import kernel_error
from penstock.kernel.libc import address_of, bpf
from penstock.kernel.map_batch import BATCH, COUNT_AT, ELEMENT, NOT_BATCHED
from penstock.kernel.maps import MapType
from penstock.kernel.syscall import ENOTSUPP, Command

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from penstock.kernel.maps import Map

Entry = tuple[bytes, bytes | None]

WITHOUT_KEYS = frozenset({MapType.QUEUE, MapType.STACK})
#: What holds no entries that could be listed.
WITHOUT_ENTRIES = frozenset(
    {
        MapType.RINGBUF,
        MapType.USER_RINGBUF,
        MapType.PERF_EVENT_ARRAY,
        MapType.BLOOM_FILTER,
        MapType.ARENA,
        MapType.SK_STORAGE,
        MapType.INODE_STORAGE,
        MapType.TASK_STORAGE,
        MapType.CGRP_STORAGE,
    }
)
_AT_ONCE = 4096
_MOST_BYTES = 4 << 20


def entries(table: Map) -> Iterator[Entry]:
    """Every entry.  A key that is removed meanwhile may be missing or come twice.  Raises KernelError."""
    for batch in batches(table):
        yield from batch


def batches(table: Map) -> Iterator[Iterable[Entry]]:
    """The same in the batches that were read at a time.  Raises KernelError."""
    if table.info.type in WITHOUT_ENTRIES:
        return
    if table.info.type in WITHOUT_KEYS:
        value = table.lookup(b"")
        yield [] if value is None else [(b"", value)]
        return
    found = _batches(table)
    first = next(found, None)
    if first is None:
        yield _each(table)
        return
    yield first
    yield from found


def entries_behind(table: Map, key: bytes, room: int) -> Iterator[Entry]:
    """The entries of a trie behind one that is there, `room` of them at first; its order is that of `keys`.

    Raises KernelError.
    """
    began = False
    for batch in _batches(table, key, room):
        began = True
        yield from batch
    if not began:
        yield from (one for key in table.keys(key) for one in _entry(table, key))


def pop(table: Map) -> bytes | None:
    """Take the next value out of a queue or stack; None from an empty one.  Raises KernelError."""
    value = bytearray(table.size)
    attr = bytearray(ELEMENT.pack(table.fd, 0, address_of(value), 0))
    try:
        bpf(Command.MAP_LOOKUP_AND_DELETE_ELEM, attr)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise kernel_error("pop from map", table.name, error.errno or 0) from error
    return bytes(value)


def _batches(table: Map, behind: bytes = b"", room: int = _AT_ONCE) -> Iterator[list[Entry]]:
    """The entries in lists; not one list if the kernel has no batches for this type."""
    key_size, value_size = table.info.key_size, table.size
    room = max(1, min(room, table.info.max_entries, _MOST_BYTES // max(1, key_size + value_size)))
    # A hash's position is the number of a bucket, 4 bytes, whatever its keys have; a trie's is a key.
    position, following = bytearray(behind.ljust(8 + key_size, b"\0")), bytearray(8 + key_size)
    began, asked = False, bool(behind)
    while True:
        keys, values = bytearray(room * key_size), bytearray(room * value_size)
        start = address_of(position) if began or asked else 0
        addresses = start, address_of(following), address_of(keys), address_of(values)
        attr = bytearray(BATCH.pack(*addresses, room, table.fd, 0, 0))
        code = _ask(attr)
        if code in NOT_BATCHED and not began:
            return
        if code == errno.ENOSPC and room <= table.info.max_entries:
            room *= 2  # one bucket holds more than this; nothing was given
            continue
        if code not in {0, errno.ENOENT}:
            raise kernel_error("read map", table.name, code)
        (count,) = struct.unpack_from("=I", attr, COUNT_AT)
        yield list(zip(_cut(keys, key_size, count), _cut(values, value_size, count), strict=True))
        if code == errno.ENOENT:
            return
        began, position, following = True, following, position


def _ask(attr: bytearray) -> int:
    try:
        bpf(Command.MAP_LOOKUP_BATCH, attr)
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def _cut(data: bytearray, size: int, count: int) -> list[bytes]:
    whole = bytes(data)
    return [whole[at * size : (at + 1) * size] for at in range(count)]


def _each(table: Map) -> Iterator[Entry]:
    for count, key in enumerate(table.keys()):
        # A hash whose keys go while they are walked starts again: it ends all the same.
        if count > 2 * table.info.max_entries:
            return
        yield from _entry(table, key)


def _entry(table: Map, key: bytes) -> Iterator[Entry]:
    value = bytearray(table.size)
    held = bytearray(key)
    attr = bytearray(ELEMENT.pack(table.fd, address_of(held), address_of(value), 0))
    try:
        bpf(Command.MAP_LOOKUP_ELEM, attr)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return  # an empty slot of an array of maps, or a key that has gone
        if error.errno not in {errno.EOPNOTSUPP, ENOTSUPP}:
            raise kernel_error("read map", table.name, error.errno or 0) from error
        yield key, None
        return
    yield key, bytes(value)
