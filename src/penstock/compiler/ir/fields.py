"""Where the plain fields lie: the ones that are bytes at a fixed distance from a base.

A field that is not in `FIXED` is found by walking (`headers.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.compiler.ir.ops import Base


@dataclass(frozen=True, slots=True)
class Place:
    """`size` bytes at `base` + `offset`, shifted right and masked.

    There only in packets of that IP `family` (0: any) whose protocol is one of `protocols` ((): any).
    """

    base: Base
    offset: int
    size: int
    family: int = 0
    protocols: tuple[int, ...] = ()
    shift: int = 0
    mask: int = (1 << 128) - 1


def _ip(offset: int, size: int, *, shift: int = 0, mask: int = (1 << 128) - 1) -> Place:
    return Place(Base.NETWORK, offset, size, family=4, shift=shift, mask=mask)


def _ip6(offset: int, size: int, *, mask: int = (1 << 128) - 1) -> Place:
    return Place(Base.NETWORK, offset, size, family=6, mask=mask)


def _transport(offset: int, size: int, *protocols: int, family: int = 0) -> Place:
    return Place(Base.TRANSPORT, offset, size, family=family, protocols=protocols)


#: field -> its place (RFC 791, 8200, 9293, 768, 792, 4443).
FIXED: dict[str, Place] = {
    "ip.src": _ip(12, 4),
    "ip.dst": _ip(16, 4),
    "ip.id": _ip(4, 2),
    "ip.len": _ip(2, 2),
    "ip.df": _ip(6, 2, shift=14, mask=1),
    "ip6.src": _ip6(8, 16),
    "ip6.dst": _ip6(24, 16),
    "ip6.flow": _ip6(0, 4, mask=0xFFFFF),
    "sport": _transport(0, 2, 6, 17, 132),
    "dport": _transport(2, 2, 6, 17, 132),
    "tcp.sport": _transport(0, 2, 6),
    "tcp.dport": _transport(2, 2, 6),
    "tcp.seq": _transport(4, 4, 6),
    "tcp.ack": _transport(8, 4, 6),
    "tcp.flags": _transport(13, 1, 6),
    "tcp.window": _transport(14, 2, 6),
    "udp.sport": _transport(0, 2, 17),
    "udp.dport": _transport(2, 2, 17),
    "udp.len": _transport(4, 2, 17),
    "icmp.type": _transport(0, 1, 1, family=4),
    "icmp.code": _transport(1, 1, 1, family=4),
    "icmp6.type": _transport(0, 1, 58, family=6),
    "icmp6.code": _transport(1, 1, 58, family=6),
}
