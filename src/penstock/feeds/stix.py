"""STIX 2.1 indicators: a bundle, a TAXII 2.1 envelope, or several of these one a line.

    {"type":"indicator","pattern":"[ipv4-addr:value = '192.0.2.7']","pattern_type":"stix",
     "valid_from":"…","valid_until":"…","revoked":false}

Of several versions of an indicator the last one counts.  What is revoked, not yet or no
longer valid, or speaks of no address is no entry.  A pattern that asks for more than an
address (AND, FOLLOWEDBY, NOT …) is refused: applied in half it would block too much.
"""

from __future__ import annotations

import math
from datetime import datetime

import msgspec

from penstock.errors import FeedError
from penstock.feeds.gather import Gather, decoded
from penstock.feeds.result import Parsed
from penstock.feeds.stix_pattern import NotAddressesError, addresses_of


class _Indicator(msgspec.Struct, gc=False):
    type: str = ""
    id: str = ""
    modified: str = ""
    pattern: object = None
    pattern_type: str = "stix"
    valid_from: str | None = None
    valid_until: str | None = None
    revoked: bool = False


class Envelope(msgspec.Struct):
    """A TAXII 2.1 envelope, or a bundle, which has objects alone."""

    objects: list[_Indicator] = []
    more: bool = False
    next: str | None = None


def parse_stix(data: bytes, now: float) -> Parsed:
    """The addresses of the indicators that are valid at `now` (seconds since 1970), each until its valid_until."""
    entries = Gather()
    for number, indicator in _latest(_indicators(data)):
        until = _time(indicator.valid_until)
        if indicator.revoked or until <= now or _time(indicator.valid_from, -math.inf) > now:
            entries.skip()
        else:
            _add(entries, number, indicator, until)
    return entries.parsed()


def _indicators(data: bytes) -> list[_Indicator]:
    data = data.removeprefix(b"\xef\xbb\xbf")
    pages = [line for line in data.split(b"\n") if line.strip()]
    if len(pages) > 1 and all(
        page.lstrip().startswith(b"{") and page.rstrip().endswith(b"}") for page in pages
    ):
        envelopes = [decoded(page, Envelope) for page in pages]
    else:
        envelopes = [decoded(data, Envelope)]
    if not any(page.objects for page in envelopes) and b'"objects"' not in data and data.strip() != b"{}":
        raise FeedError("not of the expected shape: there are no `objects`")
    return [found for page in envelopes for found in page.objects if found.type == "indicator"]


def _latest(indicators: list[_Indicator]) -> list[tuple[int, _Indicator]]:
    """The last version of each, with its number; timestamps of STIX sort as text does."""
    kept: dict[str, tuple[int, _Indicator]] = {}
    for number, indicator in enumerate(indicators, 1):
        name = indicator.id or str(number)
        if name not in kept or kept[name][1].modified <= indicator.modified:
            kept[name] = number, indicator
    return list(kept.values())


def _time(text: str | None, missing: float = math.inf) -> float:
    if text is None:
        return missing
    try:
        moment = datetime.fromisoformat(text)
        return moment.timestamp() if moment.tzinfo else missing
    except (ValueError, OverflowError):
        return missing


def _add(entries: Gather, number: int, indicator: _Indicator, until: float) -> None:
    if indicator.pattern_type != "stix":
        entries.skip()
        return
    if not isinstance(indicator.pattern, str):
        entries.reject(number, "", "an indicator without a pattern")
        return
    try:
        found = addresses_of(indicator.pattern)
    except NotAddressesError as error:
        entries.reject(number, indicator.pattern, str(error))
        return
    if not found:
        entries.skip()
    for text in found:
        entries.add(text, number, until=until)
