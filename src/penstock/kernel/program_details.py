"""What the kernel tells of one loaded program beyond its numbers: maps, source lines, memory.

In: an open `Program`.  Out: frozen values.

    details(program).maps             ->  (MapInfo(name="blocked", …),)
    source_lines(program)[0]          ->  SourceLine(file="filter.c", line=7, text="int drop_dns(…)", instruction=0)

Layouts: struct bpf_prog_info and struct bpf_line_info of <linux/bpf.h>.
"""

from __future__ import annotations

import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from penstock.kernel import syscall
from penstock.kernel.btf_source import btf_by_id
from penstock.kernel.capability import kernel_errors
from penstock.kernel.libc import address_of
from penstock.kernel.maps import Map, MapInfo
from penstock.kernel.program import Program
from penstock.kernel.syscall import Command
from penstock.model.boot_clock import boot_clock_ns

_INFO_SIZE = 224
_LOAD_TIME_AT, _MAP_COUNT_AT, _MAPS_AT = 40, 52, 56
_LINE_COUNT_AT, _LINES_AT, _LINE_SIZE_AT = 148, 152, 172
_LINE = struct.Struct("=IIII")
_COLUMN_BITS = 10
_STATS = Path("/proc/sys/kernel/bpf_stats_enabled")


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line of C and the first instruction that came of it; `file` as the compiler was told it."""

    file: str
    line: int
    text: str
    instruction: int


@dataclass(frozen=True, slots=True)
class Details:
    """`loaded_at` is seconds since 1970; `memory` what its instructions occupy, in bytes."""

    loaded_at: float
    maps: tuple[MapInfo, ...]
    memory: int | None


def details(program: Program) -> Details:
    """What there is to know beside `program.info`.  Raises KernelError."""
    with kernel_errors("describe", program.name):
        raw = syscall.object_info(program.fd, _INFO_SIZE)
        (since_boot,) = struct.unpack_from("=Q", raw, _LOAD_TIME_AT)
        numbers = map_ids(program.fd)
    age = (boot_clock_ns() - since_boot) / 1e9
    return Details(time.time() - age, tuple(_map_info(number) for number in numbers), _memory(program.fd))


def are_statistics_on() -> bool:
    """Whether the kernel counts the runs of programs and their time."""
    with suppress(OSError):
        return _STATS.read_text().strip() != "0"
    return False


def source_lines(program: Program) -> tuple[SourceLine, ...]:
    """The lines that the program came of, by instruction; none where it was loaded without BTF.

    Raises:
        KernelError: the kernel does not hand out its BTF.
        BtfError: that is damaged.
    """
    if not program.info.btf_id:
        return ()
    with kernel_errors("read the source lines of", program.name):
        records = _line_records(program.fd)
    types = btf_by_id(program.info.btf_id)
    lines = (_LINE.unpack_from(record) for record in records)
    return tuple(
        SourceLine(types.string(file_at), column >> _COLUMN_BITS, types.string(text_at).strip(), at)
        for at, file_at, text_at, column in lines
    )


def map_ids(fd: int) -> tuple[int, ...]:
    """The ids of the maps that a program uses.  Raises OSError."""
    (count,) = struct.unpack_from("=I", syscall.object_info(fd, _INFO_SIZE), _MAP_COUNT_AT)
    ids, info = bytearray(4 * count), bytearray(_INFO_SIZE)
    struct.pack_into("=IQ", info, _MAP_COUNT_AT, count, address_of(ids))
    syscall.fill_object_info(fd, info)
    return struct.unpack(f"={count}I", ids)


def _map_info(number: int) -> MapInfo:
    with Map(syscall.open_by_id(Command.MAP_GET_FD_BY_ID, number)) as found:
        return found.info


def _memory(fd: int) -> int | None:
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    found = (line.partition(":") for line in lines)
    return next((int(value) for name, _, value in found if name == "memlock"), None)


def _line_records(fd: int) -> list[bytes]:
    raw = syscall.object_info(fd, _INFO_SIZE)
    (count,) = struct.unpack_from("=I", raw, _LINE_COUNT_AT)
    (size,) = struct.unpack_from("=I", raw, _LINE_SIZE_AT)
    size = size or _LINE.size
    records, info = bytearray(size * count), bytearray(_INFO_SIZE)
    struct.pack_into("=IQ", info, _LINE_COUNT_AT, count, address_of(records))
    struct.pack_into("=I", info, _LINE_SIZE_AT, size)
    syscall.fill_object_info(fd, info)
    return [bytes(records[at : at + size]) for at in range(0, len(records), size)]
