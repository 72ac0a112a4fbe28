"""Where a program stands among others on the same hook.

    read_order("first")        ->  Order("first")
    read_order("before:42")    ->  Order("before", 42)      42 is a program's id
    read_order("100")          ->  Order("priority", 100)   of a clsact filter

At TC programs run one after the other, until one of them decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from penstock.errors import PenstockError

Word = Literal["first", "last", "before", "after", "priority"]
LEAST_PRIORITY, MOST_PRIORITY = 1, 0xFFFF

_RELATIVE = re.compile(r"(?P<word>before|after)[:\s]\s*(?P<number>\d{1,10})")
_WORDS: dict[str, Word] = {"first": "first", "last": "last", "before": "before", "after": "after"}


@dataclass(frozen=True, slots=True)
class Order:
    """`number` is the id of the program that it stands before or after, or the priority."""

    word: Word
    number: int = 0

    def __str__(self) -> str:
        number = f"program {self.number}" if self.word in ("before", "after") else str(self.number)
        return f"{'at ' * (self.word == 'priority')}{self.word} {number}" if self.number else self.word

    def holds(self, own: int, programs: Sequence[int], priority: int | None = None) -> bool:
        """Whether the program `own` stands so among `programs`, all in their order."""
        at = programs.index(own)
        match self.word:
            case "first":
                return at == 0
            case "last":
                return at == len(programs) - 1
            case "before":
                return self.number in programs[at + 1 :]
            case "after":
                return self.number in programs[:at]
            case "priority":
                return priority == self.number


FIRST, LAST = Order("first"), Order("last")


def read_order(text: str | int) -> Order:
    """The order that a text tells: `first`, `last`, `before:ID`, `after:ID`, or a priority.

    Raises:
        PenstockError: it is none of these.
    """
    text = str(text).strip()
    if text in ("first", "last"):
        return Order(_WORDS[text])
    if (found := _RELATIVE.fullmatch(text)) is not None:
        return Order(_WORDS[found["word"]], int(found["number"]))
    if text.isdecimal() and LEAST_PRIORITY <= int(text) <= MOST_PRIORITY:
        return Order("priority", int(text))
    hint = f"first, last, before:ID, after:ID (a program's id), or a priority from 1 to {MOST_PRIORITY}"
    raise PenstockError(f"{text!r} is no place among other programs", hint=hint)
