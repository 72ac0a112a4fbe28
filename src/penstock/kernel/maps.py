"""A map in the kernel: entries one at a time, all at once as numpy arrays, or as memory.

In: a descriptor or a pin.  Out: `Map`.  A per-CPU map has one value for each
*possible* CPU, each rounded up to 8 bytes; as an array that is

    keys, values = counters.read_all()
    values.shape                      ->  (entries, possible CPUs, 8-byte words)
    values.sum(axis=1)                ->  one row of totals an entry

Reading is one call for the whole map where the kernel can (Linux 5.6, and 5.13
for per-CPU arrays), else one an entry.  numpy is imported by the first call
that gives an array, not before.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from penstock.kernel import syscall
from penstock.kernel.capability import SYS_ADMIN, kernel_error, kernel_errors
from penstock.kernel.libc import address_of, bpf
from penstock.kernel.map_batch import BATCH, COUNT_AT, ELEMENT, NOT_BATCHED, delete_rows
from penstock.kernel.syscall import Command, Descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import DTypeLike, NDArray

ANY, NOEXIST, EXIST = 0, 1, 2  # BPF_ANY …: how `update` treats a key that is there, or is not
MMAPABLE = 1 << 10  # BPF_F_MMAPABLE
INNER_MAP = 1 << 12  # BPF_F_INNER_MAP: maps of any size fit a slot
RDONLY_PROG = 1 << 7  # BPF_F_RDONLY_PROG


class MapType(IntEnum):
    """enum bpf_map_type."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERF_EVENT_ARRAY = 4
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    STACK_TRACE = 7
    CGROUP_ARRAY = 8
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    DEVMAP = 14
    SOCKMAP = 15
    CPUMAP = 16
    XSKMAP = 17
    SOCKHASH = 18
    CGROUP_STORAGE = 19
    REUSEPORT_SOCKARRAY = 20
    PERCPU_CGROUP_STORAGE = 21
    QUEUE = 22
    STACK = 23
    SK_STORAGE = 24
    DEVMAP_HASH = 25
    STRUCT_OPS = 26
    RINGBUF = 27
    INODE_STORAGE = 28
    TASK_STORAGE = 29
    BLOOM_FILTER = 30
    USER_RINGBUF = 31
    CGRP_STORAGE = 32
    ARENA = 33
    INSN_ARRAY = 34


_PER_CPU = {
    MapType.PERCPU_HASH,
    MapType.PERCPU_ARRAY,
    MapType.LRU_PERCPU_HASH,
    MapType.PERCPU_CGROUP_STORAGE,
}
_ARRAYS = {MapType.ARRAY, MapType.PERCPU_ARRAY}

_INFO = struct.Struct("=IIIIII16sIIQQIIII")  # struct bpf_map_info up to btf_vmlinux_id
_CREATE = struct.Struct("=IIIIIII16sI")


@dataclass(frozen=True, slots=True)
class MapInfo:
    """What the kernel tells of a map; sizes are bytes, `value_size` is one CPU's."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str
    #: The BTF of the object that made it, and its types of key and value there; 0 without.
    btf_id: int = 0
    key_type: int = 0
    value_type: int = 0
    #: The value's type in the kernel's own BTF, for struct_ops; else 0.
    kernel_type: int = 0


@cache
def possible_cpus() -> int:
    """How many CPUs the kernel has per-CPU values for, offline ones included."""
    return count_cpus(Path("/sys/devices/system/cpu/possible").read_text())


def count_cpus(ranges: str) -> int:
    """How many CPUs a list like ``0-3,8`` holds."""
    bounds = (part.partition("-") for part in ranges.strip().split(","))
    return sum(int(last or first) - int(first) + 1 for first, _, last in bounds)


class Map(Descriptor):
    """An open map.  It lives while it is open, pinned, or used by a program."""

    __slots__ = ("info", "name", "size")

    def __init__(self, fd: int, name: str | None = None) -> None:
        super().__init__(fd)
        self.info = _map_info(fd)
        self.name = name or self.info.name
        #: Bytes of a whole value as the kernel hands it out: all CPUs of a per-CPU map.
        self.size = (
            _round_up(self.info.value_size) * possible_cpus() if self.is_per_cpu else self.info.value_size
        )

    @classmethod
    def create(
        cls,
        kind: MapType,
        name: str,
        *,
        key_size: int,
        value_size: int,
        max_entries: int,
        flags: int = 0,
        inner: Map | None = None,
    ) -> Self:
        """A new map; the kernel keeps the first 15 bytes of `name`.  Raises KernelError.

        A map of maps takes such as `inner`, which is not kept.
        """
        sizes = key_size, value_size, max_entries
        attr = bytearray(
            _CREATE.pack(kind, *sizes, flags, inner.fd if inner else 0, 0, name.encode()[:15], 0)
        )
        with kernel_errors("create map", name):
            return cls(bpf(Command.MAP_CREATE, attr), name)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """The map that is pinned at `path`.  Raises KernelError."""
        with kernel_errors("open pinned map", os.fspath(path)):
            return cls(syscall.open_pinned(path, "map"))

    @classmethod
    def by_id(cls, number: int) -> Self:
        """The map with that id.  Raises KernelError; PrivilegeError without CAP_SYS_ADMIN."""
        with kernel_errors("open map", f"id {number}", needs=(SYS_ADMIN,), absent="there is none"):
            return cls(syscall.open_by_id(Command.MAP_GET_FD_BY_ID, number))

    def duplicate(self) -> Self:
        """The same map, opened once more."""
        return type(self)(os.dup(self.fd), self.name)

    @property
    def is_per_cpu(self) -> bool:
        """Whether each possible CPU has a value of its own."""
        return self.info.type in _PER_CPU

    def lookup(self, key: bytes) -> bytes | None:
        """The value of `key`, `self.size` bytes, or None.  Raises KernelError."""
        value = bytearray(self.size)
        found = self._element(Command.MAP_LOOKUP_ELEM, key, value, "read", absent=errno.ENOENT)
        return bytes(value) if found else None

    def update(self, key: bytes, value: bytes, flags: int = ANY) -> None:
        """Set the value of `key`; for a per-CPU map `self.size` bytes.  Raises KernelError (E2BIG: full)."""
        if len(value) != self.size:
            raise ValueError(f"a value of map {self.name} has {self.size} bytes, not {len(value)}")
        self._element(Command.MAP_UPDATE_ELEM, key, bytearray(value), "update", flags=flags)

    def delete(self, key: bytes) -> bool:
        """Remove `key`; False when it was not there.  Raises KernelError: an array has no delete."""
        return self._element(Command.MAP_DELETE_ELEM, key, bytearray(), "delete from", absent=errno.ENOENT)

    def keys(self, behind: bytes = b"") -> Iterator[bytes]:
        """Every key, or those behind one, in the kernel's order.  A key removed meanwhile may make it start again."""
        key = bytearray(behind)
        while True:
            following = bytearray(self.info.key_size)
            if not self._element(
                Command.MAP_GET_NEXT_KEY, bytes(key), following, "walk", absent=errno.ENOENT
            ):
                return
            key = following
            yield bytes(key)

    def read_all(self) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """All keys, shape (n, key bytes) uint8, and all values in the same order.

        Values are uint64 of shape (n, possible CPUs, words) for a per-CPU map,
        else uint8 of shape (n, value bytes).  Entries of other CPUs may move
        while they are read: each word is whole, the set of them is no snapshot.

        Raises:
            KernelError: the read failed.
        """
        import numpy as np

        keys = np.zeros((self.info.max_entries, self.info.key_size), np.uint8)
        values = np.zeros((self.info.max_entries, self.size), np.uint8)
        count = self._read_batch(keys, values)
        if count is None:
            count = self._read_each(keys, values)
        return keys[:count], self._shaped(values[:count])

    def update_all(self, keys: NDArray[Any], values: NDArray[Any]) -> None:
        """Set many entries in one call; arrays laid out as `read_all` gives them.

        Raises:
            KernelError: `meaning` tells how many entries, from the first on, were set.
        """
        count = len(keys)
        flat_keys, flat_values = _rows(keys, self.info.key_size), _rows(values, self.size)
        if len(flat_values) != count:
            raise ValueError(f"{count} keys, but {len(flat_values)} values")
        if not self._update_batch(flat_keys.ctypes.data, flat_values.ctypes.data, count):
            for key, value in zip(flat_keys, flat_values, strict=True):
                self.update(key.tobytes(), value.tobytes())

    def update_many(self, entries: Mapping[bytes, bytes]) -> None:
        """Set many entries in one call, without numpy.  Raises KernelError, as `update_all`."""
        if len(entries) == 1:
            self.update(*next(iter(entries.items())))
            return
        keys, values = bytearray().join(entries), bytearray().join(entries.values())
        count = len(entries)
        if (len(keys), len(values)) != (count * self.info.key_size, count * self.size):
            raise ValueError(f"keys of map {self.name} have {self.info.key_size} bytes, values {self.size}")
        if entries and not self._update_batch(address_of(keys), address_of(values), count):
            for key, value in entries.items():
                self.update(key, value)

    def _update_batch(self, keys: int, values: int, count: int) -> bool:
        """False where the kernel has no batch for this map."""
        attr = bytearray(BATCH.pack(0, 0, keys, values, count, self.fd, 0, 0))
        try:
            bpf(Command.MAP_UPDATE_BATCH, attr)
        except OSError as error:
            if error.errno in NOT_BATCHED:
                return False
            (done,) = struct.unpack_from("=I", attr, COUNT_AT)
            meaning = f"{error.strerror}, after {min(done, count)} of {count} entries"
            raise kernel_error("update map", self.name, error.errno or 0, meaning=meaning) from error
        return True

    def delete_all(self, keys: NDArray[Any]) -> None:
        """Remove many entries; keys that are not there are passed over.  Raises KernelError."""
        if not len(keys):
            return
        rows = _rows(keys, self.info.key_size)
        for key in rows[delete_rows(self, rows.ctypes.data, len(rows)) :]:
            self.delete(key.tobytes())

    def view(self, dtype: DTypeLike = "u1", *, writable: bool = True) -> NDArray[Any]:
        """The memory of an mmapable array, shape (entries, items of `dtype` in 8-aligned value).

        The array is the map: a program's store is seen at once.  The mapping
        lasts as long as the array, also after `close`.

        Raises:
            KernelError: the map is not mmapable, or frozen and `writable` was asked.
        """
        import numpy as np

        memory = self.memory(writable=writable)
        return np.frombuffer(memory, np.uint8).reshape(self.info.max_entries, -1).view(dtype)

    def memory(self, *, writable: bool = True, part: slice | None = None) -> memoryview:
        """The same memory as bytes, without numpy, or a part of it that begins with a page.  Raises: as `view`."""
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        begin, end = (part.start, part.stop) if part else (0, self._memory_bytes)
        with kernel_errors("map into memory", self.name):
            return memoryview(mmap.mmap(self.fd, end - begin, mmap.MAP_SHARED, access, offset=begin))

    @property
    def _memory_bytes(self) -> int:
        return _round_up(self.info.value_size) * self.info.max_entries

    def freeze(self) -> None:
        """Let no process write the map any more, this one included.  Raises KernelError."""
        with kernel_errors("freeze map", self.name):
            bpf(Command.MAP_FREEZE, bytearray(struct.pack("=I", self.fd)))

    def _element(
        self, command: Command, key: bytes, value: bytearray, verb: str, *, flags: int = 0, absent: int = 0
    ) -> bool:
        if key and len(key) != self.info.key_size:
            raise ValueError(f"a key of map {self.name} has {self.info.key_size} bytes, not {len(key)}")
        held = bytearray(key)
        attr = bytearray(ELEMENT.pack(self.fd, address_of(held), address_of(value), flags))
        try:
            bpf(command, attr)
        except OSError as error:
            if error.errno == absent:
                return False
            raise kernel_error(f"{verb} map", self.name, error.errno or 0) from error
        return True

    def _read_batch(self, keys: NDArray[np.uint8], values: NDArray[np.uint8]) -> int | None:
        """Fill both arrays and give the number of entries; None when the kernel has no batch for this map."""
        position, following, done = bytearray(8 + self.info.key_size), bytearray(8 + self.info.key_size), 0
        while done < len(keys):
            room = len(keys) - done
            start = address_of(position) if done else 0
            targets = keys[done:].ctypes.data, values[done:].ctypes.data
            attr = bytearray(BATCH.pack(start, address_of(following), *targets, room, self.fd, 0, 0))
            ended = False
            try:
                bpf(Command.MAP_LOOKUP_BATCH, attr)
            except OSError as error:
                if error.errno in NOT_BATCHED and not done:
                    return None
                # A bucket larger than the room that is left: only entries that came meanwhile can cause it.
                ended = error.errno in (errno.ENOENT, errno.ENOSPC)
                if not ended:
                    raise kernel_error("read map", self.name, error.errno or 0) from error
            done += int(struct.unpack_from("=I", attr, COUNT_AT)[0])
            if ended:
                break
            position, following = following, position
        return done

    def _read_each(self, keys: NDArray[np.uint8], values: NDArray[np.uint8]) -> int:
        import numpy as np

        count = 0
        for key in self.keys():
            value = self.lookup(key)
            if value is not None and count < len(keys):
                keys[count], values[count] = np.frombuffer(key, np.uint8), np.frombuffer(value, np.uint8)
                count += 1
        return count

    def _shaped(self, values: NDArray[np.uint8]) -> NDArray[Any]:
        if not self.is_per_cpu:
            return values
        import numpy as np

        return values.view(np.uint64).reshape(len(values), possible_cpus(), -1)


def _rows(array: NDArray[Any], size: int) -> NDArray[np.uint8]:
    import numpy as np

    flat = np.ascontiguousarray(array).view(np.uint8).reshape(len(array), -1)
    if flat.shape[1] != size:
        raise ValueError(f"each row must have {size} bytes, these have {flat.shape[1]}")
    return flat


def _map_info(fd: int) -> MapInfo:
    with kernel_errors("describe", "a map"):
        raw = syscall.object_info(fd, _INFO.size)
    kind, number, key, value, entries, flags, name, *more = _INFO.unpack(raw)
    _, kernel_type, _, _, btf_id, key_type, value_type, _ = more
    held = syscall.object_name(name)
    return MapInfo(kind, number, key, value, entries, flags, held, btf_id, key_type, value_type, kernel_type)


def _round_up(size: int) -> int:
    return (size + 7) & ~7
