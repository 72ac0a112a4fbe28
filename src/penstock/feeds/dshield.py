"""DShield's recommended block list: tab-separated rows behind a row of titles.

    Start   End     Netblock        Attacks Name    Country email
    192.0.2.0       192.0.2.255     24      788     EXAMPLE DE

The third column is a prefix length; those behind it may be empty.
"""

from __future__ import annotations

from penstock.errors import FeedError
from penstock.feeds.addresses import Entry, prefixes_of
from penstock.feeds.gather import Gather, text_of
from penstock.feeds.result import Parsed

_TITLES = ["start", "end", "netblock"]


def parse_block(data: bytes) -> Parsed:
    """The prefixes of block.txt.

    Raises:
        FeedError: the row of titles is missing, so that nobody knows what the columns are.
    """
    entries = Gather()
    has_titles = False
    for number, line in enumerate(text_of(data).split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if not has_titles and [cell.lower() for cell in cells[:3]] == _TITLES:
            has_titles = True
        elif len(cells) < 3:
            entries.reject(number, line, "a row has at least three columns")
        elif _agrees(*cells[:3]):
            entries.add(f"{cells[0]}/{cells[2]}", number)
        else:
            entries.reject(number, line, "start, end and length do not describe one prefix")
    if not has_titles and (entries.texts or entries.rejects.count):
        raise FeedError("the row of titles (Start, End, Netblock) is missing")
    return entries.parsed()


def _agrees(start: str, end: str, length: str) -> bool:
    spelt, said = prefixes_of(f"{start}/{length}"), prefixes_of(f"{start}-{end}")
    return isinstance(spelt, Entry) and isinstance(said, Entry) and spelt.pieces == said.pieces
