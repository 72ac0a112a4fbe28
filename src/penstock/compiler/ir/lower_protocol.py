"""Protocols: Ethernet types and LLC, the bare names (`tcp`, `stp`, `l1`), `proto` and `protochain`.

`link_type` is where the three link headers differ.  On Ethernet a number above
1500 is a type and any other an LLC service access point; behind PPPoE libpcap
translates some of them to PPP's numbers and compares the rest as they are;
behind an MPLS label there is no type at all, and only IPv4 and IPv6 can be told
by their first nibble.

A VLAN tag's type is the one exception to "tags are stepped over": asked for as
an Ethernet type it is looked for where the next tag would be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.compiler.ir.constants import (
    ETHER_PROTOCOLS,
    IP_PROTOCOLS,
    IS_IS,
    IS_IS_TYPES,
    ISO_PROTOCOLS,
)
from penstock.compiler.ir.headers import ARP, IPV4, IPV6, RARP
from penstock.compiler.ir.lowering import Lowering, Position, nearest
from penstock.compiler.ir.names import missing_table
from penstock.compiler.ir.ops import Base, Compare, HeaderWalked, Literal32, Predicate, Read
from penstock.compiler.ir.simplify import FALSE, all_of, any_of, equals, within
from penstock.compiler.lang.ast import Name, Number, Value
from penstock.model.field import EXTENSION_HEADERS, VLAN_TPIDS
from penstock.model.net import IntervalSet

if TYPE_CHECKING:
    from penstock.compiler.lang.source import Span

#: 802.3 frames have a length up to this where Ethernet has a type.
MAX_LENGTH = 1500
SNAP_SAP, ISO_SAP, IP_SAP, NETBEUI_SAP, IPX_SAP, STP_SAP = 0xAA, 0xFE, 0x06, 0xF0, 0xE0, 0x42
APPLETALK, APPLETALK_ARP, IPX, XNS, DECNET = 0x809B, 0x80F3, 0x8137, 0x0600, 0x6003
AUTHENTICATION = 51

#: What libpcap asks for as an Ethernet type or LLC SAP -> PPP's number for it (RFC 1661 registry).
PPP_NUMBERS = {
    IPV4: 0x21, IPV6: 0x57, DECNET: 0x27, APPLETALK: 0x29, XNS: 0x25,
    ISO_SAP: 0x23, STP_SAP: 0x31, IPX_SAP: 0x2B,
}  # fmt: skip


def read_equals(base: Base, offset: int, size: int, value: int, position: Position) -> Predicate:
    """The bytes are there and hold this value."""
    return Compare("==", Read(base, Literal32(offset), size, position.scope), Literal32(value))


def network_equals(offset: int, size: int, value: int, position: Position) -> Predicate:
    """The bytes at `offset` behind the link header are there and hold this value."""
    return read_equals(Base.NETWORK, offset, size, value, position)


# ── link layer ───────────────────────────────────────────────────────────────


def link_type(lowering: Lowering, number: int, position: Position, span: Span) -> Predicate:
    """What the link header carries is `number`: an Ethernet type, or an LLC SAP if at most 1500."""
    if position.in_mpls:
        if number in (IPV4, IPV6):
            return equals(position.field("eth.type"), number)
        return lowering.fault(
            "PS309",
            "behind an MPLS label only IPv4 and IPv6 can be told apart, no other protocol",
            span,
            notes=("an MPLS label does not say what follows it; the IP version nibble does",),
        )
    if position.on_ppp:
        if number in (IPV4, IPV6):
            return equals(position.field("eth.type"), number)
        return read_equals(Base.FRAME, 0, 2, PPP_NUMBERS.get(number, number), position)
    return _ethernet_type(number, position)


def _ethernet_type(number: int, position: Position) -> Predicate:
    eth_type = position.field("eth.type")
    if number in VLAN_TPIDS:
        return equals(position.next_tag("vlan.tpid"), number)
    match number:
        case 0xFE | 0x06 | 0xF0:
            return all_of((is_802_3(position), network_equals(0, 2, number << 8 | number, position)))
        case 0xE0:
            raw, llc = network_equals(0, 2, 0xFFFF, position), network_equals(0, 1, IPX_SAP, position)
            inside = any_of((raw, llc, _snap(0x000000, IPX, position)))
            return any_of((equals(eth_type, IPX), all_of((is_802_3(position), inside))))
        case 0x809B:
            snap = _snap(0x080007, APPLETALK, position)
            return any_of((equals(eth_type, APPLETALK), all_of((is_802_3(position), snap))))
        case 0x80F3:
            snap = _snap(0x000000, APPLETALK_ARP, position)
            return any_of((equals(eth_type, APPLETALK_ARP), all_of((is_802_3(position), snap))))
        case _ if number <= MAX_LENGTH:
            if number > 0xFF:
                return FALSE
            return all_of((is_802_3(position), network_equals(0, 1, number, position)))
        case _:
            return equals(eth_type, number)


def is_802_3(position: Position) -> Predicate:
    """There is a length where Ethernet II has its type, so an LLC header follows."""
    return within(position.field("eth.type"), IntervalSet.of((0, MAX_LENGTH)))


def _snap(organisation: int, number: int, position: Position) -> Predicate:
    """An LLC header of SNAP (IEEE 802), unnumbered information, with this organisation and protocol."""
    head = SNAP_SAP << 24 | SNAP_SAP << 16 | 0x03 << 8 | organisation >> 16
    tail = (organisation & 0xFFFF) << 16 | number
    return all_of((network_equals(4, 4, tail, position), network_equals(0, 4, head, position)))


# ── bare names ───────────────────────────────────────────────────────────────

_LINK_TYPES = {
    "ip": IPV4, "ip6": IPV6, "arp": ARP, "rarp": RARP, "atalk": APPLETALK, "aarp": APPLETALK_ARP,
    "decnet": DECNET, "sca": 0x6007, "lat": 0x6004, "mopdl": 0x6001, "moprc": 0x6002,
    "iso": ISO_SAP, "stp": STP_SAP, "ipx": IPX_SAP, "netbeui": NETBEUI_SAP,
}  # fmt: skip


def abbreviation(lowering: Lowering, name: str, position: Position, span: Span) -> Predicate:
    """A protocol's bare name."""
    if name in _LINK_TYPES:
        return link_type(lowering, _LINK_TYPES[name], position, span)
    if name in IP_PROTOCOLS:
        family, number = IP_PROTOCOLS[name]
        return ip_protocol(number, family, position)
    if name in ISO_PROTOCOLS:
        return _iso_protocol(lowering, ISO_PROTOCOLS[name], position, span)
    if name in IS_IS_TYPES:
        return _is_is_types(lowering, IS_IS_TYPES[name], position, span)
    if name == "ether":
        return lowering.fault("PS303", "`ether` alone tests nothing", span, hint="ether host …, ether[…]")
    return lowering.fault("PS303", f"`{name}` is no protocol that an Ethernet frame can carry", span)


def ip_protocol(number: int, family: int, position: Position) -> Predicate:
    """IPv4 (4), IPv6 (6) or either (0) carries this protocol.

    An IPv6 extension header counts as carried when the packet has one.
    """
    name = {0: "proto", 4: "ip.proto", 6: "ip6.proto"}[family]
    carried = equals(position.field(name), number)
    if family != 4 and number in EXTENSION_HEADERS:
        return any_of((carried, HeaderWalked(number, position.scope)))
    return carried


def _iso_protocol(lowering: Lowering, number: int, position: Position, span: Span) -> Predicate:
    """OSI's network layer protocol identifier: the byte behind the LLC header, or at once on PPP."""
    start = 0 if position.on_ppp else 3
    iso = link_type(lowering, ISO_SAP, position, span)
    return all_of((iso, network_equals(start, 1, number, position))) if number <= 0xFF else FALSE


def _is_is_types(lowering: Lowering, numbers: tuple[int, ...], position: Position, span: Span) -> Predicate:
    """An IS-IS packet of one of these types; the type is the fifth byte of its header."""
    start = 0 if position.on_ppp else 3
    is_is = _iso_protocol(lowering, IS_IS, position, span)
    kinds = [network_equals(start + 4, 1, number, position) for number in numbers if number <= 0xFF]
    return all_of((is_is, any_of(kinds)))


# ── proto, protochain ────────────────────────────────────────────────────────


def protocol(
    lowering: Lowering, qualifier: str | None, value: Value, position: Position, span: Span
) -> Predicate:
    """`[ip|ip6|ether|iso|isis] proto VALUE`."""
    number = _protocol_number(lowering, qualifier, value, span)
    if number is None:
        return FALSE
    match qualifier:
        case None:
            return ip_protocol(number, 0, position)
        case "ip":
            return ip_protocol(number, 4, position)
        case "ip6":
            return ip_protocol(number, 6, position)
        case "iso":
            return _iso_protocol(lowering, number, position, span)
        case "isis":
            return _is_is_types(lowering, (number,), position, span)
        case "ether":
            return link_type(lowering, number, position, span)
        case _:
            return _no_protocol_inside(lowering, qualifier, "proto", span)


def protocol_chain(
    lowering: Lowering, qualifier: str | None, value: Value, position: Position, span: Span
) -> Predicate:
    """`[ip|ip6] protochain VALUE`: carried behind any number of headers that are stepped over."""
    if qualifier not in (None, "ip", "ip6"):
        return _no_protocol_inside(lowering, qualifier, "protochain", span)
    if "geneve" in position.scope:
        return lowering.fault("PS309", "protochain cannot be tested behind Geneve", span)
    number = _protocol_number(lowering, qualifier, value, span)
    if number is None:
        return FALSE
    chains = [_ipv4_chain(number, position)] if qualifier != "ip6" else []
    if qualifier != "ip":
        chains.append(ip_protocol(number, 6, position))
    return any_of(chains)


def _ipv4_chain(number: int, position: Position) -> Predicate:
    if number == AUTHENTICATION:
        return HeaderWalked(AUTHENTICATION, position.scope, ipv4=True)
    return equals(position.field("chain.proto"), number)


def _no_protocol_inside(lowering: Lowering, qualifier: str, kind: str, span: Span) -> Predicate:
    allowed = "ip, ip6 or nothing" if kind == "protochain" else "ether, ip, ip6, iso, isis or nothing"
    message = f"`{qualifier}` cannot stand before `{kind}`"
    return lowering.fault("PS303", message, span, notes=(f"before `{kind}` goes {allowed}",))


def _protocol_number(lowering: Lowering, qualifier: str | None, value: Value, span: Span) -> int | None:
    """The number that a value of `proto` stands for; None when it is none, which is a fault recorded."""
    if isinstance(value, Number):
        return value.value
    if not isinstance(value, Name):
        lowering.fault("PS302", "`proto` takes a protocol's number or name", span)
        return None
    if qualifier in (None, "ip", "ip6"):
        number = lowering.names.protocol(value.text)
        known: tuple[str, ...] = tuple(IP_PROTOCOLS)
    elif qualifier == "ether":
        number, known = ETHER_PROTOCOLS.get(value.text), tuple(ETHER_PROTOCOLS)
    elif qualifier == "iso":
        number, known = ISO_PROTOCOLS.get(value.text), tuple(ISO_PROTOCOLS)
    else:
        number, known = None, ()
    if number is None:
        close = nearest(value.text, known)
        hint = f"did you mean {close}?" if close else None
        if known == tuple(IP_PROTOCOLS):
            hint = missing_table("/etc/protocols") or hint
        lowering.fault("PS304", f"no protocol is named `{value.text}` here", span, hint=hint)
    return number
