"""Several files of a ledger made one: a list that is imported every day leaves one file, not one a day.

    joined("threats", book, write)     ->  the same book with fewer lots; None where there is nothing to join

Lots of the same source, user and comment say the same of their entries but when, and each is looked into
for whatever is asked.  Joined they have the moment of the newest, each entry its latest end, and nothing
that was taken back.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from penstock.model.sets import SetSpec
from penstock.pipeline.ledger_book import Book

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from penstock.model.moment import Moment
    from penstock.pipeline.ledger import Line
    from penstock.pipeline.ledger_book import Lot
    from penstock.pipeline.set_keys import Content

#: So many lots of one kind are joined: a list of every day is written again once a week.
MANY_LOTS = 8


def joined(
    name: str, book: Book, now: Moment, write: Callable[[tuple[str, ...], Content], str], most_gone: float
) -> Book | None:
    """A book that says the same; `write` puts entries into a file and gives its name.

    A file of which more than `most_gone` entries were taken back is written without them.

    Raises PenstockError: the disk is full, say.
    """
    groups: dict[Hashable, list[Lot]] = defaultdict(list)
    for lot in book.lots:
        if lot.file.is_whole and not lot.is_over(now):
            line = lot.line
            groups[lot.file.kind, line.source, line.by, line.comment].append(lot)
    many = [lots for lots in groups.values() if len(lots) >= MANY_LOTS]
    few = [lot for lots in groups.values() if len(lots) < MANY_LOTS for lot in lots]
    many += [[lot] for lot in few if len(lot.gone) > most_gone]
    if not many:
        return None
    gone = {id(lot) for lots in many for lot in lots}
    left = [lot for lot in book.lots if id(lot) not in gone]
    # Behind all others: what is taken back of a lot is written behind it, and holds for those before it too.
    return book.with_lots(left, [_one(name, lots, now, write) for lots in many])


def _one(
    name: str, lots: Sequence[Lot], now: Moment, write: Callable[[tuple[str, ...], Content], str]
) -> Line:
    from penstock.pipeline.ledger_content import of_lot, together

    newest, kind = lots[-1].line, lots[-1].file.kind
    spec = SetSpec(name, kind)
    # Ends lie on the boot clock of the newest; what was over then is over now.
    at = now if newest.at.boot_id == now.boot_id else newest.at
    content = together(spec, [of_lot(spec, lot, at) for lot in lots])
    return msgspec.structs.replace(newest, op="add", entries=(), file=write(kind, content))
