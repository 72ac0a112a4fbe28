"""abuse.ch Feodo Tracker, as JSON, CSV and text.

    [{"ip_address":"192.0.2.7","port":4643,"status":"online",…}]

    "first_seen_utc","dst_ip","dst_port","c2_status","last_online","malware"
    "2026-01-17 07:44:46","192.0.2.7","4643","online","2026-01-18","Dridex"
    # END 1 entries

The list is often near empty.  CSV and text end with a count; without it they are cut off.
"""

from __future__ import annotations

import re

import msgspec

from penstock.errors import FeedError
from penstock.feeds.gather import Gather, decoded
from penstock.feeds.generic import rows
from penstock.feeds.lines import parsed_of, scan
from penstock.feeds.result import Parsed

_END = re.compile(rb"^#[ \t]{0,8}END[ \t]{1,8}(\d{1,9})[ \t]{1,8}entries", re.MULTILINE)
_TAIL = 1 << 12


class _Server(msgspec.Struct, gc=False):
    ip_address: object = None


def parse_json(data: bytes) -> Parsed:
    """The servers of ipblocklist.json."""
    entries = Gather()
    for number, server in enumerate(decoded(data, list[_Server]), 1):
        entries.add(server.ip_address, number)
    return entries.parsed()


def parse_csv(data: bytes) -> Parsed:
    """The servers of ipblocklist.csv, by the column called dst_ip.

    Raises:
        FeedError: the row of titles or the count at the end is missing.
    """
    declared = _declared(data)
    entries = Gather()
    column: int | None = None
    for number, row in rows(data, ","):
        if column is None:
            if "dst_ip" not in row:
                raise FeedError("the row of titles names no column dst_ip", line=number)
            column = row.index("dst_ip")
        else:
            entries.add(row[column] if len(row) > column else None, number)
    return entries.parsed(declared=declared)


def parse_txt(data: bytes) -> Parsed:
    """The servers of ipblocklist.txt.

    Raises:
        FeedError: the count at the end is missing.
    """
    return parsed_of(scan(data), _declared(data))


def _declared(data: bytes) -> int:
    found = _END.search(data[-_TAIL:])
    if found is None:
        raise FeedError("the line `# END … entries` is missing: it is cut off")
    return int(found[1])
