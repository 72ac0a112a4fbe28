"""Interfaces without link headers: what a policy reads there, what it does, and where it is refused."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest
from tests import frames
from tests.netns import Namespace

import penstock
from penstock.compiler.ir.evaluate import evaluate
from penstock.compiler.ir.ops import FIRST_RULE_SLOT
from penstock.errors import KernelError
from penstock.model.packet import build_packet, parse_packet
from penstock.model.verdict import Verdict
from penstock.pipeline.policy import rule_set_of

pytestmark = pytest.mark.privileged

HERE, PEER = "10.7.0.1", "10.7.0.2"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
BOTH_WAYS = pytest.mark.parametrize("hook", ["tc ingress", "tc egress"])
LINK = bytes(12)
COUNTING = """filter f at tc ingress {
    default pass
    on malformed continue
    seen: count
    type: count if ether[12:2] = 0x800 or ether[12:4] & 0xffff = 0x6000
    odd: count if ether[13:2] & 0xff = 0x45
    no-mac: count if ether src host 00:00:00:00:00:00 and not vlan
    small: count if less 60
    dns: count if udp port 53 or tcp port 80
    host: count if host 10.0.0.1 or host 2001:db8::1
    deep: count if ip[40:4] > 7 or ip6[60:2] > 3
    tunnelled: count if inner(udp port 53 or host 10.0.0.1)
    drop if ip proto 1 or ip6 proto 58
}"""


@dataclass(frozen=True)
class Tun:
    """A tun interface, and the other end of it."""

    namespace: Namespace
    fd: int

    def arrives(self, packet: bytes) -> None:
        os.write(self.fd, packet)

    def next(self, protocol: int) -> bytes:
        """The next IPv4 packet of a protocol that leaves by the interface."""
        while True:
            assert select.select([self.fd], [], [], 10.0)[0], "nothing came"
            found = os.read(self.fd, 4000)
            if found[0] >> 4 == 4 and found[9] == protocol:
                return found


@pytest.fixture
def tun() -> Iterator[Tun]:
    """tun0 with the address HERE; this thread is in its namespace."""
    with Namespace("bare") as namespace, namespace.inside():
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"tun0", _IFF_TUN | _IFF_NO_PI))
            namespace.ip("address", "add", f"{HERE}/24", "dev", "tun0")
            namespace.ip("link", "set", "tun0", "addrgenmode", "none", "up")
            yield Tun(namespace, fd)
        finally:
            os.close(fd)


def packet(text: str) -> bytes:
    """Without its link header."""
    return build_packet(parse_packet(text))[14:]


def bare_packets() -> list[bytes]:
    """The packets of all frames that carry IP and nothing before it."""
    found = [frame[14:] for frame in frames.frames() if frame[12:14] in (b"\x08\x00", b"\x86\xdd")]
    return [one for one in found if one and one[0] >> 4 in (4, 6) and len(one) <= 1500]


def shown(packet: bytes) -> bytes:
    """As rules see it."""
    return LINK + (b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet


def test_rules_see_what_the_reference_sees(tun: Tun) -> None:
    rules, packets = rule_set_of(COUNTING), bare_packets()
    assert len(packets) > 50
    outcomes = [evaluate(rules, shown(one)) for one in packets]
    with penstock.attach("tun0", COUNTING) as running:
        for one in packets:
            tun.arrives(one)
        counters = running.counters()
    slots = {rule.name: slot for slot, rule in enumerate(rules.rules, FIRST_RULE_SLOT)}
    wanted = {name: sum(slot in (one.slot, *one.hits) for one in outcomes) for name, slot in slots.items()}
    assert {name: counters[name].packets for name in slots} == wanted
    assert all(wanted.values())
    met = [one for one, outcome in zip(packets, outcomes, strict=True) if slots["seen"] in outcome.hits]
    assert counters["seen"].bytes == sum(len(shown(one)) for one in met)


@BOTH_WAYS
def test_what_is_dropped(tun: Tun, hook: str) -> None:
    text = (
        f"filter f at {hook} {{ drop if udp dst port 53 and src host {HERE if 'egress' in hook else PEER} }}"
    )
    receiver, sender = _udp(53), _udp(0)
    with penstock.attach("tun0", text) as running, closing(receiver), closing(sender):
        if hook == "tc ingress":
            tun.arrives(packet(f'IPv4(src="{PEER}", dst="{HERE}")/UDP(dport=53)/Raw("no")'))
            receiver.setblocking(False)
            with pytest.raises(BlockingIOError):
                receiver.recv(10)
            running.replace(text.replace("53", "54"))
            tun.arrives(packet(f'IPv4(src="{PEER}", dst="{HERE}")/UDP(dport=53)/Raw("yes")'))
            assert receiver.recv(10) == b"yes"
        else:
            sender.sendto(b"no", (PEER, 53))
            sender.sendto(b"yes", (PEER, 54))
            assert tun.next(17)[28:] == b"yes"
            assert running.counters()["f:1"].packets == 1


def test_a_dscp_is_set(tun: Tun) -> None:
    text = "filter f at tc egress { dscp 46 if udp dst port 5060 }"
    with penstock.attach("tun0", text), closing(_udp(0)) as sender:
        sender.sendto(b"hello", (PEER, 5060))
        found = tun.next(17)
    assert found[1] == 46 << 2
    assert _sum(found[:20]) == 0xFFFF


@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
def test_a_refusal(tun: Tun, protocol: str) -> None:
    sent = packet(f'IPv4(src="{PEER}", dst="{HERE}")/{protocol}(sport=4000, dport=25)')
    with penstock.attach("tun0", "filter f at tc ingress { reject if dst port 25 }"):
        tun.arrives(sent)
        found = tun.next(1 if protocol == "UDP" else 6)
    assert (found[12:16], found[16:20]) == (socket.inet_aton(HERE), socket.inet_aton(PEER))
    assert _sum(found[:20]) == 0xFFFF
    if protocol == "UDP":
        assert found[20:22] == bytes((3, 3))
        assert _sum(found[20:]) == 0xFFFF
        assert found[28:] == sent
    else:
        assert found[33] & 0x04
        assert _sum(found[12:20] + struct.pack(">HH", 6, 20) + found[20:]) == 0xFFFF


@pytest.mark.parametrize("classic", [False, True], ids=["ebpf", "classic"])
@pytest.mark.parametrize("kind", [socket.SOCK_RAW, socket.SOCK_DGRAM])
def test_a_packet_socket(tun: Tun, kind: socket.SocketKind, classic: bool) -> None:
    text = "filter f at socket { default drop\n on malformed continue\n pass if port 53 or host 2001:db8::1 }"
    rules, packets = rule_set_of(text), bare_packets()
    with closing(socket.socket(socket.AF_PACKET, kind, 0)) as sock:
        sock.bind(("tun0", 0x0003))
        sock.setblocking(False)
        with penstock.attach_socket(sock, text, classic=classic):
            found = []
            for one in packets:
                tun.arrives(one)
                found += _queued(sock)
    assert found == [one for one in packets if evaluate(rules, shown(one)).verdict is Verdict.PASS]
    assert found


REFUSED = [
    ("filter f at xdp { drop if tcp }", "no Ethernet header", "tc ingress"),
    ("filter f at tc ingress { mirror v0 if tcp }", "v0 sends nothing", "route"),
    ("filter f at tc egress { redirect v0 if tcp }", "v0 sends nothing", "route"),
]


@pytest.mark.parametrize(("text", "meaning", "hint"), REFUSED)
def test_what_is_refused(tun: Tun, text: str, meaning: str, hint: str) -> None:
    tun.namespace.ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    with pytest.raises(KernelError, match=meaning) as caught:
        penstock.attach("tun0", text)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert hint in str(caught.value.hint)


def test_from_ethernet_to_an_interface_without(tun: Tun) -> None:
    """At TC the kernel takes the link header off; at XDP nobody would."""
    tun.namespace.ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    tun.namespace.ip("link", "set", "v0", "address", "02:00:00:00:00:01", "up")
    tun.namespace.ip("link", "set", "v1", "up")
    with pytest.raises(KernelError, match="without an Ethernet header"):
        penstock.attach("v0", "filter f at xdp { redirect tun0 if udp }")
    sent = build_packet(parse_packet('IPv4(src="192.0.2.1", dst="192.0.2.2")/UDP(dport=7)/Raw("over")'))
    with closing(socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as sock:
        sock.bind(("v1", 0))
        with penstock.attach("v0", "filter f at tc ingress { redirect tun0 if udp }"):
            sock.send(sent)
            assert tun.next(17) == sent[14:]


def _udp(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((HERE, port))
    return made


def _queued(sock: socket.socket) -> list[bytes]:
    """What came in; the stack's own packets go out."""
    found = []
    while True:
        try:
            data, address = sock.recvfrom(4000)
        except BlockingIOError:
            return found
        if address[2] != socket.PACKET_OUTGOING:
            found.append(data)


def _sum(data: bytes) -> int:
    """RFC 1071's sum of data that holds its own checksum: all ones."""
    total = sum(struct.unpack(f">{len(data + bytes(len(data) % 2)) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
