"""Which packet a packet carries: the step "inner", of whatever tunnel it is.

In go the bytes and what the IP headers of the carrying packet say, out comes where
the carried packet begins and of which Ethernet type it is: IPv4, IPv6 or
0x6558, an Ethernet frame.  A tunnel that carries anything else, or whose header is
cut before it says what it carries, carries nothing.  T is the transport base, which
later fragments do not have; u8(T+8) is the byte 8 behind it.

IP in IP         protocol 4 (RFC 2003, 2473) IPv4, 41 (RFC 4213, 2473) IPv6, in IPv4 or IPv6; at T
GRE              protocol 47, RFC 2784 and 2890: the type is u16(T+2); checksum, key and sequence number
                 are stepped over.  Not version 1 (PPTP), and not RFC 1701's source routes
VXLAN            UDP to port 4789 with the I flag (RFC 7348): Ethernet at T+16
Geneve           UDP to port 6081, version 0 (RFC 8926): the type is u16(T+10), options are stepped over
GTP-U            UDP to port 2152, version 1, a G-PDU (3GPP TS 29.281): the optional fields and at
                 most four extension headers are stepped over; IPv4 or IPv6 as its first nibble says

>>> carried(Bytes(bytes(34)), Network(proto=4, transport=34))
Carried(eth_type=2048, start=34)
"""

from __future__ import annotations

from typing import NamedTuple

from penstock.compiler.ir.chain import Bytes, Network

IPV4, IPV6, TRANSPARENT_ETHERNET = 0x0800, 0x86DD, 0x6558
KINDS = frozenset({IPV4, IPV6, TRANSPARENT_ETHERNET})
IN_IPV4, IN_IPV6, UDP, GRE = 4, 41, 17, 47
VXLAN_PORT, GENEVE_PORT, GTP_PORT = 4789, 6081, 2152
#: More GTP-U extension headers than this are not walked.
MAX_GTP_EXTENSIONS = 4

_GRE_CHECKSUM, _GRE_ROUTING, _GRE_KEY, _GRE_SEQUENCE, _GRE_VERSION = 0x8000, 0x4000, 0x2000, 0x1000, 0x0007
_GTP_PDU, _GTP_EXTENSIONS, _GTP_OPTIONAL = 0xFF, 0x04, 0x07


class Carried(NamedTuple):
    """A carried packet: of which Ethernet type, and where it starts."""

    eth_type: int
    start: int


def carried(packet: Bytes, network: Network) -> Carried | None:
    """What the packet with these IP headers carries, None if it is nothing that is looked into."""
    at = network.transport
    if at is None:
        return None
    match network.proto:
        case 4:
            return Carried(IPV4, at)
        case 41:
            return Carried(IPV6, at)
        case 47:
            return _known(_in_gre(packet, at))
        case 17:
            return _known(_in_udp(packet, at))
        case _:
            return None


def _known(found: Carried | None) -> Carried | None:
    return found if found is not None and found.eth_type in KINDS else None


def _in_gre(packet: Bytes, at: int) -> Carried | None:
    flags, kind = packet.number(at, 2), packet.number(at + 2, 2)
    if flags is None or kind is None or flags & (_GRE_ROUTING | _GRE_VERSION):
        return None
    optional = sum(bool(flags & bit) for bit in (_GRE_CHECKSUM, _GRE_KEY, _GRE_SEQUENCE))
    return Carried(kind, at + 4 + 4 * optional)


def _in_udp(packet: Bytes, at: int) -> Carried | None:
    match packet.number(at + 2, 2):
        case 4789:
            return _in_vxlan(packet, at + 8)
        case 6081:
            return _in_geneve(packet, at + 8)
        case 2152:
            return _in_gtp(packet, at + 8)
        case _:
            return None


def _in_vxlan(packet: Bytes, at: int) -> Carried | None:
    flags = packet.number(at, 1)
    return Carried(TRANSPARENT_ETHERNET, at + 8) if flags is not None and flags & 0x08 else None


def _in_geneve(packet: Bytes, at: int) -> Carried | None:
    first, kind = packet.number(at, 1), packet.number(at + 2, 2)
    if first is None or kind is None or first & 0xC0:
        return None
    return Carried(kind, at + 8 + 4 * (first & 0x3F))


# ── GTP-U ────────────────────────────────────────────────────────────────────


def _in_gtp(packet: Bytes, at: int) -> Carried | None:
    flags = packet.number(at, 1)
    if flags is None or flags & 0xF0 != 0x30 or packet.number(at + 1, 1) != _GTP_PDU:
        return None
    start: int | None = at + 8
    if flags & _GTP_OPTIONAL:
        start = at + 12
    if flags & _GTP_EXTENSIONS:
        start = _behind_extensions(packet, packet.number(at + 11, 1), at + 12)
    first = packet.number(start, 1)
    if start is None or first is None or first >> 4 not in (4, 6):
        return None
    return Carried(IPV4 if first >> 4 == 4 else IPV6, start)


def _behind_extensions(packet: Bytes, kind: int | None, at: int) -> int | None:
    """Where the chain of extension headers ends; each has its length in words first, and the next one's type last."""
    for _ in range(MAX_GTP_EXTENSIONS):
        if not kind:
            break
        words = packet.number(at, 1)
        if not words:
            return None
        at += 4 * words
        kind = packet.number(at - 1, 1)
    return at if kind == 0 else None
