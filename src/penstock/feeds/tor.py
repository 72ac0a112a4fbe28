"""Tor exits: one address a line, or blocks.

    ExitNode 0011BD2485AD45D984EC4159C88FC066E5E3300E
    Published 2026-11-02 22:05:12
    LastStatus 2026-11-02 23:00:00
    ExitAddress 192.0.2.7 2026-11-02 23:17:02

A node may have several addresses.
"""

from __future__ import annotations

from penstock.feeds.gather import Gather, text_of
from penstock.feeds.lines import parse_list
from penstock.feeds.result import Parsed

_OTHER_LINES = frozenset({"ExitNode", "Published", "LastStatus"})


def parse_exits(data: bytes) -> Parsed:
    """The addresses of either form."""
    return _parse_blocks(data) if b"ExitNode " in data[: 1 << 12] else parse_list(data)


def _parse_blocks(data: bytes) -> Parsed:
    entries = Gather()
    for number, line in enumerate(text_of(data).split("\n"), 1):
        words = line.split()
        if not words or words[0] in _OTHER_LINES or words[0].startswith("#"):
            continue
        if words[0] == "ExitAddress":
            entries.add(words[1] if len(words) > 1 else None, number)
        else:
            entries.reject(number, line, "a line that is not known of this list")
    return entries.parsed()
