"""Every example of pcap-filter(7), against libpcap on every frame that the tests have (check 10).

The manual's host and network names are put into an address table: libpcap reads
the expression with the addresses in place of the names, penstock resolves them.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address

import pytest
from tests import frames

from penstock.compiler.ir.evaluate import Packet, holds
from penstock.compiler.ir.lower import lower_expression
from penstock.compiler.ir.names import IPAddress, SystemNames
from penstock.compiler.lang.parser import parse_expression
from penstock.compiler.lang.source import Source
from penstock.compiler.libpcap import LibpcapError, compile_filter
from penstock.errors import PolicyError

HOSTS = {
    "sundown": "10.0.0.1",
    "helios": "10.0.0.2",
    "hot": "192.0.2.1",
    "ace": "192.168.1.5",
    "vs": "10.0.0.1",
}
NETWORKS = {"ucb-ether": "10.0.0.0", "localnet": "192.0.2.0"}


class Manual(SystemNames):
    """The names of the manual."""

    def host(self, name: str) -> tuple[IPAddress, ...]:
        return (IPv4Address(HOSTS[name]),) if name in HOSTS else ()

    def network(self, name: str) -> int | None:
        return int(IPv4Address(NETWORKS[name])) if name in NETWORKS else None


EXAMPLES = (
    "host sundown",
    "host helios and (hot or ace)",
    "ip host ace and not helios",
    "net ucb-ether",
    "ip and not net localnet",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0 and not src and dst net localnet",
    "tcp[tcpflags] & (tcp-rst|tcp-ack) == (tcp-rst|tcp-ack)",
    "tcp port 80 and (((ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2)) != 0)",
    "ip[2:2] > 576",
    "ether[0] & 1 = 0 and ip[16] >= 224",
    "icmp[icmptype] != icmp-echo and icmp[icmptype] != icmp-echoreply",
    "icmp6[icmp6type] != icmp6-echo and icmp6[icmp6type] != icmp6-echoreply",
    # From the text of the manual.
    r"ether proto \ip and host ace",
    "tcp dst port ftp or ftp-data or domain",
    "tcp dst port ftp or tcp dst port ftp-data or tcp dst port domain",
    "src foo".replace("foo", "host ace"),
    "dst net 192.0.2",
    "src or dst port ftp-data",
    "ether src 02:00:00:00:00:01",
    "arp net 192.168",
    "tcp port 21",
    "udp portrange 7000-7009",
    "len <= 60",
    "len >= 60",
    "less 60",
    "greater 60",
    "ip proto 1",
    "ip6 proto 58",
    r"proto \tcp",
    "ip6 protochain 6",
    "ether broadcast",
    "ether multicast",
    "ip multicast",
    "ip6 multicast",
    "ether[0] & 1 != 0",
    "ip[0] & 0xf != 5",
    "ip[6:2] & 0x1fff = 0",
    "tcp[0] = 0",
    "vlan 100 && vlan 200",
    "vlan && vlan 300 && ip",
    "mpls 100000 && mpls 1024",
    "mpls && mpls 1024 && host 192.9.200.1",
    "pppoes 0x27 && ip",
    "pppoed",
    "geneve 0xb && ip",
    r"iso proto \clnp",
    "clnp",
    "llc",
    "llc u",
    "not host vs and ace",
    "not host vs and host ace",
    "not (host vs or ace)",
    "tcp[tcpflags] = tcp-syn",
    "host 10.0.0.1 and (10.0.0.2 or 192.168.1.5)",
    "ether host 02:00:00:00:00:01 and not host sundown",
)
#: What both refuse: neither a frame nor XDP can answer it.
REFUSED = (
    "gateway snup and (port ftp or ftp-data)",
    "gateway snup and ip[2:2] > 576",
    "ifname eth0",
    "type mgt subtype beacon",
    "wlan addr1 02:00:00:00:00:01",
    "vpi 5",
    "lane",
    "fisu",
    "hsio 5",
    "ip broadcast",
)


def addressed(text: str) -> str:
    """The expression with addresses for its names."""
    for name, address in HOSTS.items():
        text = re.sub(rf"\b{name}\b", address, text)
    for name, address in NETWORKS.items():
        text = text.replace(name, address)
    return text


@pytest.mark.check(10)
@pytest.mark.parametrize("text", EXAMPLES)
def test_example_means_the_same(text: str) -> None:
    source = Source("<expression>", text)
    predicate = lower_expression(parse_expression(source), source, resolver=Manual())
    program = compile_filter(addressed(text))
    # Frames without what is documented to differ: tags that are not asked for, and extension headers.
    kinds = ["ipv4", "ipv4 options", "ipv4 fragments", "link"]
    # tcp[…] of IPv6 is another documented difference.
    kinds += [] if "tcp[" in text else ["ipv6"]
    kinds += [
        kind for kind, word in (("two tags", "vlan"), ("mpls", "mpls"), ("pppoe", "pppoes")) if word in text
    ]
    for frame in frames.frames(*kinds):
        assert holds(predicate, Packet(frame)) == program.matches(frame), frame.hex()


@pytest.mark.check(10)
@pytest.mark.parametrize("text", REFUSED)
def test_example_is_refused_by_both(text: str) -> None:
    source = Source("<expression>", text)
    with pytest.raises(PolicyError):
        lower_expression(parse_expression(source), source, resolver=Manual())
    with pytest.raises(LibpcapError):
        compile_filter(text)
