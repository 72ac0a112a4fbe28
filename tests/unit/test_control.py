"""The daemon's sockets: who comes in, what they may ask, and what they may cost; check 43."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from penstock.control import client, protocol
from penstock.control.access import Access, Peer
from penstock.control.client import Connection, RefusedError, ask_if_there, connect
from penstock.control.server import Door, Limits, Server
from penstock.errors import DaemonError, PenstockError

PATIENCE_S = 20.0
NOBODY = 65534
#: What an unprivileged process does that has nothing of penstock's but the socket.
STRANGER = """\
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
try: s.sendall(sys.argv[2].encode() + b"\\n")
except BrokenPipeError: pass
sys.stdout.buffer.write(s.makefile("rb").readline())
"""


class Asking:
    """A server in a thread of its own, and what it was asked."""

    def __init__(self, directory: Path, access: Access, limits: Limits) -> None:
        self.requests: list[tuple[protocol.Asked | protocol.WithText, Peer]] = []
        self.slow = threading.Event()
        self.pinged = asyncio.Event()
        self._doors = (
            Door(directory / "control.sock", access, can_change=True, mode=0o666),
            Door(directory / "read.sock", Access(everybody=True), can_change=False, mode=0o666),
        )
        self._limits = limits
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        self.loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with Server(self._doors, self._answer, self._limits, self._at_once) as self.server:
            self._ready.set()
            await self._end.wait()

    def _at_once(self, request: protocol.Asked, _peer: Peer) -> object | None:
        match request:
            case protocol.SetRemove(entries=("refused",)):
                raise PenstockError("not this one")
            case protocol.SetRemove(entries=("broken",)):
                raise ZeroDivisionError
            case protocol.SetRemove(set="s"):
                return {"entries": request.entries}
            case _:
                return None

    async def _answer(self, request: protocol.Asked | protocol.WithText, peer: Peer) -> object:
        self.requests.append((request, peer))
        match request:
            case protocol.SetAdd(set="full"):
                raise PenstockError("@full is full", hint="a larger size")
            case protocol.Ping():
                self.pinged.set()
                return {"pid": os.getpid()}
            case protocol.SetFlush():
                await self.pinged.wait()
                return {"pings": True}
            case protocol.SetList():
                return {"text": 40 * "x" * (request.limit or 0)}
            case _:
                return {"pid": os.getpid()}

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


@contextmanager
def serving(directory: Path, access: Access | None = None, **limits: Any) -> Iterator[Asking]:
    directory.chmod(0o755)
    with (
        pytest.MonkeyPatch.context() as patch,
        Asking(directory, access or Access(), Limits(**limits)) as server,
    ):
        patch.setenv("PENSTOCK_RUN_DIR", str(directory))
        yield server


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can enter."""
    import shutil
    import tempfile

    made = Path(tempfile.mkdtemp())
    yield made
    shutil.rmtree(made)


def there(**options: Any) -> Connection:
    found = connect(**options)
    assert found is not None
    return found


def stranger(path: Path, request: str, *groups: int) -> dict[str, Any]:
    system = Path("/usr/bin/python3")
    python = str(system) if system.exists() else sys.executable
    done = subprocess.run(
        [python, "-ISc", STRANGER, str(path), request],
        capture_output=True,
        user=NOBODY,
        group=NOBODY,
        extra_groups=groups,
        timeout=PATIENCE_S,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_request_is_answered_and_an_error_keeps_its_hint_and_code(place: Path) -> None:
    with serving(place) as server, there() as daemon:
        assert daemon.ask("Ping") == {"pid": os.getpid()}
        with pytest.raises(RefusedError) as refused:
            daemon.ask("SetAdd", set="full", entries=["192.0.2.1"])
        assert (refused.value.message, refused.value.hint, refused.value.exit_code) == (
            "@full is full",
            "a larger size",
            1,
        )
        assert daemon.ask("SetAdd", set="s", entries=["192.0.2.1"], timeout=2.5)
        request, peer = server.requests[-1]
        assert request == protocol.SetAdd(
            set="s", entries=("192.0.2.1",), timeout=2.5, root=os.environ.get("PENSTOCK_BPFFS")
        )
        assert (peer.pid, peer.uid) == (os.getpid(), os.getuid())


def test_without_a_daemon_there_is_none_to_ask(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_RUN_DIR", str(place))
    assert connect() is None
    assert ask_if_there("Ping") is None
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(place / "control.sock"))
    assert connect() is None, "the socket that a killed daemon has left"


@pytest.mark.parametrize("name", ["there", "x" * 120])
def test_where_no_socket_can_be_the_daemon_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / "there").mkdir()

    async def served() -> None:
        async with Server([Door(tmp_path / name, Access(), can_change=True)], lambda *_: asyncio.sleep(0)):
            pass

    with pytest.raises(DaemonError, match=f"listen at .*{name}: "):
        asyncio.run(served())


def test_one_that_hangs_is_an_error_with_exit_code_5(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_RUN_DIR", str(place))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place / "control.sock"))
        listening.listen()
        with there(patience_s=0.1) as daemon, pytest.raises(DaemonError, match="does not answer") as error:
            daemon.ask("Ping")
    assert error.value.exit_code == 5


def test_one_that_takes_long_is_waited_for_while_it_lives(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_SILENCE_S", 0.05)
    with serving(place) as server, there() as daemon:
        assert daemon.ask("SetFlush", set="s") == {"pings": True}
        assert isinstance(server.requests[1][0], protocol.Ping)


def test_one_that_stands_still_is_not_waited_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_RUN_DIR", str(place))
    monkeypatch.setattr(client, "_SILENCE_S", 0.05)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place / "control.sock"))
        listening.listen()
        with there() as daemon, pytest.raises(DaemonError, match="does not answer") as error:
            daemon.ask("SetFlush", set="s")
    assert "may still do" in str(error.value.hint)


def test_what_answers_nonsense_is_no_daemon(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_RUN_DIR", str(place))
    for reply in (b"hello\n", b"{}\n", b"[]\n", b'{"error":{}}\n', b'{"ok":'):
        (place / "control.sock").unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(place / "control.sock"))
            listening.listen()
            with there() as daemon:
                accepted, _ = listening.accept()
                with accepted:
                    accepted.sendall(reply)
                    accepted.shutdown(socket.SHUT_WR)
                    with pytest.raises(DaemonError):
                        daemon.ask("Ping")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"ask":"Ping","penstock":2}', "was asked in version 2"),
        (b'{"ask":"Dance"}', "Dance"),
        (b'{"ask":"SetAdd","set":"s","entries":["a"],"force":true}', "force"),
        (b'{"ask":"SetAdd","set":"s","entries":"a"}', "Expected `array`"),
        (b"\xff\xfe", "does not understand"),
        (b"", "does not understand"),
        (b"[" * 500_000, "does not understand"),
        (b'{"ask":"Ping","x":' * 30_000, "does not understand"),
        (b'{"ask":"SetList","limit":-1}', "limit"),
        (b'{"ask":"SetList","limit":1000000000}', "limit"),
        (b'{"ask":"SetAdd","set":"s","entries":["a"],"timeout":-5}', "timeout"),
        (b'{"ask":"SetAdd","set":"s","entries":["a"],"timeout":1e12}', "timeout"),
    ],
    ids=lambda given: str(given)[:48],
)
def test_a_request_that_is_not_understood_is_refused(line: bytes, words: str) -> None:
    with pytest.raises(DaemonError, match=words):
        protocol.decode(line)


def test_a_later_version_is_told_to_be_one() -> None:
    with pytest.raises(DaemonError) as error:
        protocol.decode(b'{"ask":"Dance","penstock":7}')
    assert error.value.hint is not None
    assert "restart the daemon" in error.value.hint


@pytest.mark.privileged
@pytest.mark.check(43)
def test_check_43_an_unknown_user_is_refused_and_a_member_of_a_group_is_not(place: Path) -> None:
    add = '{"ask":"SetAdd","set":"s","entries":["192.0.2.1"]}'
    with serving(place, Access(groups=frozenset({4242}))) as server:
        refused = stranger(place / "control.sock", add)
        assert refused["error"]["exit"] == 5
        assert f"user {NOBODY} may not" in refused["error"]["message"]
        assert not server.requests
        assert "ok" in stranger(place / "control.sock", add, 4243, 4242)
        (_, peer) = server.requests[-1]
        assert peer.uid == NOBODY
        assert {4242, 4243, NOBODY} <= peer.groups
    with serving(place, Access(users=frozenset({NOBODY}))):
        assert "ok" in stranger(place / "control.sock", add)


@pytest.mark.privileged
@pytest.mark.check(43)
@pytest.mark.parametrize(
    "ask",
    [
        "SetAdd",
        "SetRemove",
        "SetWrite",
        "SetUpdate",
        "SetFlush",
        "SetSweep",
        "Reload",
        "Release",
        "FeedAdd",
        "FeedRemove",
        "FeedRefresh",
    ],
)
def test_check_43_who_may_read_may_not_change(place: Path, ask: str) -> None:
    fields: dict[str, dict[str, object]] = {
        "SetAdd": {"set": "s", "entries": ["a"]},
        "SetRemove": {"set": "s", "entries": ["a"]},
        "SetWrite": {"set": "s", "length": 1},
        "SetUpdate": {"set": "s", "length": 1, "first": 1},
        "SetFlush": {"set": "s"},
        "SetSweep": {"set": "s"},
        "FeedAdd": {"set": "s", "source": "tor-exits"},
        "FeedRemove": {"set": "s", "sources": ["tor-exits"]},
    }
    more = fields.get(ask, {"interface": "eth0", "netns": 1} if ask == "Release" else {})
    with serving(place) as server:
        refused = stranger(place / "read.sock", json.dumps({"ask": ask, **more}))
        assert refused["error"]["exit"] == 4
        assert not server.requests
        assert "ok" in stranger(place / "read.sock", '{"ask":"Ping"}')
        # Root too: the door decides, not only who comes in by it.
        with there(to_read=True) as daemon, pytest.raises(RefusedError, match="not permitted") as refusal:
            daemon.ask(ask, **more)
        # The remedy is the other socket: being root is none here.
        assert str(place / "control.sock") in str(refusal.value.hint)
        assert "access.groups" in str(refusal.value.hint)


@pytest.mark.check(43)
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_check_43_an_oversized_request_is_turned_away(place: Path, end: bytes) -> None:
    with serving(place, longest_request=4096) as server:
        with raw(place) as channel, pytest.raises(OSError):  # noqa: PT012, PT011
            channel.sendall(b'{"ask":"' + b"x" * 600_000 + end)
            channel.sendall(b"x" * 600_000)
            assert b"at most 4,096 bytes" in drained(channel)
            raise BrokenPipeError
        assert server.server.tally.turned_away["long request"] == 1
        assert server.server.held == 0
        assert_alive()


@pytest.mark.check(43)
def test_check_43_a_slow_client_is_turned_away(place: Path) -> None:
    with serving(place, patience_s=0.1, idle_s=0.3) as server:
        with raw(place) as half, raw(place) as greedy, raw(place) as silent:
            half.sendall(b'{"ask":"Pi')
            # Asks for megabytes and takes none of them.
            greedy.sendall(b'{"ask":"SetList","limit":100000}\n' * 3)
            assert b"waited too long" in drained(half)
            assert b"heard nothing" in drained(silent)
            assert len(drained(greedy)) < 12_000_000
        assert server.server.tally.turned_away["too slow"] == 2
        assert len([one for one, _ in server.requests]) == 1, (
            "the next is not looked at before the last is taken"
        )


@pytest.mark.check(43)
def test_check_43_a_thousand_connections_stay_bounded(place: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))
    with serving(place, connections=64, connections_of_user=48, held=1 << 20) as server:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with ExitStack() as opened:
            made = []
            for _ in range(1000):
                channel = opened.enter_context(raw(place, name="read.sock"))
                made.append(channel)
                with_rest(channel, b'{"ask":"' + b"x" * 30_000)
            wait_for(lambda: server.server.tally.turned_away.total() >= 1000 - 64)
            assert len(server.server.connections) <= 48
            assert server.server.held <= 1 << 20
            # The other door has room of its own.
            assert_alive()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 64 << 10, "KiB"
        wait_for(lambda: not server.server.connections)
        assert server.server.held == 0
        assert_alive()


@pytest.mark.check(43)
def test_check_43_a_storm_of_questions_is_answered_at_a_bounded_rate(place: Path) -> None:
    """So many answers a second and user, however many ask: the processor is bounded, and so is the memory."""
    with serving(place, reads_per_s=50.0) as server, ExitStack() as opened:
        made = [opened.enter_context(raw(place, name="read.sock")) for _ in range(20)]
        began = asyncio.run_coroutine_threadsafe(clock(), server.loop).result()
        for channel in made:
            with_rest(channel, b'{"ask":"Ping"}\n' * 500)
        wait_for(lambda: len(server.requests) >= 80)
        took = asyncio.run_coroutine_threadsafe(clock(), server.loop).result() - began
        # A second's worth at once, and then the rate.
        assert len(server.requests) <= 50 * (1 + took) + 20
        assert server.server.held <= 20 * 500 * 15
        assert_alive()


def test_what_is_asked_of_a_list_counts_for_what_it_costs() -> None:
    asked = [protocol.SetList(), protocol.SetList(set="s"), protocol.SetList(set="s", limit=100_000)]
    assert [protocol.weight(one) for one in asked] == [10, 11, 110]


def test_requests_in_one_piece_are_answered_in_order(place: Path) -> None:
    with serving(place) as server, raw(place) as channel:
        lines = [json.dumps({"ask": "SetList", "limit": number}) for number in range(1, 200)]
        channel.sendall("\n".join(lines).encode() + b"\n")
        channel.shutdown(socket.SHUT_WR)
        replies = [json.loads(line) for line in channel.makefile("rb")]
        assert [len(one["ok"]["text"]) for one in replies] == list(range(40, 8000, 40))
        assert len(server.requests) == 199


async def clock() -> float:
    return asyncio.get_running_loop().time()


@contextmanager
def raw(place: Path, name: str = "control.sock") -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(str(place / name))
        channel.settimeout(PATIENCE_S)
        yield channel


def with_rest(channel: socket.socket, data: bytes) -> None:
    """Send what goes; whoever was turned away already has nobody to send to."""
    channel.setblocking(False)
    try:
        channel.send(data)
    except OSError:
        return


def drained(channel: socket.socket) -> bytes:
    parts = []
    try:
        while part := channel.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def assert_alive() -> None:
    with there() as daemon:
        assert daemon.ask("Ping")


def wait_for(is_so: Any) -> None:
    import time

    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_is_answered_at_once_keeps_its_place(place: Path) -> None:
    """Among requests that wait, in one piece and byte by byte; a bug in between ends nothing."""
    asked = [
        {"ask": "Ping"} if number % 3 == 0 else {"ask": "SetRemove", "set": "s", "entries": [str(number)]}
        for number in range(50)
    ]
    asked += [{"ask": "SetRemove", "set": "s", "entries": [word]} for word in ("refused", "broken", "50")]
    lines = b"".join(json.dumps(one).encode() + b"\n" for one in asked)
    with serving(place) as server:
        for pieces in ([lines], [lines[at : at + 1] for at in range(len(lines))]):
            with raw(place) as channel:
                for piece in pieces:
                    channel.sendall(piece)
                channel.shutdown(socket.SHUT_WR)
                replies = [json.loads(line) for line in drained(channel).splitlines()]
            for number, reply in enumerate(replies[:50]):
                assert reply["ok"] == (
                    {"pid": os.getpid()} if number % 3 == 0 else {"entries": [str(number)]}
                )
            refused, broken, last = replies[50:]
            assert (refused["error"]["message"], broken["error"]["exit"]) == ("not this one", 70)
            assert last["ok"] == {"entries": ["50"]}
        changed = stranger(place / "read.sock", '{"ask":"SetRemove","set":"s","entries":["1"]}')
        assert changed["error"]["exit"] == 4, "not at the socket for reading"
        assert server.server.held == 0


def test_without_a_descriptor_to_accept_with_it_is_tried_again(place: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving(place), socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(PATIENCE_S)
        lowest = os.open(os.devnull, os.O_RDONLY)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            channel.connect(str(place / "control.sock"))
            channel.sendall(b'{"ask":"Ping"}\n')
            channel.settimeout(0.2)
            with pytest.raises(TimeoutError):
                channel.recv(1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        channel.settimeout(PATIENCE_S)
        assert b'"ok"' in channel.recv(1000)


def test_a_text_follows_its_request(place: Path) -> None:
    text = b"192.0.2.1\n" * 500_000
    with serving(place, longest_request=4096) as server, there() as daemon:
        for sent in (text, b"", b"x"):
            assert daemon.ask_with("SetWrite", sent, set="s", whole=True) == {"pid": os.getpid()}
            request, _ = server.requests[-1]
            assert isinstance(request, protocol.WithText)
            assert (request.text == sent, request.request.set, request.request.whole) == (True, "s", True)
        assert daemon.ask("Ping"), "the connection goes on"
        assert server.server.held == 0
        both = daemon.ask_with("SetUpdate", b"ab", set="s", first=1, names=["x", None])
        assert both == {"pid": os.getpid()}
        request, _ = server.requests[-1]
        asked = protocol.SetUpdate(
            set="s", length=2, first=1, names=("x", None), root=os.environ.get("PENSTOCK_BPFFS")
        )
        assert request == protocol.WithText(asked, b"ab")


@pytest.mark.check(43)
def test_check_43_texts_are_bounded_and_waited_for_no_longer_than_requests(place: Path) -> None:
    with serving(place, longest_text=100, texts=1, patience_s=0.3) as server:
        with there() as daemon, pytest.raises(DaemonError, match="at most 100 bytes"):
            daemon.ask_with("SetWrite", 101 * b"x", set="s")
        with raw(place) as slow, there() as daemon:
            slow.sendall(b'{"ask":"SetWrite","set":"s","length":50}\n' + 10 * b"x")
            assert slow.recv(100) == b'{"ok":{"send":50}}\n'
            assert daemon.ask_with("SetWrite", b"x", set="s"), "once it is its turn"
            assert b"waited too long" in drained(slow)
        with raw(place) as half:
            half.sendall(b'{"ask":"SetWrite","set":"s","length":50}\n' + 10 * b"x")
            half.shutdown(socket.SHUT_WR)
            assert b"has ended before its length" in drained(half)
        with there() as daemon:
            assert daemon.ask_with("SetWrite", b"x", set="s"), "the place is free again"
        assert sum(isinstance(one, protocol.WithText) for one, _ in server.requests) == 2
        assert server.server.held == 0
        assert not server.server.turns.locked()


def test_a_text_that_is_not_wanted_is_not_asked_for(place: Path) -> None:
    """One for the daemon of another directory, say: what `answer` says to a Ping counts before anything is sent."""

    async def refusing(_request: object, _peer: object) -> object:
        raise protocol.ElsewhereError("another directory")

    with serving(place) as server:
        server.server.answer = refusing
        assert ask_if_there("SetWrite", text=b"x", set="s") is None
