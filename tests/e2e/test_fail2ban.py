"""packaging/fail2ban: its commands, run by a shell as fail2ban runs them, ban and free in a set of the kernel."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.model.sets import SetSpec
from penstock.pipeline.ledger import Ledger
from penstock.pipeline.set_store import delete, open_set, shared

pytestmark = pytest.mark.privileged

ACTION = Path(__file__).parents[2] / "packaging/fail2ban/penstock.conf"


@pytest.fixture
def environment(bpffs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Where `penstock` is a command and @banned is a set of addresses, with a ledger of its own."""
    monkeypatch.setenv("PENSTOCK_BPFFS", str(bpffs / "fail2ban"))
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(tmp_path / "state"))
    command = tmp_path / "penstock"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m penstock "$@"\n')
    command.chmod(0o755)
    with shared([SetSpec("banned", ("host",), timeout_ns=1_000_000_000)]):
        pass
    yield {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    delete("banned", force=True)


def substituted(action: str, **ban: str) -> str:
    """The command of an action with its tags filled in: from the ban, else from the section Init."""
    read = configparser.RawConfigParser()
    read.read(ACTION)
    values = {**read["Init"], **ban}
    return re.sub(r"<(\w+)>", lambda found: values[found[1]], read["Definition"][action])


def run(environment: dict[str, str], action: str, **ban: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", substituted(action, **ban)], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def held() -> dict[str, float | None]:
    with open_set("banned") as found:
        return {entry.text: entry.expires_in for entry in found}


def test_bans_of_both_families_may_be_repeated_and_last_as_long_as_was_said(
    environment: dict[str, str],
) -> None:
    four, six = "203.0.113.9", "2001:db8::9"
    run(environment, "actionban", ip=four, bantime="600", name="sshd")
    run(environment, "actionban", ip=four, bantime="600", name="sshd")
    run(environment, "actionban", ip=six, bantime="-1", name="sshd")
    found = held()
    assert found.keys() == {four, six}
    assert found[six] is None
    assert 590 < (found[four] or 0) <= 600
    (claim,) = Ledger("banned").book().few[four].values()
    assert claim.comment == "fail2ban sshd"
    for _ in range(2):
        run(environment, "actionunban", ip=four, bantime="600", name="sshd")
        run(environment, "actionunban", ip=six, bantime="-1", name="sshd")
    assert held() == {}


def test_nothing_is_done_when_a_jail_starts_or_stops(environment: dict[str, str]) -> None:
    assert [substituted(action).strip() for action in ("actionstart", "actionstop", "actioncheck")] == [
        ""
    ] * 3
