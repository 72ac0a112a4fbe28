"""`inner(EXPR)`: of a tunnel it says what EXPR says of the packet that was put into it, and the kernel agrees."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests import frames
from tests.property import expressions, rulesets
from tests.property.dataplane import DataPlane
from tests.property.test_kernel_agrees import oldest_clang

from penstock.compiler.codegen.emit import emit_matcher
from penstock.compiler.ir.evaluate import Packet, holds
from penstock.compiler.ir.lower import lower_expression
from penstock.compiler.ir.ops import FIRST_RULE_SLOT, FieldRef, Predicate, Scope
from penstock.compiler.lang.parser import parse_expression
from penstock.compiler.lang.source import Source
from penstock.errors import PolicyError
from penstock.model.packet import build_packet, parse_packet

#: Headers in front of an Ethernet frame, and in front of a bare IPv4 or IPv6 packet ({} is 4 or 6).
AROUND_ETHERNET = (
    "IPv4()/UDP(dport=4789)/VXLAN(vni=5)",
    "IPv6()/HopByHop()/UDP(dport=4789)/VXLAN(flags=255)",
    "IPv4(options=8)/GRE(proto=0x6558)",
    "Dot1Q(vlan=5)/IPv6()/GRE(key=7, proto=0x6558)",
    "MPLS(label=16)/IPv4()/UDP(dport=6081)/Geneve(proto=0x6558, options=8)",
)
AROUND_IP = (
    "IPv{}()/GRE(chksum=1, key=2, seq=3, proto={})",
    "IPv{}()/GRE(seq=3, proto={})",
    "IPv{}()/UDP(dport=6081)/Geneve(proto={}, options=4)",
    "IPv{}()/UDP(dport=2152)/GTPU()",
    "IPv{}()/UDP(dport=2152)/GTPU(seq=5, npdu=1)",
    "Dot1Q()/IPv{}()/UDP(dport=2152)/GTPU(extensions=16)",
)


def lowered(text: str) -> Predicate | None:
    source = Source("<expression>", text)
    try:
        return lower_expression(parse_expression(source), source)
    except PolicyError:
        return None


@cache
def header(text: str) -> bytes:
    return build_packet(parse_packet(text + "/Raw"))


def _asks_length(text: str) -> bool:
    """`len` is the whole frame's wherever it is asked."""
    return any(word in text for word in ("len", "less", "greater"))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(expressions.plain(), st.sampled_from(AROUND_ETHERNET))
def test_a_carried_frame_is_asked_as_if_it_came_alone(text: str, around: str) -> None:
    prefix = "mpls and " if around.startswith("MPLS") else ""
    alone, inside = lowered(text), lowered(f"{prefix}inner({text})")
    assert (alone is None) == (inside is None)
    if alone is None or inside is None or _asks_length(text):
        return
    for frame in frames.frames():
        assert holds(inside, Packet(header(around) + frame)) == holds(alone, Packet(frame)), (
            text,
            frame.hex(),
        )


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(expressions.on_any_link(), st.sampled_from(AROUND_IP), st.sampled_from((4, 6)))
def test_a_carried_packet_is_asked_as_if_it_had_an_ethernet_header(
    text: str, around: str, outer: int
) -> None:
    alone, inside = lowered(text), lowered(f"inner({text})")
    if alone is None or inside is None or _asks_length(text) or "ether" in text or "cast" in text:
        return
    for frame in frames.frames("ipv4", "ipv4 options", "ipv4 fragments", "ipv6", "ipv6 extensions"):
        kind = int.from_bytes(frame[12:14], "big")
        carrier = header(around.format("" if outer == 4 else 6, kind).replace("IPv(", "IPv4("))
        assert holds(inside, Packet(carrier + frame[14:])) == holds(alone, Packet(frame)), (text, frame.hex())


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(expressions.plain())
def test_geneve_is_a_tunnel_like_any_other(text: str) -> None:
    """libpcap's own primitive for it, whose meaning is held against libpcap elsewhere (test_oracle.py)."""
    before, inside = lowered(f"geneve and ({text})"), lowered(f"inner({text})")
    if before is None or inside is None:
        return
    for frame in frames.frames("geneve"):
        if Packet(frame).headers(("geneve",)) is not None:
            assert holds(before, Packet(frame)) == holds(inside, Packet(frame)), (text, frame.hex())


# ── tshark ───────────────────────────────────────────────────────────────────

STACKS = (
    "IPv4/IPv4(src=10.0.0.1, dst=10.0.0.2)/UDP(sport=7, dport=53)",
    "IPv4/IPv6(src=2001:db8::1)/TCP(dport=80)",
    "IPv6/IPv4(src=10.0.0.1)/TCP(dport=80)",
    "IPv6/DestOpt/IPv6(dst=2001:db8::9)/UDP(dport=53)",
    "IPv4/GRE/IPv4(src=10.0.0.3)/UDP(dport=99)",
    "IPv4/GRE(chksum=0, key=5, seq=6)/IPv6(src=2001:db8::3)/UDP(dport=99)",
    "IPv6/GRE(key=5)/Ether(src=02:00:00:00:00:77)/Dot1Q(vlan=9)/IPv4(dst=10.0.0.3)/TCP(dport=99)",
    "IPv4/UDP/VXLAN(vni=7)/Ether(dst=02:00:00:00:00:78)/IPv6(src=2001:db8::4)/UDP(dport=1)",
    "IPv4/UDP/Geneve(options=16)/Ether/IPv4(src=10.0.0.9)/UDP(dport=2)",
    "IPv6/UDP/GTPU/IPv4(src=10.0.0.9)/UDP(dport=2)",
    "IPv4/UDP/GTPU(seq=4)/IPv6(src=2001:db8::5)/TCP(dport=2)",
    "IPv4/UDP/GTPU(extensions=8)/IPv4(src=10.0.0.10)/TCP(dport=3)",
    "IPv4/GRE/IPv4/UDP/VXLAN/Ether/IPv4(src=10.0.0.11)/UDP(dport=4)",
)
#: More, for the kernel: tunnels behind labels and the other way around, and four of them.
MIXED = (
    "MPLS/IPv4/IPv4/UDP",
    "IPv4/UDP/Geneve/Ether/IPv4/IPv4/TCP",
    "IPv4/GRE/Ether/MPLS/IPv4/UDP",
    "IPv4/UDP/VXLAN/Ether/IPv4/IPv4/TCP",
    "IPv4/IPv6/IPv4/IPv6/IPv4/UDP",
    "IPv4/IPv4/UDP/Geneve/Ether/IPv4",
)
#: tshark's names of what penstock has a field for.
FIELDS = {
    "ip.src": "ip.src", "ip.dst": "ip.dst", "ipv6.src": "ip6.src", "ipv6.dst": "ip6.dst", "eth.src": "eth.src",
    "eth.dst": "eth.dst", "vlan.id": "vlan.id", "udp.dstport": "udp.dport", "tcp.dstport": "tcp.dport",
}  # fmt: skip


def _innermost(packet: Packet) -> Scope:
    scope: Scope = ()
    while packet.headers((*scope, "inner")) is not None:
        scope = (*scope, "inner")
    return scope


def _shown(name: str, value: int) -> str:
    from penstock.compiler.ir.dump import dump_value

    return dump_value(FieldRef(name), value)


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_finds_the_same_inner_headers(tmp_path: Path) -> None:
    """Of every field that tshark shows several times, the last is that of the innermost packet."""
    from tests.unit.test_packet import frames_of, write_pcap

    path, built = tmp_path / "tunnels.pcap", [build_packet(parse_packet(text)) for text in STACKS]
    write_pcap(path, frames_of(built))
    command = ["tshark", "-r", str(path), "-T", "json", *(part for name in FIELDS for part in ("-e", name))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    for text, frame, dissected in zip(STACKS, built, json.loads(done.stdout), strict=True):
        packet, layers = Packet(frame), dissected["_source"]["layers"]
        scope = _innermost(packet)
        assert scope, text
        found = {tshark: packet.value(FieldRef(name, scope)) for tshark, name in FIELDS.items()}
        told = {tshark: _shown(FIELDS[tshark], value) for tshark, value in found.items() if value is not None}
        assert {"ip.src", "ipv6.src"} & told.keys(), text
        assert told == {tshark: layers[tshark][-1] for tshark in told}, text


# ── the kernel ───────────────────────────────────────────────────────────────


def _frames() -> Iterator[bytes]:
    """Tunnels as they are, cut at every byte, with every byte changed; and random nested headers."""
    draw = random.Random(5)
    for text in (*STACKS, *MIXED):
        frame = build_packet(parse_packet(text))
        yield from (frame[:end] for end in range(14, len(frame) + 1))
        for at in range(14, min(len(frame), 120)):
            yield frame[:at] + bytes([draw.choice((0, 1, frame[at] ^ 1, 255, 47))]) + frame[at + 1 :]
        yield frame.ljust(3000, b"\1")
    for around in (*AROUND_ETHERNET, *(one.format("6", 0x0800) for one in AROUND_IP)):
        yield header(around) + draw.randbytes(40)
    yield from rulesets.frames(11, 1000)


TEXTS = (
    "inner(ip)", "inner(ip6)", "inner(arp)", "inner(udp dst port 53)", "inner(not tcp)", "not inner(tcp)",
    "inner(vlan)",
    "inner(vlan 9 and ip)", "inner(ether src 02:00:00:00:00:77)", "inner(frag.later)", "inner(ip6 proto 60)",
    "inner(src host 10.0.0.1 or src host 10.0.0.2)", "inner(tcp[13] & 2 != 0)", "inner(ip[8] > 3)", "inner(len > 60)",
    "inner(inner(ip))", "inner(inner(udp or tcp))", "inner(inner(inner(ip or ip6)))", "inner(udp and inner(not ip6))",
    "inner(mpls and ip)", "mpls and inner(ip)", "vlan and inner(ip)", "geneve and inner(ip)", "inner(geneve and ip)",
    "vxlan", "vxlan 5 and ip", "vxlan 7 and udp port 1", "vxlan and inner(tcp)", "inner(ether[0] = 2)",
    "inner(ttl = 64)",
)  # fmt: skip


@pytest.mark.privileged
@pytest.mark.parametrize("oldest", [False, True])
def test_the_kernel_looks_into_tunnels_as_the_reference_does(oldest: bool) -> None:
    predicates = [predicate for text in TEXTS if (predicate := lowered(text)) is not None]
    assert len(predicates) == len(TEXTS)
    seen: set[int] = set()
    with DataPlane(emit_matcher(predicates), oldest_clang() if oldest else None) as plane:
        for frame in _frames():
            packet = Packet(frame)
            expected = [at for at, predicate in enumerate(predicates) if holds(predicate, packet)]
            found = [slot - FIRST_RULE_SLOT for slot in plane.outcome(frame).hits]
            assert found == expected, (frame.hex(), [TEXTS[at] for at in set(found) ^ set(expected)])
            seen.update(expected)
    assert {TEXTS[at] for at in range(len(TEXTS)) if at not in seen} == set()
