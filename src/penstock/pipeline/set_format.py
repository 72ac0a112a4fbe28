"""What a set says of itself, in the `spec` beside its maps; and whether this version can read those.

    encoded(spec)       ->  b'{"name":"threats","kind":["net"],…}'
    spec_at(place)      ->  the SetSpec; None where no set is

A flat set's spec has the layout of its lines too: they are words that a program reads where they lie,
so what was laid out otherwise is refused, as a map of another shape is, and left as it is.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from penstock.errors import KernelError
from penstock.kernel.blob import read_blob
from penstock.model.flat import LAYOUT
from penstock.model.sets import SetSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from penstock.kernel.maps import Map

SPEC = "spec"


def encoded(spec: SetSpec) -> bytes:
    """What is kept of a spec beside the set's maps."""
    layout = {"layout": LAYOUT} if spec.is_flat else {}
    return msgspec.json.encode({**msgspec.to_builtins(spec), **layout})


def spec_at(place: Path) -> SetSpec | None:
    """The spec that lies there; None if there is none.

    Raises:
        KernelError: it cannot be read, or another version has written it (EINVAL).
    """
    try:
        blob = read_blob(place / SPEC)
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    try:
        found = msgspec.json.decode(blob, type=SetSpec)
        # Before there were flat sets a spec did not name its structure.
        is_old = b'"structure"' not in blob
        return replace(found, structure="trie") if is_old and found.is_flat else found
    except ValueError as error:
        meaning = f"it was written by another version of penstock: {error}"
        raise KernelError("read", str(place / SPEC), errno.EINVAL, meaning=meaning) from error


def require_readable(place: Path, spec: SetSpec, maps: Mapping[str, Map]) -> None:
    """Refuse a set of which another version has made the maps, or laid out the lines: they would be misread.

    Raises:
        KernelError: EINVAL; the hint says how to make it anew.
    """
    for table, held in maps.items():
        found = held.info.key_size, held.info.value_size
        if found != spec.shape_of(table):
            told = f"{table} has keys and values of {found} bytes, not {spec.shape_of(table)}"
            raise _of_another_version(place, told)
    if spec.is_flat:
        layout = msgspec.json.decode(read_blob(place / SPEC)).get("layout")
        if layout != LAYOUT:
            told = f"its entries lie in memory in layout {layout}, not {LAYOUT}"
            raise _of_another_version(place, told)


def incomplete(place: Path) -> KernelError:
    """What is said of a set that lacks a pin."""
    return _unusable(place, "some of its pins are missing")


def _of_another_version(place: Path, why: str) -> KernelError:
    return _unusable(place, f"another version of penstock made it: {why}")


def _unusable(place: Path, meaning: str) -> KernelError:
    hint = (
        f"it is left as it is; `penstock set delete --force {place.name}`, and the next `apply` makes it "
        "anew, with what commands and feeds have put there"
    )
    return KernelError("open", str(place), errno.EINVAL, meaning=meaning, hint=hint)
