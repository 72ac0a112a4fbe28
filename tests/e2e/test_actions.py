"""Actions with real sockets: who is refused hears of it at once, and what is sent elsewhere arrives there."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.conftest import CLIENT, PATIENCE_S, SERVER, Cli, Wire, write
from tests.netns import Namespace, veth

import penstock
from penstock.errors import KernelError
from penstock.model.layers.checksum import internet_checksum
from penstock.model.packet import build_packet, parse_packet

pytestmark = pytest.mark.privileged

CLIENT6, SERVER6 = "fd00:9::1", "fd00:9::2"
AT = {
    "xdp native": ("xdp", "native"),
    "xdp generic": ("xdp", "generic"),
    "tcx": ("tc ingress", "tcx"),
    "clsact": ("tc ingress", "clsact"),
}
SERVERS = {socket.AF_INET: SERVER, socket.AF_INET6: SERVER6}
_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_AUXDATA = 263, 8


@dataclass(frozen=True)
class Far(Wire):
    """A third namespace behind the server: w0 is the server's end, w1 the other."""

    third: Namespace


@pytest.fixture
def far() -> Iterator[Far]:
    with (
        Namespace("act-client") as client,
        Namespace("act-server") as server,
        Namespace("act-third") as third,
    ):
        veth(client, "v0", server, "v1")
        veth(server, "w0", third, "w1")
        for namespace, device, address, address6 in (
            (client, "v0", CLIENT, CLIENT6),
            (server, "v1", SERVER, SERVER6),
        ):
            namespace.ip("address", "add", f"{address}/24", "dev", device)
            namespace.ip("address", "add", f"{address6}/64", "dev", device, "nodad")
        # What XDP redirects to a veth pair is taken at the other end by NAPI alone, which GRO turns on.
        third.run("ethtool", "-K", "w1", "gro", "on")
        yield Far(client, server, third)


@contextmanager
def filtered(far: Far, place: str, *rules: str) -> Iterator[penstock.Attached]:
    """A filter of these rules on the server's v1."""
    hook, mode = AT[place]
    body = "".join(f"    {rule}\n" for rule in rules)
    with ExitStack() as opened:
        if mode == "native":
            # The other end of a veth pair takes what XDP sends back only if it has a program of its own.
            with far.client.inside():
                opened.enter_context(penstock.attach("v0", "filter all at xdp {\n pass\n}\n", mode))
        with far.server.inside():
            text = f"filter edge at {hook} {{\n{body}}}\n"
            running = opened.enter_context(penstock.attach("v1", text, mode))
        yield running


def made(far: Far, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
    """A socket of the client's."""
    with far.client.inside():
        found = socket.socket(family, kind)
    found.settimeout(PATIENCE_S)
    return found


def listening(far: Far, family: socket.AddressFamily, kind: socket.SocketKind, port: int) -> socket.socket:
    """A socket of the server's, so that a refusal can only be the filter's."""
    with far.server.inside():
        found = socket.socket(family, kind)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((SERVERS[family], port))
    if kind is socket.SOCK_STREAM:
        found.listen()
    found.settimeout(PATIENCE_S)
    return found


# ── reject ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("place", AT)
def test_clients_are_refused_at_once(far: Far, place: str) -> None:
    with filtered(far, place, "closed: reject if tcp dst port 80", "reject if udp dst port 53") as running:
        for family in SERVERS:
            _tcp_is_refused(far, family)
            for size in (1, 1400):
                _udp_is_refused(far, family, size)
        assert running.counters()["closed"].packets == 2


def _tcp_is_refused(far: Far, family: socket.AddressFamily) -> None:
    with (
        listening(far, family, socket.SOCK_STREAM, 80),
        listening(far, family, socket.SOCK_STREAM, 81),
        made(far, family, socket.SOCK_STREAM) as refused,
        made(far, family, socket.SOCK_STREAM) as taken,
    ):
        # The other port first, so that the neighbours know each other.
        taken.connect((SERVERS[family], 81))
        start = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            refused.connect((SERVERS[family], 80))
        # A second later a SYN is repeated: it was the first one that was answered.
        assert time.monotonic() - start < 1


def _udp_is_refused(far: Far, family: socket.AddressFamily, size: int) -> None:
    with (
        listening(far, family, socket.SOCK_DGRAM, 53),
        made(far, family, socket.SOCK_DGRAM) as client,
    ):
        client.connect((SERVERS[family], 53))
        client.send(bytes(size))
        with pytest.raises(ConnectionRefusedError):
            client.recv(2048)


def test_a_connection_that_is_open_is_reset(far: Far) -> None:
    with (
        listening(far, socket.AF_INET, socket.SOCK_STREAM, 80),
        made(far, socket.AF_INET, socket.SOCK_STREAM) as client,
    ):
        client.connect((SERVER, 80))
        with filtered(far, "tcx", "reject if tcp"):
            client.send(bytes(100_000))  # Sent as an aggregate of many segments.
            with pytest.raises(ConnectionResetError):
                client.recv(1)


@pytest.mark.parametrize("tags", ["Dot1Q(vlan=5)", "Dot1Q(vlan=5, type=0x88a8)/Dot1Q(vlan=6)"])
def test_tags_are_kept(far: Far, tags: str) -> None:
    """A tag that lies beside the packet, and one more in it."""
    carried = f'IPv4(src="{CLIENT}", dst="{SERVER}")/UDP(sport=7, dport=53)/Raw(hex="{b"tagged".hex()}")'
    sent = build_packet(
        parse_packet(f'Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")/{tags}/{carried}')
    )
    with filtered(far, "tcx", "reject if vlan 5 and udp"), sniffed(far.client, "v0") as back:
        back.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        back.send(sent)
        answer, beside = _not_ours(back)
    assert beside == 5
    assert answer[:12] == sent[6:12] + sent[:6]
    rest, count = answer[12:], tags.count("Dot1Q") - 1
    assert rest[: 4 * count] == sent[16 : 16 + 4 * count]
    packet = rest[4 * count + 2 :]
    assert (packet[0], packet[9], packet[20]) == (0x45, 1, 3)
    assert internet_checksum(packet[:20]) == internet_checksum(packet[20:]) == 0


def _not_ours(sniffer: socket.socket) -> tuple[bytes, int]:
    """The first IPv4 frame that came in, and the tag beside it."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            frame, told, _, (_, _, kind, *_) = sniffer.recvmsg(1 << 16, 100)
        except TimeoutError:
            continue
        if kind != socket.PACKET_OUTGOING and b"tagged" in frame:
            return frame, int.from_bytes(told[0][2][16:18], "little") & 0xFFF
    raise AssertionError("it never came")


# ── redirect, mirror ─────────────────────────────────────────────────────────


@contextmanager
def sniffed(namespace: Namespace, device: str) -> Iterator[socket.socket]:
    """Every frame that comes in on a device."""
    with namespace.inside():
        found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        found.bind((device, _ETH_P_ALL))
    found.settimeout(0.2)
    with found:
        yield found


def with_payload(sniffer: socket.socket, payload: bytes) -> bytes:
    """The first frame that ends with these bytes."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            frame = sniffer.recv(1 << 17)
        except TimeoutError:
            continue
        if frame.endswith(payload):
            return frame
    raise AssertionError("it never came")


@pytest.mark.parametrize("place", ["xdp native", "xdp generic", "tcx"])
def test_what_is_redirected_arrives_there_and_not_here(far: Far, place: str) -> None:
    with (
        sniffed(far.third, "w1") as there,
        listening(far, socket.AF_INET, socket.SOCK_DGRAM, 54) as other,
        listening(far, socket.AF_INET, socket.SOCK_DGRAM, 53) as here,
        filtered(far, place, "away: redirect w0 if udp dst port 53") as running,
        made(far, socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.sendto(b"to be redirected", (SERVER, 53))
        frame = with_payload(there, b"to be redirected")
        assert frame[36:38] == (53).to_bytes(2, "big")
        client.sendto(b"not redirected", (SERVER, 54))
        assert other.recv(100) == b"not redirected"
        assert running.counters()["away"].packets == 1
        here.settimeout(0.05)
        with pytest.raises(TimeoutError):
            here.recv(100)


@pytest.mark.parametrize("verdict", ["pass", "drop", "reject"])
def test_a_copy_goes_out_whatever_becomes_of_the_packet(far: Far, verdict: str) -> None:
    with (
        sniffed(far.third, "w1") as there,
        listening(far, socket.AF_INET, socket.SOCK_DGRAM, 53) as here,
        filtered(far, "tcx", "mirror w0 if udp", "dscp EF", f"{verdict} if udp"),
        made(far, socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.connect((SERVER, 53))
        client.send(b"to be copied")
        frame = with_payload(there, b"to be copied")
        assert frame[15] == 0  # As it arrived, before anything was done to it.
        if verdict == "pass":
            assert here.recv(100) == b"to be copied"
        elif verdict == "reject":
            with pytest.raises(ConnectionRefusedError):
                client.recv(100)


def test_a_device_that_does_not_exist_is_told_before_anything_changes(far: Far) -> None:
    with filtered(far, "tcx", "drop if udp dst port 53") as running, far.server.inside():
        with pytest.raises(
            KernelError, match="find w9: the policy names it, and there is no such interface"
        ) as told:
            running.replace("filter edge at tc ingress {\n redirect w9 if udp\n}\n")
        assert "w0" in str(told.value.hint)
        assert running.policy.identity.text.count("drop if udp dst port 53") == 1


def test_status_counts_refusals_and_says_when_a_device_has_gone_away(
    far: Far, root: Path, tmp_path: Path
) -> None:
    host = Cli({"PENSTOCK_BPFFS": str(root)}, tuple(far.server.command()))
    rules = "redirect w0 if udp dst port 53\n reject if udp dst port 54"
    policy = write(tmp_path / "edge.policy", f"filter edge at xdp {{\n {rules}\n}}\n")
    built = str(tmp_path / "edge.pso")
    assert host("build", str(policy), "-o", built).code == 0
    assert host("apply", built, "-i", "v1").code == 0
    (one,) = host("status", "--json").record["filters"]
    assert (one["trouble"], one["refusals"]) == (None, {"answered": 0, "suppressed": 0})
    assert far.arrived(54, count=3) == 0
    assert "reject: 3 answered, 0 dropped without an answer" in host("status").out
    far.server.ip("link", "del", "w0")
    found = host("status", "--json")
    assert found.code == 3
    (one,) = found.record["filters"]
    assert one["trouble"] == "w0 is gone: what the policy sends there is dropped until it is applied again"
    assert host("detach", "-i", "v1").code == 0


# ── mark, dscp ───────────────────────────────────────────────────────────────


def test_a_mark_is_seen_by_nft(far: Far) -> None:
    far.server.run(
        "nft", "add table inet seen; add chain inet seen in { type filter hook input priority 0; }"
    )
    for mark in ("0x7", "0x107"):
        far.server.run("nft", f"add rule inet seen in udp dport {{ 53, 54 }} meta mark {mark} counter")
    with (
        filtered(far, "tcx", "mark 7 if udp", "mark 0x100/0xff00 if udp dst port 54"),
        listening(far, socket.AF_INET, socket.SOCK_DGRAM, 54) as last,
        made(far, socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        for port in (53, 53, 54):
            client.sendto(b"x", (SERVER, port))
        last.recv(100)
        listed = json.loads(far.server.run("nft", "-j", "list", "chain", "inet", "seen", "in").stdout)
    rules = [entry["rule"]["expr"] for entry in listed["nftables"] if "rule" in entry]
    assert [part["counter"]["packets"] for rule in rules for part in rule if "counter" in part] == [2, 1]


DSCP = {"EF": 46, "LE": 1, "AF41": 34, "0": 0, "63": 63}


def test_the_receiver_sees_the_dscp_and_the_old_ecn(far: Far) -> None:
    rules = [f"dscp {word} if udp dst port {1000 + number}" for word, number in DSCP.items()]
    with filtered(far, "tcx", "dscp CS7", *rules):
        for family in SERVERS:
            for number in DSCP.values():
                assert _class_seen(far, family, 1000 + number, 10 << 2 | 2) == number << 2 | 2


def _class_seen(far: Far, family: socket.AddressFamily, port: int, sent: int) -> int:
    """The traffic class that a datagram has when it is received."""
    level, to_send, to_see = {
        socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TOS, socket.IP_RECVTOS),
        socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, socket.IPV6_RECVTCLASS),
    }[family]
    with (
        listening(far, family, socket.SOCK_DGRAM, port) as server,
        made(far, family, socket.SOCK_DGRAM) as client,
    ):
        server.setsockopt(level, to_see, 1)
        client.setsockopt(level, to_send, sent)
        client.sendto(b"x", (SERVERS[family], port))
        _, told, _, _ = server.recvmsg(100, 100)
        (seen,) = [value[0] for _, _, value in told]
        return int(seen)


def test_aggregates_get_the_dscp_too_and_their_checksum_is_right(far: Far) -> None:
    text = "filter edge at tc egress {\n dscp AF41 if tcp\n}\n"
    with (
        listening(far, socket.AF_INET, socket.SOCK_STREAM, 80) as server,
        made(far, socket.AF_INET, socket.SOCK_STREAM) as client,
        sniffed(far.server, "v1") as sniffer,
        far.client.inside(),
        penstock.attach("v0", text),
    ):
        client.connect((SERVER, 80))
        connection, _ = server.accept()
        reader = threading.Thread(target=_read_all, args=(connection,))
        reader.start()
        client.sendall(bytes(500_000))
        client.close()
        reader.join()
        packets = list(_segments(sniffer))
    assert max(map(len, packets)) > 1514  # Some were aggregates.
    assert {packet[1] >> 2 for packet in packets} == {34}
    assert all(internet_checksum(packet[:20]) == 0 for packet in packets)


def _read_all(connection: socket.socket) -> None:
    with connection:
        while connection.recv(1 << 16):
            pass


def _segments(sniffer: socket.socket) -> Iterator[bytes]:
    """The client's TCP packets over IPv4 that were seen so far."""
    while True:
        try:
            frame, (_, _, kind, *_) = sniffer.recvfrom(1 << 17)
        except TimeoutError:
            return
        (protocol,) = struct.unpack_from("!H", frame, 12)
        if protocol == 0x0800 and frame[23] == 6 and kind != socket.PACKET_OUTGOING:
            yield frame[14:]
