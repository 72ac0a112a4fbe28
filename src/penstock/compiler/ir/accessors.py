"""Accessors that read exactly the bytes of a known field.

`tcp[13]` and `tcp.flags` are the same byte, there in the same packets once
the accessor's protocol has been asked for.  As a field it is known from parsing:
the packet is not read again, nor its bounds checked, and a comparison with a
constant is an interval test.

    tcp[tcpflags] & tcp-syn != 0   ->  tcp.flags & 2 != 0
    ip[8] < 5                      ->  ttl in {0-4}                in IPv4 packets
    ip[6:2] & 0x1fff != 0          ->  frag.offset in {8-65535}    in IPv4 packets
"""

from __future__ import annotations

from penstock.compiler.ir.fields import FIXED
from penstock.compiler.ir.ops import Base

_FULL = (1 << 128) - 1
_PROTOCOLS = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmp6"}


def _accessed() -> dict[tuple[str, int, int], str]:
    found: dict[tuple[str, int, int], str] = {}
    for field, place in FIXED.items():
        if place.shift or place.mask != _FULL or place.size > 4:
            continue
        if place.base is Base.NETWORK and place.family == 4:
            found["ip", place.offset, place.size] = field
        if len(place.protocols) == 1:
            found[_PROTOCOLS[place.protocols[0]], place.offset, place.size] = field
    return found


#: (protocol, offset, size) -> the field whose bytes these are, in packets of that protocol.
ACCESSED: dict[tuple[str, int, int], str] = {
    **_accessed(),
    ("ip", 8, 1): "ttl",
    ("ip", 9, 1): "ip.proto",
    ("ip6", 7, 1): "ttl",
    ("sctp", 0, 2): "sport",
    ("sctp", 2, 2): "dport",
}

#: (protocol, offset, size, mask) -> (field, operator, operand): what the bytes under that mask are.
MASKED: dict[tuple[str, int, int, int], tuple[str, str, int]] = {
    ("ip", 6, 2, 0x1FFF): ("frag.offset", ">>", 3),
    ("ip", 6, 2, 0x4000): ("ip.df", "<<", 14),
}
