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
    # RFC 2890: K says that a key follows, S that a sequence number does.
    optional = [name for name in ("key", "seq") if name in given.values]
    flags = sum({"key": 0x2000, "seq": 0x1000}[name] for name in optional) | given.number("version", 0)
    head = struct.pack("!HH", flags, given.number("proto", place.ethertype()))
    return head + b"".join(given.number(name, 0).to_bytes(4, "big") for name in optional) + payload


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
    # 3GPP TS 29.281: version 1, GTP; a sequence number brings four optional bytes with it.
    sequence = struct.pack("!HBB", given.number("seq", 0), 0, 0) if "seq" in given.values else b""
    size = given.computed("len", len(sequence) + len(payload), 16)
    start = bytes((given.number("flags", 0x32 if sequence else 0x30), given.number("type", 255)))
    return start + struct.pack("!HI", size, given.number("teid", 1)) + sequence + payload


TUNNEL_LAYERS = (
    Layer(
        "GRE",
        _gre,
        {"proto": unsigned(16), "key": unsigned(32), "seq": unsigned(32), "version": unsigned(3)},
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
            "flags": unsigned(8),
            "len": unsigned(16),
        },
        port=2152,
    ),
)
