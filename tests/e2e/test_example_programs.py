"""The programs of examples/programs: built by each clang, accepted by the kernel, and doing what they say."""

from __future__ import annotations

import mmap
import shutil
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import CLIENT, SERVER, Cli, Wire
from tests.e2e.test_programs import programs  # noqa: F401 - a fixture

from penstock.kernel.bpf_object import BpfObject
from penstock.kernel.maps import Map, possible_cpus
from penstock.kernel.program import Program
from penstock.model.packet import read_packet
from penstock.pipeline.program_object import choose, load, open_program

FOLDER = Path(__file__).parents[2] / "examples/programs"
EXAMPLES = sorted(FOLDER.glob("*.bpf.c"))
CLANGS = [name for name in ("clang-14", "clang-19") if shutil.which(name)] or ["clang"]
DROP, PASS = 1, 2
SO_ATTACH_BPF, SO_RCVMARK = 50, 75

Open = Callable[..., BpfObject]


@pytest.fixture(params=CLANGS)
def opened(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Load an example by its name, built by one of the clangs."""
    monkeypatch.setenv("PENSTOCK_CLANG", request.param)
    held: list[BpfObject] = []

    def load_example(name: str, section: str | None = None, **values: str) -> BpfObject:
        found = open_program(str(FOLDER / f"{name}.bpf.c"))
        assert not found.messages
        loaded = load(found, choose(found, None, section or name), None, values)
        held.append(loaded)
        return loaded

    yield load_example
    for one in held:
        one.close()


def answer(loaded: BpfObject, name: str, packet: str) -> int:
    return loaded.programs[name].test_run(read_packet(packet)).retval


def test_there_are_enough() -> None:
    assert len(EXAMPLES) >= 6


@pytest.mark.privileged
def test_blocklist(opened: Open) -> None:
    loaded = opened("blocklist")
    listed, other = 'IPv4(src="192.0.2.7")/UDP', 'IPv4(src="192.0.2.8")/UDP'
    assert answer(loaded, "blocklist", listed) == PASS
    address = socket.inet_aton("192.0.2.7")
    loaded.maps["blocked"].update(address, bytes(8))
    assert [answer(loaded, "blocklist", packet) for packet in (listed, listed, other, "IPv6/UDP")] == [
        1,
        1,
        2,
        2,
    ]
    assert loaded.maps["blocked"].lookup(address) == struct.pack("=Q", 2)


@pytest.mark.privileged
def test_cidr_drop(opened: Open) -> None:
    loaded = opened("cidr_drop")
    for prefix, length, drop in (("10.0.0.0", 8, 1), ("10.9.0.0", 16, 0), ("10.9.9.9", 32, 1)):
        key = struct.pack("=I", length) + socket.inet_aton(prefix)
        loaded.maps["networks"].update(key, struct.pack("=I", drop))
    wanted = {"10.1.2.3": DROP, "10.9.0.1": PASS, "10.9.9.9": DROP, "192.0.2.1": PASS}
    assert {one: answer(loaded, "cidr_drop", f'IPv4(src="{one}")/TCP') for one in wanted} == wanted


@pytest.mark.privileged
def test_syn_counter(opened: Open) -> None:
    loaded = opened("syn_counter")
    packets = (
        'IPv4/TCP(dport=80, flags="S")',
        'IPv6/TCP(dport=80, flags="S")',
        'Ether/Dot1Q(vlan=7)/IPv4/TCP(dport=80, flags="S")',
        'IPv4/TCP(dport=80, flags="SA")',
        'IPv4/TCP(dport=443, flags="S")',
        "IPv4/UDP(dport=80)",
    )
    assert {answer(loaded, "syn_counter", packet) for packet in packets} == {PASS}
    counts = {port: _total(loaded.maps["syns"], port) for port in (80, 443, 53)}
    assert counts == {80: 3, 443: 1, 53: 0}


def _total(counters: Map, number: int) -> int:
    value = counters.lookup(struct.pack("=I", number))
    assert value is not None
    return sum(struct.unpack(f"={possible_cpus()}Q", value))


@pytest.mark.privileged
def test_ring_logger(opened: Open) -> None:
    loaded = opened("ring_logger", port="2222")
    for packet in ('IPv4(src="192.0.2.9")/TCP(sport=7, dport=2222, flags="S")', "IPv4/TCP(dport=22)"):
        assert answer(loaded, "ring_logger", packet) == PASS
    records = _ring_records(loaded.maps["events"])
    assert len(records) == 1
    _, source, sport, dport, version, proto, flags = struct.unpack("=Q4s12xHHBBBx", records[0])
    assert (source, sport, dport, version, proto, flags) == (socket.inet_aton("192.0.2.9"), 7, 2222, 4, 6, 2)
    assert bytes(loaded.variable("lost")) == bytes(8)


def _ring_records(ring: Map) -> list[bytes]:
    """The records that lie in a ring buffer whose reader has not read yet (Documentation/bpf/ringbuf.rst)."""
    page = mmap.PAGESIZE
    memory = mmap.mmap(ring.fd, page + ring.info.max_entries, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
    (end,) = struct.unpack_from("=Q", memory, 0)
    at, found = 0, []
    while at < end:
        (length,) = struct.unpack_from("=I", memory, page + at)
        found.append(bytes(memory[page + at + 8 : page + at + 8 + length]))
        at += (length + 8 + 7) & ~7
    return found


@pytest.mark.privileged
def test_tc_classifier(opened: Open) -> None:
    loaded = opened("tc_classifier")
    unspec, shot = 0xFFFFFFFF, 2
    wanted = {
        "IPv4/TCP(dport=23)": shot,
        "IPv6/TCP(dport=23)": shot,
        "IPv4/UDP(dport=53)": unspec,
        "ARP": unspec,
    }
    assert {one: answer(loaded, "tc_classifier", one) for one in wanted} == wanted


@pytest.mark.privileged
def test_socket_filter(opened: Open) -> None:
    loaded = opened("socket_filter")
    wanted = {
        "IPv4/UDP(dport=53)": 256,
        "IPv6/UDP(sport=53)": 256,
        "IPv4/UDP(dport=54)": 0,
        "IPv4/TCP(dport=53)": 0,
    }
    assert {one: answer(loaded, "socket_filter", one) for one in wanted} == wanted


@pytest.mark.privileged
def test_tail_calls(opened: Open) -> None:
    loaded = opened("tail_calls", "dispatch")
    assert set(loaded.programs) == {"dispatch", "ipv4", "ipv6"}
    assert [answer(loaded, "dispatch", packet) for packet in ("IPv4/UDP", "IPv6/UDP", "ARP")] == [
        PASS,
        DROP,
        PASS,
    ]


@pytest.mark.privileged
def test_blocklist_on_a_wire(programs: Cli, wire: Wire, bpffs: Path) -> None:  # noqa: F811
    place = bpffs / "blocklist"
    done = programs("program", "load", str(FOLDER / "blocklist.bpf.c"), "-i", "v1", "--pin", str(place))
    assert done.code == 0, done.err
    assert wire.arrived(54) == 5
    with Map.open(place / "blocked") as blocked:
        # Another host's packets pass, so that the marker comes through: the address is the client's second one.
        blocked.update(socket.inet_aton("10.9.0.3"), bytes(8))
        wire.client.ip("address", "add", "10.9.0.3/24", "dev", "v0")
        with wire.client.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("10.9.0.3", 0))
            sender.sendto(b"blocked", (SERVER, 54))
        assert wire.arrived(55) == 5
        assert blocked.lookup(socket.inet_aton("10.9.0.3")) == struct.pack("=Q", 1)


@pytest.mark.privileged
def test_marks_are_seen_by_the_receiver(programs: Cli, wire: Wire) -> None:  # noqa: F811
    file = str(FOLDER / "tc_classifier.bpf.c")
    assert programs("program", "load", file, "--hook", "tc-ingress", "-i", "v1").code == 0
    with wire.server.inside():
        receivers = {port: _marked(port) for port in (53, 99)}
    with wire.client.inside():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        for port, size in ((53, 9), (99, 9), (99, 1200)):
            sender.sendto(bytes(size), (SERVER, port))
    assert [_mark(receivers[port]) for port in (53, 99, 99)] == [1, 0, 2]
    for one in receivers.values():
        one.close()


def _marked(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVMARK, 1)
    made.bind((SERVER, port))
    made.settimeout(10)
    return made


def _mark(receiver: socket.socket) -> int:
    _, control, _, _ = receiver.recvmsg(2048, 64)
    found = [data for level, kind, data in control if (level, kind) == (socket.SOL_SOCKET, socket.SO_MARK)]
    return int(struct.unpack("=I", found[0])[0])


@pytest.mark.privileged
def test_a_socket_sees_what_its_filter_lets_it(programs: Cli, wire: Wire, bpffs: Path) -> None:  # noqa: F811
    place = bpffs / "dns-only"
    file = str(FOLDER / "socket_filter.bpf.c")
    done = programs("program", "load", file, "--hook", "socket", "--pin", str(place), "--json")
    assert done.record["hook"] == "socket"
    with Program.open(place / "socket_filter") as program, wire.server.inside():
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        packets.setsockopt(socket.SOL_SOCKET, SO_ATTACH_BPF, program.fd)
        packets.bind(("v1", 0))
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.setsockopt(socket.SOL_SOCKET, SO_ATTACH_BPF, program.fd)
        datagrams.bind((SERVER, 54))
    with packets, datagrams:
        with wire.client.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((CLIENT, 0))
            sender.sendto(b"hidden", (SERVER, 54))
            sender.sendto(b"hidden", (SERVER, 55))
            sender.sendto(b"d" * 500, (SERVER, 53))
        with wire.client.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((CLIENT, 53))
            sender.sendto(b"seen", (SERVER, 54))
        packets.settimeout(10)
        datagrams.settimeout(10)
        first, second = packets.recv(2048), packets.recv(2048)
        assert len(first) == 256
        assert second.endswith(b"seen")
        assert datagrams.recv(2048) == b"seen"
