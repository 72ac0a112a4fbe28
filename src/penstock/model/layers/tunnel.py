"""Headers that carry a packet inside a packet: GRE, ESP, VXLAN, Geneve, GTP-U."""

from __future__ import annotations

import struct

from penstock.model.layers.arguments import MisfitError, counted, unsigned
from penstock.model.layers.layer import Given, Layer, Place


def geneve_options(count: int) -> bytes:
    """Options of `count` bytes, a multiple of 4: each a header of 4 and at most 124 more (RFC 8926)."""
    if count % 4:
        raise MisfitError("its options are a multiple of 4 bytes long")
    octets = b""
    while count:
        size = min(count, 128)
        # Class 0xffff is one of those set aside for experiments.
        octets += struct.pack("!HBB", 0xFFFF, 1, (size - 4) // 4) + bytes(size - 4)
        count -= size
    return octets


def _gre(given: Given, payload: bytes, place: Place) -> bytes:
    # RFC 2784: C says that a checksum and 16 reserved bits follow; RFC 2890: K a key, S a sequence number.
    bits = {"chksum": 0x8000, "key": 0x2000, "seq": 0x1000}
    optional = [name for name in bits if name in given.values]
    flags = sum(bits[name] for name in optional) | given.number("version", 0)
    flags |= given.number("routing", 0) << 14
    head = struct.pack("!HH", flags, given.number("proto", place.ethertype()))
    words = (given.number(name, 0) << (16 if name == "chksum" else 0) for name in optional)
    return head + b"".join(word.to_bytes(4, "big") for word in words) + payload


def _esp(given: Given, payload: bytes, _place: Place) -> bytes:
    return struct.pack("!II", given.number("spi", 0x100), given.number("seq", 1)) + payload


def _vxlan(given: Given, payload: bytes, _place: Place) -> bytes:
    # RFC 7348: 0x08 says that the network identifier is valid.
    return struct.pack("!B3xI", given.number("flags", 0x08), given.number("vni", 1) << 8) + payload


def _geneve(given: Given, payload: bytes, place: Place) -> bytes:
    options = given.octets("options")
    words = given.number("optlen", -(-len(options) // 4))
    bits = given.number("oam", 0) << 7 | given.number("critical", 0) << 6
    protocol = given.number("proto", place.ethertype())
    first = given.number("version", 0) << 6 | words
    return struct.pack("!BBHI", first, bits, protocol, given.number("vni", 1) << 8) + options + payload


def _gtpu(given: Given, payload: bytes, _place: Place) -> bytes:
    # 3GPP TS 29.281: version 1, GTP; each of S, PN and E brings all four optional bytes with it.
    bits = {"seq": 2, "npdu": 1, "extensions": 4}
    flags = sum(bit for name, bit in bits.items() if name in given.values)
    extensions = given.octets("extensions")
    following = given.number("next", _PDU_SESSION if extensions else 0)
    words = struct.pack("!HBB", given.number("seq", 0), given.number("npdu", 0), following) if flags else b""
    size = given.computed("len", len(words) + len(extensions) + len(payload), 16)
    start = bytes((given.number("flags", 0x30 | flags), given.number("type", 255)))
    return start + struct.pack("!HI", size, given.number("teid", 1)) + words + extensions + payload


_PDU_SESSION = 0x85


def gtp_extensions(count: int) -> bytes:
    """Extension headers of `count` bytes, four each: a length in words, two bytes, the next one's type."""
    if count % 4:
        raise MisfitError("its extension headers are a multiple of 4 bytes long")
    return b"".join(bytes((1, 0, 9, _PDU_SESSION if left else 0)) for left in reversed(range(count // 4)))


TUNNEL_LAYERS = (
    Layer(
        "GRE",
        _gre,
        {
            "proto": unsigned(16),
            "chksum": unsigned(16),
            "key": unsigned(32),
            "seq": unsigned(32),
            "version": unsigned(3),
            "routing": unsigned(1),
        },
        protocol=47,
    ),
    Layer("ESP", _esp, {"spi": unsigned(32), "seq": unsigned(32)}, protocol=50),
    Layer("VXLAN", _vxlan, {"vni": unsigned(24), "flags": unsigned(8)}, port=4789, carries="Ether"),
    Layer(
        "Geneve",
        _geneve,
        {
            "vni": unsigned(24),
            "proto": unsigned(16),
            "options": counted(geneve_options, 252),
            "optlen": unsigned(6),
            "version": unsigned(2),
            "oam": unsigned(1),
            "critical": unsigned(1),
        },
        port=6081,
    ),
    Layer(
        "GTPU",
        _gtpu,
        {
            "teid": unsigned(32),
            "type": unsigned(8),
            "seq": unsigned(16),
            "npdu": unsigned(8),
            "extensions": counted(gtp_extensions, 64),
            "next": unsigned(8),
            "flags": unsigned(8),
            "len": unsigned(16),
        },
        port=2152,
    ),
)
