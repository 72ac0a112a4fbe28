"""`pcap "EXPR"`: libpcap compiles the text, and its program is carried over as one predicate.

The program is what `tcpdump -d` prints, optimized.  The optimizer is part of
libpcap's meaning: it leaves out loads that cannot change the answer, and so
decides what a packet that was cut short matches, and it refuses what nothing can
match.  Its time grows with the square of the program, so the text is bounded.

The predicate speaks of the whole frame wherever it stands: `vlan 5 and pcap "ip"`
asks libpcap of the frame with its tag.

libpcap says what is wrong and not where.  The place is that of the word its
message quotes, else of what penstock's own parser objects to, else all of the text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from penstock.compiler.ir.lowering import Lowering, Position
from penstock.compiler.ir.ops import Classic, Predicate
from penstock.compiler.lang.ast import Pcap
from penstock.compiler.lang.parser import parse_expression
from penstock.compiler.lang.source import Source, Span
from penstock.errors import PolicyError
from penstock.model.classic import MAX_INSTRUCTIONS, asks_a_socket, loops, reads_unwritten

if TYPE_CHECKING:
    from penstock.compiler.libpcap import LibpcapError

#: A longer text may take libpcap seconds.
MAX_TEXT = 4096
_QUOTED = re.compile(r"['\"`]([^'\"`]+)['\"`]")
_WORD = r"(?<![-_.:A-Za-z0-9]){}(?![-_.:A-Za-z0-9])"


def classic(lowering: Lowering, node: Pcap, at: Position) -> Predicate:
    """The program that libpcap makes of the text."""
    if "inner" in at.scope:
        message = "libpcap is asked of the whole frame, never of what a tunnel carries"
        return lowering.fault(
            "PS309", message, node.span, hint="write it outside of `inner(…)`, or without `pcap`"
        )
    if len(node.text) > MAX_TEXT:
        message = f"a text for libpcap has at most {MAX_TEXT:,} characters"
        return lowering.fault("PS321", message, node.text_span, hint="write it without `pcap` and quotes")
    from penstock.compiler.libpcap import NETMASK_UNKNOWN, LibpcapError, compile_filter  # ctypes

    netmask = NETMASK_UNKNOWN if lowering.netmask is None else lowering.netmask
    try:
        program = compile_filter(node.text, netmask=netmask).instructions
    except LibpcapError as refused:
        return _refused(lowering, node, refused)
    if loops(program):
        message = (
            "libpcap's program for `protochain` jumps backwards, which no classic program in the kernel may"
        )
        return lowering.fault(
            "PS321", message, _place(node, "'protochain'"), hint="`protochain` without `pcap` works"
        )
    if asks_a_socket(program):
        message = "libpcap's program asks a socket for what the packet itself does not hold"
        hint = "write `inbound`, `outbound` and `ifindex` in front of `pcap`, outside of the quotes"
        return lowering.fault("PS321", message, _place(node, "'inbound' 'outbound' 'ifindex'"), hint=hint)
    if reads_unwritten(program):
        message = "libpcap's program for this reads memory that it never wrote, so that its answer is anybody's guess"
        return lowering.fault(
            "PS321", message, node.text_span, hint="write what follows `or` into a rule of its own"
        )
    if len(program) > MAX_INSTRUCTIONS:
        message = f"libpcap makes {len(program):,} instructions of this; {MAX_INSTRUCTIONS:,} are the most"
        return lowering.fault("PS321", message, node.text_span, hint="split it into several rules")
    return Classic(program, node.text)


def _refused(lowering: Lowering, node: Pcap, refused: LibpcapError) -> Predicate:
    said = refused.message.removeprefix("can't parse filter expression: ")
    return lowering.fault("PS320", f"libpcap says: {said}", _place(node, said), hint=refused.hint)


def _place(node: Pcap, said: str) -> Span:
    """The part of the text that a message is about."""
    start = node.text_span.start
    for word in _QUOTED.findall(said):
        found = re.search(_WORD.format(re.escape(word)), node.text)
        if found:
            return Span(start + found.start(), start + found.end())
    try:
        parse_expression(Source("pcap", node.text))
    except PolicyError as error:
        span = error.diagnostics[0].span
        return Span(start + span.start, min(start + span.end, node.text_span.end))
    return node.text_span
