"""A place in the text of a policy, read outside expressions: words, marks, strings, ends of lines."""

from __future__ import annotations

import re

from penstock.compiler.lang.ast import Comment
from penstock.compiler.lang.faults import Faults, SyntaxFault, TooManyFaults
from penstock.compiler.lang.lexer import Lexed, comments_between, lex
from penstock.compiler.lang.source import Source, Span
from penstock.compiler.lang.words import suggestion

MAX_IDENTIFIER = 64
#: Statements, words, marks and comments of a policy: each is worth 60 to 250 bytes of memory.
MAX_PIECES = 2_000_000

SPLIT_HINT = "split it, or move address lists out of it"

_BLANK = re.compile(r"[ \t\r]*")
_SPACE = re.compile(r"[ \t\r\n]*(?:#[^\n]*[ \t\r\n]*)*")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_CHUNK = re.compile(r"[A-Za-z0-9_.@$-]+|\S")
_STRING = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_QUOTED = re.compile(r"'([^'\n]*)'|\"([^\"\n]*)\"")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_END_OF_LINE = re.compile(r"[^\n]*")
_CONTINUATION = re.compile(r"(?:and|or|xor)(?![-_.:A-Za-z0-9])|&&|\|\||[&|^=<>+*/%)\],]|!=")


class Cursor:
    """Reads `source.text`; `at` only moves forward.  Comments that are passed over are kept."""

    def __init__(self, source: Source, faults: Faults) -> None:
        self.source = source
        self.text = source.text
        self.faults = faults
        self.at = 0
        self.comments: list[Comment] = []
        self._room = MAX_PIECES

    def spend(self, pieces: int) -> None:
        """Count what was read against the limit of a policy.

        Raises:
            TooManyFaults: it is reached, which is told as a fault.
        """
        self._room -= pieces
        if self._room < 0:
            message = f"a policy has at most {MAX_PIECES:,} statements, words, marks and comments"
            self.faults.error("PS108", message, Span(self.at, self.at), hint=SPLIT_HINT)
            raise TooManyFaults

    # ── blanks, comments, lines ──────────────────────────────────────────────

    def skip_blanks(self) -> None:
        """Move over blanks of this line."""
        found = _BLANK.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def skip_space(self) -> None:
        """Move over blanks, line ends and comments."""
        found = _SPACE.match(self.text, self.at)
        end = found.end() if found else self.at
        self._keep_comments(self.at, end)
        self.at = end

    def skip_line(self) -> None:
        """Move to the end of the statement that this line belongs to, its continuation lines included."""
        while True:
            start = self.at
            found = _END_OF_LINE.match(self.text, self.at)
            self.at = found.end() if found else len(self.text)
            self._keep_trailing_comment(start)
            space = _SPACE.match(self.text, self.at)
            following = space.end() if space else self.at
            if following == self.at or not _CONTINUATION.match(self.text, following):
                return
            self._keep_comments(self.at, following)
            self.at = following

    def _keep_trailing_comment(self, start: int) -> None:
        found = self.text.find("#", start, self.at)
        if found >= 0 and '"' not in self.text[start:found]:
            self._keep_comments(found, self.at)

    def _keep_comments(self, start: int, end: int) -> None:
        for comment in comments_between(self.text, start, end):
            self.spend(1)
            self.comments.append(comment)

    def at_end(self) -> bool:
        return self.at >= len(self.text)

    def at_line_end(self) -> bool:
        """Whether nothing more belongs to the statement on this line."""
        self.skip_blanks()
        return self.at_end() or self.text[self.at] in "\n#}"

    def starts_line(self) -> bool:
        """Whether only blanks stand before the cursor on its line."""
        begin = self.text.rfind("\n", 0, self.at) + 1
        return not self.text[begin : self.at].strip()

    # ── words and marks ──────────────────────────────────────────────────────

    def peek_word(self) -> str:
        """The word that comes next on this line, or an empty text."""
        self.skip_blanks()
        found = _WORD.match(self.text, self.at)
        return found.group() if found else ""

    def take_word(self, *words: str) -> Span | None:
        """Move over one of these words if it comes next."""
        word = self.peek_word()
        return self.advance(len(word)) if word and word in words else None

    def take_mark(self, mark: str) -> Span | None:
        self.skip_blanks()
        return self.advance(len(mark)) if self.text.startswith(mark, self.at) else None

    def advance(self, count: int) -> Span:
        start = self.at
        self.at += count
        return Span(start, self.at)

    def expect_mark(self, mark: str, where: str) -> Span:
        """Move over the mark.

        Raises:
            SyntaxFault: something else comes next.
        """
        span = self.take_mark(mark)
        if span is None:
            raise self.unexpected(f"`{mark}`", where)
        return span

    def identifier(self, what: str) -> tuple[str, Span]:
        """A name that the policy gives to something: letters, digits, `_` and `-`.

        Raises:
            SyntaxFault: no such name comes next, or it is too long.
        """
        self.skip_blanks()
        found = _IDENTIFIER.match(self.text, self.at)
        if not found:
            raise self.unexpected(f"the name of {what}")
        span = self.advance(found.end() - self.at)
        if span.end - span.start > MAX_IDENTIFIER:
            message = f"the name of {what} has at most {MAX_IDENTIFIER} characters"
            raise self.faults.fail("PS108", message, span)
        return found.group(), span

    def string(self, what: str) -> tuple[str, Span]:
        r"""A text in double quotes, in which `\"` and `\\` stand for the second character.

        Raises:
            SyntaxFault: no string comes next, or it does not end on its line.
        """
        self.skip_blanks()
        found = _STRING.match(self.text, self.at)
        if not found:
            if self.text.startswith('"', self.at):
                message = "this text has no closing quote on its line"
                raise self.faults.fail("PS102", message, Span(self.at, self.at + 1))
            raise self.unexpected(f"{what} in double quotes")
        span = self.advance(found.end() - self.at)
        return re.sub(r"\\(.)", r"\1", found[1]), span

    def quoted(self) -> Span | None:
        """The inside of a text in single or double quotes, if one comes next; it is taken literally."""
        self.skip_blanks()
        found = _QUOTED.match(self.text, self.at)
        if not found:
            return None
        self.advance(found.end() - self.at)
        return Span(found.start() + 1, found.end() - 1)

    def lexed(self) -> Lexed:
        """The tokens of the expression that begins here; the cursor moves behind it."""
        found = lex(self.text, self.at, in_policy=True, most=self._room)
        self.comments += found.comments
        self.at = found.end
        self.spend(len(found.tokens) + len(found.comments))
        return found

    # ── faults ───────────────────────────────────────────────────────────────

    def here(self) -> Span:
        """The next word or character, to point at."""
        self.skip_blanks()
        found = _CHUNK.match(self.text, self.at)
        if found is None or self.text[self.at] == "#":
            return Span(self.at, self.at)
        return Span(*found.span())

    def unexpected(
        self, wanted: str, where: str = "", *, known: tuple[str, ...] = (), hint: str | None = None
    ) -> SyntaxFault:
        """The fault of what comes next, where `wanted` (with its article) should stand."""
        span = self.here()
        found = self.text[span.start : span.end]
        place = f" {where}" if where else ""
        if not found:
            return self.faults.fail("PS102", f"{wanted} is missing here{place}", span)
        shown = found if len(found) <= 40 else found[:39] + "…"
        hint = hint or (suggestion(found, known) if known else None)
        message = f"`{shown}` stands where {wanted} should{place}"
        code = "PS103" if known and found[0].isalpha() else "PS102"
        return self.faults.fail(code, message, span, hint=hint)
