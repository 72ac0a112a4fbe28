"""Layers from the wire up to the network header: Ethernet, tags, ARP, LLC, MPLS, PPP, and plain bytes."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from penstock.model.layers.arguments import (
    Converter,
    MisfitError,
    address4,
    hex_octets,
    length,
    mac,
    text,
    unsigned,
)
from penstock.model.layers.layer import Given, Layer, Place

SOURCE_MAC = bytes.fromhex("020000000001")
DESTINATION_MAC = bytes.fromhex("020000000002")
SOURCE_IPV4 = bytes((192, 0, 2, 1))
DESTINATION_IPV4 = bytes((192, 0, 2, 2))

_ARP_OPERATIONS = {"request": 1, "reply": 2, "reverse-request": 3, "reverse-reply": 4}
# IEEE 802.3: a type field up to this value is the length of an LLC payload.
_MAX_LLC = 1500


def _type_or_length(given: Given, payload: bytes, place: Place) -> bytes:
    if place.inner is None or place.inner.name != "LLC":
        return given.number("type", place.ethertype()).to_bytes(2, "big")
    if "type" not in given.values and len(payload) > _MAX_LLC:
        raise MisfitError(f"an LLC payload of {len(payload)} bytes has no length in Ethernet", "give type=")
    return given.number("type", len(payload)).to_bytes(2, "big")


def _ether(given: Given, payload: bytes, place: Place) -> bytes:
    addresses = given.octets("dst", DESTINATION_MAC) + given.octets("src", SOURCE_MAC)
    return addresses + _type_or_length(given, payload, place) + payload


def _tag(given: Given, payload: bytes, place: Place) -> bytes:
    control = given.number("prio", 0) << 13 | given.number("dei", 0) << 12 | given.number("vlan", 1)
    return control.to_bytes(2, "big") + _type_or_length(given, payload, place) + payload


def _resolution(operation: int, given: Given, payload: bytes) -> bytes:
    head = struct.pack(
        "!HHBBH",
        given.number("hwtype", 1),
        given.number("ptype", 0x0800),
        given.number("hwlen", 6),
        given.number("plen", 4),
        given.number("op", operation),
    )
    sender = given.octets("hwsrc", SOURCE_MAC) + given.octets("psrc", SOURCE_IPV4)
    return head + sender + given.octets("hwdst", bytes(6)) + given.octets("pdst", DESTINATION_IPV4) + payload


def _arp(given: Given, payload: bytes, _place: Place) -> bytes:
    return _resolution(1, given, payload)


def _rarp(given: Given, payload: bytes, _place: Place) -> bytes:
    return _resolution(3, given, payload)


def _llc(given: Given, payload: bytes, place: Place) -> bytes:
    # 0xaa is the SAP of SNAP, 3 an unnumbered information frame (RFC 1042).
    sap = 0xAA if place.inner is not None and place.inner.name == "SNAP" else 0
    control = given.number("ctrl", 3)
    addresses = bytes((given.number("dsap", sap), given.number("ssap", sap)))
    # IEEE 802.2: only unnumbered frames, the two low bits set, have a control field of one byte.
    wide = control > 0xFF or control & 3 != 3
    return addresses + control.to_bytes(2 if wide else 1, "little") + payload


def _snap(given: Given, payload: bytes, place: Place) -> bytes:
    code = given.number("code", place.ethertype())
    return given.number("oui", 0).to_bytes(3, "big") + code.to_bytes(2, "big") + payload


def _mpls(given: Given, payload: bytes, place: Place) -> bytes:
    last = place.inner is None or place.inner.name != "MPLS"
    entry = given.number("label", 16) << 12 | given.number("tc", 0) << 9 | given.number("s", last) << 8
    return (entry | given.number("ttl", 64)).to_bytes(4, "big") + payload


def _pppoe(code: int, given: Given, payload: bytes) -> bytes:
    size = given.computed("len", len(payload), 16)
    version = given.number("version", 1) << 4 | given.number("type", 1)
    code = given.number("code", code)
    return struct.pack("!BBHH", version, code, given.number("sessionid", 0), size) + payload


def _pppoe_discovery(given: Given, payload: bytes, _place: Place) -> bytes:
    # RFC 2516: 9 is a PADI, the first packet of a discovery.
    return _pppoe(9, given, payload)


def _pppoe_session(given: Given, payload: bytes, _place: Place) -> bytes:
    return _pppoe(0, given, payload)


def _ppp(given: Given, payload: bytes, place: Place) -> bytes:
    inner = place.inner
    protocol = inner.ppp if inner is not None and inner.ppp is not None else 0xC021
    return given.number("proto", protocol).to_bytes(2, "big") + payload


def _raw(given: Given, payload: bytes, _place: Place) -> bytes:
    octets = given.octets("data") + given.octets("hex")
    size = given.number("len", len(octets))
    return octets[:size].ljust(size, b"\0") + payload


_TAG_ARGUMENTS: Mapping[str, Converter] = {
    "vlan": unsigned(12),
    "prio": unsigned(3),
    "dei": unsigned(1),
    "type": unsigned(16),
}
_TAG_ALIASES = {"id": "vlan", "pcp": "prio"}
_ARP_ARGUMENTS: Mapping[str, Converter] = {
    "op": unsigned(16, _ARP_OPERATIONS),
    "hwsrc": mac,
    "psrc": address4,
    "hwdst": mac,
    "pdst": address4,
    "hwtype": unsigned(16),
    "ptype": unsigned(16),
    "hwlen": unsigned(8),
    "plen": unsigned(8),
}
_PPPOE_ARGUMENTS: Mapping[str, Converter] = {
    "sessionid": unsigned(16),
    "code": unsigned(8),
    "len": unsigned(16),
    "version": unsigned(4),
    "type": unsigned(4),
}
_RAW_ARGUMENTS: Mapping[str, Converter] = {"data": text, "hex": hex_octets, "len": length}

LINK_LAYERS = (
    # Ethernet in GRE and Geneve is "transparent Ethernet bridging" (RFC 1701), in IP protocol 143 (RFC 8986).
    Layer("Ether", _ether, {"dst": mac, "src": mac, "type": unsigned(16)}, ethertype=0x6558, protocol=143),
    Layer("Dot1Q", _tag, _TAG_ARGUMENTS, ethertype=0x8100, aliases=_TAG_ALIASES),
    Layer("Dot1AD", _tag, _TAG_ARGUMENTS, ethertype=0x88A8, aliases=_TAG_ALIASES),
    Layer("ARP", _arp, _ARP_ARGUMENTS, ethertype=0x0806),
    Layer("RARP", _rarp, _ARP_ARGUMENTS, ethertype=0x8035),
    Layer("LLC", _llc, {"dsap": unsigned(8), "ssap": unsigned(8), "ctrl": unsigned(16)}),
    Layer("SNAP", _snap, {"oui": unsigned(24), "code": unsigned(16)}, inside="LLC"),
    Layer(
        "MPLS",
        _mpls,
        {"label": unsigned(20), "s": unsigned(1), "tc": unsigned(3), "ttl": unsigned(8)},
        ethertype=0x8847,
        protocol=137,
        ppp=0x0281,
        port=6635,
    ),
    Layer("PPPoED", _pppoe_discovery, _PPPOE_ARGUMENTS, ethertype=0x8863),
    Layer("PPPoES", _pppoe_session, _PPPOE_ARGUMENTS, ethertype=0x8864, carries="PPP"),
    Layer("PPP", _ppp, {"proto": unsigned(16)}, ethertype=0x880B),
    Layer("Raw", _raw, _RAW_ARGUMENTS, positional="data"),
    Layer("Payload", _raw, _RAW_ARGUMENTS, positional="data"),
)
