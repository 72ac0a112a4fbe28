"""Which map is meant: by its id, its name, or a path under which it is pinned.

    map_called("12")      map_called("syn_count")      map_called("/sys/fs/bpf/mine/table")

A name that is all digits is written `name:12`.
"""

from __future__ import annotations

import errno
from difflib import get_close_matches
from typing import TYPE_CHECKING

from penstock.errors import KernelError, PenstockError
from penstock.kernel.map_listing import all_ids
from penstock.kernel.maps import Map

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEPT = 15  # the kernel keeps 15 bytes of a name


def map_called(wanted: str) -> Map:
    """The map that a user means.

    Raises:
        PenstockError: no map, or several maps, have that name.
        KernelError: there is no map with that id, or no pin.
    """
    if "/" in wanted:
        return Map.open(wanted)
    if wanted.isascii() and wanted.isdigit():
        return Map.by_id(int(wanted) & 0xFFFFFFFF)
    return _by_name(wanted.removeprefix("name:"))


def all_maps() -> Iterator[Map]:
    """Every map that the kernel has, open, one after the other; the caller closes it.  Raises KernelError."""
    for number in all_ids():
        try:
            found = Map.by_id(number)
        except KernelError as error:
            if error.errno == errno.ENOENT:  # it went between its id and this call
                continue
            raise
        yield found


def _by_name(name: str) -> Map:
    matching, names = list[int](), set[str]()
    for one in all_maps():
        with one:
            names.add(one.info.name)
            if one.info.name == name[:_KEPT]:
                matching.append(one.info.id)
    if len(matching) > 1:
        listed = ", ".join(map(str, matching[:20]))
        hint = f"name one by its id: {listed}; `penstock map list` says whose they are"
        raise PenstockError(f"{len(matching)} maps are called {name}", hint=hint)
    if not matching:
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else "`penstock map list` shows all"
        raise PenstockError(f"there is no map called {name}", hint=hint)
    return Map.by_id(matching[0])
