"""`apply --confirm`: what was there before comes back unless somebody confirms; check 22."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import Cli, Done, Here, Wire, counters, write
from tests.e2e.daemons import wait_until
from tests.e2e.killing import killed

from penstock.model.boot_clock import boot_clock_ns

pytestmark = [pytest.mark.privileged, pytest.mark.check(22)]

NEW = "filter next at xdp {\n ntp: drop if udp dst port 123\n web: drop if udp dst port 8000\n}\n"
BOTH = (
    "filter inward at xdp { a: drop if udp dst port 53 }\n"
    "filter outward at tc egress { b: drop if udp dst port 54 }\n"
)


class Session(Cli):
    """The command in this process; `start` runs it in one of its own."""

    def __call__(self, *arguments: str, stdin: str | None = None) -> Done:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            return Here()(*arguments)


@pytest.fixture
def host(wire: Wire, root: Path, tmp_path: Path) -> Iterator[Cli]:
    """The command in the server's namespace; what it left attached is taken off at the end."""
    with wire.server.inside():
        # Other namespaces of the suite had the same number: what is known of them is not this one's history.
        places = {"PENSTOCK_BPFFS": str(root), "PENSTOCK_STATE_DIR": str(tmp_path / "state")}
        made = Session(places, tuple(wire.server.command()))
        yield made
        for one in made("status", "--json").record["filters"]:
            made("detach", "-i", one["interface"])


@pytest.fixture
def new(tmp_path: Path) -> str:
    """Another policy: it has `ntp` too, not `dns`, and drops port 8000."""
    return str(write(tmp_path / "new.policy", NEW))


def reverters() -> list[int]:
    """The processes of this test that wait for a probation to end."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
            environ = (place / "environ").read_bytes()
        except OSError:
            continue
        if b"_revert" in words and f"PS_TEST={os.getpid()}".encode() in environ.split(b"\0"):
            found.append(int(place.name))
    return found


@pytest.fixture(autouse=True)
def _no_process_is_left(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("PS_TEST", str(os.getpid()))
    yield
    for process in reverters():
        os.kill(process, signal.SIGKILL)


def running(host: Cli) -> list[str]:
    return [one["policy"] for one in host("status", "--json").record["filters"]]


def test_without_a_confirm_the_old_policy_is_back_with_its_counters(
    wire: Wire, host: Cli, policy: Path, new: str
) -> None:
    host("apply", str(policy), "-i", "v1")
    wire.arrived(53, count=4)
    wire.arrived(123, count=3)
    before = host("status", "--json").record["filters"][0]["program_id"]
    started = boot_clock_ns()
    waiting = host.start("apply", new, "-i", "v1", "--confirm", "6s", "--wait")
    wait_until(lambda: running(host) == ["next"])
    assert 0 < host("status", "--json").record["filters"][0]["probation_left_s"] <= 6
    assert "on probation" in host("status").out
    assert wire.arrived(123, count=2) == 0
    assert wire.arrived(53, count=2) == 2
    _, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 7, err
    assert "nobody has confirmed it" in err
    assert (boot_clock_ns() - started) / 1e9 < 6 + 20
    (one,) = host("status", "--json").record["filters"]
    assert (one["policy"], one["program_id"], one["probation_left_s"]) == ("guard", before, None)
    late = host("confirm")
    assert (late.code, "next was on probation and is not there any more" in late.err) == (7, True)
    assert host("confirm", "-i", "lo").code == 0
    after = counters(host("status", "--json"))
    assert (after["dns"], after["ntp"]) == (4, 5)
    assert wire.arrived(53) == 0
    assert counters(host("status", "--json"))["dns"] == 9
    assert wire.arrived(8000) == 5


def test_a_confirm_lets_it_stay(wire: Wire, host: Cli, policy: Path, new: str, root: Path) -> None:
    host("apply", str(policy), "-i", "v1")
    wire.arrived(123, count=3)
    waiting = host.start("apply", new, "-i", "v1", "--confirm", "50s", "--wait")
    wait_until(lambda: running(host) == ["next"])
    done = host("confirm", "--json")
    assert done.record == {
        "schema": "penstock.confirm/1",
        "interface": "v1",
        "hook": "xdp",
        "policy": "next",
        "confirmed": True,
        "restored": None,
    }
    waiting.communicate(timeout=60)
    assert waiting.returncode == 0
    (one,) = host("status", "--json").record["filters"]
    assert one["probation_left_s"] is None
    assert counters(host("status", "--json"))["ntp"] == 3
    (directory,) = root.iterdir()
    assert not [name for name in directory.iterdir() if name.name.startswith("before-")]
    assert host("confirm").code == 0
    wait_until(lambda: not reverters())
    assert running(host) == ["next"]


def test_undo_puts_it_back_at_once(wire: Wire, host: Cli, policy: Path, new: str) -> None:
    host("apply", str(policy), "-i", "v1")
    host("apply", new, "-i", "v1", "--confirm", "50s")
    done = host("confirm", "--undo", "-i", "v1")
    assert "guard is there again" in done.out
    assert running(host) == ["guard"]
    assert wire.arrived(53) == 0


@pytest.mark.parametrize("ending", ["undo", "apply"])
def test_its_process_ends_when_nothing_is_left_to_take_back(
    wire: Wire, host: Cli, policy: Path, new: str, ending: str
) -> None:
    host("apply", new, "-i", "v1", "--confirm", "1h")
    assert len(reverters()) == 1
    ways = {"undo": ("confirm", "--undo"), "apply": ("apply", str(policy), "-i", "v1")}
    assert host(*ways[ending]).code == 0
    wait_until(lambda: not reverters())


@pytest.mark.parametrize("mode", ["tcx", "clsact"])
def test_all_hooks_go_back_together(wire: Wire, host: Cli, tmp_path: Path, mode: str) -> None:
    old = BOTH.replace("53", "63").replace("54", "64")
    host("apply", str(write(tmp_path / "old.policy", old)), "-i", "v1", "--mode", mode)
    wire.arrived(63, count=2)
    assert (
        host(
            "apply", str(write(tmp_path / "new.policy", BOTH)), "-i", "v1", "--confirm", "50s", "--json"
        ).code
        == 0
    )
    assert wire.arrived(53) == 0
    done = host("confirm", "--undo", "--json")
    assert len(done.out.splitlines()) == 2
    assert wire.arrived(53) == 5
    assert wire.arrived(63) == 0
    found = host("status", "--json").record["filters"]
    assert [one["trouble"] for one in found] == [None, None]
    assert next(one for one in found[0]["counters"] if one["name"] == "a")["packets"] == 2 + 5 + 5


def test_where_nothing_was_nothing_is_again(wire: Wire, host: Cli, tmp_path: Path, root: Path) -> None:
    policy = write(tmp_path / "both.policy", BOTH)
    done = host("apply", str(policy), "-i", "v1", "--confirm", "2s", "--wait")
    assert done.code == 7
    assert running(host) == []
    assert list(root.iterdir()) == []
    assert wire.arrived(53) == 5


@pytest.mark.parametrize(
    "command", [("status",), ("detach", "-i", "v1"), ("confirm",)], ids=lambda one: one[0]
)
def test_when_its_process_was_killed_the_next_command_does_its_work(
    wire: Wire, host: Cli, policy: Path, new: str, command: tuple[str, ...]
) -> None:
    host("apply", str(policy), "-i", "v1")
    host("apply", new, "-i", "v1", "--confirm", "3s")
    (process,) = reverters()
    until = boot_clock_ns() + 3_000_000_000
    os.kill(process, signal.SIGKILL)
    assert running(host) == ["next"]
    wait_until(lambda: boot_clock_ns() > until)
    assert wire.arrived(53) == 5
    done = host(*command)
    assert "guard is there again" in done.out + done.err
    assert done.code == (7 if command == ("confirm",) else 0)
    assert running(host) == ([] if command[0] == "detach" else ["guard"])


def test_what_cannot_be_taken_back_keeps_no_command_from_its_work(
    wire: Wire, host: Cli, policy: Path, new: str, root: Path
) -> None:
    host("apply", str(policy), "-i", "v1")
    host("apply", new, "-i", "v1", "--confirm", "1s")
    os.kill(reverters()[0], signal.SIGKILL)
    (pinned,) = root.glob("*/before-program")
    pinned.unlink()
    wait_until(lambda: "cannot be taken back" in host("status").err)
    assert running(host) == ["next"]
    assert host("detach", "-i", "v1").code == 0
    assert running(host) == []


def test_its_process_outlives_the_shell(wire: Wire, host: Cli, policy: Path, new: str) -> None:
    host("apply", str(policy), "-i", "v1")
    argv = [*host.prefix, sys.executable, "-m", "penstock", "apply", new, "-i", "v1", "--confirm", "4s"]
    shell = subprocess.Popen(
        ["sh", "-c", '"$@"; kill -HUP 0; sleep 60', "sh", *argv],
        env={**os.environ, **host.environment},
        start_new_session=True,
    )
    assert shell.wait(timeout=60) == -signal.SIGHUP
    assert len(reverters()) == 1
    wait_until(lambda: not reverters())
    assert wire.arrived(53) == 0
    assert running(host) == ["guard"]


def test_an_apply_that_fails_leaves_no_process(wire: Wire, host: Cli, policy: Path) -> None:
    host("apply", str(policy), "-i", "v1")
    assert host("apply", str(policy), "-i", "v1", "--mode", "generic", "--confirm", "50s").code == 1
    assert reverters() == []
    assert host("apply", str(policy), "-i", "v1", "--wait").code == 1


def test_a_second_one_goes_back_to_what_was_confirmed_last(
    wire: Wire, host: Cli, policy: Path, new: str, tmp_path: Path
) -> None:
    host("apply", str(policy), "-i", "v1")
    third = write(tmp_path / "third.policy", "filter third at xdp { drop if udp dst port 8001 }")
    host("apply", new, "-i", "v1", "--confirm", "50s")
    host("apply", str(third), "-i", "v1", "--confirm", "50s")
    host("confirm", "--undo")
    assert running(host) == ["guard"]


def test_one_without_confirm_is_final(wire: Wire, host: Cli, policy: Path, new: str) -> None:
    host("apply", new, "-i", "v1", "--confirm", "50s")
    host("apply", str(policy), "-i", "v1")
    assert "no policy is on probation" in host("confirm", "--undo").err
    assert running(host) == ["guard"]


def test_an_emergency_rule_does_not_end_it_and_outlives_it(
    wire: Wire, host: Cli, policy: Path, new: str
) -> None:
    host("apply", str(policy), "-i", "v1")
    host("apply", new, "-i", "v1", "--confirm", "50s")
    host("drop", "udp dst port 7000", "-i", "v1", "--for", "1h")
    assert host("status", "--json").record["filters"][0]["probation_left_s"] > 0
    host("confirm", "--undo")
    assert running(host) == ["guard"]
    assert wire.arrived(7000) == 0
    assert wire.arrived(53) == 0
    host("undrop", "-i", "v1")


@pytest.mark.check(14)
@pytest.mark.parametrize(
    ("module", "name", "when", "then"),
    [
        ("penstock.kernel.pin", "stage", "before", "next"),
        ("penstock.kernel.pin", "stage", "after", "next"),
        ("penstock.pipeline.slot", "carry", "before", "guard"),
        ("penstock.pipeline.slot", "carry", "after", "guard"),
        ("penstock.kernel.pin", "publish", "after", "guard"),
    ],
)
def test_killed_beside_any_step(
    wire: Wire, host: Cli, policy: Path, new: str, module: str, name: str, when: str, then: str
) -> None:
    host("apply", str(policy), "-i", "v1")
    wire.arrived(53, count=4)
    wire.arrived(123, count=3)
    host("apply", new, "-i", "v1", "--confirm", "50s")
    wire.arrived(123, count=2)
    killed(host, (module, "", name, when), "from penstock.pipeline.probation import undo\nundo()\n")
    assert running(host) == [then]
    host("confirm", "--undo")
    found = host("status", "--json")
    assert found.code == 0
    assert running(host) == ["guard"]
    assert {name: counters(found)[name] for name in ("dns", "ntp")} == {"dns": 4, "ntp": 5}
    assert wire.arrived(53, count=1) == 0


@pytest.mark.check(24)
def test_check_24_what_is_on_probation_does_not_outlive_a_boot(
    host: Cli, wire: Wire, policy: Path, new: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it the pins and interfaces are new ones; what a rollback puts back is what was confirmed."""
    assert host("apply", str(policy), "-i", "v1").code == 0
    assert host("apply", new, "-i", "v1", "--confirm", "60s").code == 0
    wire.server.ip("link", "del", "v1")
    wire.server.ip("link", "add", "v1", "type", "veth", "peer", "name", "v0")
    wire.server.ip("link", "set", "v1", "up")
    monkeypatch.setitem(host.environment, "PENSTOCK_BPFFS", str(root.with_name("after-boot")))
    assert host("status", "--json").record["filters"] == []
    told = [
        (entry["filters"][0]["name"], entry["how"], entry["outcome"])
        for entry in host("history", "-i", "v1", "--json").record["entries"]
    ]
    assert told == [("next", "apply --confirm", None), ("guard", "apply", None)], "guard was confirmed last"
    assert "guard: attached to v1" in host("rollback", "-i", "v1").out
    (found,) = host("status", "--json").record["filters"]
    assert (found["policy"], found["probation_left_s"]) == ("guard", None)
    assert "no policy is on probation" in host("confirm").err
