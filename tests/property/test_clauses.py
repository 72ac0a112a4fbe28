"""What other filters are told holds of the packets that all see alike, exactly where the policy's rule does."""

from __future__ import annotations

from functools import cache

from hypothesis import assume, example, given, settings
from tests.property.expressions import plain
from tests.property.rulesets import frames

from penstock.compiler.ir.evaluate import Packet, matches
from penstock.compiler.ir.ops import FieldRef
from penstock.errors import PolicyError
from penstock.model.packet import read_packet
from penstock.pipeline.policy import rule_set_of
from penstock.price.draw import drawn_frames
from penstock.price.peers.clauses import CannotSayError, Clause, is_common, plain_rules
from penstock.price.traffic import usual_frames

_MORE = """
filter more at xdp {
    drop if tcp dst port (22 or 53 or 80 or 443) and src net 10.0.0.0/8
    drop if udp port (53 or 123) and dst net 192.168.0.0/16
    drop if ip6 and tcp[tcpflags] & (tcp-syn|tcp-ack) != 0
    drop if icmp or icmp6 or sctp dst port 80 or ip proto 47 or ip6 proto 89
    drop if ttl < 5 or dscp == 46
}
"""


@cache
def common_packets() -> tuple[Packet, ...]:
    """Packets of the random frames and of those around some usual rules that every filter sees alike."""
    found = [*usual_frames().values(), *drawn_frames(rule_set_of(_MORE), 300), *frames(5, 2000)]
    found += [read_packet(f"IPv4(proto={number})/Raw(len=20)") for number in (0, 2, 51, 255)]
    return tuple(Packet(frame) for frame in found if len(frame) >= 54 and is_common(frame))


def holds(clause: Clause, packet: Packet) -> bool:
    """The clause, read as the translators read it."""
    headers = packet.headers()
    assert headers is not None
    family = 4 if headers.is_ipv4 else 6
    protocol = packet.value(FieldRef("proto"))
    values = [(packet.value(FieldRef(name)), wanted) for name, wanted in clause.tests]
    return (
        family in clause.families
        and protocol is not None
        and protocol in clause.protocols
        and all(value is not None and value in wanted for value, wanted in values)
    )


def test_there_are_common_packets_of_many_kinds() -> None:
    kinds = {
        (packet.headers().is_ipv4, packet.value(FieldRef("proto")))  # type: ignore[union-attr]
        for packet in common_packets()
    }
    assert {(four, protocol) for four in (True, False) for protocol in (6, 17)} < kinds
    assert len(common_packets()) > 300


@settings(max_examples=150, deadline=None)
@given(plain())
@example("not tcp dst port 22")
@example("not (src net 10.0.0.0/8 or udp)")
@example("ip and not icmp")
@example("not ip6 and ttl < 5")
def test_clauses_say_what_the_rule_says(text: str) -> None:
    try:
        rules = rule_set_of(f"filter t at xdp {{\n drop if {text}\n}}")
        said = plain_rules(rules)
    except (PolicyError, CannotSayError):
        assume(False)
        return
    for packet in common_packets():
        expected = matches(rules.rules[0], packet)
        assert any(holds(clause, packet) for clause in said[0].clauses) is expected
