"""Entries that a format names one by one: texts with their numbers, parsed together at the end.

    entries = Gather()
    entries.add("198.51.100.7", 1)
    entries.add(None, 2)                # rejected: not a text
    entries.add("203.0.113.0/24", 3, until=1790072042.0)
    entries.parsed().prefixes

An array of a million strings is so read at the speed of a plain list.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import numpy as np

from penstock.errors import FeedError
from penstock.feeds.lines import scan
from penstock.feeds.result import MOST_REJECTS, Parsed, Reject, Rejects, Until

T = TypeVar("T")

_BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class Gather:
    """Entries on their way; `number` is what a reject will be called by."""

    texts: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    untils: list[float] = field(default_factory=list)
    rejects: Rejects = field(default_factory=Rejects)
    skipped: int = 0

    def add(self, value: object, number: int, *, until: float = math.inf) -> None:
        """One more entry."""
        if not isinstance(value, str):
            self.reject(number, "" if value is None else repr(value)[:100], "there is no address")
            return
        self.texts.append(value.strip().replace("\n", " "))
        self.numbers.append(number)
        self.untils.append(until)

    def reject(self, number: int, text: str, reason: str) -> None:
        """An entry that is wrong for a reason of the format's."""
        self.rejects.add(number, text, reason)
        if self.rejects.count > MOST_REJECTS:
            raise FeedError(f"more than {MOST_REJECTS} entries are no addresses", line=number)

    def skip(self) -> None:
        """An entry that the format itself marks as none."""
        self.skipped += 1

    def parsed(self, *, declared: int | None = None) -> Parsed:
        """The result: the rejects by their numbers, ends of time only if an entry has one."""
        joined = "".join(f"{text}\n" for text in self.texts).encode("utf-8", "replace")
        found = scan(joined, is_commented=False)
        bad = [Reject(self.numbers[one.line - 1], one.text, one.reason) for one in found.rejects.kept]
        until = None
        if any(end != math.inf for end in self.untils):
            ends = np.array(self.untils, np.float64)
            until = Until(ends[found.v4_line], ends[found.v6_line])
        return Parsed(
            found.prefixes,
            found.entries + self.rejects.count,
            tuple(sorted([*self.rejects.kept, *bad], key=lambda one: one.line)),
            self.rejects.count + found.rejects.count,
            found.normalised,
            found.mapped,
            self.skipped,
            declared,
            until,
        )


def decoded(data: bytes, kind: type[T]) -> T:
    """The JSON document as that type.

    Raises:
        FeedError: it is no JSON, is cut off, or has another shape.
    """
    try:
        return msgspec.json.decode(data.removeprefix(_BOM), type=kind)
    except msgspec.ValidationError as error:
        raise FeedError(f"not of the expected shape: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FeedError(f"no JSON: {error}") from error
    except RecursionError as error:
        raise FeedError("the JSON is nested too deeply") from error


def text_of(data: bytes) -> str:
    """The lines of a feed as text; bytes that are no UTF-8 become question marks."""
    return data.removeprefix(_BOM).decode("utf-8", "replace")
