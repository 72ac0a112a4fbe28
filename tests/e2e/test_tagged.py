"""Real traffic with VLAN tags beside the packets: TC in and out, and packet sockets of both kinds.

The client's end puts a tag on everything, as a switch's port does, and the server's end takes it off behind the
filter: so sockets on both sides talk as ever.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.e2e.conftest import Cli, Wire, write

import penstock

pytestmark = pytest.mark.privileged

TAGS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
SEC("tc/put") int put(struct __sk_buff *skb) { return bpf_skb_vlan_push(skb, bpf_htons(0x8100), 5) ? 2 : -1; }
SEC("tc/take") int take(struct __sk_buff *skb) { return bpf_skb_vlan_pop(skb) ? 2 : -1; }
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture
def tagged(wire: Wire, host: Cli, tmp_path: Path) -> Iterator[Wire]:
    """Everything from the client to the server has the tag of VLAN 5."""
    file = str(write(tmp_path / "tags.c", TAGS))
    ends = (("tc/put", wire.client, "tc-egress", "v0"), ("tc/take", wire.server, "tc-ingress", "v1"))
    loaded = []
    for section, namespace, hook, name in ends:
        more = ("--section", section, "--hook", hook, "-i", name, "--json")
        done = host("--netns", namespace.name, "program", "load", file, *more)
        assert done.code == 0, done.err
        loaded.append(str(done.record["program_id"]))
    yield wire
    for number in loaded:
        host("program", "detach", number)


PLACES = [
    ("v1", "tc ingress", "first", "vlan 5 and udp dst port 53", "vlan 6 or not vlan"),
    ("v1", "tc ingress", "first", "udp dst port 53 and ether[12:4] = 0x81000005", "ether[12:2] = 0x800"),
    ("v0", "tc egress", "last", "vlan.id == 5 and udp dst port 53", "vlan 6 or not vlan"),
    ("v0", "tc egress", "first", "not vlan and udp dst port 53", "vlan"),
]


@pytest.mark.parametrize(("name", "hook", "order", "some", "none"), PLACES)
def test_what_is_dropped(tagged: Wire, name: str, hook: str, order: str, some: str, none: str) -> None:
    text = f"filter f at {hook} {{\n some: drop if {some}\n none: drop if {none}\n}}"
    namespace = tagged.server if name == "v1" else tagged.client
    with namespace.inside(), penstock.attach(name, text, order=order) as running:
        assert tagged.arrived(53, count=3) == 0
        assert tagged.arrived(54, count=3) == 3
        counters = running.counters()
    assert (counters["some"].packets, counters["none"].packets) == (3, 0)


@pytest.mark.parametrize("classic", [False, True], ids=["ebpf", "classic"])
@pytest.mark.parametrize("kind", [socket.SOCK_RAW, socket.SOCK_DGRAM])
def test_what_a_packet_socket_gets(tagged: Wire, kind: socket.SocketKind, classic: bool) -> None:
    with tagged.server.inside():
        gets, does_not = (socket.socket(socket.AF_PACKET, kind, 0) for _ in range(2))
        for sock in (gets, does_not):
            sock.bind(("v1", 0x0003))
    with (
        closing(gets),
        closing(does_not),
        penstock.attach_socket(gets, "vlan 5 and udp dst port 53", classic=classic),
        penstock.attach_socket(does_not, "(vlan 6 or not vlan) and udp dst port 53", classic=classic),
    ):
        assert tagged.arrived(53, count=3) == 3
        assert (_queued(gets), _queued(does_not)) == (3, 0)


def _queued(sock: socket.socket) -> int:
    sock.setblocking(False)
    count = 0
    while True:
        try:
            sock.recv(2000)
        except BlockingIOError:
            return count
        count += 1
