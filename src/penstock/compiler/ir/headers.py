"""A packet as its headers see it: which fields are there, and what they hold.

In go the bytes of a frame (and its length on the wire, when a capture cut it);
out come field values, or None where a field is *absent*.  Nothing here raises
on any bytes.

Below, n is the number of bytes at hand and u8/u16/u32(offset) are absent unless
every byte read lies before n.  A scope's headers are found from its parent's.

Scope (), the frame
    eth.dst is bytes 0..5, eth.src 6..11, each needing only its own bytes.
    vlan.tpid[k] = u16(12+4k) if all of tpid[0..k-1] are tags' types; vlan.id,
    pcp, dei [k] = u16(14+4k) if all of tpid[0..k] are.  The t leading tags, at
    most two, are stepped over: eth.type = u16(12+4t), network base N = 14+4t.
Step "mpls" from parent P
    if P.eth.type is 0x8847, or P itself ends in a label whose bottom-of-stack
    bit is 0.  N = P.N+4.  Behind a bottom label the next nibble tells: 4 is
    IPv4, 6 IPv6; otherwise eth.type is absent.  MAC addresses are P's.
Step "pppoes"
    if P.eth.type is 0x8864.  The frame base is P.N+6, where the PPP protocol
    lies; N = P.N+8; eth.type is the protocol's Ethernet type (`PPP_TYPES`), else
    the PPP number itself.
Step "geneve"
    if P has UDP with destination port 6081 and the version at T+8 is 0.  Behind
    the options: an Ethernet frame like scope () if the type is 0x6558, else the
    network header of that type.
Step "inner"
    if P carries a packet that is looked into (`tunnel.py`): an Ethernet frame like
    scope (), or the network header of IPv4 or IPv6.
IPv4 (eth.type 0x0800; the version nibble plays no part in presence)
    The transport base is T = N+4*ihl if ihl >= 5 and the fragment offset is 0.
IPv6 (0x86dd)
    Extension headers are walked, at most eight; see `chain.py`.
Transport fields
    need T and the right protocol.  The IP length does not limit reads: bytes of
    Ethernet padding can be read, as tcpdump reads them.

>>> packet = Packet(bytes(12) + b"\\x08\\x00" + b"\\x45" + bytes(8) + b"\\x11")
>>> packet.value(FieldRef("ip.proto")), packet.value(FieldRef("ip.src"))
(17, None)
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.compiler.ir.chain import Bytes, Network, ipv4_header, ipv6_header
from penstock.compiler.ir.fields import FIXED, Place
from penstock.compiler.ir.ops import Base, FieldRef, Scope, Step
from penstock.compiler.ir.tunnel import GENEVE_PORT, TRANSPARENT_ETHERNET, UDP, carried
from penstock.model.field import AT_INTERFACE, MAX_VLAN_TAGS, VLAN_TPIDS, is_metadata
from penstock.model.metadata import NOTHING_KNOWN, Metadata

IPV4, ARP, RARP, IPV6 = 0x0800, 0x0806, 0x8035, 0x86DD
MPLS, PPPOE_SESSION = 0x8847, 0x8864

#: PPP protocol numbers -> the Ethernet types that mean the same: IPv4, IPv6, XNS, DECnet, AppleTalk, MPLS.
PPP_TYPES = {0x21: IPV4, 0x57: IPV6, 0x25: 0x0600, 0x27: 0x6003, 0x29: 0x809B, 0x281: MPLS}


@dataclass(frozen=True, slots=True)
class Link:
    """Where a scope's link header leaves us; None for what it does not have or what is cut off.

    `tags` is where the first VLAN tag's type would be, `macs` where the MAC addresses are.
    """

    frame: int | None
    network: int | None
    eth_type: int | None
    macs: int | None = None
    tags: int | None = None


@dataclass(frozen=True, slots=True)
class Headers:
    """One scope's headers."""

    link: Link
    network: Network

    @property
    def is_ipv4(self) -> bool:
        return self.link.eth_type == IPV4

    @property
    def is_ipv6(self) -> bool:
        return self.link.eth_type == IPV6

    @property
    def is_arp(self) -> bool:
        """ARP or RARP."""
        return self.link.eth_type in (ARP, RARP)

    def base(self, base: Base) -> int | None:
        """The frame offset of a base, None when this scope has none."""
        match base:
            case Base.FRAME:
                return self.link.frame
            case Base.NETWORK:
                return self.link.network
            case Base.TRANSPORT:
                return self.network.transport


class Packet(Bytes):
    """One frame.  Scopes are parsed when first asked for, and kept."""

    __slots__ = ("_scopes", "metadata", "wire_length")

    def __init__(
        self, frame: bytes, wire_length: int | None = None, metadata: Metadata = NOTHING_KNOWN
    ) -> None:
        super().__init__(frame)
        self.metadata = metadata
        self.wire_length = len(frame) if wire_length is None else max(wire_length, len(frame))
        self._scopes: dict[Scope, Headers | None] = {}

    def headers(self, scope: Scope = ()) -> Headers | None:
        """A scope's headers; None when the packet has no such scope."""
        if scope not in self._scopes:
            self._parse(scope)
        return self._scopes[scope]

    def _parse(self, scope: Scope) -> None:
        headers: Headers | None = _headers(self, _ethernet(self, 0))
        self._scopes[()] = headers
        for at, step in enumerate(scope):
            if headers is not None:
                link = _step(self, headers, step, after_label=at > 0 and scope[at - 1] == "mpls")
                headers = None if link is None else _headers(self, link)
            self._scopes[scope[: at + 1]] = headers

    def value(self, ref: FieldRef) -> int | None:
        """A field's value, None when it is absent."""
        headers = self.headers(ref.scope)
        if headers is None:
            return None
        place = FIXED.get(ref.name)
        if place is not None:
            return self._placed(headers, place)
        if is_metadata(ref.name):
            return _beside(self.metadata, ref.name)
        if ref.name.startswith("vlan."):
            return _tag_field(self, headers.link, ref.name, ref.index)
        return _computed(self, headers, ref.name)

    def _placed(self, headers: Headers, place: Place) -> int | None:
        family = 4 if headers.is_ipv4 else 6 if headers.is_ipv6 else 0
        if place.family not in (0, family):
            return None
        if place.protocols and headers.network.proto not in place.protocols:
            return None
        start = headers.base(place.base)
        word = None if start is None else self.number(start + place.offset, place.size)
        return None if word is None else word >> place.shift & place.mask


def frame_length(packet: Packet) -> int:
    """The packet's length on the wire; of one that stands for many frames, a whole frame's."""
    size = packet.metadata.segment_size
    return min(packet.wire_length, repeated(packet) + size) if size else packet.wire_length


def weight(packet: Packet) -> tuple[int, int]:
    """How many frames the packet stands for, and of how many bytes together."""
    size, length = packet.metadata.segment_size, packet.wire_length
    if not size:
        return 1, length
    headers = repeated(packet)
    headers = headers if headers < length else 0
    segments = max(-(-(length - headers) // size), 1)
    return segments, length + (segments - 1) * headers


def repeated(packet: Packet) -> int:
    """How many bytes of an aggregate are headers, which each of its frames has; 0 if that is not to be known."""
    headers = packet.headers()
    start = None if headers is None else headers.network.transport
    if headers is None or start is None:
        return 0
    match headers.network.proto:
        case 6:
            return start + 4 * ((packet.number(start + 12, 1) or 0) >> 4)
        case 17:
            return start + 8
        case _:
            return 0


def _beside(metadata: Metadata, name: str) -> int:
    match name:
        case "mark":
            return metadata.mark
        case "ifindex":
            return metadata.ifindex
        case "outbound":
            return int(metadata.outbound)
        case _:
            return int(metadata.ifname == name.removeprefix(AT_INTERFACE))


# ── link headers ─────────────────────────────────────────────────────────────


def _ethernet(packet: Packet, start: int) -> Link:
    """An Ethernet header at `start`, its tags stepped over."""
    at = start + 12
    for _ in range(MAX_VLAN_TAGS):
        if packet.number(at, 2) not in VLAN_TPIDS:
            break
        at += 4
    eth_type = packet.number(at, 2)
    network = None if eth_type is None else at + 2
    return Link(frame=start, network=network, eth_type=eth_type, macs=start, tags=start + 12)


def _step(packet: Packet, parent: Headers, step: Step, *, after_label: bool) -> Link | None:
    """The link header behind one encapsulation; None when the parent does not carry it."""
    match step:
        case "mpls":
            return _behind_mpls(packet, parent.link, after_label=after_label)
        case "pppoes":
            return _behind_pppoe(packet, parent.link)
        case "geneve":
            return _behind_geneve(packet, parent)
        case "inner":
            return _behind_tunnel(packet, parent)


def _behind_mpls(packet: Packet, parent: Link, *, after_label: bool) -> Link | None:
    if parent.network is None:
        return None
    if after_label:
        above = packet.number(parent.network - 2, 1)
        if above is None or above & 1:
            return None
    elif parent.eth_type != MPLS:
        return None
    network = parent.network + 4
    bottom, first = packet.number(network - 2, 1), packet.number(network, 1)
    eth_type = None
    if bottom is not None and bottom & 1 and first is not None:
        eth_type = {4: IPV4, 6: IPV6}.get(first >> 4)
    return Link(frame=parent.frame, network=network, eth_type=eth_type, macs=parent.macs)


def _behind_pppoe(packet: Packet, parent: Link) -> Link | None:
    if parent.eth_type != PPPOE_SESSION or parent.network is None:
        return None
    protocol = packet.number(parent.network + 6, 2)
    eth_type = None if protocol is None else PPP_TYPES.get(protocol, protocol)
    return Link(frame=parent.network + 6, network=parent.network + 8, eth_type=eth_type)


def _behind_geneve(packet: Packet, parent: Headers) -> Link | None:
    transport = parent.network.transport
    if transport is None or parent.network.proto != UDP or packet.number(transport + 2, 2) != GENEVE_PORT:
        return None
    start = transport + 8
    first = packet.number(start, 1)
    if first is None or first & 0xC0:
        return None
    inner, kind = start + 8 + (first & 0x3F) * 4, packet.number(start + 2, 2)
    if kind == TRANSPARENT_ETHERNET:
        return _ethernet(packet, inner)
    return Link(frame=None, network=None if kind is None else inner, eth_type=kind)


def _behind_tunnel(packet: Packet, parent: Headers) -> Link | None:
    found = carried(packet, parent.network)
    if found is None:
        return None
    if found.eth_type == TRANSPARENT_ETHERNET:
        return _ethernet(packet, found.start)
    return Link(frame=None, network=found.start, eth_type=found.eth_type)


def _tag_field(packet: Packet, link: Link, name: str, index: int) -> int | None:
    """A `vlan.*` field of tag `index`: all before it must be tags, for id, pcp and dei itself too."""
    if link.tags is None:
        return None
    needed = index if name == "vlan.tpid" else index + 1
    if any(packet.number(link.tags + 4 * k, 2) not in VLAN_TPIDS for k in range(needed)):
        return None
    if name == "vlan.tpid":
        return packet.number(link.tags + 4 * index, 2)
    control = packet.number(link.tags + 4 * index + 2, 2)
    if control is None:
        return None
    return {"vlan.id": control & 0xFFF, "vlan.pcp": control >> 13, "vlan.dei": control >> 12 & 1}[name]


# ── the whole scope ──────────────────────────────────────────────────────────


def _headers(packet: Packet, link: Link) -> Headers:
    if link.network is not None and link.eth_type == IPV4:
        return Headers(link, ipv4_header(packet, link.network))
    if link.network is not None and link.eth_type == IPV6:
        return Headers(link, ipv6_header(packet, link.network))
    return Headers(link, Network())


# ── fields that are no plain bytes ───────────────────────────────────────────


def _computed(packet: Packet, headers: Headers, name: str) -> int | None:
    match name:
        case "len":
            return frame_length(packet)
        case "eth.dst" | "eth.src":
            macs = headers.link.macs
            return None if macs is None else packet.number(macs + (6 if name == "eth.src" else 0), 6)
        case "eth.type":
            return headers.link.eth_type
        case "addr.src" | "addr.dst":
            return _address(packet, headers, name)
        case "ttl" | "dscp" | "ecn":
            return _shared_byte(packet, headers, name)
        case _:
            return _chain_field(headers, name)


def _chain_field(headers: Headers, name: str) -> int | None:
    network = headers.network
    match name:
        case "proto":
            return network.proto
        case "ip.proto":
            return network.proto if headers.is_ipv4 else None
        case "ip6.proto":
            return network.proto if headers.is_ipv6 else None
        case "ip6.headers":
            return network.mask
        case "chain.proto":
            return network.chain
        case "frag":
            return network.frag
        case "frag.offset":
            return network.frag_offset
        case _:
            raise KeyError(name)


def _address(packet: Packet, headers: Headers, name: str) -> int | None:
    start = headers.link.network
    if start is None or not (headers.is_ipv4 or headers.is_arp):
        return None
    source, target = (12, 16) if headers.is_ipv4 else (14, 24)
    return packet.number(start + (source if name == "addr.src" else target), 4)


def _shared_byte(packet: Packet, headers: Headers, name: str) -> int | None:
    """`ttl`, and the traffic class, which IPv6 has in bits 4 to 11 of its first word.

    IPv4 has its own byte for it; in IPv6 the whole first word must be there.
    """
    start = headers.link.network
    if start is None or not (headers.is_ipv4 or headers.is_ipv6):
        return None
    if name == "ttl":
        return packet.number(start + (8 if headers.is_ipv4 else 7), 1)
    if headers.is_ipv4:
        traffic_class = packet.number(start + 1, 1)
    else:
        word = packet.number(start, 4)
        traffic_class = None if word is None else word >> 20 & 0xFF
    if traffic_class is None:
        return None
    return traffic_class >> 2 if name == "dscp" else traffic_class & 3
