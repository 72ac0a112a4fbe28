"""Rules that change sets, on a wire: a trap for scanners, what commands see of it, and trials that touch nothing."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import CLIENT, SERVER, Cli, Wire, write

pytestmark = pytest.mark.privileged

TRAP = """set scanners : host size 100 timeout 10m

filter guard at {hook} {{
    default pass
    bait: add src to @scanners{stay} if tcp dst port (23 or 2323) and tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn
    caught: drop if udp dst port 8000 and src in @scanners
}}
"""


def trap(hook: str = "xdp", stay: str = "") -> str:
    return TRAP.format(hook=hook, stay=stay)


@pytest.fixture(autouse=True)
def _no_sets_are_left(host: Cli) -> Iterator[None]:
    yield
    host("detach", "-i", "v1")
    for name in re.findall(r'"set": "(\w+)"', host("set", "list", "--json").out):
        host("set", "delete", name)


def knock(wire: Wire, port: int) -> None:
    """One SYN of a real socket."""
    with wire.client.inside():
        caller = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with caller:
        caller.bind((CLIENT, 0))
        caller.setblocking(False)
        caller.connect_ex((SERVER, port))


@pytest.mark.parametrize("hook", ["xdp", "tc ingress"])
def test_the_packet_behind_the_trap_is_dropped_until_the_entry_expires(
    wire: Wire, host: Cli, tmp_path: Path, hook: str
) -> None:
    policy = write(tmp_path / "guard.policy", trap(hook, " for 2s"))
    assert host("apply", str(policy), "-i", "v1").code == 0
    assert wire.arrived(8000) == 5
    knock(wire, 80)
    assert wire.arrived(8000) == 5
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    knock(wire, 2323)
    shown = json.loads(host("set", "list", "scanners", "--json").out)
    assert (shown["entry"], shown["by_rule"]) == (CLIENT, True)
    assert 0 < shown["expires_in_s"] <= 2
    assert wire.arrived(8000, count=1) == 0
    with wire.client.inside():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with wire.server.inside():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.bind((SERVER, 8000))
        receiver.settimeout(0.02)
        arrived = None
        while arrived is None:
            sender.sendto(b"x", (SERVER, 8000))
            try:
                receiver.recv(1)
                arrived = time.clock_gettime(time.CLOCK_BOOTTIME)
            except TimeoutError:
                assert time.clock_gettime(time.CLOCK_BOOTTIME) < before + 4
    assert before + 2 <= arrived <= before + 3
    assert wire.arrived(8000) == 5


def test_what_rules_have_added_outlives_reloads_and_goes_by_command(
    wire: Wire, host: Cli, tmp_path: Path
) -> None:
    policy = write(tmp_path / "guard.policy", trap())
    assert host("apply", str(policy), "-i", "v1").code == 0
    knock(wire, 23)
    assert wire.arrived(8000) == 0
    assert host("apply", str(write(policy, trap().replace("2323", "2324"))), "-i", "v1").code == 0
    assert wire.arrived(8000) == 0
    info = host("set", "info", "scanners", "--json").record
    assert (info["entries"], info["added_by_rules"], info["refused_to_rules"]) == (1, 1, 0)
    assert "1 of them added by rules" in host("set", "info", "scanners").out
    why = host("why", CLIENT).out
    assert "changed on v1 (xdp) by rule bait of guard: bait: add src" in why
    assert "asked on v1 (xdp) by rule caught of guard: caught: drop" in why
    assert host("set", "remove", "scanners", CLIENT).code == 0
    assert wire.arrived(8000) == 5
    knock(wire, 23)
    assert wire.arrived(8000) == 0
    assert host("set", "flush", "scanners").code == 0
    assert wire.arrived(8000) == 5


def test_a_set_that_is_there_is_opened_to_rules_and_keeps_what_it_has(
    wire: Wire, host: Cli, tmp_path: Path
) -> None:
    plain = re.sub(r"    bait.*\n", "", trap())
    policy = write(tmp_path / "guard.policy", plain)
    assert host("apply", str(policy), "-i", "v1").code == 0
    assert host("set", "add", "scanners", "192.0.2.1").code == 0
    assert host("apply", str(write(policy, trap())), "-i", "v1").code == 0
    knock(wire, 23)
    assert wire.arrived(8000) == 0
    listed = [json.loads(line) for line in host("set", "list", "scanners", "--json").out.splitlines()]
    assert {one["entry"]: one["by_rule"] for one in listed} == {"192.0.2.1": False, CLIENT: True}
    # A policy that did not look where rules add would let scanners through.
    done = host("apply", str(write(policy, plain)), "-i", "v1")
    assert done.code == 1
    assert "dynamic" in done.err
    dynamic = plain.replace("timeout 10m", "timeout 10m dynamic")
    assert host("apply", str(write(policy, dynamic)), "-i", "v1").code == 0
    assert wire.arrived(8000) == 0


LIFE = """set seen : host size 100
set busy : host size 100 counters
filter guard at {hook} {{
    default pass
    add src to @seen
    count if src in @busy
    ration: drop if src host {client} and over 1/h per src burst 900
}}
"""


@pytest.mark.parametrize("hook", ["xdp", "tc ingress"])
def test_the_guard_asks_without_taking_tokens_or_changing_sets(
    wire: Wire, host: Cli, tmp_path: Path, hook: str
) -> None:
    policy = write(tmp_path / "guard.policy", LIFE.format(hook=hook, client=CLIENT))
    ssh = Cli({**host.environment, "SSH_CONNECTION": f"{CLIENT} 50022 {SERVER} 22"}, wire.server.command())
    assert ssh("apply", str(policy), "-i", "v1").code == 0
    ssh("set", "add", "busy", CLIENT)
    # Each time it is put in place, the connection's packets are asked about in the very tables that go on.
    for _ in range(2):
        done = ssh("apply", str(policy), "-i", "v1")
        assert done.code == 0, done.err
    counted = host("set", "list", "busy", "--json").record
    assert counted["packets"] == 0
    (found,) = json.loads(host("status", "--json").out)["filters"]
    assert [one["held"] for one in found["limiters"]] == [0]
    assert CLIENT not in host("set", "list", "seen").out
