"""A command in a fork of a warm process does and says what one does that was started cold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.e2e.conftest import Cli, warm, write
from tests.netns import Namespace
from tests.warm import COLD, forget_objects

from penstock.compiler.clang import compile_c

_COMMANDS = (
    "--help",
    "--no-such-option",
    "check good.policy",
    "check bad.policy",
    "build good.policy -o built.pso",
    "status --json",
)


@pytest.mark.privileged
@pytest.mark.parametrize("command", _COMMANDS)
def test_warm_and_cold(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "good.policy", "filter a at xdp {\n drop if udp dst port 53\n}\n")
    write(tmp_path / "bad.policy", "filter a at xdp {\n drop iff udp\n}\n")
    told = [Cli()(*command.split()), Cli({COLD: "1"})(*command.split())]
    assert told[0] == told[1]


@pytest.mark.privileged
def test_a_warm_command_is_in_the_namespace_it_is_told(policy: Path) -> None:
    with Namespace("e2e-warm") as place:
        place.ip("link", "add", "uplink", "type", "veth", "peer", "name", "peer")
        told = Cli(prefix=tuple(place.command()))("apply", str(policy), "-i", "uplinc")
        with place.inside():
            entered = Cli()("apply", str(policy), "-i", "uplinc")
    assert "uplink" in told.err
    assert told == entered


def test_an_environment_that_python_reads_at_its_start_asks_for_a_cold_one() -> None:
    assert warm().takes(dict(os.environ))
    assert not warm().takes({**os.environ, "PYTHONUTF8": "0"})
    assert not warm().takes({**os.environ, "LC_ALL": "C"})


def test_an_object_that_is_remembered_is_the_one_that_clang_makes() -> None:
    text = "int answer = 42;\n"
    made = compile_c(text), compile_c(text)
    with forget_objects():
        assert compile_c(text) == made[0] == made[1]
    assert compile_c("int answer = 41;\n") != made[0]
