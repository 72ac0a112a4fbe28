"""Where the packet begins that a filter is given, and what is known of it besides its bytes.

A packet socket sees the frame, its outermost VLAN tag taken out and kept beside
it; a raw IPv4 socket sees the IP header first; to a UDP, TCP or raw IPv6 socket
the packet starts at the transport header.
"""

from __future__ import annotations

from enum import Enum

# Loads from here on are no loads of the packet (SKF_*_OFF in <linux/filter.h>).
ANCILLARY, NETWORK_HEADER, LINK_HEADER = 0xFFFFF000, 0xFFF00000, 0xFFE00000
PROTOCOL, TAG, TAG_PRESENT, TAG_TYPE = ANCILLARY, ANCILLARY + 44, ANCILLARY + 48, ANCILLARY + 60
KIND, INTERFACE, MARK = ANCILLARY + 4, ANCILLARY + 8, ANCILLARY + 20
#: The kind of a packet that this host sends (PACKET_OUTGOING in <linux/if_packet.h>).
OUTGOING = 4


class Start(Enum):
    """The first byte of what a program loads from."""

    FRAME = "frame"
    """The Ethernet header; tags lie in the bytes: capture files, libpcap's own interpreter."""
    PACKET = "packet"
    """The Ethernet header; the outermost tag lies beside the bytes or in them: packet sockets (SOCK_RAW)."""
    COOKED = "cooked"
    """What follows the link header: packet sockets (SOCK_DGRAM)."""
    NETWORK = "network"
    """The IP header: raw IPv4 sockets, `iptables -m bpf`."""
    BARE = "bare"
    """The IP header, with nothing before it: packet sockets where there are no link headers (tun, WireGuard)."""
    TRANSPORT = "transport"
    """The transport header: UDP, TCP and raw IPv6 sockets."""

    @property
    def has_frame(self) -> bool:
        """Whether the link header is part of the packet."""
        return self in (Start.FRAME, Start.PACKET)

    @property
    def may_keep_tag(self) -> bool:
        """Whether the outermost VLAN tag can lie beside the packet."""
        return self in (Start.PACKET, Start.COOKED)

    @property
    def is_untagged(self) -> bool:
        """Whether VLAN tags are gone, or never were."""
        return self in (Start.NETWORK, Start.BARE, Start.TRANSPORT)
