"""What `penstock set list|info|export` show: a set, its entries, and whose programs ask it.

content(found, users)   ->  {"set": "threats", "of": ["net"], "entries": 998124, …}
row(found, users)       ->  ("threats", "net", "flat", "998,124", "1,000,000", "", "edge on eth0")
told(found, users)      ->  "set threats : net size 1M", "  998,124 entries, looked up flat; …", …
listed(found)           ->  blocks of "203.0.113.9  expires in 59m"
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from penstock.cli.options import duration_text

if TYPE_CHECKING:
    from penstock.pipeline.live_set import Entry, LiveSet
    from penstock.pipeline.set_users import User

TITLES = ("SET", "OF", "IN", "ENTRIES", "SIZE", "TIMEOUT", "USED BY")
RIGHT = (3, 4)
_BLOCK = 1024
#: A flat set of less takes memory for being there, which says nothing of an entry.
_TELLING = 10_000


def content(found: LiveSet, users: Sequence[User]) -> dict[str, object]:
    """What is known of a set, for `--json`."""
    from penstock.pipeline.dynamic_set import DynamicSet

    spec = found.spec
    more: dict[str, object] = {}
    if found.memory is not None:
        more["memory_bytes"] = found.memory
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
        "programs": [_program(one) for one in users],
    }


def row(found: LiveSet, users: Sequence[User]) -> tuple[str, ...]:
    """A line of `set list`."""
    from penstock.model.sets import time_text

    spec = found.spec
    timeout = "" if spec.timeout_ns is None else time_text(spec.timeout_ns)
    asking = ", ".join(map(str, users))
    return (
        spec.name,
        " . ".join(spec.kind),
        spec.structure,
        f"{found.count:,}",
        f"{spec.size:,}",
        timeout,
        asking,
    )


def told(found: LiveSet, users: Sequence[User]) -> Iterator[str]:
    """What `set info` says."""
    count = found.count
    words = "1 entry" if count == 1 else f"{count:,} entries"
    yield found.spec.text
    yield f"  {words}, looked up {found.spec.search}{_memory_of(found, count)}"
    yield from _of_rules(found)
    yield f"  used by: {', '.join(map(str, users)) or 'no program'}"


def exported(found: LiveSet) -> Iterator[str]:
    """The entries as `import` reads them, in blocks of lines."""
    return _in_blocks(map(_line, found))


def listed(found: LiveSet) -> Iterator[str]:
    """The entries with what is left of their time and what they counted, in blocks of lines."""
    return _in_blocks(map(_shown, found))


def records(found: LiveSet) -> Iterator[dict[str, object]]:
    """The entries, for `--json`."""
    for entry in found:
        shown = {"set": found.spec.name, "entry": entry.text, "expires_in_s": entry.expires_in}
        counts = {"packets": entry.packets, "bytes": entry.bytes} if found.spec.counters else {}
        counts |= {"by_rule": entry.by_rule} if found.spec.dynamic else {}
        yield {**shown, **counts}


# ── how ──────────────────────────────────────────────────────────────────────


def _program(user: User) -> dict[str, object]:
    place = {"policy": user.policy, "interface": user.interface, "hook": user.hook}
    return {"id": user.program, "name": user.name, **{key: value or None for key, value in place.items()}}


def _memory_of(found: LiveSet, count: int) -> str:
    """What a flat set takes; empty for a set of which the kernel does not tell it."""
    total = found.memory
    if total is None:
        return ""
    each = f", {total / count:.0f} bytes an entry" if count >= _TELLING else ""
    return f"; {total / (1 << 20):.1f} MiB{each}"


def _of_rules(found: LiveSet) -> Iterator[str]:
    """What rules have added to a set, and what they could not; nothing for a set that they do not change."""
    from penstock.pipeline.dynamic_set import DynamicSet

    if isinstance(found, DynamicSet):
        refused = found.added.refused
        full = f"; {refused:,} packets found it full and changed nothing" if refused else ""
        yield f"  {found.added.count:,} of them added by rules{full}"


def _in_blocks(lines: Iterable[str]) -> Iterator[str]:
    """So many lines at a time that writing them costs little, and that nothing is kept for long."""
    left = iter(lines)
    while block := "\n".join(islice(left, _BLOCK)):
        yield block


def _line(entry: Entry) -> str:
    """As `import` reads it: what is left of a second counts as one."""
    if entry.expires_in is None:
        return entry.text
    return f"{entry.text} timeout {max(1, round(entry.expires_in))}s"


def _shown(entry: Entry) -> str:
    left = "" if entry.expires_in is None else f"  expires in {duration_text(entry.expires_in)}"
    counted = "" if entry.packets is None else f"  {entry.packets} packets, {entry.bytes} bytes"
    by = "  added by a rule" if entry.by_rule else ""
    return f"{entry.text}{left}{counted}{by}"
