"""Read an action with its argument.

drop            redirect eth1         mark 0x10/0xff         dscp AF41
reject          mirror "my device"    mark 7                 dscp 46
"""

from __future__ import annotations

import re
from typing import cast

from penstock.compiler.lang.ast import ActionWord
from penstock.compiler.lang.cursor import Cursor
from penstock.compiler.lang.faults import SyntaxFault
from penstock.compiler.lang.source import Span
from penstock.compiler.lang.words import ACTIONS, BODY_WORDS, LATER_ACTIONS, later, suggestion
from penstock.model.action import (
    DSCP_NAMES,
    MAX_DSCP,
    PLAIN_DEVICE,
    WORD,
    Argument,
    Device,
    Dscp,
    Mark,
    device_name_fault,
)

_ARGUMENTED = ("redirect", "mirror", "mark", "dscp")
_NUMBER = re.compile(r"(0[xX][0-9A-Fa-f]+|[0-9]+)(?![A-Za-z0-9_.])")
_DSCP_WORD = re.compile(r"[A-Za-z][A-Za-z0-9-]*")


def read_action(cursor: Cursor) -> tuple[ActionWord, Argument | None, Span]:
    """An action's word, its argument if it takes one, and the place of both.

    Raises:
        SyntaxFault: no action comes next, or its argument is none.
    """
    word, start = cursor.peek_word(), cursor.here()
    if word in LATER_ACTIONS:
        raise cursor.faults.fail("PS107", later(word, LATER_ACTIONS[word]), start)
    if word not in ACTIONS:
        raise cursor.unexpected(f"an action ({', '.join(ACTIONS)})", known=BODY_WORDS)
    span = cursor.advance(len(word))
    if word not in _ARGUMENTED:
        return cast("ActionWord", word), None, span
    argument, end = _argument(cursor, word)
    return cast("ActionWord", word), argument, span.to(end)


def _argument(cursor: Cursor, word: str) -> tuple[Argument, Span]:
    match word:
        case "mark":
            return _mark(cursor)
        case "dscp":
            return _dscp(cursor)
        case _:
            return _device(cursor, word)


# ── devices ──────────────────────────────────────────────────────────────────


def _device(cursor: Cursor, word: str) -> tuple[Device, Span]:
    cursor.skip_blanks()
    if cursor.text.startswith('"', cursor.at):
        name, span = cursor.string("the name of a device")
    else:
        found = PLAIN_DEVICE.match(cursor.text, cursor.at)
        if not found or found.group() == "if":
            raise _no_device(cursor, word)
        name, span = found.group(), cursor.advance(found.end() - cursor.at)
    fault = device_name_fault(name)
    if fault:
        raise cursor.faults.fail("PS104", fault, span)
    return Device(name), span


def _no_device(cursor: Cursor, word: str) -> SyntaxFault:
    # An `if` here begins the expression: the name was forgotten.
    here = cursor.here()
    shown = cursor.text[here.start : here.end]
    what = "is missing" if shown in ("", "if") else f"should stand where `{shown}` does"
    hint = f"as in: {word} eth1"
    return cursor.faults.fail("PS102", f"the name of a device {what} behind `{word}`", here, hint=hint)


# ── numbers ──────────────────────────────────────────────────────────────────


def _mark(cursor: Cursor) -> tuple[Mark, Span]:
    value, span = _number(cursor, "a mark, a number of 32 bits,", "as in: mark 0x10", WORD)
    if not cursor.text.startswith("/", cursor.at):
        return Mark(value), span
    cursor.advance(1)
    mask, end = _number(cursor, "a mask of 32 bits", "as in: mark 0x10/0xff", WORD)
    if value & ~mask:
        message = f"the mark {value:#x} has bits that its mask {mask:#x} does not have"
        raise cursor.faults.fail("PS104", message, span.to(end), hint=f"mark {value & mask:#x}/{mask:#x}")
    if not mask:
        raise cursor.faults.fail("PS104", "a mask of 0 changes nothing", end)
    return Mark(value, mask), span.to(end)


def _dscp(cursor: Cursor) -> tuple[Dscp, Span]:
    cursor.skip_blanks()
    found = _DSCP_WORD.match(cursor.text, cursor.at)
    if not found or found.group() == "if":
        value, span = _number(cursor, "a DSCP, a name or a number up to 63,", "as in: dscp EF", MAX_DSCP)
        return Dscp(value), span
    span = cursor.advance(found.end() - cursor.at)
    name = found.group().upper()
    if name not in DSCP_NAMES:
        listed = ", ".join(DSCP_NAMES)
        near = suggestion(name.lower(), tuple(word.lower() for word in DSCP_NAMES))
        hint = near.upper().replace("DID YOU MEAN", "did you mean") if near else f"there are: {listed}"
        raise cursor.faults.fail("PS104", f"no DSCP is named `{found.group()}`", span, hint=hint)
    return Dscp(DSCP_NAMES[name]), span


def _number(cursor: Cursor, wanted: str, hint: str, most: int) -> tuple[int, Span]:
    cursor.skip_blanks()
    found = _NUMBER.match(cursor.text, cursor.at)
    if not found:
        here = cursor.here()
        shown = cursor.text[here.start : here.end]
        message = f"{wanted.rstrip(',')} is missing here" if shown in ("", "if") else ""
        message = message or f"`{shown}` stands where {wanted.rstrip(',')} should"
        raise cursor.faults.fail("PS102", message, here, hint=hint)
    span = cursor.advance(found.end() - found.start())
    value = int(found[1], 0) if found[1][:2] in ("0x", "0X") else int(found[1])
    if value > most:
        raise cursor.faults.fail("PS104", f"{found[1]} is more than {most:#x}", span)
    return value, span


assert set(_ARGUMENTED) <= set(ACTIONS)
