"""Read a policy: its constants, filters with their rules, and tests.

Takes the text, gives the syntax tree or every fault of the text at once: a
statement that cannot be understood ends with its line, and the next is read as
if nothing had happened.

    policy = { "let" … | "set" … | "filter" … | "test" … }
    let    = "let" NAME "=" value { "," value }
    filter = "filter" NAME "at" HOOK "{" { default | on | rule } "}"
    rule   = [LABEL ":"] ACTION ["if" expression]
    test   = "test" TITLE ["for" NAME] "{" { packet | pcap | with } "}"

>>> policy = parse_policy(Source("edge.policy", "filter edge at xdp { drop if udp port 53 }"))
>>> policy.filters[0].rules[0].action
'drop'
"""

from __future__ import annotations

import re
from collections.abc import Callable

from penstock.compiler.lang.ast import Expr, Filter, Item, Let, OnCondition, Policy, Rule, Test
from penstock.compiler.lang.cursor import SPLIT_HINT, Cursor
from penstock.compiler.lang.diagnostic import Diagnostic
from penstock.compiler.lang.expression import read_expression
from penstock.compiler.lang.faults import Faults, SyntaxFault, TooManyFaults
from penstock.compiler.lang.lexer import lex
from penstock.compiler.lang.rule import has_label, read_condition, read_default, read_rule
from penstock.compiler.lang.scenario import read_step
from penstock.compiler.lang.sets import read_set
from penstock.compiler.lang.source import Source, Span
from penstock.compiler.lang.tokens import TokenStream
from penstock.compiler.lang.values import read_listed
from penstock.compiler.lang.words import BODY_WORDS, LATER_TOP, TEST_WORDS, TOP_WORDS, later
from penstock.errors import PolicyError
from penstock.model.hook import Hook
from penstock.model.verdict import Verdict

MAX_POLICY_BYTES = 16 << 20
MAX_EXPRESSION_BYTES = 1 << 20

#: C0 and C1 controls but tab and line ends, lone surrogates, and what turns the direction of text around.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_DIRECTIONS = ("ingress", "egress")
_HOOK_WORDS = tuple(dict.fromkeys(hook.value.split()[0] for hook in Hook))
_TOP_STATEMENT = re.compile(r"(?:let|set|filter|test)[ \t]+[\"A-Za-z_]")
_NEXT_ITEM = re.compile(r"^[ \t]*(?=(?:let|set|filter|test)[ \t]+[\"A-Za-z_])", re.MULTILINE)

_NEXT_BOUND = re.compile(r"^[ \t]*(?P<bound>\}|filter\b|test\b)", re.MULTILINE)


def parse_policy(source: Source) -> Policy:
    """The policy that a whole text is.

    Raises:
        PolicyError: the text is no policy; the error holds all its faults, in the order of the text.
    """
    policy, faults = read_policy(source)
    if faults:
        raise PolicyError(faults)
    return policy


def read_policy(source: Source) -> tuple[Policy, tuple[Diagnostic, ...]]:
    """What could be read of a text, and all its faults of syntax, in the order of the text."""
    faults = Faults(source)
    reader = _Reader(source, faults)

    def read() -> None:
        _check_text(source, faults, MAX_POLICY_BYTES, "a policy")
        reader.policy()

    _collect(faults, read)
    return Policy(tuple(reader.items), source, tuple(reader.cursor.comments)), tuple(faults.sorted())


def parse_expression(source: Source) -> Expr | None:
    """The expression that a whole text is; None for an empty one, which matches every packet.

    Raises:
        PolicyError: the text is no expression; the error holds what is wrong with it.
    """
    faults = Faults(source)
    found: list[Expr | None] = []

    def read() -> None:
        _check_text(source, faults, MAX_EXPRESSION_BYTES, "an expression")
        found.append(read_expression(TokenStream(lex(source.text).tokens, faults)))

    _collect(faults, read)
    if faults.found:
        raise PolicyError(faults.sorted())
    return found[0]


def _collect(faults: Faults, read: Callable[[], None]) -> None:
    try:
        read()
    except SyntaxFault as fault:
        faults.found.append(fault.diagnostic)
    except TooManyFaults:
        pass


def _check_text(source: Source, faults: Faults, most: int, what: str) -> None:
    """Refuse what no reader should have to look at.

    Raises:
        SyntaxFault: the text is too big or has characters that cannot be seen.
    """
    text = source.text
    if len(text) > most or len(text.encode("utf-8", "surrogatepass")) > most:
        message = f"{what} has at most {most >> 20} MiB"
        raise faults.fail("PS108", message, Span(0, 0), hint=SPLIT_HINT)
    found = _FORBIDDEN.search(text)
    if found:
        message = f"the character U+{ord(found.group()):04X} cannot be seen and is not allowed"
        raise faults.fail("PS101", message, Span(*found.span()))


class _Reader:
    """Reads the items of a policy one after the other; faults do not stop it."""

    def __init__(self, source: Source, faults: Faults) -> None:
        self.faults = faults
        self.cursor = Cursor(source, faults)
        self.items: list[Item] = []

    def policy(self) -> None:
        cursor = self.cursor
        cursor.skip_space()
        while not cursor.at_end():
            start = cursor.at
            cursor.spend(1)
            try:
                self._item()
            except SyntaxFault as fault:
                self.faults.add(fault.diagnostic)
                self._skip_item(start)
            cursor.skip_space()

    def _skip_item(self, start: int) -> None:
        """Leave a faulty item: a filter or a test up to the next item, anything else with its line."""
        if not self._has_block(start):
            self.cursor.skip_line()
            return
        begin = self.cursor.text.find("\n", max(start, self.cursor.at - 1))
        found = _NEXT_ITEM.search(self.cursor.text, begin + 1) if begin >= 0 else None
        self.cursor.at = found.end() if found else len(self.cursor.text)

    def _has_block(self, start: int) -> bool:
        text = self.cursor.text
        end = text.find("\n", start)
        line = text[start : end if end >= 0 else len(text)]
        return line.startswith(("filter", "test")) or line.rstrip().endswith("{")

    def _item(self) -> None:
        cursor = self.cursor
        word = cursor.peek_word()
        match word:
            case "let":
                self.items.append(self._let())
            case "set":
                self.items.append(read_set(cursor))
            case "filter":
                self.items.append(self._filter())
            case "test":
                self.items.append(self._test())
            case _:
                self._no_item(word)

    def _no_item(self, word: str) -> None:
        cursor = self.cursor
        span = cursor.here()
        if word in LATER_TOP:
            self.faults.error("PS107", later(word, LATER_TOP[word]), span)
            cursor.skip_line()
            return
        if cursor.take_mark("}"):
            self.faults.error("PS102", "this `}` closes nothing", span)
            return
        if word == "feed":
            hint = "as in: set threats : net feed spamhaus-drop"
            raise self.faults.fail("PS102", "a feed belongs to the set that it fills", span, hint=hint)
        if word in BODY_WORDS:
            raise self.faults.fail("PS102", f"`{word}` stands outside of a filter", span, hint=_FILTER_HINT)
        raise cursor.unexpected("`let`, `set`, `filter` or `test`", known=TOP_WORDS)

    # ── let ──────────────────────────────────────────────────────────────────

    def _let(self) -> Let:
        cursor = self.cursor
        start = cursor.advance(len("let"))
        name, name_span = cursor.identifier("a constant")
        if "-" in name:
            hint = f"let {name.replace('-', '_')} = …"
            raise self.faults.fail("PS102", "the name of a constant has no dash", name_span, hint=hint)
        cursor.expect_mark("=", "behind the name of a constant")
        stream = TokenStream(cursor.lexed().tokens, self.faults)
        values = [read_listed(stream)]
        while stream.take_mark(","):
            values.append(read_listed(stream))
        if stream.next.kind != "end":
            raise stream.unexpected("`,` or the end of the line")
        self._check_end("a constant")
        return Let(name, tuple(values), name_span, start.to(values[-1].span))

    def _check_end(self, what: str) -> None:
        if not self.cursor.at_line_end():
            raise self.cursor.unexpected("the end of the line", f"behind {what}")

    # ── filter ───────────────────────────────────────────────────────────────

    def _filter(self) -> Filter:
        cursor = self.cursor
        start = cursor.advance(len("filter"))
        name, name_span, hook = self._filter_head()
        defaults: list[tuple[Verdict, Span]] = []
        conditions: list[OnCondition] = []
        rules: list[Rule] = []
        opening = cursor.expect_mark("{", "behind the head of a filter")

        def statement() -> None:
            match "" if has_label(cursor) else cursor.peek_word():
                case "default":
                    defaults.append(read_default(cursor))
                case "on":
                    conditions.append(read_condition(cursor))
                case _:
                    rules.append(read_rule(cursor))

        end = self._block(opening, f"the filter `{name}`", statement)
        for _, span in defaults[1:]:
            self.faults.error("PS112", "a filter has one `default`", span)
        default, default_span = defaults[0] if defaults else (None, name_span)
        span = Span(start.start, end)
        return Filter(name, hook, default, tuple(conditions), tuple(rules), name_span, default_span, span)

    def _filter_head(self) -> tuple[str, Span, str]:
        """Name and hook; a fault in them does not hide those of the rules."""
        cursor = self.cursor
        name, name_span = "", cursor.here()
        try:
            name, name_span = cursor.identifier("a filter")
            if not cursor.take_word("at"):
                raise cursor.unexpected("`at` and a hook", "behind the name of a filter")
            return name, name_span, self._hook()
        except SyntaxFault as fault:
            end = cursor.text.find("\n", cursor.at)
            brace = cursor.text.find("{", cursor.at, end if end >= 0 else len(cursor.text))
            if brace < 0:
                raise
            self.faults.add(fault.diagnostic)
            cursor.at = brace
            return name, name_span, Hook.XDP.value

    def _hook(self) -> str:
        cursor = self.cursor
        word = cursor.peek_word()
        if word not in _HOOK_WORDS:
            meant = next((way for way in ("ingress", "egress") if word.endswith(way)), None)
            hint = f"did you mean `tc {meant}`?" if meant else None
            raise cursor.unexpected(
                "a hook (xdp, tc ingress, tc egress, socket)", known=_HOOK_WORDS, hint=hint
            )
        cursor.advance(len(word))
        if word != "tc":
            return word
        direction = cursor.peek_word()
        if direction not in _DIRECTIONS:
            raise cursor.unexpected("`ingress` or `egress`", "behind `at tc`", known=_DIRECTIONS)
        cursor.advance(len(direction))
        return f"{word} {direction}"

    def _block(self, opening: Span, what: str, statement: Callable[[], None]) -> int:
        """Read statements up to the closing brace; the offset behind it."""
        cursor = self.cursor
        while True:
            cursor.skip_space()
            if closing := cursor.take_mark("}"):
                return closing.end
            is_item = cursor.starts_line() and _TOP_STATEMENT.match(cursor.text, cursor.at)
            if is_item and cursor.peek_word() == "let" and self._closes_below():
                self._misplaced_let(what)
                continue
            if cursor.at_end() or is_item:
                self.faults.error("PS102", f"{what} is never closed", opening, hint="a `}` is missing")
                return cursor.at
            cursor.spend(1)
            try:
                statement()
            except SyntaxFault as fault:
                self.faults.add(fault.diagnostic)
                self._skip_statement()

    def _closes_below(self) -> bool:
        """Whether a brace at the begin of a line comes before the next filter or test."""
        found = _NEXT_BOUND.search(self.cursor.text, self.cursor.at)
        return found is not None and found["bound"] == "}"

    def _misplaced_let(self, what: str) -> None:
        """Tell it, and read the constant all the same: its uses are right."""
        self.faults.error("PS102", f"`let` stands inside of {what}", self.cursor.here(), hint=_LET_HINT)
        try:
            self.items.append(self._let())
        except SyntaxFault as fault:
            self.faults.add(fault.diagnostic)
            self._skip_statement()

    def _skip_statement(self) -> None:
        """Leave a faulty statement; a brace that closes its block on the same line is kept."""
        cursor = self.cursor
        end = cursor.text.find("\n", cursor.at)
        line = cursor.text[cursor.at : end if end >= 0 else len(cursor.text)]
        code = line.split("#", 1)[0].rstrip()
        if code.endswith("}") and code.count("{") < code.count("}"):
            cursor.at += len(code) - 1
        else:
            cursor.skip_line()

    # ── test ─────────────────────────────────────────────────────────────────

    def _test(self) -> Test:
        cursor = self.cursor
        start = cursor.advance(len("test"))
        title, title_span = cursor.string("the title of a test")
        named = cursor.identifier("a filter")[0] if cursor.take_word("for") else None
        opening = cursor.expect_mark("{", "behind the title of a test")
        steps = []

        def statement() -> None:
            if cursor.peek_word() not in TEST_WORDS:
                raise cursor.unexpected("`packet`, `pcap` or `with`", known=TEST_WORDS)
            steps.append(read_step(cursor))

        end = self._block(opening, "this test", statement)
        return Test(title, tuple(steps), named, title_span, Span(start.start, end))


_FILTER_HINT = "rules stand between the braces of `filter NAME at xdp { … }`"
_LET_HINT = "constants stand above the filter, outside of its braces"
