"""The demo, with privilege and without, to its end and interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess

import pytest
from tests.e2e.conftest import Cli


def _namespaces() -> str:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout


@pytest.mark.privileged
def test_it_drops_dns_then_ntp_and_leaves_nothing(cli: Cli) -> None:
    done = cli("demo", "--seconds", "5")
    assert done.code == 0, done.err
    answered = [tuple(map(int, found)) for found in re.findall(r"DNS (\d+)/(\d+), NTP (\d+)/(\d+)", done.out)]
    assert any(dns == 0 and asked > 20 and ntp > 0 for dns, asked, ntp, _ in answered)
    assert any(ntp == 0 and asked > 20 and dns > 0 for dns, _, ntp, asked in answered)
    filled, blocked, freed = re.split(r"the client is added to them.*|and removed, in.*", done.out)
    assert "1,000,000 addresses were put in" in filled
    assert re.search(r"DNS 0/(?!0,)\d+, NTP 0/\d+, echo 0/\d+   rule blocked: [1-9]", blocked)
    assert re.search(r"echo [1-9]\d*/", freed)
    assert freed.endswith("everything the demo made is removed\n")
    assert f"penstock-demo-{0}" not in _namespaces()


@pytest.mark.privileged
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_leaves_nothing(cli: Cli, number: signal.Signals) -> None:
    running = cli.start("demo", "--seconds", "60", start_new_session=True)
    assert running.stdout is not None
    assert "traffic flows" in running.stdout.readline()
    mine = f"penstock-demo-{running.pid}-"
    assert mine in _namespaces()
    os.killpg(running.pid, number)
    os.killpg(running.pid, number)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "Traceback" not in err
    assert "everything the demo made is removed" in err
    assert mine not in _namespaces()


def test_without_privilege_the_reference_engine_plays() -> None:
    bare = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--clear-groups", "--regid=0", "--")
    is_root = subprocess.run(["id", "-u"], capture_output=True, text=True).stdout == "0\n"
    done = Cli(prefix=bare if is_root else ())("demo")
    assert done.code == 0, done.err
    assert "CAP_BPF" in done.out or "BPF" in done.out
    assert "20 of 60 packets" in done.out
