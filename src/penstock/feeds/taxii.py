"""The pages of a TAXII 2.1 collection, as one body.

    {"more":true,"next":"abc","objects":[…]}     ->  ask again with ?next=abc

In: the first page and how to ask for another.  Out: all pages, one a line.  A server that
says `more` for ever, or names a page twice, is refused: half a collection is no collection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from penstock.errors import FeedError
from penstock.feeds.gather import decoded
from penstock.feeds.unpack import MOST_BYTES

MEDIA_TYPE = "application/taxii+json;version=2.1"
_MOST_PAGES = 1000


class _Page(msgspec.Struct):
    more: bool = False
    next: str | None = None


async def all_pages(first: bytes, ask: Callable[[str], Awaitable[bytes]]) -> bytes:
    """The pages that begin with `first`; what is no envelope comes back as it is.

    Raises:
        FeedError: they do not end, or are larger than a feed may be.
    """
    pages, seen, body, left = [first], set[str](), first, MOST_BYTES
    while (page := decoded(body, _Page)).more:
        if page.next is None or page.next in seen or len(pages) >= _MOST_PAGES:
            raise FeedError(f"the pages do not end: after {len(pages)} there is no new one")
        seen.add(page.next)
        body = await ask(page.next)
        pages.append(body)
        left -= len(body)
        if left < len(first):
            raise FeedError(f"larger than {MOST_BYTES >> 20} MiB")
    return first if len(pages) == 1 else b"".join(_line(one) + b"\n" for one in pages)


def page_url(url: str, after: str) -> str:
    """Where the page behind `after` is (TAXII 2.1, section 3.5)."""
    parts = urlsplit(url)
    kept = [(key, value) for key, value in parse_qsl(parts.query, keep_blank_values=True) if key != "next"]
    return urlunsplit(parts._replace(query=urlencode([*kept, ("next", after)])))


def _line(page: bytes) -> bytes:
    """A JSON document without line ends."""
    return msgspec.json.format(page, indent=-1)
