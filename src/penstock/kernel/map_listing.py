"""What maps there are: all that the kernel has, who uses them, where they are pinned.

for number in map_ids(): …
users()              ->  {12: [(40, "ps_xdp")], …}: map id to the programs that use it
pins()               ->  {12: ["/sys/fs/bpf/penstock/eth0/counters"], …}
memory(table)        ->  bytes that the kernel counts for it, and whether it is frozen
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.kernel import syscall
from penstock.kernel.capability import SYS_ADMIN, kernel_errors
from penstock.kernel.maps import Map
from penstock.kernel.program_details import map_ids
from penstock.kernel.syscall import Command, Descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME_AT = 64  # in struct bpf_prog_info
_MOST_FILES = 20_000


def all_ids() -> Iterator[int]:
    """The ids of all maps, ascending.  Raises PrivilegeError without CAP_SYS_ADMIN."""
    with kernel_errors("list", "maps", needs=(SYS_ADMIN,)):
        yield from syscall.ids(Command.MAP_GET_NEXT_ID)


def users() -> dict[int, list[tuple[int, str]]]:
    """Map id -> id and name of each program that uses it.  Raises KernelError."""
    found: dict[int, list[tuple[int, str]]] = {}
    with kernel_errors("list", "programs", needs=(SYS_ADMIN,)):
        for number in syscall.ids(Command.PROG_GET_NEXT_ID):
            # A program may go between its id and its description.
            with suppress(FileNotFoundError):
                name, maps = _used_by(number)
                for used in maps:
                    found.setdefault(used, []).append((number, name))
    return found


def _used_by(number: int) -> tuple[str, tuple[int, ...]]:
    with Descriptor(syscall.open_by_id(Command.PROG_GET_FD_BY_ID, number)) as program:
        raw = syscall.object_info(program.fd, _NAME_AT + 16)
        return syscall.object_name(raw[_NAME_AT:]), map_ids(program.fd)


def pins() -> dict[int, list[str]]:
    """Map id -> the paths under which it is pinned, as far as this process sees them."""
    found: dict[int, list[str]] = {}
    for path in _pinned_files():
        # Programs and links lie there too, and pins go while they are looked at.
        with suppress(OSError), Descriptor(syscall.open_pinned(path, "map")) as held:
            found.setdefault(Map(os.dup(held.fd)).info.id, []).append(path)
    return found


def _pinned_files() -> Iterator[str]:
    count = 0
    for mount in _bpf_mounts():
        for folder, _, files in os.walk(mount):
            for name in sorted(files):
                count += 1
                if count > _MOST_FILES:
                    return
                yield str(Path(folder, name))


def _bpf_mounts() -> list[str]:
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return []
    fields = (line.split() for line in lines)
    found = {
        part[1].encode().decode("unicode_escape") for part in fields if len(part) > 2 and part[2] == "bpf"
    }
    return sorted(found)


def memory(table: Map) -> tuple[int | None, bool]:
    """The bytes that the kernel counts for a map, None if it does not tell, and whether the map is frozen."""
    try:
        lines = Path(f"/proc/self/fdinfo/{table.fd}").read_text().splitlines()
    except OSError:
        return None, False
    told = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return (int(told["memlock"]) if "memlock" in told else None), told.get("frozen") == "1"
