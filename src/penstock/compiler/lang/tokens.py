"""A place in a list of tokens, and the errors that are told at it."""

from __future__ import annotations

from penstock.compiler.lang.faults import Faults, SyntaxFault
from penstock.compiler.lang.lexer import Token
from penstock.compiler.lang.words import EXPRESSION_WORDS, REFUSED, suggestion

MAX_NESTING = 100
_SIGNS = {"constant": "$", "set": "@"}


class TokenStream:
    """The tokens of one expression, read from left to right; `depth` is how deep the reader is nested."""

    def __init__(self, tokens: tuple[Token, ...], faults: Faults) -> None:
        self._tokens = tokens
        self._at = 0
        #: The token that comes next; `end` again and again at the end.
        self.next = tokens[0]
        self.faults = faults
        self.depth = 0

    @property
    def following(self) -> Token:
        """The token behind the next one."""
        return self._tokens[min(self._at + 1, len(self._tokens) - 1)]

    @property
    def last(self) -> Token:
        """The token that was taken last."""
        return self._tokens[max(self._at - 1, 0)]

    def at_end(self) -> bool:
        return self.next.kind == "end"

    def take(self) -> Token:
        token = self.next
        if token.kind != "end":
            self._at += 1
            self.next = self._tokens[self._at]
        return token

    def take_mark(self, *marks: str) -> Token | None:
        return self.take() if self.next.is_mark(*marks) else None

    def take_word(self, *words: str) -> Token | None:
        return self.take() if self.next.is_word(*words) else None

    def nest(self, token: Token, levels: int = 1) -> None:
        """Go `levels` deeper; `leave` undoes it.

        Raises:
            SyntaxFault: deeper than the stated limit.
        """
        self.depth += levels
        if self.depth > MAX_NESTING:
            message = f"this is nested more than {MAX_NESTING} levels deep"
            raise self.faults.fail("PS108", message, token.span, hint="split it into several rules")

    def leave(self, levels: int = 1) -> None:
        self.depth -= levels

    def unexpected(self, wanted: str, *, hint: str | None = None) -> SyntaxFault:
        """The fault of the next token, where `wanted` (a noun with its article) should stand."""
        token = self.next
        if token.kind == "bad":
            return self._bad(token)
        if token.kind == "end":
            message = f"the expression ends where {wanted} should follow"
            return self.faults.fail("PS102", message, token.span, hint=hint)
        if token.kind == "name":
            return self.unknown(token, wanted, hint)
        if token.kind == "word" and token.text in REFUSED:
            return self.faults.fail("PS106", f"`{token.text}` is refused: {REFUSED[token.text]}", token.span)
        text = f"{_SIGNS.get(token.kind, '')}{token.text}"
        shown = text if len(text) <= 40 else text[:39] + "…"
        if hint is None and text.startswith("@"):
            hint = f"a set is asked by `in`, as in `src in {shown}`"
        return self.faults.fail("PS102", f"`{shown}` stands where {wanted} should", token.span, hint=hint)

    def unknown(self, token: Token, wanted: str, hint: str | None = None) -> SyntaxFault:
        """The fault of a name that is no word of the language at this place."""
        near = suggestion(token.text, EXPRESSION_WORDS)
        shown = token.text if len(token.text) <= 40 else token.text[:39] + "…"
        message = f"`{shown}` is not a word that can stand here; {wanted} should"
        return self.faults.fail("PS103", message, token.span, hint=near or hint)

    def _bad(self, token: Token) -> SyntaxFault:
        # One character has no meaning; more of them are a value that does not exist.
        return self.faults.fail("PS101" if len(token.text) == 1 else "PS104", token.fault, token.span)
