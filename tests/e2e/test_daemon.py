"""`penstock daemon`: what the settings say is in place, whatever happens to it, to the interfaces and to the daemon."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from tests.e2e.conftest import CLIENT, MARKER, Cli, Wire, counters
from tests.e2e.daemons import Daemon, wait_until
from tests.e2e.killing import killed
from tests.e2e.test_json_page import assert_documented

from penstock.errors import PenstockError
from penstock.kernel import netns
from penstock.kernel.attach_point import attach_point
from penstock.kernel.bpf_object import load_object
from penstock.kernel.link import Link
from penstock.kernel.lock import lock
from penstock.kernel.program import Program
from penstock.model.spec import PROGRAM
from penstock.pipeline.policy import load_policy
from penstock.pipeline.running import Watch

pytestmark = pytest.mark.privileged

#: A user without privilege, who may read this tree.
NOBODY = (
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=-all,+dac_read_search",
    "--bounding-set=-all,+dac_read_search",
)
EDGE = "filter edge at xdp {{\n dns: drop if udp dst port {port}\n}}\n"


@pytest.fixture
def daemon(tmp_path: Path, wire: Wire, root: Path) -> Iterator[Daemon]:
    """A daemon of the server's namespace, not started yet, with v1.policy for its v1."""
    made = Daemon(tmp_path, root, tuple(wire.server.command()))
    made.policy("v1.policy", EDGE.format(port=53))
    yield made
    if made.process is not None and made.process.poll() is None:
        made.stop()


@pytest.fixture
def host(daemon: Daemon, wire: Wire) -> Iterator[Cli]:
    """The command line beside the daemon; what was left attached is taken off at the end."""
    made = Cli(daemon.environment, tuple(wire.server.command()))
    yield made
    if daemon.process is not None and daemon.process.poll() is None:
        daemon.stop()
    for one in json.loads(made("status", "--json").out).get("filters", []):
        made("detach", "-i", one["interface"])


def program(host: Cli) -> int:
    (one,) = host("status", "--json").record["filters"]
    found: int = one["program_id"]
    return found


@contextmanager
def flow(wire: Wire, *ports: int) -> Iterator[list[tuple[int, ...]]]:
    """Datagrams to these ports without a pause while the block lasts: how many of each five arrive."""
    bursts: list[tuple[int, ...]] = []
    over = threading.Event()

    def send() -> None:
        while not over.is_set():
            bursts.append(tuple(wire.arrived(port) for port in ports))

    with ThreadPoolExecutor(1) as sending:
        sent = sending.submit(send)
        try:
            yield bursts
        finally:
            over.set()
        sent.result()


@pytest.mark.check(23)
def test_check_23_a_killed_daemon_filters_on_and_the_next_one_takes_over(
    wire: Wire, daemon: Daemon, host: Cli
) -> None:
    daemon.start()
    assert daemon.filters() == [("v1", "edge", "in place")]
    before = program(host)
    with flow(wire, 53, 80) as bursts:

        def goes_on() -> None:
            count = len(bursts)
            wait_until(lambda: len(bursts) >= count + 20)

        goes_on()
        daemon.kill()
        goes_on()
        daemon.start()
        goes_on()
    assert set(bursts) == {(0, 5)}
    assert daemon.filters() == [("v1", "edge", "in place")]
    assert program(host) == before
    assert "taken over as it is" in daemon.said()
    assert "did not end as it should" in daemon.said()
    assert counters(host("status", "--json"))["dns"] == 5 * len(bursts)
    assert daemon.stop() == 0
    assert program(host) == before
    assert wire.arrived(53) == 0


def test_a_file_that_changes_is_put_in_place_and_one_with_a_fault_is_not(
    wire: Wire, daemon: Daemon, host: Cli
) -> None:
    with daemon:
        assert wire.arrived(53) == 0
        daemon.policy("v1.policy", EDGE.format(port=54))
        daemon.waits_for("(edge was there)")
        assert (wire.arrived(53), wire.arrived(54)) == (5, 0)
        before = program(host)
        daemon.policy("v1.policy", "filter edge at xdp { drop if udp dst prot 55 }\n")
        daemon.waits_for("runs on")
        (alarm,) = daemon.ask("Status")["alarms"]
        assert "v1.policy:1:" in alarm["message"]
        assert (program(host), wire.arrived(54)) == (before, 0)
        done = host("daemon", "status")
        assert (done.code, "v1.policy:1:" in done.out) == (3, True)
        daemon.policy("v1.policy", EDGE.format(port=54))
        wait_until(lambda: not daemon.ask("Status")["alarms"])
        assert program(host) == before
        daemon.policy("v2.policy", "filter")
        wait_until(lambda: bool(daemon.ask("Status")["alarms"]))
        (daemon.etc / "v2.policy").unlink()
        wait_until(lambda: not daemon.ask("Status")["alarms"])
        (daemon.etc / "v1.policy").unlink()
        daemon.waits_for("no policy is for it any more")
        assert wire.arrived(54) == 5


def test_a_change_that_is_being_made_is_not_taken_for_a_strangers(
    wire: Wire, host: Cli, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the link and its pins `apply` holds the lock: whoever looks then waits for it."""
    monkeypatch.setenv("PENSTOCK_BPFFS", str(root))
    (tmp_path / "edge.policy").write_text(EDGE.format(port=53))
    assert host("apply", str(tmp_path / "edge.policy"), "-i", "v1").code == 0
    with ExitStack() as held, wire.server.inside():
        name = attach_point("v1").name
        own = held.enter_context(Program.by_id(program(host)))
        link = held.enter_context(Link.open(root / name / "link"))
        built = load_policy(EDGE.format(port=54)).elf
        other = held.enter_context(load_object(built, "other")).programs[PROGRAM]
        looker = held.enter_context(
            ThreadPoolExecutor(1, initializer=netns.enter, initargs=(str(wire.server.path),))
        )
        with lock(name):
            link.update(other, expected_old=own)
            looking = looker.submit(Watch().running)
            with pytest.raises(TimeoutError):
                looking.result(0.3)
            link.update(own, expected_old=other)
        (found,) = looking.result(10)
    assert found.is_current


def test_reloads_leave_nothing_behind(daemon: Daemon, host: Cli, tmp_path: Path, root: Path) -> None:
    """Descriptors and pins are after many reloads what they were after a few: nothing else keeps a program or a map."""
    (daemon.etc / "v1.policy").unlink()
    text = "set bad : host size 9\nset nets : net as flat\nfilter edge at xdp {{ drop if src in @bad or src in @nets\n"
    text += "  drop if udp and over {rate}/s per src }}\n"
    for rate in (1, 2):
        (tmp_path / "edge.policy").write_text(text.format(rate=rate))
        built = str(tmp_path / f"{rate}.pso")
        assert host("build", str(tmp_path / "edge.policy"), "-o", built).code == 0

    def reload(number: int) -> None:
        daemon.built("v1.pso", (tmp_path / f"{1 + number % 2}.pso").read_bytes())
        daemon.ask("Reload")
        daemon.ask("SetAdd", set="bad", entries=[f"192.0.2.{number}"])
        daemon.ask("SetAdd", set="nets", entries=[f"198.51.{number}.0/24"])
        daemon.ask("SetRemove", set="bad", entries=[f"192.0.2.{number}"])
        daemon.ask("SetRemove", set="nets", entries=[f"198.51.{number}.0/24"])

    with daemon:
        for number in range(4):
            reload(number)
        before = program(host), held(daemon), pinned(root)
        for number in range(4, 24):
            reload(number)
        assert program(host) != before[0]
        assert (held(daemon), pinned(root)) == before[1:]
    host("detach", "-i", "v1")


def held(daemon: Daemon) -> Counter[str]:
    """How many descriptors of each kind the daemon has, connections apart, which come and go."""
    assert daemon.process is not None
    found: Counter[str] = Counter()
    for one in Path(f"/proc/{daemon.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            name = one.readlink().name
            found["socket" if name.startswith("socket:") else name] += 1
    del found["socket"]
    return found


def pinned(root: Path) -> int:
    """How many pins there are, of policies and of sets."""
    return sum(len(files) for top in root.parent.glob(f"{root.name}*") for _, _, files in os.walk(top))


def test_what_commands_put_there_or_take_off_is_left_until_a_reload(
    wire: Wire, daemon: Daemon, host: Cli, tmp_path: Path
) -> None:
    with daemon:
        other = tmp_path / "other.policy"
        other.write_text(EDGE.format(port=60))
        done = host("apply", str(other), "-i", "v1")
        assert (done.code, "the daemon has v1.policy for this place" in done.err) == (0, True), done
        daemon.waits_for("was put in place by hand")
        assert [state for *_, state in daemon.filters()] == ["left"]
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: daemon.filters() == [("v1", "edge", "in place")], daemon.said)
        host("apply", str(other), "-i", "v1")
        done = host("daemon", "reload")
        assert (done.code, "in place" in done.out) == (0, True), done
        done = host("detach", "-i", "v1")
        assert "before `penstock daemon reload`" in done.err
        wait_until(lambda: [state for *_, state in daemon.filters()] == ["left"], daemon.said)
        assert wire.arrived(53) == 5
        assert "taken off by a command" in host("daemon", "status").out
        daemon.kill()
        daemon.start()
        wait_until(lambda: [state for *_, state in daemon.filters()] == ["left"], daemon.said)
        assert wire.arrived(53) == 5
        assert host("daemon", "reload").code == 0
        assert wire.arrived(53) == 0
        done = host("daemon", "--no-fetch")
        assert (done.code, f"process {daemon.process.pid}" in done.err) == (1, True), "there is one already"


def test_sets_are_changed_through_the_daemon(wire: Wire, daemon: Daemon, host: Cli) -> None:
    daemon.policy(
        "v1.policy",
        "set banned : host size 4\nfilter edge at xdp { drop if udp dst port 7000 and src in @banned }\n",
    )
    with daemon:
        done = host("set", "add", "banned", "10.9.0.1", "--json")
        assert done.record == {
            "schema": "penstock.set.change/1",
            "set": "banned",
            "added": 1,
            "changed": 0,
            "removed": 0,
            "entries": 1,
        }
        assert wire.arrived(7000) == 0
        (held,) = daemon.ask("Why", to_read=True, address="10.9.0.1")["held"]
        assert (held["set"], held["is_in"], held["reasons"][0]["source"]) == ("banned", True, "manual")
        refused = host("set", "add", "banned", *(f"10.0.0.{number}" for number in range(9)))
        assert (refused.code, "is full" in refused.err) == (1, True)
        assert ["is full" in one["message"] for one in daemon.ask("Status")["alarms"]] == [True]
        assert host("set", "add", "bannd", "10.9.0.1").err.count("there is no set `bannd`") == 1
        assert daemon.ask("Why", to_read=True, address="10.9.0.1")["held"][0]["reasons"][0]["by"] == "root"
        assert host("set", "remove", "banned", "10.9.0.1").code == 0
        assert wire.arrived(7000) == 5
        assert daemon.ask("Status")["alarms"] == []
        (listed,) = daemon.ask("SetList", to_read=True)["sets"]
        assert (listed["set"], listed["entries"], listed["size"]) == ("banned", 0, 4)
        requests = daemon.ask("Status")["requests"]
        assert requests > 4, "the commands went to the daemon"
        daemon.stop()
        assert host("set", "add", "banned", "10.9.0.1").code == 0, "and without one they do it themselves"
        host("detach", "-i", "v1")
        host("set", "delete", "banned")


def test_who_may_not_touch_the_kernel_reads_and_writes_sets_through_the_daemon(
    wire: Wire, daemon: Daemon, host: Cli
) -> None:
    daemon.policy(
        "v1.policy",
        "set banned : host size 5000 counters\nfilter edge at xdp { drop if udp dst port 7000 and src in @banned }\n",
    )
    daemon.settings("check_s = 0.1\n[access]\nusers = [65534]\n")
    bare = Cli(host.environment, (*host.prefix, *NOBODY))
    lines = [f"10.8.{number // 256}.{number % 256}" for number in range(3000)]
    with daemon:
        assert host("set", "add", "banned", "10.9.0.1").code == 0
        done = bare("set", "import", "banned", "-", "--comment", "INC-1", stdin="\n".join(lines))
        assert done.err == "@banned: 3,000 added\n"
        assert bare("set", "export", "banned").out == host("set", "export", "banned").out
        assert bare("set", "list", "banned", "--json").out == host("set", "list", "banned", "--json").out
        assert bare("set", "info", "banned", "--json").record["entries"] == 3001
        assert "size 5k counters" in bare("set", "info", "banned").out
        assert "3,001" in bare("set", "list").out
        assert bare("set", "info", "other").code == 1
        done = bare("set", "replace", "banned", "-", stdin="10.9.0.1\n10.9.0.2\n")
        assert done.err == "@banned: 1 added, 3,000 removed\n"
        refused = bare("set", "replace", "banned", "-", stdin="10.9.0.1\nnonsense\n")
        assert (refused.code, "-:2: `nonsense` is no address" in refused.err) == (1, True)
        assert wire.arrived(7000) == 0
        come = daemon.place / "come"
        come.write_text("# new\n10.9.0.3 timeout 5m\n")
        requests = daemon.ask("Status")["requests"]
        for commands, told in ((bare, "1 added, 1 removed"), (host, "1 changed")):
            done = commands(
                "set", "update", "banned", "--add", str(come), "--remove", "-", stdin="10.9.0.2\n"
            )
            assert done.err == f"@banned: {told}\n"
        (reason,) = daemon.ask("Why", address="10.9.0.3")["held"][0]["reasons"]
        assert (reason["by"], reason["source"], 200 < reason["left_s"] <= 300) == (
            "root",
            f"import {come}",
            True,
        )
        come.write_text("10.9.0.3\n10.9.0.3/8\n")
        refused = host("set", "update", "banned", "--add", str(come))
        assert (refused.code, f"{come}:2: `10.9.0.3/8`" in refused.err) == (1, True)
        assert host("set", "import", "banned", str(come / "x")).err.startswith(f"error: read {come}/x: ")
        assert daemon.ask("Status")["requests"] == requests + 5, "root's commands go to the daemon, too"
        assert bare("set", "flush", "banned").err == "@banned: 2 removed\n"
        assert wire.arrived(7000) == 5
    assert bare("set", "flush", "banned").code == 4, "without a daemon there is nobody to ask"
    host("detach", "-i", "v1")
    host("set", "delete", "banned")


def test_who_may_not_touch_the_kernel_asks_the_daemon_what_is_in_place(
    wire: Wire, daemon: Daemon, host: Cli, tmp_path: Path
) -> None:
    daemon.policy(
        "v1.policy",
        "set banned : net\nset short : host timeout 1s\n"
        "filter edge at xdp {\n dns: drop if udp dst port 53\n"
        " trap: drop if tcp and over 5/s per src\n drop if src in @banned or src in @short\n}\n",
    )
    daemon.settings("check_s = 0.1\nsweep_s = 3600\n")
    bare = Cli(host.environment, (*host.prefix, *NOBODY))
    with daemon:
        assert host("set", "add", "banned", "10.8.0.0/16").code == 0
        assert wire.arrived(53) == 0
        told = [
            {key: value for key, value in command("status", "--json").record.items() if key != "daemon"}
            for command in (bare, host)
        ]
        for one in told:
            # The default counts what the network itself says at any time.
            (dns,) = [row for row in one["filters"][0].pop("counters") if row["name"] == "dns"]
            assert dns["packets"] == 5
        assert told[0] == told[1]
        assert (bare("status").code, "dns" in bare("status", "-i", "v1").out) == (0, True)
        assert bare("status").out.splitlines()[:2] == host("status").out.splitlines()[:2]
        assert bare("status", "-i", "v9").code == 3
        for command in (bare, host):
            asked = daemon.ask("Status")["requests"]
            done = command("set", "test", "banned", "10.8.1.1", "10.9.0.1")
            assert (done.code, done.out) == (1, "10.8.1.1 is in @banned\n10.9.0.1 is not in @banned\n")
            assert command("set", "test", "@banned", "10.8.0.0/17", "--json").record["is_in"] is True
            refused = command("set", "test", "banned", "nonsense")
            assert (refused.code, "a set of net" in refused.err) == (1, True)
            assert daemon.ask("Status")["requests"] == asked + 4
        assert bare("set", "sweep", "short").code == 4, "it may ask, and no more"
        daemon.ask("SetAdd", set="short", entries=["10.8.0.1"], timeout=0.01)
        wait_until(lambda: host("set", "test", "short", "10.8.0.1").code == 1)
        assert host("set", "sweep", "short").err == "@short: 1 removed\n"
    assert bare("status").code == 4, "without a daemon there is nobody to ask"
    host("detach", "-i", "v1")
    host("set", "delete", "banned")
    host("set", "delete", "short")


def test_systemd_hears_of_it_and_the_records_are_as_documented(
    daemon: Daemon, host: Cli, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        daemon.environment |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        with daemon:
            heard: list[bytes] = []
            while sum(b"WATCHDOG=1" in one for one in heard) < 2:
                heard.append(manager.recv(1000))
            assert b"READY=1\nSTATUS=1 of 1 filters in place" in heard
            assert_documented((host, ("daemon", "status")), (host, ("daemon", "reload")))
            told = host("daemon", "status", "--json").record
            assert told.keys() - {"schema"} == host("status", "--json").record["daemon"].keys()
            while b"RELOADING=1" not in b"".join(heard):
                heard.append(manager.recv(1000))
        while b"STOPPING=1" not in b"".join(heard):
            heard.append(manager.recv(1000))


def test_without_a_daemon_its_commands_end_with_5(host: Cli) -> None:
    for words in ("status", "reload"):
        done = host("daemon", words)
        assert (done.code, "no daemon answers" in done.err) == (5, True)


@pytest.mark.check(18)
def test_check_18_interfaces_that_go_come_and_are_renamed(wire: Wire, daemon: Daemon, host: Cli) -> None:
    daemon.settings('check_s = 0.1\n[policy."v1.policy"]\ninterfaces = ["v1", "wan*"]\n')
    server = wire.server
    with daemon:
        before = program(host)
        server.ip("link", "set", "v1", "down")
        server.ip("link", "set", "v1", "name", "wan7")
        server.ip("link", "set", "wan7", "up")
        now = [("wan7", "edge", "in place"), ("v1", "edge", "waiting")]
        wait_until(lambda: daemon.filters() == now, daemon.said)
        assert "v1 at xdp: edge of v1.policy, waiting for interface v1\n" in host("daemon", "status").out
        assert program(host) == before, "it is the same interface"
        server.ip("link", "set", "wan7", "name", "other")
        daemon.waits_for("wan7 is called other now; its filter runs on there")
        assert program(host) == before
        server.ip("link", "delete", "other")
        nowhere = [("v1", "edge", "waiting"), ("wan*", "edge", "waiting")]
        wait_until(lambda: daemon.filters() == nowhere, daemon.said)
        server.ip("link", "add", "v1", "type", "veth", "peer", "name", "v2")
        wait_until(lambda: daemon.filters() == [("v1", "edge", "in place")], daemon.said)
        server.ip("link", "delete", "v1")
        wait_until(lambda: daemon.filters() == nowhere, daemon.said)
        server.ip("link", "add", "v1", "type", "veth", "peer", "name", "v2")
        wait_until(lambda: daemon.filters() == [("v1", "edge", "in place")], daemon.said)
        host("detach", "-i", "other")


def test_what_somebody_takes_off_is_put_back_and_not_for_ever_at_once(
    wire: Wire, daemon: Daemon, host: Cli, root: Path
) -> None:
    with daemon:
        for number in (1, 2):
            subprocess.run(["bpftool", "link", "detach", "pinned", str(link_of(root))], check=True)
            daemon.waits_for("(somebody has taken it off)", number)
            assert wire.arrived(53) == 0
        assert "next time not within 1 s" in daemon.said()
        assert "next time not within 2 s" in daemon.said()


def test_a_set_that_is_taken_away_under_a_program_is_made_anew(
    wire: Wire, daemon: Daemon, host: Cli, root: Path
) -> None:
    rule = "drop if udp dst port 8000 and src in @banned"
    daemon.policy("v1.policy", f"set banned : host\nfilter edge at xdp {{\n {rule}\n}}\n")
    with daemon:
        assert host("set", "delete", "banned", "--force").code == 0
        daemon.waits_for(
            "(@banned was taken away or made anew under it, and what is changed there does not reach it)"
        )
        wait_until(lambda: host("set", "add", "banned", CLIENT).code == 0)
        assert (wire.arrived(8000), daemon.filters()) == (0, [("v1", "edge", "in place")])
    host("detach", "-i", "v1")
    host("set", "delete", "banned")


def link_of(root: Path) -> Path:
    (found,) = root.glob("v1@*/link")
    return found


def test_a_policy_on_probation_is_not_taken_over(
    wire: Wire, daemon: Daemon, host: Cli, tmp_path: Path
) -> None:
    """What is on probation is nobody's yet; when its time is over the daemon puts back what was there."""
    with daemon:
        before = program(host)
        other = tmp_path / "other.policy"
        other.write_text(EDGE.format(port=60))
        host("apply", str(other), "-i", "v1", "--confirm", "50s")
        daemon.waits_for("is on probation there")
        assert [state for *_, state in daemon.filters()] == ["left"]
        assert host("confirm", "--undo").code == 0
        wait_until(lambda: daemon.filters() == [("v1", "edge", "in place")])
        assert program(host) == before


def test_nobody_is_locked_out_by_a_daemon(wire: Wire, daemon: Daemon, host: Cli) -> None:
    wire.server.ip("route", "add", "default", "via", "10.9.0.1")
    with daemon:
        before = program(host)
        daemon.policy("v1.policy", "filter edge at xdp { default drop }\n")
        daemon.waits_for("would cut off")
        assert program(host) == before
        # Between two attempts it is "waiting", and the reason is still told.
        wait_until(lambda: [state for *_, state in daemon.filters()] == ["old"], daemon.said)
        wait_until(lambda: [state for *_, state in daemon.filters()] == ["waiting"], daemon.said)
        shown = next(line for line in host("daemon", "status").out.splitlines() if "v1 at xdp: edge" in line)
        assert "waiting: the last try failed: " in shown
        assert "would cut off" in shown
        daemon.settings('check_s = 0.1\n[policy."v1.policy"]\nforce = true\n')
        wait_until(lambda: daemon.filters() == [("v1", "edge", "in place")], daemon.said)


def test_after_an_error_at_boot_the_settings_say_whether_packets_pass(
    wire: Wire, daemon: Daemon, host: Cli
) -> None:
    """Open with an alarm by default; closed drops all but lifelines; and what runs is kept in any case."""
    wire.server.ip("route", "add", "default", "via", "10.9.0.1")
    daemon.policy("v1.policy", "filter edge at xdp { drop if udp dst prot 53 }\n")
    with daemon:
        assert [state for *_, state in daemon.filters()] == ["open"]
        assert "nothing filters there" in daemon.said()
        assert wire.arrived(80) == 5
        found = host("status", "--json").record
        assert found["daemon"]["alarms"]
        load = next(one for one in found["failures"] if one["event"] == "load")
        assert (load["count"] > 0, load["decided_by"]) == (True, "failure.load = open")
        daemon.settings(f'check_s = 0.1\n[failure]\nload = "closed"\nreachable = ["udp dst port {MARKER}"]\n')
        wait_until(lambda: [state for *_, state in daemon.filters()] == ["closed"], daemon.said)
        assert wire.arrived(80) == 0
        wire.server.ip("neigh", "flush", "dev", "v1")
        wire.client.run("ping", "-c1", "-W1", "10.9.0.2", check=False)
        assert "lladdr" in wire.client.ip("neigh", "show", "10.9.0.2"), "address resolution is a lifeline"
        daemon.stop()
        daemon.start()
        assert [state for *_, state in daemon.filters()] == ["closed"]
        daemon.policy("v1.policy", EDGE.format(port=53))
        wait_until(lambda: daemon.filters() == [("v1", "edge", "in place")], daemon.said)
        assert (wire.arrived(80), wire.arrived(53)) == (5, 0)


def test_feeds_are_fetched_without_capabilities_and_come_into_their_sets(
    wire: Wire, daemon: Daemon, host: Cli, tmp_path: Path
) -> None:
    """The fetcher is a child without any capability; what it brings is folded; a killed one is started again."""
    listed = tmp_path / "list.txt"
    listed.write_text("198.51.100.7\n198.51.100.8\n")
    daemon.policy("v1.policy", "set bad : net size 100\nfilter edge at xdp { drop if src in @bad }\n")
    daemon.start(fetches=True)
    assert host("feed", "add", "bad", str(listed), "--every", "10m").code == 0
    daemon.waits_for("begins, process")
    wait_until(lambda: bool(fetcher(daemon)), daemon.said)
    number = fetcher(daemon)
    wait_until(lambda: "198.51.100.8" in host("set", "list", "bad").out, daemon.said)
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{number}/status").read_text().splitlines()
        if ":\t" in line
    )
    assert {status[key].strip("0") for key in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {""}
    assert status["NoNewPrivs"] == "1"
    os.kill(number, signal.SIGKILL)
    wait_until(lambda: fetcher(daemon) not in (None, number), daemon.said)
    number = fetcher(daemon)
    daemon.kill()
    wait_until(lambda: not Path(f"/proc/{number}").exists())
    host("detach", "-i", "v1")
    host("set", "delete", "bad")


def test_who_may_change_sets_has_the_daemon_fill_them_from_feeds(
    wire: Wire, daemon: Daemon, host: Cli, tmp_path: Path
) -> None:
    """By URLs and presets: what files and commands of the daemon's list is for root to say."""
    daemon.policy("v1.policy", "set bad : net size 100\nfilter edge at xdp { drop if src in @bad }\n")
    daemon.settings("check_s = 600\n[access]\nusers = [65534]\n")
    bare = Cli(host.environment, (*host.prefix, *NOBODY))
    asked: list[str] = []
    with daemon, listing(wire, "198.51.100.7\n198.51.100.8\n", asked) as url:
        for source in ("exec:id", "/etc/hosts"):
            refused = bare("feed", "add", "bad", source)
            assert (refused.code, "may not have the daemon use it" in refused.err) == (1, True)
        refused = bare("feed", "add", "bad", "tor-exits", "--every", "1s")
        assert (refused.code, "may be asked every 30m at most" in refused.err) == (1, True)
        for source in ("https://[::1", "https://", "", "hosts", "/x\ny", 'exec:"'):
            with pytest.raises(PenstockError) as error:
                daemon.ask("FeedAdd", set="bad", source=source)
            assert error.value.exit_code == 1
        with pytest.raises(PenstockError, match="there is no set"):
            daemon.ask("SetAdd", set="b\0d", entries=["192.0.2.1"])
        assert host("feed", "list", "--json").out == ""
        refused = bare("set", "add", "bad", "\udc80")
        assert (refused.code, "is not UTF-8 text" in refused.err) == (1, True)
        # Of what is called nothing but signs, too.
        assert host("feed", "add", "bad", "/.").code == 0
        assert host("feed", "remove", "bad", "/.").code == 0
        done = bare("feed", "add", "bad", url, "--json")
        name = done.record["feed"]
        assert done.record == {"schema": "penstock.feed.add/1", "set": "bad", "feed": name, "entries": None}
        assert bare("feed", "list", "--json").record["owner"] == "command"
        done = bare("feed", "refresh", "bad")
        assert (done.code, done.err) == (0, f"{name}: 2 entries\n@bad: 2 added\n")
        assert "198.51.100.8" in host("set", "list", "bad").out
        again = bare("feed", "refresh", "--json")
        fetched, folded = (json.loads(line) for line in again.out.splitlines())
        assert (again.code, "not asked" in fetched["reason"], folded["added"]) == (0, True, 0)
        assert host("feed", "refresh", "--json").out.count("\n") == 2
        assert asked == ["/list"]
        assert "no set wants a feed `other`" in bare("feed", "refresh", "other").err
        assert bare("feed", "remove", "bad", "other").code == 1
        assert bare("feed", "remove", "bad", url).err == f"@bad: {name} fills it no more\n@bad: 2 removed\n"
        assert host("set", "list", "bad").out == ""
    host("detach", "-i", "v1")
    host("set", "delete", "bad")


@contextmanager
def listing(wire: Wire, text: str, asked: list[str]) -> Iterator[str]:
    """A server in the server's namespace that has one list; gives its URL, and notes what it was asked for."""

    class Listing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with wire.server.inside():
        server = ThreadingHTTPServer(("127.0.0.1", 0), Listing)
    with server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/list"
        finally:
            server.shutdown()
            thread.join()


def fetcher(daemon: Daemon) -> int | None:
    found: int | None = daemon.ask("Status")["fetcher"]["pid"]
    return found


def test_after_a_reboot_sets_hold_what_they_held(wire: Wire, daemon: Daemon, host: Cli) -> None:
    """A reboot takes pins and leaves files: the daemon puts policies in place and entries into their sets."""
    daemon.policy("v1.policy", "set banned : host size 9\nfilter edge at xdp { drop if src in @banned }\n")
    with daemon:
        host("set", "add", "banned", "192.0.2.1", "--comment", "INC-4711")
        host("set", "add", "banned", "192.0.2.2", "--timeout", "1h")
    host("detach", "-i", "v1")
    sets = daemon.root.with_name(daemon.root.name + "-sets") / "banned"
    for name in sets.iterdir():
        name.unlink()
    sets.rmdir()
    with daemon:
        entries = {
            one["entry"]: one["expires_in_s"] for one in daemon.ask("SetList", set="banned")["entries"]
        }
        assert entries["192.0.2.1"] is None
        assert 3000 < entries["192.0.2.2"] <= 3600
    host("detach", "-i", "v1")
    host("set", "delete", "banned")


@pytest.mark.check(26)
def test_check_26_a_full_disk_leaves_the_old_state_and_an_alarm(
    wire: Wire, daemon: Daemon, host: Cli
) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(daemon.state)], check=True)
    try:
        with daemon:
            old = (daemon.state / "daemon.json").read_text()
            filler = daemon.state / "filler"
            with pytest.raises(OSError, match="No space left"):
                filler.write_bytes(bytes(1 << 20))
            daemon.policy("v1.policy", EDGE.format(port=54))
            daemon.waits_for("daemon.json cannot be written: No space left on device; it is as it was")
            assert (daemon.state / "daemon.json").read_text() == old
            assert wire.arrived(54) == 0, "what filters does not depend on it"
            filler.unlink()
            daemon.waits_for("what the daemon remembers can be written again")
            assert (daemon.state / "daemon.json").read_text() != old
            (daemon.state / "daemon.json").unlink()
            wait_until((daemon.state / "daemon.json").exists, daemon.said)
    finally:
        subprocess.run(["umount", "--lazy", str(daemon.state)], check=True)


_DAEMON = """
from penstock.cli.main import main
sys.argv = ["penstock", "daemon", "--no-fetch"]
main()
"""

#: Where it is killed, and whose packets are dropped then.
_POINTS = {
    "staged": ("penstock.kernel.pin", "", "stage", "after", "old"),
    "before the link": ("penstock.kernel.link", "Link", "update", "before", "old"),
    "behind the link": ("penstock.kernel.link", "Link", "update", "after", "new"),
    "pins exchanged": ("penstock.kernel.libc", "", "exchange", "after", "new"),
    "before the history": ("penstock.pipeline.history", "", "record", "before", "new"),
    "behind its state": ("penstock.daemon.state", "", "save", "after", "new"),
}


@pytest.mark.check(23)
@pytest.mark.parametrize("point", _POINTS.values(), ids=_POINTS.keys())
def test_check_23_killed_at_any_point_of_a_change_it_leaves_one_policy_whole(
    wire: Wire, daemon: Daemon, host: Cli, point: tuple[str, ...]
) -> None:
    """The old one or the new one, with what was counted; and the next daemon goes on from there."""
    host("apply", str(daemon.etc / "v1.policy"), "-i", "v1")
    wire.arrived(53, count=3)
    daemon.policy("v1.policy", EDGE.format(port=54))
    killed(daemon, point[:4], _DAEMON)
    is_new = point[4] == "new"
    assert (wire.arrived(53, count=2), wire.arrived(54, count=2)) == ((2, 0) if is_new else (0, 2))
    daemon.start()
    wait_until(lambda: daemon.filters() == [("v1", "edge", "in place")], daemon.said)
    assert wire.arrived(54, count=2) == 0
    assert counters(host("status", "--json"))["dns"] == 3 + 2 + 2


def test_a_filter_is_taken_off_although_the_daemon_says_nothing(daemon: Daemon, host: Cli) -> None:
    assert host("apply", "-i", "v1", str(daemon.etc / "v1.policy")).code == 0
    with socket.socket(socket.AF_UNIX) as listening, ThreadPoolExecutor(2) as other:
        listening.bind(str(daemon.run / "control.sock"))
        listening.listen()
        accepted = other.submit(listening.accept)
        detaching = other.submit(host, "detach", "-i", "v1")
        accepted.result(10)[0].close()
        done = detaching.result(30)
    assert done.code == 0
    assert "may put it back" in done.err
    assert host("status", "--json").record["filters"] == []
