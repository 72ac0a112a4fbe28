"""A map with its types: entries as plain values, and text written into it.

In: an id, a name, or a pin's path.  Out: a `TypedMap`.

    with open_map("syn_count") as table:
        for entry in table.entries(): …     ->  Entry(key=Word("10.0.0.1"), values=[{"packets": 3}])
        table.update("10.0.0.1", "{packets: 0}")

Types come from the BTF of the object that made the map; without it keys and
values are bytes (`hex:…`), and what the kind of map says: indices, networks,
interfaces, ids of maps and programs.
"""

from __future__ import annotations

import errno
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.compiler.lang.source import Source
from penstock.errors import KernelError, PolicyError, PrivilegeError
from penstock.kernel import map_entries, map_listing, syscall
from penstock.kernel.capability import kernel_errors
from penstock.kernel.libc import BPF_FS_MAGIC, filesystem_magic
from penstock.kernel.map_entries import WITHOUT_KEYS
from penstock.kernel.maps import Map, MapType
from penstock.kernel.program import Program
from penstock.model.closing import Closing
from penstock.observe.typed.compound import List, Padded, Struct
from penstock.observe.typed.notation import parse
from penstock.observe.typed.shape import Writing
from penstock.pipeline.map_shapes import DEVICES, INDEXED, OF_MAPS, btf_of_map, shapes_of_map

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.observe.typed.notation import Node, Plain
    from penstock.observe.typed.shape import Shape


def kind_name(kind: int) -> str:
    """A map type as a word: `lru_hash`."""
    try:
        return MapType(kind).name.lower()
    except ValueError:
        return f"type {kind}"


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry: its value for each CPU, one value if the map has none for each, none if it cannot be read."""

    key: Plain | None
    values: tuple[Plain, ...]
    is_zero: bool


class TypedMap(Closing):
    """An open map and the shapes of its keys and values."""

    def __init__(self, table: Map, *, addresses: bool = False, is_raw: bool = False) -> None:
        self.table = table
        self.memory, self.is_frozen = map_listing.memory(table)
        self._cpus = table.size // _up(table.info.value_size) if table.is_per_cpu else 1
        btf = None if is_raw else btf_of_map(table.info)
        self.has_types = btf is not None
        self.key, self.value = shapes_of_map(table.info, btf, addresses=addresses, is_raw=is_raw)

    def close(self) -> None:
        """Close the map; what holds it otherwise keeps it."""
        self.table.close()

    def entries(self) -> Iterator[Entry]:
        """Every entry, as it is read.  Raises KernelError."""
        with self._explained("read"):
            for key, value in map_entries.entries(self.table):
                yield self._entry(key, value)

    def lookup(self, key: str) -> Entry | None:
        """The entry of a key as text, or None.  Raises PolicyError, KernelError."""
        raw = self._key(key)
        with self._explained("read"):
            value = self.table.lookup(raw)
        return None if value is None else self._entry(raw, value)

    def combined(self, entry: Entry) -> Plain:
        """One value of an entry's: numbers of all CPUs are added up."""
        return self.value.combine(list(entry.values)) if len(entry.values) > 1 else entry.values[0]

    def update(self, key: str | None, value: str, flags: int = 0, *, per_cpu: bool = False) -> None:
        """Write a value as text.

        What a struct or array does not name stays as it is, or is zero in a new entry; a number of a per-CPU
        map is written so that the sum is what was given, unless `per_cpu`: then the value is a list of all.

        Raises:
            PolicyError: the text does not fit the types; the diagnostics have the place.
            KernelError: the map is read-only or full, or the flags refuse it.
        """
        self._require_writable()
        raw = b"" if key is None else self._key(key)
        before = self._held(raw, is_list=per_cpu)
        with (
            self._as_written(self._value(value, before, per_cpu=per_cpu)) as content,
            self._explained("write"),
        ):
            self.table.update(raw, content, flags)

    def delete(self, key: str) -> bool:
        """Remove a key; False when it was not there.  Raises PolicyError, KernelError."""
        self._require_writable()
        if self.table.info.type in {MapType.ARRAY, MapType.PERCPU_ARRAY}:
            meaning = "an array always has all of its entries"
            raise self._error(
                "delete from", errno.EINVAL, meaning, hint="write zero with `penstock map update`"
            )
        with self._explained("write"):
            return self.table.delete(self._key(key))

    def pop(self) -> Plain | None:
        """Take the next value out of a queue or stack; None if it is empty.  Raises KernelError."""
        self._require_writable()
        with self._explained("write"):
            raw = map_entries.pop(self.table)
        return None if raw is None else self.value.decode(raw, 0)

    def pin(self, path: str) -> None:
        """Give the map a name in a BPF file system.  Raises KernelError: it is none, or the name is taken."""
        subject = f"map {self.table.name} as {path}"
        with kernel_errors("pin", subject):
            if filesystem_magic(Path(path).parent) != BPF_FS_MAGIC:
                meaning = "this is no path in a BPF file system"
                raise KernelError(
                    "pin", subject, errno.ENODEV, meaning=meaning, hint="it begins with /sys/fs/bpf/"
                )
            syscall.pin(self.table.fd, path)

    def _entry(self, key: bytes, value: bytes | None) -> Entry:
        shown = self.key.decode(key, 0) if key else None
        if value is None:
            return Entry(shown, (), is_zero=False)
        stride = _up(self.table.info.value_size)
        values = tuple(self.value.decode(value, cpu * stride) for cpu in range(self._cpus))
        return Entry(shown, values, not any(value))

    # Text to bytes.

    def _key(self, text: str) -> bytes:
        source = Source("key", text)
        return self._encoded(self.key, parse(source), bytes(self.table.info.key_size), Writing(source))

    def _value(self, text: str, before: bytes | None, *, per_cpu: bool) -> bytes:
        source = Source("value", text)
        node = parse(source)
        size, stride = self.table.info.value_size, _up(self.table.info.value_size)
        old = before or bytes(self.table.size)
        if not self.table.is_per_cpu:
            return self._encoded(self.value, node, old, Writing(source))
        if per_cpu:
            every = List(stride * self._cpus, Padded(stride, self.value), self._cpus)
            return self._encoded(every, node, old, Writing(source))
        parts = (old[cpu * stride : cpu * stride + size] for cpu in range(self._cpus))
        written = (
            self._encoded(self.value, node, part, Writing(source, adds=cpu == 0)).ljust(stride, b"\0")
            for cpu, part in enumerate(parts)
        )
        return b"".join(written)

    def _encoded(self, shape: Shape, node: Node, before: bytes, writing: Writing) -> bytes:
        out = bytearray(before)
        shape.encode(node, out, 0, writing)
        if writing.found:
            raise PolicyError(writing.sorted())
        return bytes(out)

    def _held(self, key: bytes, *, is_list: bool) -> bytes | None:
        """What an entry holds, so that parts of it can be written; None where it is whole or cannot be read."""
        kind = self.table.info.type
        if kind in WITHOUT_KEYS or not (is_list or isinstance(self.value, Struct | List)):
            return None
        with suppress(KernelError):
            if kind == MapType.LPM_TRIE:
                # A lookup would give the value of a shorter prefix where this one is not there.
                return next((value for one, value in map_entries.entries(self.table) if one == key), None)
            return self.table.lookup(key)
        return None

    @contextmanager
    def _as_written(self, content: bytes) -> Iterator[bytes]:
        """The value with descriptors for the ids of maps and programs: the kernel gives ids, and takes descriptors."""
        kind, at = self.table.info.type, 0
        if kind in DEVICES or kind == MapType.CPUMAP:
            at = 4
        elif kind not in OF_MAPS and kind != MapType.PROG_ARRAY:
            yield content
            return
        number = int.from_bytes(content[at : at + 4], sys.byteorder)
        if at and not number:
            yield content
            return
        with Map.by_id(number) if kind in OF_MAPS else Program.by_id(number) as held:
            yield content[:at] + held.fd.to_bytes(4, sys.byteorder) + content[at + 4 :]

    # What the kernel will not do, in words.

    @contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        try:
            yield
        except PrivilegeError:
            raise
        except KernelError as error:
            meaning, hint = self._refusal(error.errno, verb)
            raise (self._error(verb, error.errno, meaning, hint) if meaning else error) from error

    def _refusal(self, code: int, verb: str) -> tuple[str, str | None]:
        count = self.table.info.max_entries
        if code == errno.E2BIG and self.table.info.type in INDEXED:
            return f"it has the entries 0 to {count - 1}", None
        if code == errno.E2BIG or (code == errno.ENOSPC and self.table.info.type == MapType.LPM_TRIE):
            return f"it is full: it has room for {count} entries", "delete some, or make the map larger"
        match code:
            case errno.EPERM:
                return (
                    f"processes may not {verb} it through this descriptor, as whoever opened it chose",
                    None,
                )
            case errno.EEXIST:
                return "the entry is there already", "`--flag exist` changes it, `--flag any` does either"
            case errno.ENOENT:
                return "there is no such entry", "`--flag noexist` makes it, `--flag any` does either"
            case _:
                return "", None

    def _require_writable(self) -> None:
        if self.is_frozen:
            meaning = "it is frozen: no process can change it any more"
            raise self._error("write", errno.EPERM, meaning, "load its program again with other values")

    def _error(self, operation: str, code: int, meaning: str, hint: str | None = None) -> KernelError:
        return KernelError(operation, f"map {self.table.name}", code, meaning=meaning, hint=hint)


def _up(size: int) -> int:
    return (size + 7) & ~7
