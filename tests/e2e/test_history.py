"""`history` and `rollback`: who put what on an interface, and putting it there again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from tests.e2e.conftest import Cli, Done, Here, Wire, counters, write

from penstock.pipeline import history
from penstock.pipeline.policy import load_policy

pytestmark = pytest.mark.privileged


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
        made = Session(
            {"PENSTOCK_BPFFS": str(root), "PENSTOCK_STATE_DIR": str(tmp_path / "state")},
            tuple(wire.server.command()),
        )
        yield made
        for one in made("status", "--json").record["filters"]:
            made("detach", "-i", one["interface"])


def text(port: int, name: str = "guard") -> str:
    return f"filter {name} at xdp {{\n dns: drop if udp dst port {port}\n}}\n"


def fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def remembered(host: Cli) -> list[dict[str, object]]:
    found: list[dict[str, object]] = host("history", "-i", "v1", "--json").record["entries"]
    return found


def test_rollback_puts_the_old_text_in_place_again_and_keeps_counters(
    wire: Wire, host: Cli, tmp_path: Path
) -> None:
    policy = write(tmp_path / "a.policy", text(53))
    host("apply", str(policy), "-i", "v1")
    assert wire.arrived(53, count=3) == 0
    write(policy, text(54))
    host("apply", str(policy), "-i", "v1")
    assert wire.arrived(53) == 5
    done = host("rollback", "-i", "v1")
    assert done.code == 0, done.err
    assert wire.arrived(53) == 0
    assert counters(host("status", "--json"))["dns"] == 8
    found = remembered(host)
    assert [one["how"] for one in found] == [f"rollback to {found[2]['id']}", "apply", "apply"]
    assert found[0]["digest"] == found[2]["digest"]
    assert host("rollback", str(found[1]["id"]), "-i", "v1").code == 0
    assert wire.arrived(54) == 0


def test_it_says_who_and_when(wire: Wire, host: Cli, tmp_path: Path) -> None:
    policy = write(tmp_path / "a.policy", text(53))
    as_sudo = replace(host, environment={**host.environment, "SUDO_USER": "alice"})
    as_sudo("apply", str(policy), "-i", "v1")
    (one,) = remembered(host)
    assert (one["uid"], one["sudo_user"], one["path"]) == (0, "alice", str(policy))
    assert one["filters"] == [{"name": "guard", "hook": "xdp"}]
    assert "alice" in host("history", "-i", "v1").out
    assert outside(host, wire)("history", "-i", "v1", "--show", "0").out == text(53)


def outside(host: Cli, wire: Wire) -> Cli:
    return Cli(host.environment, tuple(wire.server.command()))


def test_ten_are_kept_and_no_text_that_none_of_them_names(wire: Wire, host: Cli, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_STATE_DIR", host.environment["PENSTOCK_STATE_DIR"])
        policy = load_policy(text(53))
        for number in range(12):
            identity = msgspec.structs.replace(policy.identity, text=text(number))
            history.record("v1", [replace(policy, identity=identity)], how="apply")
        assert len(history.entries("v1")) == 10
    assert len(list((tmp_path / "state/history/policies").iterdir())) == 10


def test_what_was_taken_back_is_no_step_back(wire: Wire, host: Cli, tmp_path: Path) -> None:
    policy = write(tmp_path / "a.policy", text(53))
    for port, more in ((53, ()), (54, ()), (55, ("--confirm", "50s"))):
        write(policy, text(port))
        assert host("apply", str(policy), "-i", "v1", *more).code == 0
    host("confirm", "--undo")
    assert remembered(host)[0]["outcome"] == "taken back"
    host("rollback", "-i", "v1")
    assert wire.arrived(53) == 0
    host("rollback", "-i", "v1", "--confirm", "50s")
    host("confirm")
    assert remembered(host)[0]["outcome"] == "confirmed"
    assert wire.arrived(54) == 0


def test_a_policy_that_was_applied_over_itself_is_one_step(wire: Wire, host: Cli, tmp_path: Path) -> None:
    policy = write(tmp_path / "a.policy", text(53))
    for port in (53, 54, 54, 54):
        write(policy, text(port))
        assert host("apply", str(policy), "-i", "v1").code == 0
    assert len(remembered(host)) == 4
    assert host("rollback", "-i", "v1").code == 0
    assert (wire.arrived(53), wire.arrived(54)) == (0, 5)
    assert host("rollback", "-i", "v1", "2").code == 0
    assert wire.arrived(53) == 0
    assert "has no entry 4" in host("rollback", "-i", "v1", "4").err


def test_all_filters_of_a_policy_come_back(wire: Wire, host: Cli, tmp_path: Path) -> None:
    both = text(53) + "filter out at tc egress { drop if udp dst port 9999 }\n"
    policy = write(tmp_path / "a.policy", both)
    host("apply", str(policy), "-i", "v1")
    host("detach", "-i", "v1")
    assert host("rollback", "0", "-i", "v1").code == 0
    assert len(host("status", "--json").record["filters"]) == 2


def test_a_built_policy_comes_back_without_a_compiler(wire: Wire, host: Cli, tmp_path: Path) -> None:
    policy, built = write(tmp_path / "a.policy", text(53)), str(tmp_path / "a.pso")
    host("build", str(policy), "-o", built)
    host("apply", built, "-i", "v1")
    assert outside(host, wire)("history", "-i", "v1", "--show", "0").out == text(53)
    host("detach", "-i", "v1")
    Path(built).unlink()
    bare = replace(host, environment={**host.environment, "PENSTOCK_CLANG": "/nonexistent/clang"})
    done = bare("rollback", "0", "-i", "v1")
    assert done.code == 0, done.err
    assert wire.arrived(53) == 0


@pytest.mark.check(21)
def test_rollback_is_guarded_too(wire: Wire, host: Cli, tmp_path: Path) -> None:
    shut = write(tmp_path / "a.policy", "filter guard at xdp { drop if tcp dst port 22 }")
    over_ssh = replace(host, environment={**host.environment, "SSH_CONNECTION": "10.9.0.1 50022 10.9.0.2 22"})
    host("apply", str(shut), "-i", "v1")
    host("apply", str(write(shut, text(53))), "-i", "v1")
    assert over_ssh("rollback", "-i", "v1").code == 1
    assert wire.arrived(53) == 0


@pytest.mark.check(26)
def test_a_full_disk_leaves_the_old_history_and_is_told(wire: Wire, host: Cli, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(state)], check=True)
    try:
        policy = write(tmp_path / "a.policy", text(53))
        assert host("apply", str(policy), "-i", "v1").err == ""
        before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
        with pytest.raises(OSError, match="No space left"):
            fill(state / "filler")
        write(policy, text(54))
        done = host("apply", str(policy), "-i", "v1")
        assert done.code == 0
        assert "No space left on device; the policy is in place" in done.err
        assert wire.arrived(54) == 0
        (state / "filler").unlink()
        assert {path: path.read_bytes() for path in state.rglob("*") if path.is_file()} == before
        assert host("rollback", "0", "-i", "v1").code == 0
        assert wire.arrived(53) == 0
    finally:
        subprocess.run(["umount", str(state)], check=True)


@pytest.mark.check(26)
def test_a_text_that_was_changed_on_disk_is_not_put_in_place(wire: Wire, host: Cli, tmp_path: Path) -> None:
    host("apply", str(write(tmp_path / "a.policy", text(53))), "-i", "v1")
    (file,) = (tmp_path / "state/history/policies").iterdir()
    file.write_text(text(54))
    done = host("rollback", "0", "-i", "v1")
    assert done.code == 1
    assert "was changed on disk" in done.err


def test_what_is_not_there_is_said(wire: Wire, host: Cli, tmp_path: Path) -> None:
    assert "nothing was put there yet" in host("rollback", "-i", "v1").err
    host("apply", str(write(tmp_path / "a.policy", text(53))), "-i", "v1")
    done = host("rollback", "-i", "v1")
    assert done.code == 1
    assert "no earlier policy than the one put there last" in done.err
    assert f"there are: {remembered(host)[0]['id']}" in done.err
    assert "has no entry 7" in host("rollback", "7", "-i", "v1").err


@pytest.mark.check(7)
@pytest.mark.parametrize("kind", ["directory", "above", "link", "link above", "built"])
def test_a_policy_that_everybody_can_exchange_is_refused(
    wire: Wire, host: Cli, tmp_path: Path, kind: str
) -> None:
    place = tmp_path / "open"
    place.mkdir()
    inner = place / "inner" if "above" in kind else place
    inner.mkdir(exist_ok=True)
    policy = write(inner / "a.policy", text(53))
    if kind == "built":
        host("build", str(policy), "-o", str(place / "a.pso"))
        policy = place / "a.pso"
    place.chmod(0o777)
    if kind == "link":
        (tmp_path / "a.policy").symlink_to(policy)
        policy = tmp_path / "a.policy"
    if kind == "link above":
        (tmp_path / "shut").symlink_to(inner)
        policy = tmp_path / "shut" / "a.policy"
    done = host("apply", str(policy), "-i", "v1")
    assert done.code == 1
    assert f"chmod o-w {place}" in done.err
    place.chmod(0o1777)
    assert host("apply", str(policy), "-i", "v1").code == 0
