"""Traffic to measure a policy with: classes of packets, and streams of many different ones.

In: a policy, and a capture if there is one.  Out: `TrafficClass`es, each with a
packet to be measured with: the usual kinds, or a capture's packets grouped by
what they are and what decides them.

    capture_classes(frames, rules)[0]  ->  TrafficClass("udp, drop by dns", …, packets=812, share=0.61)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from penstock.compiler.ir.evaluate import Packet
from penstock.compiler.ir.ops import RuleSet, counter_names
from penstock.model.field import VLAN_TPIDS
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
#: Of a capture that many packets are looked at, and that many classes measured.
MOST_PACKETS, MOST_CLASSES = 65_536, 16
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6", 132: "sctp"}

Decided = tuple[str | None, str | None]
"""Verdict and what decides, as words; None where the rules are not known."""


@dataclass(frozen=True, slots=True)
class TrafficClass:
    """Packets alike: `frame` is one of them, `verdict` and `decided_by` what the policy does with it.

    `packets` is how many a capture has, and `share` which part of it that is;
    None where there is no capture.
    """

    name: str
    frame: bytes
    packets: int = 1
    share: float | None = None
    verdict: str | None = None
    decided_by: str | None = None


def usual_frames() -> dict[str, bytes]:
    """One frame of each kind that most links carry."""
    return {name: read_packet(notation) for name, notation in _NOTATIONS.items()}


def odd_frames() -> dict[str, bytes]:
    """One frame of some kinds that are rare on a link, unless someone means to make its filter dear."""
    return {name: read_packet(notation) for name, notation in _ODD_NOTATIONS.items()}


def usual_classes(rules: RuleSet | None) -> list[TrafficClass]:
    """A class for each usual and each odd frame, with what the policy does to it if its rules are known."""
    frames = {**usual_frames(), **odd_frames()}
    decided = _decided(rules, list(frames.values()))
    return [
        TrafficClass(name, frame, 1, None, *said)
        for (name, frame), said in zip(frames.items(), decided, strict=True)
    ]


def capture_classes(frames: Iterable[bytes], rules: RuleSet | None) -> tuple[list[TrafficClass], list[bytes]]:
    """A capture's classes, the largest first, and its packets (of both the first MOST_PACKETS).

    The smallest classes beyond MOST_CLASSES are left out: the shares then do not
    add up to 1.
    """
    from penstock.price.decide import affordable  # imports numpy

    whole = list(islice((frame for frame in frames if len(frame) >= _LEAST_FRAME), MOST_PACKETS))
    kept = whole if rules is None else list(affordable(rules, whole))
    groups: dict[str, list[int]] = {}
    told: dict[str, Decided] = {}
    for at, (frame, decided) in enumerate(zip(kept, _decided(rules, kept), strict=True)):
        name = kind_of(frame) if decided[0] is None else f"{kind_of(frame)}, {decided[0]} by {decided[1]}"
        groups.setdefault(name, []).append(at)
        told[name] = decided
    largest = sorted(groups, key=lambda name: -len(groups[name]))[:MOST_CLASSES]
    return [_class(name, groups[name], kept, told[name]) for name in largest], kept


def _class(name: str, members: Sequence[int], frames: Sequence[bytes], decided: Decided) -> TrafficClass:
    """The class with its median packet by length: neither the shortest nor a giant."""
    ordered = sorted(members, key=lambda at: len(frames[at]))
    typical = frames[ordered[len(ordered) // 2]]
    return TrafficClass(name, typical, len(members), len(members) / len(frames), *decided)


def _decided(rules: RuleSet | None, frames: Sequence[bytes]) -> list[Decided]:
    if rules is None:
        return [(None, None)] * len(frames)
    from penstock.price.decide import decisions_on

    names = counter_names(rules)
    return [(verdict.value, names[slot]) for verdict, slot in decisions_on(rules, frames)]


def kind_of(frame: bytes) -> str:
    """What a frame is, in a few words: ``udp``, ``vlan tcp6``, ``icmp fragment``, ``arp``."""
    headers = Packet(frame).headers()
    assert headers is not None
    tagged = "vlan " if int.from_bytes(frame[12:14], "big") in VLAN_TPIDS else ""
    if headers.is_arp:
        return f"{tagged}arp"
    if not (headers.is_ipv4 or headers.is_ipv6):
        return f"{tagged}other"
    number = headers.network.proto
    word = "ip" if number is None else _PROTOCOLS.get(number, f"ip proto {number}")
    six = "6" if headers.is_ipv6 and not word.endswith("6") else ""
    return f"{tagged}{word}{six}{' fragment' if headers.network.frag else ''}"
