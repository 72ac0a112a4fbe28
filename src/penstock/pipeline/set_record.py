"""A set and its entries as records, for `--json` and for the daemon's answers.

every_record()                 ->  records of all sets, and what is wrong with those that cannot be opened
record_of(found)               ->  {"set": "threats", "of": ["net"], "entries": 998124, "size": 1000000, …}
record_of_entry(found, one)    ->  {"set": "threats", "entry": "192.0.2.0/24", "expires_in_s": None}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.errors import PenstockError, PrivilegeError
from penstock.kernel.map_listing import memory
from penstock.pipeline.dynamic_set import DynamicSet
from penstock.pipeline.set_users import User, users_of

if TYPE_CHECKING:
    from penstock.pipeline.live_set import Entry, LiveSet


def every_record() -> tuple[list[dict[str, object]], list[PenstockError]]:
    """All sets, and a fault for each that cannot be opened.

    Raises:
        PrivilegeError: they may not be read.
    """
    from penstock.pipeline.set_store import names, open_set

    records, faults = [], []
    for name in names():
        try:
            with open_set(name) as found:
                records.append(record_of(found))
        except PrivilegeError:
            raise
        except PenstockError as error:
            faults.append(PenstockError(f"@{name}: {error.message}", hint=error.hint))
    return records, faults


def record_of(found: LiveSet) -> dict[str, object]:
    """What a set is of, how full it is, and who asks it.  Raises KernelError."""
    spec = found.spec
    more: dict[str, object] = {}
    if (memory := memory_of(found)) is not None:
        more["memory_bytes"] = memory
    if isinstance(found, DynamicSet):
        more |= {"added_by_rules": found.added.count, "refused_to_rules": found.added.refused}
    return {
        "set": spec.name,
        "of": list(spec.kind),
        "entries": found.count,
        "size": spec.size,
        "timeout_s": None if spec.timeout_ns is None else spec.timeout_ns / 1e9,
        "counters": spec.counters,
        "structure": spec.structure,
        **more,
        "programs": [_program(one) for one in users_of(found)],
    }


def memory_of(found: LiveSet) -> int | None:
    """The bytes that the kernel counts for all maps of a set, None where it does not tell.

    Of a trie it counts the entries, and not the nodes between them.
    """
    each = [memory(one)[0] for one in found.parts]
    told = [one for one in each if one is not None]
    return sum(told) if len(told) == len(each) else None


def _program(user: User) -> dict[str, object]:
    place = {"policy": user.policy, "interface": user.interface, "hook": user.hook}
    return {"id": user.program, "name": user.name, **{key: value or None for key, value in place.items()}}


def record_of_entry(found: LiveSet, entry: Entry) -> dict[str, object]:
    """One entry; counts only of a set that counts, and whether a rule has added it only of one that rules change."""
    spec = found.spec
    shown: dict[str, object] = {"set": spec.name, "entry": entry.text, "expires_in_s": entry.expires_in}
    if spec.counters:
        shown["packets"], shown["bytes"] = entry.packets, entry.bytes
    if spec.dynamic:
        shown["by_rule"] = entry.by_rule
    return shown
