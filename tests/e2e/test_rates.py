"""Rates on a wire: what comes through, what a reload keeps, and what `status` says."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest
from tests.e2e.conftest import CLIENT, SERVER, Cli, Wire, write

pytestmark = pytest.mark.privileged

#: Ten at once, and no more within the test.
POLICY = """filter guard at {hook} {{
    default pass
    calm: drop if udp dst port 9 and over 1/h per src burst 10
{more}}}
"""


def policy(hook: str = "xdp", more: str = "", rate: str = "1/h") -> str:
    return POLICY.format(hook=hook, more=more).replace("1/h", rate)


def send(wire: Wire, count: int) -> None:
    with wire.client.inside():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        sender.bind((CLIENT, 0))
        for _ in range(count):
            sender.sendto(b"x", (SERVER, 9))


def counted(host: Cli, name: str, wanted: int, hook: str = "xdp") -> dict[str, object]:
    """The filter's record once so many packets are counted."""
    deadline = time.monotonic() + 5
    while True:
        (found,) = json.loads(host("status", "--json").out)["filters"]
        assert found["hook"] == hook
        packets = {one["name"]: one["packets"] for one in found["counters"]}
        if packets[name] >= wanted or time.monotonic() > deadline:
            assert packets[name] == wanted
            return found  # type: ignore[no-any-return]


@pytest.mark.check(19)
@pytest.mark.parametrize("hook", ["xdp", "tc ingress"])
def test_a_reload_keeps_the_buckets_of_a_rule_that_is_the_same(
    wire: Wire, host: Cli, tmp_path: Path, hook: str
) -> None:
    file = tmp_path / "guard.policy"
    assert host("apply", str(write(file, policy(hook))), "-i", "v1").code == 0
    send(wire, 14)
    found = counted(host, "calm", 4, hook)
    (limiter,) = found["limiters"]  # type: ignore[misc]
    assert (limiter["name"], limiter["held"], limiter["places"]) == ("calm", 1, 65536)
    # Another rule moves it to another number and line; its buckets are as empty as they were.
    more = "    wide: drop if udp dst port 10 and over 5/s per rule\n"
    text = policy(hook).replace("    calm:", f"{more}    calm:")
    assert host("apply", str(write(file, text)), "-i", "v1").code == 0
    send(wire, 3)
    counted(host, "calm", 7, hook)
    # Another rate is another limiter, and begins anew.
    assert host("apply", str(write(file, policy(hook, rate="2/h"))), "-i", "v1").code == 0
    send(wire, 12)
    counted(host, "calm", 9, hook)


def test_an_emergency_rule_keeps_the_buckets(wire: Wire, host: Cli, tmp_path: Path) -> None:
    assert host("apply", str(write(tmp_path / "guard.policy", policy())), "-i", "v1").code == 0
    send(wire, 10)
    assert host("drop", "icmp", "-i", "v1", "--for", "1m").code == 0
    send(wire, 5)
    counted(host, "calm", 5)


def test_status_tells_how_full_the_table_is(wire: Wire, host: Cli, tmp_path: Path) -> None:
    more = "    all: drop if udp and over 1000/s per rule\n"
    assert host("apply", str(write(tmp_path / "guard.policy", policy(more=more))), "-i", "v1").code == 0
    send(wire, 1)
    shown = [line.strip() for line in host("status").out.splitlines()]
    assert "calm: over 1/h per src: 1 of 65,536 buckets count, 0 places given to other keys" in shown
    assert "all: over 1000/s per rule, one bucket" in shown


@pytest.mark.check(19)
@pytest.mark.parametrize("hook", ["xdp", "tc ingress"])
def test_going_back_finds_the_buckets_as_they_are(wire: Wire, host: Cli, tmp_path: Path, hook: str) -> None:
    """A policy on trial goes on with the buckets of the one before it, which finds them so when it is back."""
    file = tmp_path / "guard.policy"
    assert host("apply", str(write(file, policy(hook))), "-i", "v1").code == 0
    send(wire, 8)
    more = "    wide: drop if udp dst port 10 and over 5/s per rule\n"
    other = write(tmp_path / "next.policy", policy(hook).replace("    calm:", f"{more}    calm:"))
    assert host("apply", str(other), "-i", "v1", "--confirm", "1h").code == 0
    send(wire, 4)
    counted(host, "calm", 2, hook)
    assert host("rollback", "-i", "v1").code == 0
    send(wire, 3)
    found = counted(host, "calm", 5, hook)
    assert [limiter["name"] for limiter in found["limiters"]] == ["calm"]  # type: ignore[attr-defined]
    assert [limiter["held"] for limiter in found["limiters"]] == [1]  # type: ignore[attr-defined]
    # And so does one that was put in place for good and is taken back by its history.
    assert host("apply", str(other), "-i", "v1").code == 0
    assert host("rollback", "-i", "v1").code == 0
    send(wire, 2)
    counted(host, "calm", 7, hook)
