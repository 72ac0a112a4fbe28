"""Where comments and blank lines of a policy belong, so that `format` can keep them.

A comment that follows a statement on its line stays there; every other one
goes before the statement that comes next, or to the end of its block.  One
blank line between two statements is kept, more are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.compiler.lang.ast import Comment, Policy
from penstock.compiler.lang.source import Span


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What stands around a statement: lines before it, comments or empty, a comment behind it, a blank line above."""

    before: tuple[str, ...] = ()
    behind: str | None = None
    is_apart: bool = False

    def lines(self, text: str, indent: str = "") -> list[str]:
        """The statement with its comments, each line indented."""
        line = f"{indent}{text}" if self.behind is None else f"{indent}{text}  {self.behind}"
        return [*(f"{indent}{comment}" if comment else "" for comment in self.before), line]


class Layout:
    """Gives each comment of a policy away once; statements must be asked for in the order of the text."""

    def __init__(self, policy: Policy) -> None:
        self._text = policy.source.text
        self._comments = sorted(policy.comments, key=lambda comment: comment.span.start)
        self._at = 0

    def around(self, span: Span) -> Surroundings:
        """The surroundings of a whole statement; comments inside it go before it."""
        return self._surroundings(span.start, span.end)

    def opening(self, start: int, brace: int) -> Surroundings:
        """The surroundings of the line that opens a block, up to its brace."""
        return self._surroundings(start, brace)

    def closing(self, end: int) -> Surroundings:
        """The comments at the end of a block, and the one behind its closing brace at `end`."""
        return Surroundings(self._take(end), self._behind(end))

    def rest(self) -> tuple[str, ...]:
        """The comments that are left."""
        return self._take(len(self._text) + 1)

    def brace(self, start: int, end: int) -> int:
        """The offset behind the brace that opens the block which lies in these bounds."""
        found = self._text.find("{", start, end)
        return found + 1 if found >= 0 else start

    def _surroundings(self, start: int, end: int) -> Surroundings:
        first = self._comments[self._at].span.start if self._at < len(self._comments) else start
        before = self._take(end)
        if before and first < start and self._is_apart(start):
            before = (*before, "")
        return Surroundings(before, self._behind(end), self._is_apart(min(first, start)))

    def _take(self, end: int) -> tuple[str, ...]:
        """The comments up to `end`, an empty line between two that an empty line parts."""
        found: list[str] = []
        while self._at < len(self._comments) and self._comments[self._at].span.start < end:
            comment = self._comments[self._at]
            if found and self._is_apart(comment.span.start):
                found.append("")
            found.append(comment.text)
            self._at += 1
        return tuple(found)

    def _behind(self, end: int) -> str | None:
        if self._at == len(self._comments):
            return None
        comment: Comment = self._comments[self._at]
        if (
            comment.own_line
            or "\n" in self._text[end : comment.span.start]
            or not self._is_blank(end, comment)
        ):
            return None
        self._at += 1
        return comment.text

    def _is_blank(self, end: int, comment: Comment) -> bool:
        return not self._text[end : comment.span.start].strip()

    def _is_apart(self, start: int) -> bool:
        """Whether an empty line stands above the line of `start`."""
        ends = 0
        for at in range(start - 1, -1, -1):
            char = self._text[at]
            if char == "\n":
                ends += 1
            elif char not in " \t\r":
                break
        return ends > 1


def join_lines(groups: Sequence[list[str]], apart: Sequence[bool]) -> list[str]:
    """The groups of lines one below the other, with an empty line above those that stand apart."""
    lines: list[str] = []
    for group, is_apart in zip(groups, apart, strict=True):
        if is_apart and lines:
            lines.append("")
        lines += group
    return lines
