"""How often a filter's `reject` was answered with a refusal, and how often the packet was only dropped.

    read_refusals(loaded.maps["ps_refusals"])     ->  Refusals(answered=3, suppressed=0)
    refusals_in(directory)                        ->  the same of a running filter; None if it never rejects

Counted since the program was loaded: a policy put in another's place begins at 0.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.kernel.maps import Map

if TYPE_CHECKING:
    from pathlib import Path

#: The pin of the map.
REFUSALS = "refusals"
#: struct ps_refusals of bpf/include/penstock/reject.bpf.h.
_PAIR = struct.Struct("=QQ")


@dataclass(frozen=True, slots=True)
class Refusals:
    """Suppressed are those above the limit, and those that nobody may be sent (docs/language.md)."""

    answered: int
    suppressed: int


def read_refusals(found: Map) -> Refusals:
    """The sums over processors."""
    pairs = list(_PAIR.iter_unpack(found.lookup(bytes(4)) or b""))
    return Refusals(sum(answered for answered, _ in pairs), sum(suppressed for _, suppressed in pairs))


def refusals_in(directory: Path) -> Refusals | None:
    """Those of the filter whose pins lie in this directory.  Raises KernelError: they cannot be read."""
    if not (directory / REFUSALS).exists():
        return None
    with Map.open(directory / REFUSALS) as found:
        return read_refusals(found)
