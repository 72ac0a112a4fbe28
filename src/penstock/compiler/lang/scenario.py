"""Read the steps of a test.

packet IPv4(src="10.1.2.3")/UDP(dport=53)  -> pass
packet hex "02 00 00 …"                    -> drop by dns
pcap "yesterday.pcap" 'udp port 53'        -> drop >= 90%
with @threats 192.0.2.0/24                 (given.py)
"""

from __future__ import annotations

import re
from typing import cast

from penstock.compiler.lang.ast import CaptureTest, Expectation, Expr, PacketTest, RelationOperator, Step
from penstock.compiler.lang.cursor import Cursor
from penstock.compiler.lang.expression import read_expression
from penstock.compiler.lang.given import read_given
from penstock.compiler.lang.lexer import lex
from penstock.compiler.lang.rule import read_verdict
from penstock.compiler.lang.source import Span
from penstock.compiler.lang.tokens import TokenStream
from penstock.compiler.lang.words import DECIDING
from penstock.errors import PacketNotationError
from penstock.model.packet import LayerSpec, parse_hex, parse_packet_at

_RULE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(?::[0-9]{1,7})?")
_SHARE = re.compile(r"(<=|>=|==|!=|<|>|=)[ \t]*([0-9]{1,3}(?:\.[0-9]{1,6})?)[ \t]*%")
_ETHERNET_HEADER = 14


def read_step(cursor: Cursor) -> Step:
    """One `packet`, `pcap` or `with` line; one of these words comes next.

    Raises:
        SyntaxFault: the line is not one.
    """
    start = cursor.here()
    cursor.advance(start.end - start.start)
    match cursor.text[start.start : start.end]:
        case "packet":
            return _packet(cursor, start)
        case "with":
            return read_given(cursor, start)
        case _:
            return _capture(cursor, start)


# ── packets ──────────────────────────────────────────────────────────────────


def _packet(cursor: Cursor, start: Span) -> PacketTest:
    cursor.skip_blanks()
    begin = cursor.at
    layers = _hex_frame(cursor) if cursor.take_word("hex") else _notation(cursor)
    text = cursor.text[begin : cursor.at].strip()
    expect = _expectation(cursor, "behind a packet")
    return PacketTest(layers, text, expect, start.to(expect.span))


def _notation(cursor: Cursor) -> tuple[LayerSpec, ...]:
    try:
        layers, end = parse_packet_at(cursor.text, cursor.at)
    except PacketNotationError as fault:
        raise _notation_fault(cursor, fault, 0) from None
    cursor.at = end
    return layers


def _hex_frame(cursor: Cursor) -> tuple[LayerSpec, ...]:
    digits, span = cursor.string("the bytes of a frame")
    try:
        return frame_layers(parse_hex(digits))
    except PacketNotationError as fault:
        raise _notation_fault(cursor, fault, span.start + 1) from None


def _notation_fault(cursor: Cursor, fault: PacketNotationError, base: int) -> Exception:
    size = len(cursor.text)
    span = Span(min(base + fault.offset, size), min(base + fault.end, size))
    return cursor.faults.fail("PS109", fault.message, span, hint=fault.hint)


def frame_layers(frame: bytes) -> tuple[LayerSpec, ...]:
    """The layers that build exactly these bytes: an Ethernet header and the rest as it is."""
    header = frame[:_ETHERNET_HEADER].ljust(_ETHERNET_HEADER, b"\0")
    addresses = (("dst", header[:6].hex(":")), ("src", header[6:12].hex(":")))
    ether = LayerSpec("Ether", (*addresses, ("type", int.from_bytes(header[12:], "big"))))
    if len(frame) < _ETHERNET_HEADER:
        return ether, LayerSpec("Truncate", (("len", len(frame)),))
    if len(frame) == _ETHERNET_HEADER:
        return (ether,)
    return ether, LayerSpec("Raw", (("hex", frame[_ETHERNET_HEADER:].hex()),))


# ── captures ─────────────────────────────────────────────────────────────────


def _capture(cursor: Cursor, start: Span) -> CaptureTest:
    path, _ = cursor.string("the path of a capture")
    quoted = cursor.quoted()
    condition = _quoted_expression(cursor, quoted) if quoted else None
    expect = _expectation(cursor, "behind a capture")
    share = _share(cursor)
    if share is not None:
        operator, percent, span = share
        expect = Expectation(expect.verdict, expect.rule, operator, percent, expect.span.to(span))
    _check_end(cursor)
    return CaptureTest(path, condition, expect, start.to(expect.span))


def _quoted_expression(cursor: Cursor, quoted: Span) -> Expr | None:
    tokens = lex(cursor.text, quoted.start, quoted.end).tokens
    return read_expression(TokenStream(tokens, cursor.faults))


def _share(cursor: Cursor) -> tuple[RelationOperator, float, Span] | None:
    cursor.skip_blanks()
    found = _SHARE.match(cursor.text, cursor.at)
    if not found:
        return None
    span = cursor.advance(found.end() - found.start())
    percent = float(found[2])
    if percent > 100:
        raise cursor.faults.fail("PS104", "a share is at most 100%", span)
    operator = "==" if found[1] == "=" else found[1]
    return cast("RelationOperator", operator), percent, span


# ── what is expected ─────────────────────────────────────────────────────────


def _expectation(cursor: Cursor, where: str) -> Expectation:
    cursor.expect_mark("->", where)
    verdict, span = read_verdict(cursor, "behind `->`", DECIDING)
    if not cursor.take_word("by"):
        return Expectation(verdict, span=span)
    cursor.skip_blanks()
    found = _RULE.match(cursor.text, cursor.at)
    if not found:
        raise cursor.unexpected("the label of a rule", "behind `by`")
    named = cursor.advance(found.end() - found.start())
    return Expectation(verdict, found.group(), span=span.to(named))


def _check_end(cursor: Cursor) -> None:
    if not cursor.at_line_end():
        raise cursor.unexpected("the end of the line", "behind a test's line")
