"""Read the statements of a filter: `default`, `on` and rules.

default drop
on malformed drop
dns:  drop  if udp dst port 53
"""

from __future__ import annotations

import re

from penstock.compiler.lang.action import read_action
from penstock.compiler.lang.ast import Expr, Membership, OnCondition, Rule
from penstock.compiler.lang.cursor import MAX_IDENTIFIER, Cursor
from penstock.compiler.lang.expression import read_expression
from penstock.compiler.lang.set_change import CHANGES, read_change
from penstock.compiler.lang.source import Span
from penstock.compiler.lang.tokens import TokenStream
from penstock.compiler.lang.words import DECIDING, LATER_ACTIONS, VERDICTS, later
from penstock.model.action import Argument, spelled
from penstock.model.verdict import CONDITION_WORDS, Verdict

_LABEL = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)[ \t]*:")
_REDIRECT_HINT = "a rule has one: redirect DEVICE if EXPRESSION"


def read_verdict(cursor: Cursor, where: str, known: tuple[str, ...] = VERDICTS) -> tuple[Verdict, Span]:
    """A verdict, one of `known`, and its place.

    Raises:
        SyntaxFault: no verdict comes next.
    """
    word = cursor.peek_word()
    if word in LATER_ACTIONS:
        raise cursor.faults.fail("PS107", later(word, LATER_ACTIONS[word]), cursor.here())
    if word not in known:
        if word == Verdict.REDIRECT.value:
            message = f"`redirect` needs a device, and there is no place for one {where}"
            raise cursor.faults.fail("PS102", message, cursor.here(), hint=_REDIRECT_HINT)
        listed = ", ".join(f"`{one}`" for one in known[:-1])
        raise cursor.unexpected(f"{listed} or `{known[-1]}`", where, known=known)
    return Verdict(word), cursor.advance(len(word))


def read_default(cursor: Cursor) -> tuple[Verdict, Span]:
    """`default VERDICT`; the span is that of the statement.

    Raises:
        SyntaxFault: it is not one.
    """
    start = cursor.advance(len("default"))
    verdict, span = read_verdict(cursor, "behind `default`")
    _check_end(cursor, "a default")
    return verdict, start.to(span)


def read_condition(cursor: Cursor) -> OnCondition:
    """`on CONDITION pass|drop|reject|bounce|continue`.

    Raises:
        SyntaxFault: it is not one.
    """
    start = cursor.advance(len("on"))
    word = cursor.peek_word()
    if word not in CONDITION_WORDS:
        listed = ", ".join(CONDITION_WORDS)
        raise cursor.unexpected(f"a condition ({listed})", known=tuple(CONDITION_WORDS))
    cursor.advance(len(word))
    if span := cursor.take_word("continue"):
        verdict = None
    else:
        verdict, span = read_verdict(cursor, "behind a condition, or `continue`")
    _check_end(cursor, "a condition")
    return OnCondition(CONDITION_WORDS[word], verdict, start.to(span))


def read_rule(cursor: Cursor) -> Rule:
    """`[LABEL:] ACTION [ARGUMENT] [if EXPRESSION]`.

    Raises:
        SyntaxFault: it is not one; the cursor is then behind the rule, or before the fault.
    """
    label, label_span = _label(cursor)
    argument: Argument | None
    target: Membership | None = None
    if cursor.peek_word() in CHANGES:
        action, argument, target, action_span = read_change(cursor)
    else:
        action, argument, action_span = read_action(cursor)
    start = label_span if label else action_span
    if cursor.at_line_end():
        return Rule(action, None, label, label_span, start.to(action_span), argument, action_span, target)
    word = cursor.peek_word()
    if word in LATER_ACTIONS:
        raise cursor.faults.fail("PS107", later(word, LATER_ACTIONS[word]), cursor.here())
    if not cursor.take_word("if"):
        span = cursor.here()
        rest = cursor.text[span.start : span.start + 40].split("\n")[0].split("#")[0].strip()
        hint = f"{spelled(action, argument)} if {rest}"
        message = "a rule goes on with `if` and an expression, or ends with its line"
        raise cursor.faults.fail("PS102", message, span, hint=hint)
    condition, end = _condition(cursor)
    return Rule(action, condition, label, label_span, Span(start.start, end), argument, action_span, target)


def has_label(cursor: Cursor) -> bool:
    """Whether a label comes next, of whatever word: `default:` is a rule's label, and a bad one."""
    cursor.skip_blanks()
    return _LABEL.match(cursor.text, cursor.at) is not None


def _label(cursor: Cursor) -> tuple[str | None, Span]:
    cursor.skip_blanks()
    found = _LABEL.match(cursor.text, cursor.at)
    if not found:
        return None, Span(cursor.at, cursor.at)
    span = Span(*found.span(1))
    cursor.at = found.end()
    if len(found[1]) > MAX_IDENTIFIER:
        raise cursor.faults.fail("PS108", f"a label has at most {MAX_IDENTIFIER} characters", span)
    return found[1], span


def _condition(cursor: Cursor) -> tuple[Expr, int]:
    """The expression behind `if`, and the offset of its end."""
    lexed = cursor.lexed()
    stream = TokenStream(lexed.tokens, cursor.faults)
    condition = read_expression(stream)
    if condition is None:
        message = "an expression is missing behind `if`"
        raise cursor.faults.fail(
            "PS102", message, stream.next.span, hint="leave `if` out to match every packet"
        )
    _check_end(cursor, "a rule")
    return condition, lexed.end


def _check_end(cursor: Cursor, what: str) -> None:
    if not cursor.at_line_end():
        raise cursor.unexpected("the end of the line", f"behind {what}")


assert {verdict.value for verdict in Verdict} == set(DECIDING)
