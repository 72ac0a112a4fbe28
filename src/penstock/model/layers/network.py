"""IPv4, IPv6 and the headers between IPv6 and the transport."""

from __future__ import annotations

import struct
from collections.abc import Callable

from penstock.model.layers.arguments import (
    Converter,
    MisfitError,
    address4,
    address6,
    counted,
    unsigned,
    words_of_bits,
)
from penstock.model.layers.checksum import internet_checksum
from penstock.model.layers.layer import Given, Layer, Place, zero_padded
from penstock.model.layers.link import DESTINATION_IPV4, SOURCE_IPV4

SOURCE_IPV6 = bytes.fromhex("20010db8000000000000000000000001")
DESTINATION_IPV6 = bytes.fromhex("20010db8000000000000000000000002")

_NO_NEXT_HEADER = 59
# RFC 3514 named the third bit; it must be zero, so a test may want it set.
_FLAGS = {"MF": 1, "DF": 2, "evil": 4}


def no_operations(count: int) -> bytes:
    """`count` no-operation options of IPv4 or TCP."""
    return b"\x01" * count


def padding_options(count: int) -> bytes:
    """`count` bytes of IPv6 padding options, Pad1 and PadN (RFC 8200, section 4.2)."""
    octets = b""
    while count > 1:
        size = min(count, 257)
        octets += bytes((1, size - 2)) + bytes(size - 2)
        count -= size
    return octets + bytes(count)


def _traffic_class(given: Given, name: str) -> int:
    bits = {"dscp", "ecn"} & given.values.keys()
    if name in given.values and bits:
        raise MisfitError(f"`{name}` and `{min(bits)}` are the same bits", "give one of them")
    return given.number(name, given.number("dscp", 0) << 2 | given.number("ecn", 0))


def _ipv4(given: Given, payload: bytes, place: Place) -> bytes:
    options = zero_padded(given.octets("options"), 4)
    words = given.number("ihl", 5 + len(options) // 4)
    head = struct.pack(
        "!BBHHHBBH",
        given.number("version", 4) << 4 | words,
        _traffic_class(given, "tos"),
        given.computed("len", 20 + len(options) + len(payload), 16),
        given.number("id", 1),
        given.number("flags", 0) << 13 | given.number("frag", 0),
        given.number("ttl", 64),
        given.number("proto", place.protocol()),
        0,
    )
    head += given.octets("src", SOURCE_IPV4) + given.octets("dst", DESTINATION_IPV4) + options
    covered = (head + payload)[: max(words * 4, 20)]
    checksum = given.number("chksum", internet_checksum(covered))
    return head[:10] + checksum.to_bytes(2, "big") + head[12:] + payload


def _ipv6(given: Given, payload: bytes, place: Place) -> bytes:
    first = given.number("version", 6) << 28 | _traffic_class(given, "tc") << 20 | given.number("fl", 0)
    head = struct.pack(
        "!IHBB",
        first,
        given.computed("plen", len(payload), 16),
        given.number("nh", place.protocol(_NO_NEXT_HEADER)),
        given.number("hlim", 64),
    )
    return head + given.octets("src", SOURCE_IPV6) + given.octets("dst", DESTINATION_IPV6) + payload


def _extension(given: Given, body: bytes, place: Place, fill: Callable[[int], bytes] = bytes) -> bytes:
    """A header of RFC 8200's common form: next header, length in 8 bytes beyond the first 8, body."""
    body += fill(-(len(body) + 2) % 8)
    units = given.computed("len", (len(body) + 2) // 8 - 1, 8)
    return bytes((given.number("nh", place.protocol(_NO_NEXT_HEADER)), units)) + body


def _options(given: Given, payload: bytes, place: Place) -> bytes:
    return _extension(given, given.octets("options"), place, padding_options) + payload


def _routing(given: Given, payload: bytes, place: Place) -> bytes:
    body = bytes((given.number("type", 0), given.number("segleft", 0))) + bytes(4) + given.octets("data")
    return _extension(given, body, place) + payload


def _fragment(given: Given, payload: bytes, place: Place) -> bytes:
    offset = given.number("offset", 0) << 3 | given.number("res2", 0) << 1 | given.number("m", 0)
    following, reserved = given.number("nh", place.protocol(_NO_NEXT_HEADER)), given.number("reserved", 0)
    return struct.pack("!BBHI", following, reserved, offset, given.number("id", 1)) + payload


def _authentication(given: Given, payload: bytes, place: Place) -> bytes:
    # RFC 4302: the length counts 4-byte words, less 2; the ICV of HMAC-SHA1-96 has 12 bytes.
    icv = zero_padded(given.octets("icv", bytes(12)), 4)
    words = given.computed("len", (12 + len(icv)) // 4 - 2, 8)
    following = given.number("nh", place.protocol(_NO_NEXT_HEADER))
    head = struct.pack("!BBHII", following, words, 0, given.number("spi", 0x100), given.number("seq", 1))
    return head + icv + payload


def _mobility(given: Given, payload: bytes, place: Place) -> bytes:
    kind = given.number("type", 0)
    header = _extension(given, bytes((kind, 0, 0, 0)) + given.octets("data", bytes(2)), place)
    covered = place.pseudo_header(135, len(header)) + header
    checksum = given.number("chksum", internet_checksum(covered))
    return header[:4] + checksum.to_bytes(2, "big") + header[6:] + payload


_IPV4_ADDRESSES = (SOURCE_IPV4, DESTINATION_IPV4)
_IPV4_ARGUMENTS: dict[str, Converter] = {
    "src": address4,
    "dst": address4,
    "ttl": unsigned(8),
    "tos": unsigned(8),
    "dscp": unsigned(6),
    "ecn": unsigned(2),
    "id": unsigned(16),
    "flags": words_of_bits(_FLAGS, 3),
    "frag": unsigned(13),
    "proto": unsigned(8),
    "ihl": unsigned(4),
    "len": unsigned(16),
    "chksum": unsigned(16),
    "options": counted(no_operations, 40),
    "version": unsigned(4),
}
_IPV6_ARGUMENTS: dict[str, Converter] = {
    "src": address6,
    "dst": address6,
    "hlim": unsigned(8),
    "tc": unsigned(8),
    "dscp": unsigned(6),
    "ecn": unsigned(2),
    "fl": unsigned(20),
    "nh": unsigned(8),
    "plen": unsigned(16),
    "version": unsigned(4),
}
_NEXT: dict[str, Converter] = {"nh": unsigned(8), "len": unsigned(8)}
_OPTIONS = {**_NEXT, "options": counted(padding_options, 2046)}

NETWORK_LAYERS = (
    Layer("IPv4", _ipv4, _IPV4_ARGUMENTS, 0x0800, 4, 0x0021, addresses=_IPV4_ADDRESSES),
    Layer("IP", _ipv4, _IPV4_ARGUMENTS, 0x0800, 4, 0x0021, addresses=_IPV4_ADDRESSES),
    Layer("IPv6", _ipv6, _IPV6_ARGUMENTS, 0x86DD, 41, 0x0057, addresses=(SOURCE_IPV6, DESTINATION_IPV6)),
    Layer("HopByHop", _options, _OPTIONS, protocol=0),
    Layer(
        "Routing",
        _routing,
        {**_NEXT, "type": unsigned(8), "segleft": unsigned(8), "data": counted(bytes, 2040)},
        protocol=43,
    ),
    Layer(
        "Fragment",
        _fragment,
        {
            "offset": unsigned(13),
            "m": unsigned(1),
            "id": unsigned(32),
            "nh": unsigned(8),
            "reserved": unsigned(8),
            "res2": unsigned(2),
        },
        protocol=44,
    ),
    Layer(
        "AH",
        _authentication,
        {**_NEXT, "spi": unsigned(32), "seq": unsigned(32), "icv": counted(bytes, 1016)},
        protocol=51,
    ),
    Layer("DestOpt", _options, _OPTIONS, protocol=60),
    Layer(
        "Mobility",
        _mobility,
        {**_NEXT, "type": unsigned(8), "chksum": unsigned(16), "data": counted(bytes, 2042)},
        protocol=135,
    ),
)
