"""Several files of a ledger made one: a list that is imported every day leaves one file, not one a day.

    joined("threats", book, moment(), write, 0)   ->  the same book with fewer lots; None where there is nothing to join

Lots of the same source, user and comment say the same of their entries but when, and each is looked into
for whatever is asked.  Those of about one size are joined: they have the moment of the newest then, each entry
its latest end, and nothing that was taken back.  So do files become one that say what was taken back of a lot.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from penstock.model.sets import SetSpec
from penstock.pipeline.entry_file import EntryFile
from penstock.pipeline.ledger_book import Book

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from penstock.model.moment import Moment
    from penstock.pipeline.ledger import Line
    from penstock.pipeline.ledger_book import Lot
    from penstock.pipeline.set_keys import Content

#: So many lots of one kind are joined: a list of every day is written again once a week.
MANY_LOTS = 8
#: Below two to this, and eight times that, all files are of one size.
_SMALL_BITS = 16


def joined(
    name: str, book: Book, now: Moment, write: Callable[[tuple[str, ...], Content], str], most_gone: float
) -> Book | None:
    """A book that says the same; `write` puts entries into a file and gives its name.

    A file of which more than `most_gone` entries were taken back is written without them.

    Raises PenstockError: the disk is full, say.
    """
    lots = [lot for lot in book.lots if lot.file.is_whole and not lot.is_over(now)]
    groups: dict[Hashable, list[Lot]] = defaultdict(list)
    for lot in lots:
        # A large one is not written again for a few small ones.
        groups[*_origin(lot), max(lot.file.count.bit_length() - _SMALL_BITS, 0) // 3].append(lot)
    many = [each for each in groups.values() if len(each) >= MANY_LOTS]
    few = [lot for each in groups.values() if len(each) < MANY_LOTS for lot in each]
    worn: dict[Hashable, list[Lot]] = defaultdict(list)
    for lot in few:
        if len(lot.gone) > most_gone or (lot.without and 2 * _gone(lot) > lot.file.count):
            worn[_origin(lot)].append(lot)
    many += worn.values()
    torn = is_torn(lots)
    if not many and not torn:
        return None
    joined_now = {id(lot) for each in many for lot in each}
    left = [
        _mended(name, lot, write) if torn and len(lot.without) > 1 else lot
        for lot in book.lots
        if id(lot) not in joined_now
    ]
    # Behind all others: what is taken back of a lot is written behind it, and holds for those before it too.
    return book.with_lots(left, [line for each in many if (line := _one(name, each, now, write))])


def is_torn(lots: Sequence[Lot]) -> bool:
    """Whether many files say what was taken back of one."""
    return any(len(lot.without) >= MANY_LOTS for lot in lots)


def _origin(lot: Lot) -> tuple[Hashable, ...]:
    return lot.file.kind, lot.line.source, lot.line.by, lot.line.comment


def _gone(lot: Lot) -> int:
    return sum(file.count for file in lot.without if file.is_whole)


def _mended(name: str, lot: Lot, write: Callable[[tuple[str, ...], Content], str]) -> Lot:
    """A lot of which one file says what was taken back."""
    from penstock.pipeline.ledger_content import taken_back

    if not all(file.is_whole for file in (lot.file, *lot.without)):
        return lot
    kind = lot.file.kind
    file = write(kind, taken_back(SetSpec(name, kind), lot))
    return lot.but(EntryFile(lot.file.path.with_name(file)))


def _one(
    name: str, lots: Sequence[Lot], now: Moment, write: Callable[[tuple[str, ...], Content], str]
) -> Line | None:
    """The line of one file of all of them; None if nothing is left of it."""
    from penstock.pipeline.ledger_content import of_lot, together

    newest, kind = lots[-1].line, lots[-1].file.kind
    spec = SetSpec(name, kind)
    # Ends lie on the boot clock of the newest; what was over then is over now.
    at = now if newest.at.boot_id == now.boot_id else newest.at
    content = together(spec, [of_lot(spec, lot, at) for lot in lots])
    if not any(map(len, content.values())):
        return None
    return msgspec.structs.replace(newest, op="add", entries=(), file=write(kind, content))
