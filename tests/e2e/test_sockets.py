"""Filters on real sockets: packet, raw, UDP and TCP, eBPF and classic, in namespaces of their own."""

from __future__ import annotations

import os
import re
import shlex
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests import frames
from tests.e2e.conftest import Cli
from tests.netns import Namespace, veth

import penstock
from penstock.cli.build import command as build
from penstock.compiler.ir.evaluate import evaluate
from penstock.compiler.ir.ops import RuleSet
from penstock.errors import PenstockError, PolicyError, PrivilegeError
from penstock.model.packet import build_packet, parse_packet
from penstock.model.verdict import Verdict
from penstock.pipeline.policy import rule_set_of

pytestmark = pytest.mark.privileged

ROOT = Path(__file__).parents[2]
ALL = 0x0003  # ETH_P_ALL
DEADLINE_S = 10.0
PORT = 5300
both = pytest.mark.parametrize("classic", [False, True], ids=["ebpf", "classic"])


@pytest.fixture(scope="module")
def wire() -> Iterator[tuple[Namespace, Namespace]]:
    """Two namespaces, a frame sent from v0 in the first arrives at v1 in the second."""
    with Namespace("sockets") as left, Namespace("sockets") as right:
        veth(left, "v0", right, "v1")
        for number, namespace in enumerate((left, right), 1):
            name = f"v{number - 1}"
            for family in ("-4", "-6"):
                address = f"10.9.0.{number}/24" if family == "-4" else f"2001:db8:9::{number}/64"
                more = ("nodad",) if family == "-6" else ()
                namespace.ip(family, "address", "add", address, "dev", name, *more)
        yield left, right


def packet_socket(namespace: Namespace, name: str, kind: int = socket.SOCK_RAW) -> socket.socket:
    with namespace.inside():
        made = socket.socket(socket.AF_PACKET, kind, socket.htons(ALL))
        made.bind((name, ALL))
    made.settimeout(DEADLINE_S)
    return made


def udp(namespace: Namespace, address: str, port: int = PORT) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with namespace.inside():
        made = socket.socket(family, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
    made.settimeout(DEADLINE_S)
    return made


# ── packet sockets ───────────────────────────────────────────────────────────

MARK = build_packet(parse_packet('Ether(type=0x88b5)/Raw("the end of the list of frames, and nothing else")'))
POLICIES = (
    "default drop\n on malformed continue\n pass if udp port 53 or vlan 5 or ether proto 0x88b5",
    "on exthdr-limit pass\n drop if vlan and vlan.id < 100 and not arp\n drop if tcp or ip6 host 2001:db8::1",
    "on malformed drop\n on fragment drop\n drop if less 60 and not ether proto 0x88b5\n drop if ip[8] = 64 and ip",
    "drop if ether[12:2] = 0x8100 or ether[14:2] & 0xfff = 5 or ether src host 02:00:00:00:00:02\n drop if vlan 6",
)


def arriving() -> list[bytes]:
    """Frames that a network card may bring: a tag that is cut never comes up from the driver."""
    return [frame for frame in frames.frames() if 22 <= len(frame) <= 1514]


@both
@pytest.mark.parametrize("text", POLICIES)
def test_a_packet_socket_gets_what_the_reference_passes(
    wire: tuple[Namespace, Namespace], text: str, classic: bool
) -> None:
    left, right = wire
    text = f"filter f at socket {{\n {text}\n}}"
    rules = rule_set_of(text)
    sender, witness, filtered = (
        packet_socket(left, "v0"),
        packet_socket(right, "v1"),
        packet_socket(right, "v1"),
    )
    with closing(sender), closing(witness), closing(filtered):
        with penstock.attach_socket(filtered, text, classic=classic):
            sent = arriving()
            for frame in sent:
                compare(sender, witness, filtered, rules, frame)
        dropped = next(frame for frame in sent if evaluate(rules, frame).verdict is Verdict.DROP)
        sender.send(dropped)
        sender.send(MARK)
        while witness.recv(2000) != MARK:
            pass
        assert queued(filtered)[-2:] == [as_shown(dropped, filtered.type), MARK]


def compare(
    sender: socket.socket, witness: socket.socket, filtered: socket.socket, rules: RuleSet, frame: bytes
) -> None:
    """One frame; the socket that was opened last gets it first, so that what the witness has, it has had."""
    sender.send(frame)
    shown = as_shown(frame, witness.type)
    while witness.recv(2000) != shown:
        pass
    wanted = evaluate(rules, frame).verdict is Verdict.PASS
    assert (shown in queued(filtered)) == wanted, frame.hex()


def as_shown(frame: bytes, kind: int) -> bytes:
    """What a packet socket is given: the outermost tag is beside it, the link header perhaps gone."""
    tagged = frame[12:14] in (b"\x81\x00", b"\x88\xa8")
    shown = frame[:12] + frame[16:] if tagged else frame
    return shown if kind == socket.SOCK_RAW else shown[14:]


def queued(sock: socket.socket) -> list[bytes]:
    """Everything in the queue; the stack may have sent something of its own."""
    sock.setblocking(False)
    found = []
    while True:
        try:
            found.append(sock.recv(2000))
        except BlockingIOError:
            return found


@both
def test_a_cooked_packet_socket(wire: tuple[Namespace, Namespace], classic: bool) -> None:
    left, right = wire
    text = "filter f at socket { drop if udp port 53 or vlan 5 or arp\n drop if ether src host 02:00:00:00:00:02 }"
    rules = rule_set_of(text)
    kind = socket.SOCK_DGRAM
    sender, witness = packet_socket(left, "v0"), packet_socket(right, "v1", kind)
    filtered = packet_socket(right, "v1", kind)
    with closing(sender), closing(witness), closing(filtered):
        running = penstock.attach_socket(filtered, text, classic=classic)
        for frame in arriving():
            compare(sender, witness, filtered, rules, frame)
        running.close()


def test_what_was_queued_before_is_thrown_away(wire: tuple[Namespace, Namespace]) -> None:
    left, right = wire
    sender, late, kept = packet_socket(left, "v0"), packet_socket(right, "v1"), packet_socket(right, "v1")
    with closing(sender), closing(late), closing(kept):
        sender.send(MARK)
        while late.recv(2000, socket.MSG_PEEK) != MARK:
            late.recv(2000)
        with (
            penstock.attach_socket(late, "ether proto 0x88b5", classic=True),
            penstock.attach_socket(kept, "ether proto 0x88b5", classic=True, drain=False),
        ):
            assert late.gettimeout() == DEADLINE_S
            assert MARK in queued(kept)
            assert queued(late) == []
            sender.send(MARK)
            late.settimeout(DEADLINE_S)
            assert late.recv(2000) == MARK


# ── UDP ──────────────────────────────────────────────────────────────────────

LOCAL = {"127.0.0.1": "127.0.0.2", "2001:db8:9::2": "::1"}
HIDE = {
    "source": "drop if src host {other}",
    "port": "drop if udp src port 7777",
    "payload": "drop if udp[8:4] = 0x68696465",  # "hide"
    "network": "drop if ttl = 33",
    "address family": "drop if {family} and udp src port 7777",
}


@both
@pytest.mark.parametrize("address", LOCAL)
@pytest.mark.parametrize("rule", HIDE)
def test_udp(wire: tuple[Namespace, Namespace], rule: str, address: str, classic: bool) -> None:
    family = "ip6" if ":" in address else "ip"
    text = HIDE[rule].format(other=LOCAL[address], family=family)
    here, other = udp(wire[1], address), udp(wire[1], LOCAL[address], 7777)
    right = udp(wire[1], address, 0)
    level, option = (41, socket.IPV6_UNICAST_HOPS) if family == "ip6" else (0, socket.IP_TTL)
    other.setsockopt(level, option, 33)
    with closing(here), closing(other), closing(right):
        with penstock.attach_socket(here, f"filter f at socket {{ {text} }}", classic=classic):
            for data in (b"hide", b"hide me, and more of it"):
                other.sendto(data, (address, PORT))
            right.sendto(b"keep", (address, PORT))
            assert here.recv(100) == b"keep"
        other.sendto(b"hide", (address, PORT))
        assert here.recv(100) == b"hide"


@both
def test_what_one_socket_drops_another_gets(wire: tuple[Namespace, Namespace], classic: bool) -> None:
    """A broadcast goes to every socket of its port."""
    first, second = udp(wire[1], "", PORT + 1), udp(wire[1], "", PORT + 1)
    sender = udp(wire[1], "127.0.0.1", 0)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    with closing(first), closing(second), closing(sender):
        penstock.attach_socket(first, "not udp[8] = 1", classic=classic)
        sender.sendto(b"\x01", ("127.255.255.255", PORT + 1))
        sender.sendto(b"\x02", ("127.255.255.255", PORT + 1))
        assert first.recv(10) == b"\x02"
        assert (second.recv(10), second.recv(10)) == (b"\x01", b"\x02")


@both
@pytest.mark.parametrize(
    ("source", "address"), [("10.9.0.1", "10.9.0.2"), ("2001:db8:9::1", "2001:db8:9::2")]
)
def test_udp_meets_packets_put_together_again(
    wire: tuple[Namespace, Namespace], source: str, address: str, classic: bool
) -> None:
    """A packet socket sees the fragments, a UDP socket the whole."""
    left, right = wire
    here, sender, wiretap = udp(right, address), udp(left, source, 0), packet_socket(right, "v1")
    with closing(here), closing(sender), closing(wiretap):
        policy = (
            "filter f at socket { on malformed drop\n on fragment drop\n drop if frag or frag.offset > 0 }"
        )
        with (
            penstock.attach_socket(here, policy, classic=classic),
            penstock.attach_socket(wiretap, "frag.later", classic=classic),
        ):
            sender.sendto(bytes(4000), (address, PORT))
            assert len(here.recv(5000)) == 4000
            assert len(wiretap.recv(2000)) > 1000


# ── TCP and raw ──────────────────────────────────────────────────────────────


@both
@pytest.mark.parametrize(("address", "other"), [("127.0.0.1", "127.0.0.2"), ("2001:db8:9::2", "::1")])
def test_tcp(wire: tuple[Namespace, Namespace], address: str, other: str, classic: bool) -> None:
    """A listening socket that does not hear of an address, and whose children inherit that."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with wire[1].inside(), closing(socket.create_server((address, PORT), family=family)) as server:
        server.settimeout(DEADLINE_S)
        text = f"filter f at socket {{ drop if src host {other} and tcp dst port {PORT} }}"
        with penstock.attach_socket(server, text, classic=classic) as running:
            with closing(socket.create_connection((address, PORT), DEADLINE_S, (address, 0))) as allowed:
                accepted, _ = server.accept()
                with closing(accepted):
                    allowed.send(b"heard")
                    assert accepted.recv(10) == b"heard"
            with pytest.raises(TimeoutError):
                socket.create_connection((address, PORT), 0.3, (other, 0))
            if not classic:
                assert running.counters()["f:1"].packets > 0
            running.replace("filter f at socket { pass }")
            with closing(socket.create_connection((address, PORT), DEADLINE_S, (other, 0))):
                server.accept()[0].close()


@both
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_raw(wire: tuple[Namespace, Namespace], address: str, classic: bool) -> None:
    """A raw IPv4 socket is given the IP header, a raw IPv6 socket what follows it."""
    is_6 = ":" in address
    family, protocol = (
        (socket.AF_INET6, socket.IPPROTO_ICMPV6) if is_6 else (socket.AF_INET, socket.IPPROTO_ICMP)
    )
    text = f"icmp6[4:2] = 7 and ip6 host {address}" if is_6 else f"icmp[4:2] = 7 and ip host {address}"
    with wire[1].inside():
        sock = socket.socket(family, socket.SOCK_RAW, protocol)
    sock.settimeout(DEADLINE_S)
    with closing(sock), penstock.attach_socket(sock, text, classic=classic, drain=True):
        for number in (6, 7):
            echo = struct.pack("!BBHHH", 128 if is_6 else 8, 0, 0, number, 1)
            if not is_6:
                echo = echo[:2] + struct.pack("!H", 0xFFFF - sum(struct.unpack("!4H", echo))) + echo[4:]
            sock.sendto(echo, (address, 0))
        got = sock.recv(100)
        assert got[-4:-2] == b"\0\x07"


# ── the rest of the interface ────────────────────────────────────────────────


def test_counters_replace_and_close(wire: tuple[Namespace, Namespace]) -> None:
    here, other = udp(wire[1], "127.0.0.1"), udp(wire[1], "127.0.0.1", 0)
    policy = "filter f at socket {{ odd: drop if udp[8] & 1 = {} }}"
    with closing(here), closing(other):
        running = penstock.attach_socket(here, policy.format(1))
        for value in range(5):
            other.sendto(bytes([value]), ("127.0.0.1", PORT))
        assert [here.recv(1) for _ in range(3)] == [b"\0", b"\x02", b"\x04"]
        assert (running.counters()["odd"].packets, running.counters()["default"].packets) == (2, 3)
        with pytest.raises(PolicyError):
            running.replace("filter f at socket { drop if udp[ }")
        running.replace(policy.format(0))
        for value in range(3):
            other.sendto(bytes([value]), ("127.0.0.1", PORT))
        assert here.recv(1) == b"\x01"
        assert (running.counters()["odd"].packets, running.counters()["default"].packets) == (4, 4)
        running.close()
        running.close()
        other.sendto(b"\0", ("127.0.0.1", PORT))
        assert here.recv(1) == b"\0"
        with pytest.raises(PenstockError, match="has been taken off"):
            running.counters()


def test_classic_counts_nothing(wire: tuple[Namespace, Namespace]) -> None:
    with closing(udp(wire[1], "127.0.0.1")) as here:
        with penstock.attach_socket(here, "udp", classic=True) as running:
            assert running.is_classic
            with pytest.raises(PenstockError, match="counts nothing"):
                running.counters()
        with pytest.raises(PolicyError, match="classic BPF cannot say rule f:1"):
            penstock.attach_socket(here, "filter f at socket { count if tcp }", classic=True)


def test_a_socket_that_sees_no_packets() -> None:
    sees_none = pytest.raises(PenstockError, match=r"the unix datagram socket \d+ sees no packets")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock, sees_none:
        penstock.attach_socket(sock, "udp", classic=True)


def test_classic_needs_no_privilege(wire: tuple[Namespace, Namespace]) -> None:
    compiled = penstock.load_policy("filter f at socket { drop if udp }", "socket")
    with closing(udp(wire[1], "127.0.0.1")) as here, closing(udp(wire[1], "127.0.0.1", 0)) as other:
        penstock.attach_socket(here, "udp", classic=True).close()
        child = os.fork()
        if child == 0:
            os._exit(without_privilege(here, compiled))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        for data in (b"\x01", b"\x02"):
            other.sendto(data, ("127.0.0.1", PORT))
        assert here.recv(10) == b"\x02"


def without_privilege(sock: socket.socket, compiled: penstock.LoadedPolicy) -> int:
    """What a process of nobody can do: attach classic BPF, and be told so when it tries more; 0 if it is so."""
    os.setuid(65534)
    try:
        penstock.attach_socket(sock, compiled)
    except PrivilegeError as error:
        penstock.attach_socket(sock, "not udp[8] = 1", classic=True)
        return 0 if "classic=True" in str(error.hint) else 2
    return 1


def test_a_locked_filter_stays(wire: tuple[Namespace, Namespace]) -> None:
    with closing(udp(wire[1], "127.0.0.1")) as here:
        penstock.attach_socket(here, "udp", classic=True)
        here.setsockopt(socket.SOL_SOCKET, 44, 1)  # SO_LOCK_FILTER
        with pytest.raises(PenstockError, match=r"its filter is locked \(SO_LOCK_FILTER\)"):
            penstock.attach_socket(here, "tcp", classic=True)


# ── the command line and the example ─────────────────────────────────────────


@pytest.mark.parametrize("options", [(), ("--classic",)], ids=["ebpf", "classic"])
def test_the_example_prints_what_matches(wire: tuple[Namespace, Namespace], options: tuple[str, ...]) -> None:
    script = str(ROOT / "examples/socket_filter.py")
    argv = wire[1].command(sys.executable, script, "lo", "udp port 5353", "2", *options)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with (
        subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as running,
        closing(udp(wire[1], "127.0.0.1", 0)) as sender,
    ):
        assert running.stdout is not None
        assert running.stdout.readline() == "filtering\n"
        for port in (5354, 5353):
            sender.sendto(b"hello", ("127.0.0.1", port))
        lines = running.stdout.read().splitlines()
    assert running.returncode == 0
    assert [line.split()[:2] for line in lines[:2]] == [["out", "47"], ["in", "47"]]
    assert all("14e9" in line for line in lines[:2])
    assert any(line == "expression: 2 packets" for line in lines) == (not options)


def test_the_page_shows_what_works(cli: Cli) -> None:
    """The Python of docs/sockets.md runs, and so do its commands."""
    page = (ROOT / "docs/sockets.md").read_text()
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(code, "docs/sockets.md", "exec"), {})
    commands = re.findall(r"^\$ penstock (.*)$", page, re.MULTILINE)
    assert commands
    for command in commands:
        done = cli(*shlex.split(command))
        assert done.code == 0, done.err
    named = re.findall(r"^\| `(\w+)` \| (?!PS)", page, re.MULTILINE)
    choices = {option.name: option.type for option in build.params}
    assert named == [*choices["form"].choices, *choices["start"].choices]  # type: ignore[attr-defined]


def test_check_at_another_hook(cli: Cli, tmp_path: Path) -> None:
    policy = tmp_path / "edge.policy"
    policy.write_text("filter edge at xdp {\n    bounce if icmp\n    drop if ip.len > 1400\n}\n")
    done = cli("check", "--hook", "tc", str(policy))
    assert done.code == 1
    assert done.out.splitlines()[1:] == [
        "edge at tc ingress: 1 error, 1 warning",
        "edge at tc egress: 1 error, 1 warning",
    ]
    assert "error[PS118]: `bounce` is no action at tc ingress; xdp has it" in done.err
    assert "warning[PS252]" in done.err
    fine = cli("check", "--hook", "xdp", str(policy))
    assert (fine.code, fine.out.splitlines()[1]) == (0, "edge at xdp: the same")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--classic", "no/such.policy"), "there is no file no/such.policy"),
        (("--classic", "udp prot 53"), "`prot` is not a word that can stand here"),
        (("--as", "c", "udp"), "--as and --start say something of classic BPF only"),
        (("--classic", "--emit", "c", "udp"), "two different things"),
        (("--classic", "--start", "transport", "vlan 5"), "VLAN tags are gone"),
    ],
)
def test_classic_on_the_command_line_refuses(cli: Cli, arguments: tuple[str, ...], words: str) -> None:
    done = cli("build", *arguments)
    assert done.code == 1
    assert words in done.err


@both
@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("udp and outbound", [socket.PACKET_OUTGOING]),
        ("udp and inbound", [socket.PACKET_HOST]),
        ("udp and mark == 7 and outbound", [socket.PACKET_OUTGOING]),
        ("udp and ifindex == 1 and inbound", [socket.PACKET_HOST]),
        ("udp and mark == 8", []),
        ("udp and ifindex == 2", []),
    ],
)
def test_what_lies_beside_a_packet(
    wire: tuple[Namespace, Namespace], text: str, kinds: list[int], classic: bool
) -> None:
    sock, here, sender = packet_socket(wire[1], "lo"), udp(wire[1], "127.0.0.1"), udp(wire[1], "127.0.0.1", 0)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7)
    with closing(sock), closing(here), closing(sender), penstock.attach_socket(sock, text, classic=classic):
        sender.sendto(b"x", ("127.0.0.1", PORT))
        assert here.recv(10) == b"x"
        sock.setblocking(False)
        found = []
        while (got := _packet_kind(sock)) is not None:
            found.append(got)
    assert found == kinds


def _packet_kind(sock: socket.socket) -> int | None:
    try:
        return int(sock.recvfrom(2000)[1][2])
    except BlockingIOError:
        return None
