"""Where penstock answers otherwise than tcpdump, on purpose: each place with one packet and both answers.

These are the rows of the table in docs/language.md; `tests/property/test_oracle.py`
excuses nothing else.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.compiler.ir.evaluate import Packet, holds
from penstock.compiler.ir.lower import lower_expression
from penstock.compiler.lang.parser import parse_expression
from penstock.compiler.lang.source import Source
from penstock.compiler.libpcap import compile_filter
from penstock.model.packet import build_packet, parse_packet

YES, NO = True, False


#: First column of the page's table -> (expression, packet, tcpdump's answer, penstock's).
DIFFERENCES = {
    "IPv6 extension headers": [
        ("udp dst port 53", "IPv6()/HopByHop()/UDP(dport=53)", NO, YES),
        ("udp", "IPv6()/DestOpt()/UDP(dport=53)", NO, YES),
        ("icmp6[icmp6type] = icmp6-echo", "IPv6()/HopByHop()/ICMPv6(type=128)", NO, YES),
        ("ip6 proto 43", "IPv6()/HopByHop()/Routing()/UDP()", NO, YES),
        ("ip6 proto 60", "IPv6()/Fragment(m=1)/DestOpt()/UDP()/Raw(len=8)", YES, YES),
    ],
    "`protochain`": [
        ("ip6 protochain 17", "IPv6()/Mobility()/UDP()", NO, YES),
        ("ip6 protochain 17", "IPv6()/Fragment(m=1, reserved=255)/DestOpt()/UDP()/Raw(len=8)", NO, YES),
        ("ip6 protochain 17", "IPv6()" + "/DestOpt()" * 9 + "/UDP()", YES, NO),
    ],
    "accessors over IPv6": [
        ("tcp[tcpflags] & tcp-syn != 0", 'IPv6()/TCP(flags="S")', NO, YES),
        ("udp[4:2] = 8", "IPv6()/UDP()", NO, YES),
        ("sctp[0:2] = 7", "IPv6()/SCTP(sport=7)", NO, YES),
    ],
    "VLAN tags": [
        ("udp dst port 53", "Dot1Q()/IPv4()/UDP(dport=53)", NO, YES),
        ("arp", "Dot1AD()/Dot1Q()/ARP()", NO, YES),
        ("ether proto 0x8100", "Dot1Q()/IPv4()", YES, YES),
        ("vlan and ip", "Dot1Q()/Dot1Q()/IPv4()", NO, YES),
    ],
    "encapsulations": [
        ("vlan or udp dst port 53", "IPv4()/UDP(dport=53)", NO, YES),
        ("(mpls or ip) and udp", "IPv4()/UDP()", NO, YES),
        ("not pppoes and ip", "IPv4()/UDP()", NO, YES),
    ],
    "a packet too short for a test": [
        ("not udp dst port 53", "IPv4()/UDP(dport=53)/Truncate(37)", NO, YES),
        ("udp dst port 53 or greater 20", "IPv4()/UDP(dport=53)/Truncate(37)", NO, YES),
        ("udp dst port 53", "IPv4()/UDP(dport=53)/Truncate(37)", NO, NO),
        ("src net 0.0.0.0/0", "IPv4()/Truncate(20)", YES, NO),
    ],
    "a packet that ends within an address": [
        ("src net 2001:db8::/32", 'IPv6(src="2001:db8::1")/UDP()/Truncate(30)', YES, NO),
    ],
    "a division by zero": [
        ("not ip[0] / ip[1] = 1", "IPv4()/UDP()", NO, YES),
    ],
    "an IPv4 header shorter than five words": [
        ("udp dst port 53", 'IPv4(ihl=4, dst="0.0.0.53")/UDP(dport=99)', YES, NO),
    ],
    "the payload of a later fragment": [
        ("ip protochain 6", 'IPv4(frag=8, proto=51)/Raw(hex="0604000000000000")', YES, NO),
    ],
    "two authentication headers": [
        ("ip protochain 17", "IPv4()/AH()/AH(icv=20)/UDP()", NO, YES),
    ],
    "accessors in arithmetic": [
        ("len - ip[0] > 0", "ARP()", YES, NO),
    ],
    "`ether[…]` behind `geneve`": [
        ("geneve and ether[0] = 0x45", "IPv4()/UDP(dport=6081)/Geneve()/IPv4()/UDP()", YES, NO),
        ("geneve and ether[0 - 6] >= 0", "IPv4()/UDP(dport=6081)/Geneve()/Ether()/IPv4()/UDP()", YES, NO),
    ],
}


@pytest.mark.parametrize(
    ("text", "packet", "tcpdump", "penstock"),
    [case for cases in DIFFERENCES.values() for case in cases],
)
def test_both_answers(text: str, packet: str, tcpdump: bool, penstock: bool) -> None:
    frame = build_packet(parse_packet(packet))
    source = Source("<expression>", text)
    assert compile_filter(text).matches(frame) is tcpdump
    assert holds(lower_expression(parse_expression(source), source), Packet(frame)) is penstock


def test_the_page_has_a_row_for_each_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs/language.md").read_text()
    table = page.partition("| case | tcpdump | penstock |\n|---|---|---|\n")[2].partition("\n\n")[0]
    assert [row.split(" | ")[0].removeprefix("| ") for row in table.splitlines()] == list(DIFFERENCES)
