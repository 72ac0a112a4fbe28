"""TCP, UDP, SCTP and the control protocols beside them: ICMP, ICMPv6, IGMP."""

from __future__ import annotations

import struct

from penstock.model.layers.arguments import Converter, address4, address6, counted, letters, unsigned
from penstock.model.layers.checksum import crc32c, internet_checksum
from penstock.model.layers.layer import Given, Layer, Place, zero_padded
from penstock.model.layers.network import DESTINATION_IPV6, no_operations

# RFC 6335: the first ephemeral port; and the discard service, so that no default meets a rule by chance.
SOURCE_PORT = 49152
DESTINATION_PORT = 9

_ICMP_TYPES = {
    "echo-reply": 0,
    "unreachable": 3,
    "source-quench": 4,
    "redirect": 5,
    "echo-request": 8,
    "router-advertisement": 9,
    "router-solicitation": 10,
    "time-exceeded": 11,
    "parameter-problem": 12,
    "timestamp-request": 13,
    "timestamp-reply": 14,
}
_ICMPV6_TYPES = {
    "unreachable": 1,
    "packet-too-big": 2,
    "time-exceeded": 3,
    "parameter-problem": 4,
    "echo-request": 128,
    "echo-reply": 129,
    "router-solicitation": 133,
    "router-advertisement": 134,
    "neighbor-solicitation": 135,
    "neighbor-advertisement": 136,
    "redirect": 137,
}
_IGMP_TYPES = {"query": 0x11, "report-v1": 0x12, "report-v2": 0x16, "leave": 0x17, "report-v3": 0x22}
_WITH_TARGET = range(135, 138)


def _ports(given: Given, place: Place) -> bytes:
    port = place.inner.port if place.inner is not None else None
    destination = DESTINATION_PORT if port is None else port
    return struct.pack("!HH", given.number("sport", SOURCE_PORT), given.number("dport", destination))


def _tcp(given: Given, payload: bytes, place: Place) -> bytes:
    options = zero_padded(given.octets("options"), 4)
    words = given.number("dataofs", 5 + len(options) // 4)
    head = _ports(given, place) + struct.pack(
        "!IIHHHH",
        given.number("seq", 0),
        given.number("ack", 0),
        words << 12 | given.number("reserved", 0) << 9 | given.number("flags", 2),
        given.number("window", 8192),
        0,
        given.number("urgptr", 0),
    )
    segment = head + options + payload
    checksum = internet_checksum(place.pseudo_header(6, len(segment)) + segment)
    return segment[:16] + given.number("chksum", checksum).to_bytes(2, "big") + segment[18:]


def _udp(given: Given, payload: bytes, place: Place) -> bytes:
    size = given.computed("len", 8 + len(payload), 16)
    segment = _ports(given, place) + struct.pack("!HH", size, 0) + payload
    # RFC 768: a checksum of zero says that there is none, so a computed zero is sent as all ones.
    checksum = internet_checksum(place.pseudo_header(17, size) + segment) or 0xFFFF
    return segment[:6] + given.number("chksum", checksum).to_bytes(2, "big") + segment[8:]


def _sctp(given: Given, payload: bytes, place: Place) -> bytes:
    head = _ports(given, place) + given.number("tag", 0).to_bytes(4, "big")
    checksum = crc32c(head + bytes(4) + payload)
    if "chksum" in given.values:
        return head + given.number("chksum", 0).to_bytes(4, "big") + payload
    return head + checksum.to_bytes(4, "little") + payload


def _control(given: Given, kind: int, body: bytes, pseudo: bytes = b"") -> bytes:
    """ICMP's form: type, code, checksum, body."""
    start = bytes((kind, given.number("code", 0)))
    checksum = internet_checksum(pseudo + start + bytes(2) + body)
    return start + given.number("chksum", checksum).to_bytes(2, "big") + body


def _rest(given: Given) -> bytes:
    return struct.pack("!HH", given.number("id", 0), given.number("seq", 0))


def _icmp(given: Given, payload: bytes, _place: Place) -> bytes:
    return _control(given, given.number("type", 8), _rest(given) + payload)


def _icmpv6(given: Given, payload: bytes, place: Place) -> bytes:
    kind = given.number("type", 128)
    body = _rest(given)
    # RFC 4861: neighbour discovery's messages go on with the address they are about.
    if kind in _WITH_TARGET or "target" in given.values:
        body += given.octets("target", DESTINATION_IPV6)
    body += payload
    return _control(given, kind, body, place.pseudo_header(58, 4 + len(body)))


def _igmp(given: Given, payload: bytes, _place: Place) -> bytes:
    return _control(given, given.number("type", 0x11), given.octets("gaddr", bytes(4)) + payload)


_PORTS: dict[str, Converter] = {"sport": unsigned(16), "dport": unsigned(16)}
_MESSAGE: dict[str, Converter] = {"code": unsigned(8), "chksum": unsigned(16)}
_ECHO: dict[str, Converter] = {**_MESSAGE, "id": unsigned(16), "seq": unsigned(16)}

TRANSPORT_LAYERS = (
    Layer(
        "TCP",
        _tcp,
        {
            **_PORTS,
            "seq": unsigned(32),
            "ack": unsigned(32),
            "flags": letters("FSRPAUECN", 9),
            "window": unsigned(16),
            "dataofs": unsigned(4),
            "reserved": unsigned(3),
            "urgptr": unsigned(16),
            "chksum": unsigned(16),
            "options": counted(no_operations, 40),
        },
        protocol=6,
    ),
    Layer("UDP", _udp, {**_PORTS, "len": unsigned(16), "chksum": unsigned(16)}, protocol=17),
    Layer("SCTP", _sctp, {**_PORTS, "tag": unsigned(32), "chksum": unsigned(32)}, protocol=132),
    Layer("ICMP", _icmp, {"type": unsigned(8, _ICMP_TYPES), **_ECHO}, protocol=1),
    Layer("ICMPv6", _icmpv6, {"type": unsigned(8, _ICMPV6_TYPES), **_ECHO, "target": address6}, protocol=58),
    Layer("IGMP", _igmp, {"type": unsigned(8, _IGMP_TYPES), **_MESSAGE, "gaddr": address4}, protocol=2),
)
