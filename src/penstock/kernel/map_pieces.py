"""The values of a large map, a piece at a time: memory stays small whatever its size.

for rows in value_pieces(table):       uint8, shape (n, value bytes); good until the next is asked for
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from penstock.kernel.capability import kernel_error
from penstock.kernel.libc import address_of, bpf
from penstock.kernel.map_batch import BATCH, COUNT_AT, NOT_BATCHED
from penstock.kernel.syscall import Command

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from penstock.kernel.maps import Map

_AT_ONCE = 1 << 14


def value_pieces(table: Map, room: int = _AT_ONCE) -> Iterator[NDArray[np.uint8]]:
    """The values of a map that is no per-CPU one, of an array in the order of its numbers.  Raises KernelError."""
    import numpy as np

    keys = np.zeros((room, table.info.key_size), np.uint8)
    values = np.zeros((room, table.size), np.uint8)
    position, following = bytearray(8 + table.info.key_size), bytearray(8 + table.info.key_size)
    start, is_over = 0, False
    while not is_over:
        places = address_of(following), keys.ctypes.data, values.ctypes.data
        attr = bytearray(BATCH.pack(start, *places, room, table.fd, 0, 0))
        try:
            bpf(Command.MAP_LOOKUP_BATCH, attr)
        except OSError as error:
            if error.errno in NOT_BATCHED and not start:
                yield table.read_all()[1]
                return
            is_over = error.errno == errno.ENOENT
            if not is_over:
                raise kernel_error("read map", table.name, error.errno or 0) from error
        yield values[: int(struct.unpack_from("=I", attr, COUNT_AT)[0])]
        position, following = following, position
        start = address_of(position)
