"""The odd-packet conditions of a frame: what is judged malformed, and how deep one looks.

n bytes are at hand, w is the length on the wire.  Each condition is judged only
down to the rule set's depth (LINK < NETWORK < TRANSPORT), and only of the frame
itself, never of what it encapsulates.

    unknown-tag   LINK       the type behind two VLAN tags is a third tag's
    exthdr-limit  NETWORK    a ninth IPv6 extension header
    fragment      NETWORK    a fragment with a non-zero offset, IPv4 or IPv6
    ip-options    NETWORK    IPv4 with ihl > 5
    malformed     a header ends beyond w, or contradicts itself:
      LINK        the Ethernet header, or a tag with the type behind it, does not fit
      NETWORK     IPv4: shorter than 20 bytes, version not 4, ihl < 5, options or
                  total length beyond w, total length < header length (a length
                  of 0 where more than 65535 bytes follow is theirs: BIG TCP)
                  IPv6: shorter than 40 bytes, version not 6, payload length
                  beyond w, an extension header (at least 8 bytes) beyond w
                  ARP, RARP: shorter than 28 bytes
      TRANSPORT   (IP in order, transport header in this packet; `end` is where
                  the IP length says the packet ends, or w if IPv6 says 0)
                  TCP: 20 bytes or doff * 4 beyond `end`, doff < 5
                  UDP: 8 bytes beyond `end`, length < 8 (0 is allowed in IPv6), or
                  length beyond `end` unless this is a fragment
                  SCTP 12, ICMP 8, ICMPv6 4 bytes beyond `end`

A byte between n and w was cut by the capture, not by the sender: a check that
needs it finds nothing wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.model.field import VLAN_TPIDS, Layer
from penstock.model.verdict import Condition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.compiler.ir.headers import Headers, Packet


def conditions_of(packet: Packet, depth: Layer) -> frozenset[Condition]:
    """Every condition that holds, judged down to `depth`."""
    headers = packet.headers()
    assert headers is not None
    return frozenset(_holding(packet, headers, depth))


def _holding(packet: Packet, headers: Headers, depth: Layer) -> Iterator[Condition]:
    if _is_malformed(packet, headers, depth):
        yield Condition.MALFORMED
    if headers.link.eth_type in VLAN_TPIDS:
        yield Condition.UNKNOWN_TAG
    if depth >= Layer.NETWORK:
        if headers.network.over:
            yield Condition.EXTHDR_LIMIT
        if headers.network.frag == 2:
            yield Condition.FRAGMENT
        if headers.is_ipv4 and (_low_nibble(packet, headers.link.network) or 0) > 5:
            yield Condition.IP_OPTIONS


def _low_nibble(packet: Packet, at: int | None) -> int | None:
    byte = packet.number(at, 1)
    return None if byte is None else byte & 0x0F


def _is_malformed(packet: Packet, headers: Headers, depth: Layer) -> bool:
    if _link_is_malformed(packet, headers):
        return True
    if depth >= Layer.NETWORK and _network_is_malformed(packet, headers):
        return True
    return depth >= Layer.TRANSPORT and _transport_is_malformed(packet, headers)


def _link_is_malformed(packet: Packet, headers: Headers) -> bool:
    if headers.link.network is not None:
        return False
    end = 14
    while end <= 14 + 4 and packet.number(end - 2, 2) in VLAN_TPIDS:
        end += 4
    return end > packet.wire_length


# ── network ──────────────────────────────────────────────────────────────────


def _network_is_malformed(packet: Packet, headers: Headers) -> bool:
    start = headers.link.network
    if start is None:
        return False
    if headers.is_ipv4:
        return _ipv4_is_malformed(packet, start)
    if headers.is_ipv6:
        return _ipv6_is_malformed(packet, headers, start)
    return headers.is_arp and start + 28 > packet.wire_length


def _ipv4_is_malformed(packet: Packet, start: int) -> bool:
    wire = packet.wire_length
    first, total = packet.number(start, 1), _total_length(packet, start)
    if start + 20 > wire:
        return True
    if first is None:
        return False
    length = 4 * (first & 0x0F)
    if first >> 4 != 4 or length < 20 or start + length > wire:
        return True
    return total is not None and (total < length or start + total > wire)


def _total_length(packet: Packet, start: int) -> int | None:
    """IPv4's total length; it is 0 where 16 bits do not hold it, in an aggregate of many segments."""
    total, most = packet.number(start + 2, 2), packet.wire_length - start
    return most if total == 0 and most > 0xFFFF else total


def _ipv6_is_malformed(packet: Packet, headers: Headers, start: int) -> bool:
    wire = packet.wire_length
    first, payload = packet.number(start, 1), packet.number(start + 4, 2)
    if start + 40 > wire or (first is not None and first >> 4 != 6):
        return True
    if payload is not None and start + 40 + payload > wire:
        return True
    walked = headers.network.walked
    return any(header.start + max(header.length or 0, 8) > wire for header in walked)


# ── transport ────────────────────────────────────────────────────────────────


def _transport_is_malformed(packet: Packet, headers: Headers) -> bool:
    start, end = headers.network.transport, _payload_end(packet, headers)
    if start is None or end is None:
        return False
    match headers.network.proto:
        case 6:
            return _tcp_is_malformed(packet, start, end)
        case 17:
            return _udp_is_malformed(packet, headers, start, end)
        case 132:
            return start + 12 > end
        case 1 if headers.is_ipv4:
            return start + 8 > end
        case 58 if headers.is_ipv6:
            return start + 4 > end
        case _:
            return False


def _payload_end(packet: Packet, headers: Headers) -> int | None:
    """Where the IP header says the packet ends; a length of 0 in IPv6 is a jumbogram's (RFC 2675)."""
    start = headers.link.network
    if start is None:
        return None
    if headers.is_ipv4:
        total = _total_length(packet, start)
        return None if total is None else start + total
    payload = packet.number(start + 4, 2)
    if payload is None:
        return None
    return start + 40 + payload if payload else packet.wire_length


def _tcp_is_malformed(packet: Packet, start: int, end: int) -> bool:
    if start + 20 > end:
        return True
    byte = packet.number(start + 12, 1)
    return byte is not None and (byte >> 4 < 5 or start + 4 * (byte >> 4) > end)


def _udp_is_malformed(packet: Packet, headers: Headers, start: int, end: int) -> bool:
    if start + 8 > end:
        return True
    length = packet.number(start + 4, 2)
    if length is None or (length == 0 and headers.is_ipv6):
        return False
    return length < 8 or (headers.network.frag == 0 and start + length > end)
