"""Frames to measure a policy with: some of each usual kind, or a capture's.

In: nothing, or a capture.  Out: frames by name, in a stable order; a
name says what the frame is.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock.model.packet import read_packet

_NOTATIONS = {
    "udp dns": 'IPv4(src="198.51.100.7")/UDP(dport=53)/Raw(len=32)',
    "udp other": 'IPv4(src="198.51.100.7")/UDP(dport=4000)/Raw(len=32)',
    "tcp syn": 'IPv4(src="198.51.100.7")/TCP(dport=443, flags="S")',
    "tcp data": 'IPv4(src="198.51.100.7")/TCP(dport=443, flags="A")/Raw(len=512)',
    "udp6 dns": 'IPv6(src="2001:db8::7")/UDP(dport=53)/Raw(len=32)',
    "tcp6 data": 'IPv6(src="2001:db8::7")/TCP(dport=443, flags="A")/Raw(len=512)',
    "vlan udp dns": 'Dot1Q(vlan=5)/IPv4(src="198.51.100.7")/UDP(dport=53)/Raw(len=32)',
    "icmp echo": 'IPv4(src="198.51.100.7")/ICMP(type=8)/Raw(len=56)',
    "later fragment": 'IPv4(src="198.51.100.7", frag=64, proto=17)/Raw(len=64)',
    "arp": "ARP(op=1)",
}
_ODD_NOTATIONS = {
    "first fragment": 'IPv4(src="198.51.100.7", flags="MF")/UDP(dport=53)/Raw(len=64)',
    "ip options": 'IPv4(src="198.51.100.7", options=40)/TCP(dport=443, flags="A")/Raw(len=32)',
    "hop-by-hop": 'IPv6(src="2001:db8::7")/HopByHop/UDP(dport=53)/Raw(len=32)',
    "malformed udp": 'IPv4(src="198.51.100.7")/UDP(dport=53, len=4)/Raw(len=32)',
}
_LEAST_FRAME = 14


def usual_frames() -> dict[str, bytes]:
    """One frame of each kind that most links carry."""
    return {name: read_packet(notation) for name, notation in _NOTATIONS.items()}


def odd_frames() -> dict[str, bytes]:
    """One frame of some kinds that are rare on a link, unless someone means to make its filter dear."""
    return {name: read_packet(notation) for name, notation in _ODD_NOTATIONS.items()}


def capture_frames(frames: Iterable[bytes], most: int = 64) -> dict[str, bytes]:
    """The first `most` frames of a capture, by their numbers."""
    found: dict[str, bytes] = {}
    for number, frame in enumerate(frames, 1):
        if len(found) == most:
            break
        if len(frame) >= _LEAST_FRAME:
            found[f"packet {number}"] = bytes(frame)
    return found
