"""Many keys of one map, without numpy: looked up one after the other, written and removed in one call.

    lookup_each(table, keys)        the value of each, None of those that are not there
    delete_each(table, keys)        those that are not there are passed over

The kernel has no call that looks many keys up: each is a call of its own, of some two
microseconds.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from penstock.kernel.capability import kernel_error
from penstock.kernel.libc import address_of, bpf, bpf_each
from penstock.kernel.syscall import ENOTSUPP, Command

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from penstock.kernel.maps import Map

#: There is no such call for a map of this type.
NOT_BATCHED = {errno.EINVAL, errno.EOPNOTSUPP, ENOTSUPP}
#: union bpf_attr of the calls on one entry, and of those on many, with the place of `count` there (bpf(2)).
ELEMENT = struct.Struct("=IxxxxQQQ")
BATCH = struct.Struct("=QQQQIIQQ")
COUNT_AT = 32


def lookup_each(table: Map, keys: Iterable[bytes]) -> Iterator[bytes | None]:
    """The value of each key, None of one that is not there.  Raises KernelError."""
    key, value = bytearray(table.info.key_size), bytearray(table.size)
    attr = bytearray(ELEMENT.pack(table.fd, address_of(key), address_of(value), 0))
    for code in bpf_each(Command.MAP_LOOKUP_ELEM, attr, _laid_into(key, keys)):
        if code not in (0, errno.ENOENT):
            raise kernel_error("read map", table.name, code)
        yield None if code else bytes(value)


def delete_each(table: Map, keys: Sequence[bytes]) -> None:
    """Remove entries; keys that are not there are passed over.  Raises KernelError."""
    rows, done = bytearray().join(keys), 0
    if len(rows) != len(keys) * table.info.key_size:
        raise ValueError(f"keys of map {table.name} have {table.info.key_size} bytes")
    if len(keys) > 1:
        done = delete_rows(table, address_of(rows), len(keys))
    for key in keys[done:]:
        table.delete(key)


def delete_rows(table: Map, address: int, count: int) -> int:
    """Remove the entries whose keys lie one behind the other; fewer than `count` if the kernel has no batch for it.

    Raises: as `delete_each`.
    """
    size, done = table.info.key_size, 0
    while done < count:
        attr = bytearray(BATCH.pack(0, 0, address + done * size, 0, count - done, table.fd, 0, 0))
        try:
            bpf(Command.MAP_DELETE_BATCH, attr)
            return count
        except OSError as error:
            if error.errno in NOT_BATCHED:
                return done
            if error.errno != errno.ENOENT:
                raise kernel_error("delete from map", table.name, error.errno or 0) from error
            # The one that was not there ended it.
            done += int(struct.unpack_from("=I", attr, COUNT_AT)[0]) + 1
    return count


def _laid_into(place: bytearray, keys: Iterable[bytes]) -> Iterator[None]:
    for key in keys:
        place[:] = key
        yield
