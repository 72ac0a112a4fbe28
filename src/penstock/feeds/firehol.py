"""FireHOL netsets and ipsets: a list whose header says how many entries there are.

    # Entries         : 2 subnets, 257 unique IPs
    192.0.2.0/24
    198.51.100.7

An ipset's header says `2 unique IPs` alone.
"""

from __future__ import annotations

import re

from penstock.feeds.lines import parsed_of, scan
from penstock.feeds.result import Parsed

_ENTRIES = re.compile(
    rb"^#\s{0,8}Entries\s{0,40}:\s{0,8}(\d{1,9})\s{1,8}(?:subnets|unique IPs)", re.MULTILINE
)
_HEADER = 1 << 16


def parse_netset(data: bytes) -> Parsed:
    """The prefixes of a netset or ipset, with the count of its header."""
    found = _ENTRIES.search(data[:_HEADER])
    return parsed_of(scan(data), int(found[1]) if found else None)
