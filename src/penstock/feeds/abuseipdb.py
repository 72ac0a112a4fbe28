"""AbuseIPDB's blacklist: `{"meta":{…},"data":[{"ipAddress":"192.0.2.7","abuseConfidenceScore":100}]}`.

IPv4 and IPv6 come mixed.  A refusal is JSON too: `{"errors":[{"detail":"…","status":401}]}`.
"""

from __future__ import annotations

import msgspec

from penstock.errors import FeedError
from penstock.feeds.gather import Gather, decoded
from penstock.feeds.result import Parsed


class _Report(msgspec.Struct, gc=False, rename={"address": "ipAddress"}):
    address: object = None


class _Refusal(msgspec.Struct):
    detail: str = ""
    status: int = 0


class _Blacklist(msgspec.Struct):
    data: list[_Report] | None = None
    errors: list[_Refusal] = []


def parse_blacklist(data: bytes) -> Parsed:
    """The reported addresses.

    Raises:
        FeedError: the answer is a refusal, in its own words.
    """
    answer = decoded(data, _Blacklist)
    if answer.errors:
        refusal = answer.errors[0]
        raise FeedError(f"AbuseIPDB refuses with {refusal.status}: {refusal.detail[:200]}")
    if answer.data is None:
        raise FeedError("not of the expected shape: there is no `data`")
    entries = Gather()
    for number, report in enumerate(answer.data, 1):
        entries.add(report.address, number)
    return entries.parsed()
