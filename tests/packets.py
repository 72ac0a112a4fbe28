"""Packets for tests, in the words of the policy language: `Ether() / IPv4(dst="192.0.2.1") / TCP(dport=22)`.

`bytes(packet)` is the frame, built by the same code that builds the packets of
a policy's tests; `str(packet)` is its notation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from penstock.model.packet import LayerSpec, build_packet, format_packet


@dataclass(frozen=True, slots=True)
class Packet:
    """Layers from the outside in; `/` puts another packet inside."""

    layers: tuple[LayerSpec, ...]

    def __truediv__(self, inner: Packet) -> Packet:
        return Packet(self.layers + inner.layers)

    def __bytes__(self) -> bytes:
        return build_packet(self.layers)

    def __str__(self) -> str:
        return format_packet(self.layers)


def _layer(name: str, positional: str = "") -> Callable[..., Packet]:
    def construct(*values: int | str | bytes, **arguments: int | str | bytes) -> Packet:
        named = tuple((positional, value) for value in values)
        return Packet((LayerSpec(name, (*named, *arguments.items())),))

    return construct


Ether = _layer("Ether")
Dot1Q = _layer("Dot1Q")
Dot1AD = _layer("Dot1AD")
ARP = _layer("ARP")
RARP = _layer("RARP")
LLC = _layer("LLC")
SNAP = _layer("SNAP")
MPLS = _layer("MPLS")
PPPoED = _layer("PPPoED")
PPPoES = _layer("PPPoES")
PPP = _layer("PPP")
IPv4 = _layer("IPv4")
IPv6 = _layer("IPv6")
HopByHop = _layer("HopByHop")
Routing = _layer("Routing")
Fragment = _layer("Fragment")
DestOpt = _layer("DestOpt")
AH = _layer("AH")
Mobility = _layer("Mobility")
TCP = _layer("TCP")
UDP = _layer("UDP")
SCTP = _layer("SCTP")
ICMP = _layer("ICMP")
ICMPv6 = _layer("ICMPv6")
IGMP = _layer("IGMP")
GRE = _layer("GRE")
ESP = _layer("ESP")
VXLAN = _layer("VXLAN")
Geneve = _layer("Geneve")
GTPU = _layer("GTPU")
Raw = _layer("Raw", "data")
Truncate = _layer("Truncate", "len")
PadTo = _layer("PadTo", "len")
