"""What `penstock set list|info|export` show of the records of sets and entries (pipeline/set_record.py).

row(content)        ->  ("threats", "net", "flat", "998,124", "1,000,000", "", "edge on eth0")
told(content)       ->  "set threats : net size 1M", "  998,124 entries, looked up flat; …", …
listed(entries)     ->  blocks of "203.0.113.9  expires in 59m"
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeAlias

from penstock.cli.options import duration_text

if TYPE_CHECKING:
    from penstock.model.sets import SetSpec

Record: TypeAlias = "dict[str, Any]"

TITLES = ("SET", "OF", "IN", "ENTRIES", "SIZE", "TIMEOUT", "USED BY")
RIGHT = (3, 4)
_BLOCK = 1024
#: A set of less takes memory for being there, which says nothing of an entry; and so many are quickly sorted.
_TELLING = 10_000


def row(content: Record) -> tuple[str, ...]:
    """A line of `set list`."""
    from penstock.model.sets import time_text

    spec = _spec(content)
    timeout = "" if spec.timeout_ns is None else time_text(spec.timeout_ns)
    counts = f"{content['entries']:,}", f"{spec.size:,}"
    return (spec.name, " . ".join(spec.kind), spec.structure, *counts, timeout, _users(content))


def told(content: Record) -> Iterator[str]:
    """What `set info` says."""
    spec, count = _spec(content), content["entries"]
    words = "1 entry" if count == 1 else f"{count:,} entries"
    yield spec.text
    yield f"  {words}, looked up {spec.search}{_memory_of(content)}"
    yield from _of_rules(content)
    yield f"  used by: {_users(content) or 'no program'}"


def exported(entries: Iterable[Record]) -> Iterator[str]:
    """The entries as `import` reads them, in blocks of lines."""
    return _in_blocks(map(_line, entries))


def in_order(entries: Iterable[Record]) -> Iterator[Record]:
    """Sorted as people count, as long as they are few; more come as they lie in the kernel."""
    rest = iter(entries)
    first = list(islice(rest, _TELLING))
    if len(first) < _TELLING:
        first.sort(key=lambda one: _natural(one["entry"]))
    return chain(first, rest)


def listed(entries: Iterable[Record]) -> Iterator[str]:
    """The entries with what is left of their time and what they counted, in blocks of lines."""
    return _in_blocks(map(_shown, entries))


# ── how ──────────────────────────────────────────────────────────────────────


def _natural(entry: str) -> tuple[bool, list[tuple[int, str]]]:
    """IPv4 before IPv6, and 9 before 10."""
    parts = re.findall(r"\d+|\D+", entry)
    return ":" in entry, [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _spec(content: Record) -> SetSpec:
    from penstock.model.sets import SetSpec

    timeout = content["timeout_s"]
    return SetSpec(
        content["set"],
        tuple(content["of"]),
        content["size"],
        None if timeout is None else int(timeout * 1e9),
        content["counters"],
        "added_by_rules" in content,
        content["structure"],
    )


def _users(content: Record) -> str:
    from penstock.pipeline.set_users import User

    each = (
        User(one["id"], one["name"], *(one[key] or "" for key in ("policy", "interface", "hook")))
        for one in content["programs"]
    )
    return ", ".join(map(str, each))


def _memory_of(content: Record) -> str:
    """What a set takes, as the kernel counts it; empty where it does not tell."""
    total, count = content.get("memory_bytes"), content["entries"]
    if total is None:
        return ""
    each = f", {total / count:.0f} bytes an entry" if count >= _TELLING else ""
    # Nodes between the entries of a trie are not counted (kernel/bpf/lpm_trie.c, trie_mem_usage).
    least = "at least " if content["structure"] == "trie" else ""
    size = f"{total / (1 << 20):.1f} MiB" if total >= 1 << 20 else f"{total / 1024:.0f} KiB"
    return f"; {least}{size} of memory{each}"


def _of_rules(content: Record) -> Iterator[str]:
    """What rules have added to a set, and what they could not; nothing for a set that they do not change."""
    if "added_by_rules" in content:
        refused = content["refused_to_rules"]
        full = f"; {refused:,} packets found it full and changed nothing" if refused else ""
        yield f"  {content['added_by_rules']:,} of them added by rules{full}"


def _in_blocks(lines: Iterable[str]) -> Iterator[str]:
    """So many lines at a time that writing them costs little, and that nothing is kept for long."""
    left = iter(lines)
    while block := "\n".join(islice(left, _BLOCK)):
        yield block


def _line(entry: Record) -> str:
    """As `import` reads it: what is left of a second counts as one."""
    if entry["expires_in_s"] is None:
        return str(entry["entry"])
    return f"{entry['entry']} timeout {max(1, round(entry['expires_in_s']))}s"


def _shown(entry: Record) -> str:
    left = "" if entry["expires_in_s"] is None else f"  expires in {duration_text(entry['expires_in_s'])}"
    counted = f"  {entry['packets']} packets, {entry['bytes']} bytes" if "packets" in entry else ""
    by = "  added by a rule" if entry.get("by_rule") else ""
    return f"{entry['entry']}{left}{counted}{by}"
