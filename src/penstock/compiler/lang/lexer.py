"""Cut an expression into tokens, exactly where libpcap's scanner cuts it.

The longest match wins, and among equals the earlier kind: keyword, MAC address,
number, IPv4 address, IPv6 address, named number, name.  So `ftp-data` is one
name, `1-1` is a name as well, and `len -1` is two tokens and a minus.

    tcp dst port $web   ->   word tcp · word dst · word port · constant web · end

An expression inside a policy ends with its line, unless a parenthesis is open,
the line ends with an operator, or the next line begins with one.  The lexer
finds that end by itself, whatever the parser thinks of the tokens, so a faulty
rule never swallows the next.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import islice
from typing import Literal, NamedTuple

from msgspec import Struct

from penstock.compiler.lang.ast import Comment
from penstock.compiler.lang.source import Span
from penstock.compiler.lang.words import KEYWORDS, NAMED_NUMBERS

TokenKind = Literal[
    "word",
    "name",
    "escaped",
    "number",
    "ipv4",
    "ipv6",
    "mac",
    "constant",
    "set",
    "string",
    "mark",
    "bad",
    "end",
]


class Token(Struct, frozen=True, gc=False):
    """A Struct, because there are many, and it is made in a fifth of a dataclass's time.

    `value` is the number of a number; `text` is the text as written, for a constant
    without its `$`, for a set without its `@`, for a string without its quotes.

    A `bad` token carries the sentence that says what is wrong with it in `fault`.
    """

    kind: TokenKind
    text: str
    span: Span
    value: int = 0
    fault: str = ""

    def is_mark(self, *marks: str) -> bool:
        return self.kind == "mark" and self.text in marks

    def is_word(self, *words: str) -> bool:
        return self.kind == "word" and self.text in words


@dataclass(frozen=True, slots=True)
class Lexed:
    """Tokens, the last of which is `end`, and the offset at which the expression's text ends."""

    tokens: tuple[Token, ...]
    end: int
    comments: tuple[Comment, ...]


def _longest(*patterns: str) -> Callable[[str, int], int]:
    """A function that gives the end of the longest match of any pattern, or -1; compiled when first called."""

    @cache
    def compiled() -> list[re.Pattern[str]]:
        return [re.compile(pattern) for pattern in patterns]

    def match(text: str, at: int) -> int:
        return max((found.end() for regex in compiled() if (found := regex.match(text, at))), default=-1)

    return match


def _ipv6_patterns() -> list[str]:
    group, dotted = "[0-9A-Fa-f]{1,4}", r"(?:[0-9]+\.){3}[0-9]+"

    def run(count: int) -> str:
        return f"{group}(?::{group}){{{count - 1}}}" if count else ""

    patterns = [run(8), f"{run(6)}:{dotted}"]
    for left in range(8):
        patterns += [f"{run(left)}::{run(right)}" for right in range(8 - left)]
    for left in range(6):
        patterns += [f"{run(left)}::{run(right) + ':' if right else ''}{dotted}" for right in range(6 - left)]
    return patterns


_B, _B2 = "[0-9A-Fa-f]{1,2}", "[0-9A-Fa-f]{4}"
_NUMBER = re.compile("0[xX][0-9A-Fa-f]+|[0-9]+")
_NAME = re.compile(r"[A-Za-z0-9](?:[-_.A-Za-z0-9]*[.A-Za-z0-9])?")
_ESCAPED = re.compile(r"\\[^ !()\n\t\r#{}'\"\\]+")
_QUOTED = re.compile(r'"([^"\n]*)"')
_CONSTANT = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_SET = re.compile(r"@([A-Za-z_][A-Za-z0-9_-]*)")
_mac = _longest(
    f"{_B}(?::{_B}){{5}}",
    f"{_B}(?:-{_B}){{5}}",
    f"{_B}(?:\\.{_B}){{5}}",
    f"{_B2}\\.{_B2}\\.{_B2}",
    "[0-9A-Fa-f]{12}",
)
_ipv4 = _longest(r"(?:0[xX][0-9A-Fa-f]+|[0-9]+)(?:\.(?:0[xX][0-9A-Fa-f]+|[0-9]+)){1,3}")
_ipv6 = _longest(*_ipv6_patterns())
_bogus_mac = _longest(f"{_B}:+(?:{_B}:+)+")
_like_mac = re.compile("[0-9A-Fa-f]{1,4}[-.:]|[0-9A-Fa-f]{12}")
_has_colon = re.compile("[0-9A-Fa-f]{0,4}:")
_MARK = re.compile(r"&&|\|\||>=|<=|!=|==|<<|>>|[-+*/%:.\[\]!<>()&|^=]")
_BLANK = re.compile(r"[ \t\r]*")
_COMMENT = re.compile(r"#[^\n]*")
_SPACE = re.compile(r"[ \t\r\n]*(?:#[^\n]*[ \t\r\n]*)*")

_CONTINUES = re.compile(r"(?:and|or|xor)(?![-_.:A-Za-z0-9])|&&|\|\||[&|^=<>+*/%)\]]|!=")
_STATEMENT = re.compile(
    r"(?:[A-Za-z_][A-Za-z0-9_-]*[ \t]*:[ \t]+)?"
    r"(?:pass|drop|reject|bounce|audit|count|(?:redirect|mirror|mark|dscp)[ \t]+[-\w.@/\"]+)"
    r"(?=[ \t]+if\b|[ \t]*(?:[\r\n#}]|\Z))"
    r"|(?:default|on|let|set|filter|test)[ \t]+[\"A-Za-z_]|\}"
)
_OPERATOR_TOKENS = frozenset({"and", "or", "not", "xor"})

#: All that can belong to a token which begins like a word, where it is not too long to be worth remembering.
_SHORT_WORD = re.compile(r"[ \t\r]*([A-Za-z0-9:][-A-Za-z0-9_.:]{0,47})(?![-A-Za-z0-9_.:])")
_MOST_REMEMBERED = 1 << 14

_EVERYTHING = 1 << 62
_NUMERIC_LIMIT = 0xFFFFFFFF


def lex(
    text: str, start: int = 0, stop: int | None = None, *, in_policy: bool = False, most: int = _EVERYTHING
) -> Lexed:
    """The tokens of the expression that begins at `start`.

    By itself an expression is the whole text up to `stop`, line ends and all.
    In a policy it ends as the module says, at a comment or at a brace; a comma
    is then a token, and a line that ends with one goes on.  After `most` tokens and
    comments it ends wherever it is, one behind the limit.
    """
    return _Lexer(text, start, len(text) if stop is None else stop, in_policy, most).run()


class _Lexer:
    def __init__(self, text: str, start: int, stop: int, in_policy: bool, most: int) -> None:
        self.text = text
        self.at = start
        self.stop = stop
        self.in_policy = in_policy
        self.most = most
        self.depth = 0
        self.tokens: list[Token] = []
        self.comments: list[Comment] = []

    def run(self) -> Lexed:
        while len(self.tokens) + len(self.comments) <= self.most and (self._word() or self._other()):
            pass
        end = self.tokens[-1].span.end if self.tokens else self.at
        self.tokens.append(Token("end", "", Span(end, end)))
        return Lexed(tuple(self.tokens), end, tuple(self.comments))

    def _word(self) -> bool:
        """Take a short token that begins like a word, as nearly all do; False where none is next."""
        found = _SHORT_WORD.match(self.text, self.at)
        if found is None or found.end() > self.stop:
            return False
        word = _remembered(found[1])
        if word is None:
            return False
        kind, text, length, value, fault = word
        start = found.start(1)
        self.at = start + length
        self.tokens.append(Token(kind, text, Span(start, self.at), value, fault))
        return True

    def _other(self) -> bool:
        """Take a token of any kind; False where the expression ends."""
        if not self._skip_blanks():
            return False
        token = self._token()
        self.tokens.append(token)
        self.at = token.span.end
        if token.kind == "mark":
            self.depth += (token.text in "([") - (token.text in ")]")
        return True

    def _skip_blanks(self) -> bool:
        """Move to the next token; False where the expression ends."""
        while True:
            blank = _BLANK.match(self.text, self.at, self.stop)
            self.at = blank.end() if blank else self.stop
            if self.at >= self.stop:
                return False
            char = self.text[self.at]
            if char == "\n" and not self.in_policy:
                self.at += 1
            elif char in "\n#" and self.in_policy:
                following = self._next_line()
                if following is None:
                    return False
                self._skip_comments(following)
            else:
                return not (self.in_policy and char in "{}")

    def _skip_comments(self, end: int) -> None:
        """Move to `end`, over nothing but blanks and comments."""
        room = self.most - len(self.comments) + 1
        self.comments += islice(comments_between(self.text, self.at, end), room)
        self.at = end

    def _next_line(self) -> int | None:
        """Where the expression goes on behind the end of this line, or None where it does not."""
        space = _SPACE.match(self.text, self.at, self.stop)
        following = space.end() if space else self.stop
        if following >= self.stop or not self.tokens or _STATEMENT.match(self.text, following):
            return None
        last = self.tokens[-1]
        if last.kind == "mark":
            waits = last.text not in ")]"
        else:
            waits = last.text in _OPERATOR_TOKENS and last.kind in {"word", "name"}
        goes_on = waits or self.depth > 0 or _CONTINUES.match(self.text, following) is not None
        return following if goes_on else None

    def _token(self) -> Token:
        text, at = self.text, self.at
        char = text[at]
        if char.isalnum() or char == ":":
            word = _word(text, at, self.stop)
            if word is not None:
                return Token(word.kind, word.text, Span(at, at + word.length), word.value, word.fault)
        if char == "$":
            return self._constant()
        if char == "@":
            return self._set()
        if char == "\\":
            found = _ESCAPED.match(text, at, self.stop)
            return self._made("escaped", found.end()) if found else self._bad("a name must follow `\\`")
        if char == '"':
            return self._string()
        mark = _MARK.match(text, at, self.stop)
        if mark:
            return self._mark(mark.end())
        if char == "," and self.in_policy:
            return self._made("mark", at + 1)
        return self._bad(_unexpected(char))

    def _constant(self) -> Token:
        found = _CONSTANT.match(self.text, self.at, self.stop)
        if not found:
            return self._bad("the name of a constant must follow `$`")
        return Token("constant", found[1], Span(self.at, found.end()))

    def _set(self) -> Token:
        found = _SET.match(self.text, self.at, self.stop)
        if not found:
            return self._bad("the name of a set must follow `@`")
        return Token("set", found[1], Span(self.at, found.end()))

    def _string(self) -> Token:
        """A text in double quotes, taken literally: a backslash in it is libpcap's."""
        found = _QUOTED.match(self.text, self.at, self.stop)
        if not found:
            return self._bad("this text has no closing quote on its line")
        return Token("string", found[1], Span(self.at, found.end()))

    def _mark(self, end: int) -> Token:
        text = self.text[self.at : end]
        words = {"&&": "and", "||": "or", "!": "not"}
        if text in words:
            return Token("word", words[text], Span(self.at, end))
        return Token("mark", "==" if text == "=" else text, Span(self.at, end))

    def _made(self, kind: TokenKind, end: int) -> Token:
        return Token(kind, self.text[self.at : end], Span(self.at, end))

    def _bad(self, fault: str) -> Token:
        return Token("bad", self.text[self.at], Span(self.at, self.at + 1), fault=fault)


# ── what begins with a letter, a digit or a colon ────────────────────────────


class _Word(NamedTuple):
    """A token without its place; `length` is that of what was written."""

    kind: TokenKind
    text: str
    length: int
    value: int = 0
    fault: str = ""


@lru_cache(_MOST_REMEMBERED)
def _remembered(text: str) -> _Word | None:
    """The first token of a short text; the same words, addresses and ports come again and again."""
    return _word(text, 0, len(text))


def _word(text: str, at: int, stop: int) -> _Word | None:
    """The longest of the kinds that begin with a letter, a digit or a colon."""
    # In the order of libpcap's rules: of two that are equally long, the first is meant.
    ends: list[tuple[TokenKind, int]] = []
    if _like_mac.match(text, at):
        ends.append(("mac", _mac(text, at)))
    if text[at].isdecimal():
        number = _NUMBER.match(text, at, stop)
        ends += [("number", number.end() if number else -1), ("ipv4", _ipv4(text, at))]
    if _has_colon.match(text, at):
        ends += [("ipv6", _ipv6(text, at)), ("bad", _bogus_mac(text, at))]
    name = _NAME.match(text, at, stop)
    ends.append(("name", name.end() if name else -1))
    kind, end = max(ends, key=lambda item: item[1])
    if end < 0:
        return None
    if end > stop:
        return _Word("bad", text[at], 1, fault="this value is cut off")
    return _told(kind, text[at:end])


def _told(kind: TokenKind, text: str) -> _Word:
    """The token of a kind: of a name, whether it is a word or stands for a number."""
    if kind == "bad":
        return _Word("bad", text, len(text), fault="this is neither an Ethernet nor an IPv6 address")
    if kind == "number":
        try:
            return _Word("number", text, len(text), number_value(text))
        except ValueError as fault:
            return _Word("bad", text, len(text), fault=str(fault))
    if kind == "name" and text in KEYWORDS:
        return _Word("word", text, len(text))
    if kind == "name" and text in NAMED_NUMBERS:
        return _Word("number", text, len(text), NAMED_NUMBERS[text])
    return _Word(kind, text, len(text))


def comments_between(text: str, start: int, end: int) -> Iterator[Comment]:
    """The comments of a stretch that holds nothing but blanks and comments."""
    for comment in _COMMENT.finditer(text, start, end):
        begin = text.rfind("\n", 0, comment.start()) + 1
        own_line = not text[begin : comment.start()].strip()
        yield Comment(comment.group().rstrip(), own_line, Span(*comment.span()))


def number_value(text: str) -> int:
    """The value of a decimal, octal (`0120`) or hexadecimal (`0x50`) number.

    Raises:
        ValueError: it has a digit that is not octal, or does not fit 32 bits; the message is a sentence.
    """
    shown = text if len(text) <= 24 else text[:20] + "…"
    if text[:2] in {"0x", "0X"}:
        digits, base = text[2:].lstrip("0"), 16
    elif text.startswith("0"):
        digits, base = text.lstrip("0"), 8
        if set(digits) & {"8", "9"}:
            raise ValueError(f"a number that begins with 0 is octal, and `{shown}` has a digit that is not")
    else:
        digits, base = text, 10
    # 11 octal digits are the most that 32 bits need.
    value = int(digits or "0", base) if len(digits) <= 11 else _NUMERIC_LIMIT + 1
    if value > _NUMERIC_LIMIT:
        raise ValueError(f"the number `{shown}` does not fit 32 bits")
    return value


def _unexpected(char: str) -> str:
    shown = char if char.isprintable() else f"U+{ord(char):04X}"
    return f"`{shown}` has no meaning in an expression"
