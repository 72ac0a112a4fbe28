"""`drop`, `try`, `undrop`: rules for a time, before a running policy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.e2e.conftest import PATIENCE_S, Cli, Wire, counters, write

from penstock.model.boot_clock import boot_clock_ns

pytestmark = pytest.mark.privileged


def _until_no_filter(host: Cli, interface: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while host("status", "-i", interface, "--json").record["filters"]:
        assert time.monotonic() < deadline, "the emergency filter was never taken off"


def test_a_drop_lapses_in_the_data_path_and_is_then_removed(wire: Wire, host: Cli) -> None:
    done = host("drop", "udp dst port 8000 and len > 100", "-i", "v1", "--for", "4s", "--json")
    assert done.code == 0, done.err
    assert done.record["rule"] == "drop#1"
    assert wire.arrived(8000, size=200) == 0
    assert wire.arrived(8000, size=20) == 5
    status = host("status", "--json").record["filters"][0]
    (rule,) = status["emergencies"]
    assert 0 < rule["seconds_left"] <= 4
    _until_no_filter(host, "v1")
    assert wire.arrived(8000, size=200) == 5


def test_it_lapses_although_nobody_removes_it(wire: Wire, host: Cli) -> None:
    from penstock.pipeline import emergency

    with wire.server.inside(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_BPFFS", host.environment["PENSTOCK_BPFFS"])
        started = emergency.start("v1", "udp dst port 8000", 2.0)
    assert wire.arrived(8000) == 0
    while boot_clock_ns() < started.rule.until_ns:
        assert wire.arrived(8000, count=1) in (0, 1)
    assert wire.arrived(8000) == 5
    assert host("status", "--json").record["filters"][0]["emergencies"] == []
    assert ["drop#1", "lapsed"] in [line.split()[:2] for line in host("status").out.splitlines()]


def test_it_stands_before_the_policy_and_leaves_it_as_it_was(wire: Wire, host: Cli, policy: Path) -> None:
    host("apply", str(policy), "-i", "v1")
    wire.arrived(53, count=3)
    assert host("drop", "udp dst port 8000", "-i", "v1", "--for", "1h").code == 0
    assert wire.arrived(8000) == 0
    assert wire.arrived(53) == 0
    during = counters(host("status", "--json"))
    assert (during["drop#1"], during["dns"]) == (5, 8)
    taken = host("undrop", "drop#1", "-i", "v1")
    assert taken.code == 0, taken.err
    assert wire.arrived(8000) == 5
    after = counters(host("status", "--json"))
    assert after["dns"] == 8
    assert "drop#1" not in after


def test_a_policy_applied_meanwhile_gets_the_rules_in_force_before_it(
    wire: Wire, host: Cli, policy: Path
) -> None:
    host("drop", "udp dst port 8000", "-i", "v1", "--for", "1h")
    assert host("apply", str(policy), "-i", "v1").code == 0
    assert wire.arrived(8000) == 0
    assert wire.arrived(53) == 0
    host("undrop", "-i", "v1")
    assert wire.arrived(8000) == 5
    assert wire.arrived(53) == 0


def test_two_rules_and_taking_one_back(wire: Wire, host: Cli) -> None:
    for port in (8000, 8001):
        host("drop", f"udp dst port {port}", "-i", "v1", "--for", "1h")
    names = [rule["name"] for rule in host("status", "--json").record["filters"][0]["emergencies"]]
    assert names == ["drop#1", "drop#2"]
    wrong = host("undrop", "drop#7", "-i", "v1")
    assert wrong.code == 1
    assert wrong.err == ("error: no emergency rule on v1 is named drop#7\nhint: there are: drop#1, drop#2\n")
    host("undrop", "drop#1", "-i", "v1")
    assert wire.arrived(8000) == 5
    assert wire.arrived(8001) == 0
    host("undrop", "-i", "v1")
    assert host("status", "--json").record["filters"] == []


def test_a_try_counts_and_drops_nothing(wire: Wire, host: Cli) -> None:
    running = host.start("try", "udp dst port 8000", "-i", "v1", "--for", "4s", "--json")
    deadline = time.monotonic() + PATIENCE_S
    while not host("status", "-i", "v1", "--json").record["filters"]:
        assert time.monotonic() < deadline
    assert wire.arrived(8000, count=6) == 6
    out, err = running.communicate(timeout=30)
    assert running.returncode == 0, err
    assert json.loads(out)["packets"] == 6
    assert host("status", "--json").record["filters"] == []


@pytest.mark.parametrize("seconds", ["1ms", "200ms"])
def test_a_try_that_has_lapsed_before_it_is_taken_back_is_gone_as_well(host: Cli, seconds: str) -> None:
    assert host("try", "udp", "-i", "v1", "--for", seconds).code == 0
    assert host("status", "--json").record["filters"] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_try_leaves_all_as_it_was(
    wire: Wire, host: Cli, policy: Path, number: signal.Signals
) -> None:
    """As a terminal does it: to the whole group of processes, and a second time in impatience."""
    host("apply", str(policy), "-i", "v1")
    wire.arrived(53, count=3)
    running = host.start("try", "udp dst port 8000", "-i", "v1", "--for", "1h", start_new_session=True)
    deadline = time.monotonic() + PATIENCE_S
    while not host("status", "-i", "v1", "--json").record["filters"][0]["emergencies"]:
        assert time.monotonic() < deadline
    os.killpg(running.pid, number)
    os.killpg(running.pid, number)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    (left,) = host("status", "--json").record["filters"]
    assert left["emergencies"] == []
    assert {entry["name"]: entry["packets"] for entry in left["counters"]}["dns"] == 3
    living = subprocess.run(["ip", "netns", "pids", wire.server.name], capture_output=True, text=True)
    assert living.stdout == ""


def test_what_comes_right_after_a_drop_is_not_told_to_wait(wire: Wire, host: Cli) -> None:
    """The process that will remove the rule looks on without the lock."""
    for _ in range(3):
        assert host("drop", "udp dst port 8000", "-i", "v1", "--for", "1h").code == 0
        done = host("undrop", "-i", "v1")
        assert done.code == 0, done.err


@pytest.mark.check(1)
def test_an_expression_that_is_none_changes_nothing(wire: Wire, host: Cli) -> None:
    done = host("drop", "udp dst prot 53", "-i", "v1", "--for", "1h")
    assert done.code == 1
    assert "^" in done.err
    assert host("status", "--json").record["filters"] == []


def test_a_time_that_is_none(host: Cli) -> None:
    done = host("drop", "udp", "-i", "v1", "--for", "soon")
    assert done.code == 1
    assert "2h" in done.err


def test_a_built_policy_keeps_its_text_for_emergencies(wire: Wire, host: Cli, tmp_path: Path) -> None:
    text = "filter guard at xdp { dns: drop if udp dst port 53 }"
    source, built = write(tmp_path / "g.policy", text), tmp_path / "g.pso"
    host("build", str(source), "-o", str(built))
    source.unlink()
    host("apply", str(built), "-i", "v1")
    assert host("drop", "udp dst port 8000", "-i", "v1", "--for", "1h").code == 0
    assert wire.arrived(8000) == 0
    assert wire.arrived(53) == 0
