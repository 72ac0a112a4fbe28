"""Spamhaus DROP, as NDJSON and as text.

    {"cidr":"192.0.2.0/24","sblid":"SBL1","rir":"apnic"}
    {"type":"metadata","timestamp":1790072042,"size":104461,"records":1,…}

    192.0.2.0/24 ; SBL1

The last line of the first counts the records, so a copy without it is cut off.
"""

from __future__ import annotations

from penstock.errors import FeedError
from penstock.feeds.gather import Gather
from penstock.feeds.generic import json_lines
from penstock.feeds.lines import parse_list
from penstock.feeds.result import Parsed

parse_txt = parse_list


def parse_json(data: bytes) -> Parsed:
    """The prefixes of drop_v4.json or drop_v6.json; the metadata line is no entry.

    Raises:
        FeedError: the metadata line is missing.
    """
    entries = Gather()
    declared: int | None = None
    for number, line in json_lines(data, entries):
        if line.get("type") != "metadata":
            entries.add(line.get("cidr"), number)
        elif isinstance(records := line.get("records"), int):
            declared = records
    if declared is None:
        raise FeedError("the last line, which counts the records, is missing: it is cut off")
    return entries.parsed(declared=declared)
