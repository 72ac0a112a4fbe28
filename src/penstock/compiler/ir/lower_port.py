"""Ports: `[tcp|udp|sctp] [src|dst] port VALUE`, and `portrange`.

Without a protocol a port is one of TCP, UDP or SCTP; a service's name also says
which of TCP and UDP it is for.  That later fragments have no ports is part of
when the port fields are present.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.compiler.ir.lower_address import by_direction
from penstock.compiler.ir.names import missing_table
from penstock.compiler.ir.simplify import FALSE, all_of, equals, within
from penstock.compiler.lang.ast import Direction, Name, Number, PortRange, Value
from penstock.model.net import IntervalSet

if TYPE_CHECKING:
    from penstock.compiler.ir.lowering import Lowering, Position
    from penstock.compiler.ir.ops import Predicate
    from penstock.compiler.lang.source import Span

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
WORDS = {number: word for word, number in PROTOCOLS.items()}
MAX_PORT = 65535

#: A port's number with the protocol that its name is known for, None for any.
_Port = tuple[int, int | None]


def port(
    lowering: Lowering,
    qualifier: str | None,
    direction: Direction | None,
    value: Value,
    position: Position,
    span: Span,
) -> Predicate:
    """`port` or `portrange` of one value."""
    if qualifier is not None and qualifier not in PROTOCOLS:
        message = f"`{qualifier}` has no ports; tcp, udp and sctp have"
        return lowering.fault("PS303", message, span)
    ends = _ends(lowering, value, span)
    if ends is None:
        return FALSE
    (low, low_protocol), (high, high_protocol) = ends
    named = low_protocol if low_protocol == high_protocol else None
    wanted = PROTOCOLS[qualifier] if qualifier is not None else named
    if named is not None and named != wanted:
        message = f"the service is known for {WORDS[named]} only, not for {qualifier}"
        return lowering.fault("PS304", message, span)
    values = IntervalSet.of((min(low, high), max(low, high)))
    return _ports(wanted, direction, values, position)


def _ports(protocol: int | None, direction: Direction | None, values: IntervalSet, at: Position) -> Predicate:
    prefix = {None: "", 6: "tcp.", 17: "udp.", 132: ""}[protocol]
    test = by_direction(direction, lambda side: within(at.field(f"{prefix}{side[0]}port"), values))
    return all_of((equals(at.field("proto"), 132), test)) if protocol == 132 else test


def _ends(lowering: Lowering, value: Value, span: Span) -> tuple[_Port, _Port] | None:
    """The lowest and highest port; None when the value is no port, which is a fault recorded."""
    match value:
        case PortRange(low, high):
            first, last = _single(lowering, low, span), _single(lowering, high, span)
            return None if first is None or last is None else (first, last)
        case Number() | Name():
            only = _single(lowering, value, span)
            return None if only is None else (only, only)
        case _:
            lowering.fault("PS302", "`port` takes a port's number or a service's name, not an address", span)
            return None


def _single(lowering: Lowering, value: Number | Name, span: Span) -> _Port | None:
    if isinstance(value, Name):
        service = lowering.names.service(value.text)
        if service is None:
            hint = missing_table("/etc/services")
            lowering.fault("PS304", f"no service is named `{value.text}` (/etc/services)", span, hint=hint)
            return None
        return service.port, service.protocol
    if value.value > MAX_PORT:
        lowering.fault("PS305", f"a port is at most {MAX_PORT}, not {value.value}", span)
        return None
    return value.value, None
