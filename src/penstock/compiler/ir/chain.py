"""What the IP headers say: protocol, fragment, and where the transport header is.

IPv4 is a header with options; IPv6 a chain of headers that has to be walked.
In go the bytes and the offset of the fixed header, out comes a `Network`, whose
parts are None where the packet does not have (or is cut before) them.

IPv4
    T = start + 4*ihl if ihl >= 5 and the fragment offset is 0; it may lie beyond
    the packet's end, where nothing can be read.  `chain.proto` steps over
    authentication headers, at most eight; in a later fragment there is nothing
    to step over, and it is the protocol.
IPv6
    See `ipv6_header`.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.model.field import EXTENSION_HEADERS, MAX_EXTENSION_HEADERS

FRAGMENT, AUTHENTICATION = 44, 51


class Bytes:
    """A frame's bytes, read without ever raising."""

    __slots__ = ("frame",)

    def __init__(self, frame: bytes) -> None:
        self.frame = frame

    def number(self, offset: int | None, size: int) -> int | None:
        """`size` bytes from `offset`, big-endian; None unless all of them are at hand."""
        if offset is None or offset < 0 or offset + size > len(self.frame):
            return None
        return int.from_bytes(self.frame[offset : offset + size], "big")


@dataclass(frozen=True, slots=True)
class ExtensionHeader:
    """One IPv6 extension header: its number, where it starts, its length if that could be read."""

    number: int
    start: int
    length: int | None


@dataclass(frozen=True, slots=True)
class Network:
    """What IPv4 or an IPv6 header chain says; everything absent for other protocols.

    `chain` is `chain.proto`, `walked` and `mask` are of IPv6 only, `over` tells
    that the chain is longer than MAX_EXTENSION_HEADERS.
    """

    proto: int | None = None
    transport: int | None = None
    frag: int | None = None
    frag_offset: int | None = None
    chain: int | None = None
    mask: int | None = None
    walked: tuple[ExtensionHeader, ...] = ()
    over: bool = False


def ipv4_header(packet: Bytes, start: int) -> Network:
    proto, first, fragment = packet.number(start + 9, 1), packet.number(start, 1), packet.number(start + 6, 2)
    frag = offset = None
    if fragment is not None:
        offset = 8 * (fragment & 0x1FFF)
        frag = 2 if offset else 1 if fragment & 0x2000 else 0
    transport = None
    if first is not None and first & 0x0F >= 5 and offset == 0:
        transport = start + 4 * (first & 0x0F)
    chain = _ipv4_chain(packet, proto, transport)
    return Network(proto=proto, transport=transport, frag=frag, frag_offset=offset, chain=chain)


def _ipv4_chain(packet: Bytes, proto: int | None, transport: int | None) -> int | None:
    """`chain.proto`: what follows at most eight authentication headers; absent when one of them is cut."""
    if transport is None:
        return proto
    at = transport
    for _ in range(MAX_EXTENSION_HEADERS):
        if proto != AUTHENTICATION:
            break
        proto, length = packet.number(at, 1), packet.number(at + 1, 1)
        if length is None:
            return None
        at += (length + 2) * 4
    return None if proto == AUTHENTICATION else proto


def ipv6_header(packet: Bytes, start: int) -> Network:
    """The IPv6 header chain from the fixed header at `start`.

    Each header's number is in `mask` as soon as it is known that it follows.
    The walk ends at a number that is no extension header (the protocol), at a
    later fragment (its protocol is named, its transport header elsewhere),
    where a header is cut off, or before a ninth extension header.  The fragment
    header is eight bytes whatever its second, reserved byte says (RFC 8200
    section 4.5).  A fragment with offset 0 is a first one, whether or not more
    follow.
    """
    number = packet.number(start + 6, 1)
    if number is None:
        return Network()
    position, mask, frag, offset = start + 40, 0, 0, 0
    walked: list[ExtensionHeader] = []

    def ended(proto: int | None, transport: int | None = None, *, over: bool = False) -> Network:
        return Network(proto, transport, frag, offset, None, mask, tuple(walked), over)

    while number in EXTENSION_HEADERS:
        if len(walked) == MAX_EXTENSION_HEADERS:
            return ended(None, over=True)
        mask |= 1 << EXTENSION_HEADERS[number]
        length = _extension_length(packet, number, position)
        walked.append(ExtensionHeader(number, position, length))
        following = packet.number(position, 1)
        if following is None:
            return ended(None)
        terminal = following if following not in EXTENSION_HEADERS else None
        if number == FRAGMENT:
            fragment = packet.number(position + 2, 2)
            if fragment is None:
                return Network(terminal, None, None, None, None, mask, tuple(walked))
            offset = fragment & 0xFFF8
            frag = 2 if offset else 1
            if offset:
                return ended(following)
        elif length is None:
            return ended(terminal)
        assert length is not None
        position += length
        number = following
    return ended(number, position)


def _extension_length(packet: Bytes, number: int, start: int) -> int | None:
    if number == FRAGMENT:
        return 8
    length = packet.number(start + 1, 1)
    if length is None:
        return None
    return (length + 2) * 4 if number == AUTHENTICATION else (length + 1) * 8
