"""The packet fields that rules can test, and what it takes for each to be there.

A field is an unsigned integer of `bits` bits read from one place of a packet.
It is *absent* when the packet does not have that place: another protocol, a
later fragment, or bytes beyond the packet's end.  A test of an absent field is
false, whatever is asked, and its negation therefore true.

Only the bytes of the field itself and of what locates it must be there: the
protocol of an IPv4 packet cut after ten bytes can still be tested.

    link       whole frame; Ethernet header; VLAN tags (at most two are stepped over)
    network    behind the tags: IPv4, IPv6 (extension headers walked), ARP
    transport  behind IPv4 options or IPv6 extension headers, first fragments only
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Layer(IntEnum):
    """How deep a packet must be read to know a field."""

    LINK = 1
    NETWORK = 2
    TRANSPORT = 3


@dataclass(frozen=True, slots=True)
class Field:
    """A testable field.  `word` is its name in policies when it has one there."""

    name: str
    bits: int
    layer: Layer
    meaning: str
    word: bool = False


def _fields(*fields: Field) -> dict[str, Field]:
    return {field.name: field for field in fields}


L, N, T = Layer.LINK, Layer.NETWORK, Layer.TRANSPORT

FIELDS = _fields(
    Field("len", 32, L, "length of the frame on the wire, in bytes", word=True),
    Field("eth.dst", 48, L, "destination MAC address"),
    Field("eth.src", 48, L, "source MAC address"),
    Field("eth.type", 16, L, "Ethernet type (or 802.3 length) behind at most two VLAN tags", word=True),
    # The next four take an index: the tag's depth, 0 = outermost.
    Field("vlan.tpid", 16, L, "the Ethernet type at the place of tag `index`, whether or not it is a tag's"),
    Field("vlan.id", 12, L, "VLAN id of tag `index`", word=True),
    Field("vlan.pcp", 3, L, "priority code point of tag `index`", word=True),
    Field("vlan.dei", 1, L, "drop eligible indicator of tag `index`", word=True),
    # What lies beside the packet, at the hooks that have it (model.hook).
    Field("mark", 32, L, "the mark that the kernel keeps beside a packet", word=True),
    Field("ifindex", 32, L, "number of the interface that the packet is at", word=True),
    Field("outbound", 1, L, "1 of a packet on its way out, as a socket sees it"),
    # Network layer.
    Field("addr.src", 32, N, "IPv4 source, or the sender's address of ARP and RARP"),
    Field("addr.dst", 32, N, "IPv4 destination, or the target's address of ARP and RARP"),
    Field("ip.src", 32, N, "IPv4 source"),
    Field("ip.dst", 32, N, "IPv4 destination"),
    Field("ip6.src", 128, N, "IPv6 source"),
    Field("ip6.dst", 128, N, "IPv6 destination"),
    Field("ip.proto", 8, N, "IPv4 protocol", word=True),
    Field("ip6.proto", 8, N, "the header that ends the IPv6 extension header chain", word=True),
    Field("ip6.headers", 8, N, "bit mask of the extension headers walked over, see EXTENSION_HEADERS"),
    Field(
        "chain.proto", 8, N, "what ends the IPv4 chain when authentication headers are walked over as well"
    ),
    Field("proto", 8, N, "ip.proto or ip6.proto"),
    Field("ttl", 8, N, "IPv4 time to live or IPv6 hop limit", word=True),
    Field("dscp", 6, N, "differentiated services code point of IPv4 or IPv6", word=True),
    Field("ecn", 2, N, "explicit congestion notification of IPv4 or IPv6", word=True),
    Field("ip.id", 16, N, "IPv4 identification", word=True),
    Field("ip.len", 16, N, "IPv4 total length", word=True),
    Field("ip.df", 1, N, "IPv4 don't-fragment flag", word=True),
    Field("ip6.flow", 20, N, "IPv6 flow label", word=True),
    Field("frag", 2, N, "0 not a fragment, 1 the first fragment, 2 a later one (IPv4 and IPv6)"),
    Field("frag.offset", 16, N, "fragment offset in bytes, 0 when not a fragment", word=True),
    # Transport layer.
    Field("sport", 16, T, "source port of TCP, UDP or SCTP", word=True),
    Field("dport", 16, T, "destination port of TCP, UDP or SCTP", word=True),
    Field("tcp.sport", 16, T, "TCP source port", word=True),
    Field("tcp.dport", 16, T, "TCP destination port", word=True),
    Field("tcp.seq", 32, T, "TCP sequence number", word=True),
    Field("tcp.ack", 32, T, "TCP acknowledgment number", word=True),
    Field("tcp.flags", 8, T, "TCP flags, CWR to FIN", word=True),
    Field("tcp.window", 16, T, "TCP window", word=True),
    Field("udp.sport", 16, T, "UDP source port", word=True),
    Field("udp.dport", 16, T, "UDP destination port", word=True),
    Field("udp.len", 16, T, "UDP length", word=True),
    Field("icmp.type", 8, T, "ICMP type", word=True),
    Field("icmp.code", 8, T, "ICMP code", word=True),
    Field("icmp6.type", 8, T, "ICMPv6 type", word=True),
    Field("icmp6.code", 8, T, "ICMPv6 code", word=True),
)

#: A field that is 1 of packets at one interface is named this and the interface: `ifname:eth0`.
AT_INTERFACE = "ifname:"
_METADATA = ("mark", "ifindex", "outbound")

#: IPv6 headers that are stepped over (RFC 8200, 4302, 6275) -> bit in `ip6.headers`.
EXTENSION_HEADERS = {0: 0, 43: 1, 44: 2, 51: 3, 60: 4, 135: 5}
#: More extension headers than this and the walk gives up (`exthdr-limit`).
MAX_EXTENSION_HEADERS = 8
#: Ethernet types of VLAN tags (802.1Q, 802.1ad, and the older QinQ).
VLAN_TPIDS = (0x8100, 0x88A8, 0x9100)
MAX_VLAN_TAGS = 2

#: Boolean words: name -> (field, values that make it true).
FLAG_WORDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "frag": ("frag", (1, 2)),
    "frag.first": ("frag", (1,)),
    "frag.later": ("frag", (2,)),
}


def field_of(name: str) -> Field:
    """The field of that name.

    Raises:
        KeyError: there is none.
    """
    if name.startswith(AT_INTERFACE):
        return Field(name, 1, Layer.LINK, f"1 of a packet at interface {name.removeprefix(AT_INTERFACE)}")
    return FIELDS[name]


def is_metadata(name: str) -> bool:
    """Whether a field lies beside the packet and not in it."""
    return name in _METADATA or name.startswith(AT_INTERFACE)
