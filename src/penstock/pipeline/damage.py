"""What of a set's own files cannot be read: it is told of that set, and all others go on.

    damage("threats")     ->  (PenstockError("…/sets/threats/feeds.json: it is cut", hint="…"),)

Looked for where somebody asks (`feed list`, `why`, `apply`): a file that was damaged on the disk
is used by nobody, and what the kernel holds stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.errors import PenstockError
from penstock.pipeline.ledger import Ledger, ledgers
from penstock.pipeline.subscriptions import owned

if TYPE_CHECKING:
    from collections.abc import Iterator


def damage(name: str) -> tuple[PenstockError, ...]:
    """Every fault of the files that belong to one set; none is raised."""
    return tuple(_damage(name))


def damaged_sets() -> dict[str, tuple[PenstockError, ...]]:
    """The sets whose files have faults."""
    return {name: found for name in ledgers() if (found := damage(name))}


def _damage(name: str) -> Iterator[PenstockError]:
    try:
        owned(name)
    except PenstockError as error:
        yield error
    try:
        book = Ledger(name).book()
    except PenstockError as error:
        yield error
        return
    if book.unread:
        yield PenstockError(
            f"{book.journal}: {book.unread} lines of it are not what was written there",
            hint=f"what the kernel holds stays; `penstock set replace {name} FILE` says anew what commands have added",
        )
    for file in (file for lot in book.every_lot() for file in (lot.file, *lot.without)):
        try:
            file.check()
        except PenstockError as error:
            yield error
