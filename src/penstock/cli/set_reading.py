"""What sets hold, as records: read from the kernel, or told by the daemon to those who may not look for themselves.

records()             ->  [{"set": "threats", "of": ["net"], "entries": 3, …}, …], and faults of others
record("threats")     ->  the same of one
entries("threats")    ->  {"set": "threats", "entry": "192.0.2.0/24", "expires_in_s": None}, …
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.cli import output
from penstock.control.client import ask_if_there
from penstock.errors import PenstockError, PrivilegeError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: As many as the daemon tells (control.protocol.MOST_LISTED, which would import msgspec).
_MOST_TOLD = 100_000


def records() -> tuple[list[dict[str, Any]], list[PenstockError]]:
    """All sets, and a fault for each that cannot be opened.  Raises PenstockError."""
    from penstock.pipeline.set_record import every_record

    try:
        return every_record()
    except PrivilegeError:
        told = ask_if_there("SetList", to_read=True)
        if told is None:
            raise
        faults = [PenstockError(one["message"], hint=one["hint"]) for one in told["faults"]]
        return list(told["sets"]), faults


def record(name: str) -> dict[str, Any]:
    """One set.  Raises PenstockError: there is none of that name."""
    from penstock.pipeline.set_record import record_of
    from penstock.pipeline.set_store import open_set

    try:
        with open_set(name) as found:
            return record_of(found)
    except PrivilegeError:
        told = ask_if_there("SetList", to_read=True) or {"sets": ()}
        for one in told["sets"]:
            if one["set"] == name.removeprefix("@"):
                return dict(one)
        raise


def entries(name: str, *, whole: bool = False) -> Iterator[dict[str, Any]]:
    """The entries of a set; with `whole`, all of them or an error.  Raises PenstockError."""
    from penstock.pipeline.set_record import record_of_entry
    from penstock.pipeline.set_store import open_set

    try:
        found = open_set(name)
    except PrivilegeError:
        told = ask_if_there("SetList", to_read=True, set=name, limit=_MOST_TOLD)
        if told is None:
            raise
        yield from _told(told, whole=whole)
        return
    with found:
        for entry in found:
            yield record_of_entry(found, entry)


def _told(told: dict[str, Any], *, whole: bool) -> Iterator[dict[str, Any]]:
    name, there = told["set"], told["entries"]
    left = told["count"] - len(there) if len(there) == _MOST_TOLD else 0
    if left > 0 and whole:
        raise PenstockError(
            f"the daemon tells {_MOST_TOLD:,} entries at most, and @{name} has {told['count']:,}",
            hint="root can export it whole",
        )
    yield from there
    if left > 0:
        output.note(f"@{name}: and {left:,} more, which root can list")
