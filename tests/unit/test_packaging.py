"""The units, users and directories of packaging/: what they permit is exactly what is needed (checks 24, 41)."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from penstock.daemon.settings import Settings, read_settings

PACKAGING = Path(__file__).parents[2] / "packaging"
UNITS = sorted((PACKAGING / "systemd").glob("*.service"))


def settings_in(unit: Path) -> dict[str, list[str]]:
    """Key -> what it is set to, in order; each list of words is one value."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if matched := re.fullmatch(r"(\w+)=(.*)", line):
            found.setdefault(matched[1], []).append(matched[2])
        else:
            assert not line or line.startswith(("#", "[")), line
    return found


DAEMON, FETCHER = (
    settings_in(PACKAGING / "systemd/penstock.service"),
    settings_in(PACKAGING / "systemd/penstock-feeds.service"),
)


@pytest.mark.check(41)
def test_check_41_the_daemon_has_two_capabilities_and_the_fetcher_none() -> None:
    for key in ("AmbientCapabilities", "CapabilityBoundingSet"):
        assert DAEMON[key] == ["CAP_BPF CAP_NET_ADMIN"]
        assert FETCHER[key] == [""]
    assert (DAEMON["User"], FETCHER["User"]) == (["penstock"], ["penstock-feeds"])
    assert FETCHER["ReadWritePaths"] == ["/var/lib/penstock/feeds"]
    assert "/sys/fs/bpf" in FETCHER["InaccessiblePaths"][0]
    for unit in (DAEMON, FETCHER):
        assert (unit["NoNewPrivileges"], unit["ProtectSystem"]) == (["yes"], ["strict"])


@pytest.mark.check(24)
def test_check_24_the_filter_is_in_place_before_the_network_is_up() -> None:
    assert "network-pre.target" in DAEMON["Before"][0].split()
    assert DAEMON["Wants"] == ["network-pre.target"]
    assert DAEMON["DefaultDependencies"] == ["no"]
    assert not any("network.target" in one or "network-online" in one for one in DAEMON["After"])
    # Only then "before" means anything: the daemon says when its first round is done.
    assert DAEMON["Type"] == ["notify"]
    assert int(DAEMON["WatchdogSec"][0]) >= 10
    assert DAEMON["ExecReload"] == ["/bin/kill -HUP $MAINPID"]


def test_users_and_directories_are_those_of_the_units() -> None:
    users = re.findall(r"^u\s+(\S+)", (PACKAGING / "sysusers.d/penstock.conf").read_text(), re.MULTILINE)
    assert users == ["penstock", "penstock-feeds"]
    # A line of /etc/passwd has fields between colons: systemd-sysusers refuses such a user.
    described = re.findall(r'^u .*"(.*)"', (PACKAGING / "sysusers.d/penstock.conf").read_text(), re.MULTILINE)
    assert len(described) == 2
    assert not any(":" in text for text in described)
    text = (PACKAGING / "tmpfiles.d/penstock.conf").read_text()
    made = {
        path: (mode, user)
        for path, mode, user in re.findall(r"^[dz] (\S+)\s+(\d+)\s+(\S+)", text, re.MULTILINE)
    }
    pins = [f"/sys/fs/bpf/penstock{more}" for more in ("", "-sets", "-programs")]
    assert {made[path] for path in pins} == {("0700", "penstock")}
    assert made["/sys/fs/bpf"] == ("0711", "root")
    # ProtectKernelTunables= wins over /sys/fs/bpf in ReadWritePaths=, and not over what lies below it.
    assert DAEMON["ReadWritePaths"] == [" ".join(f"-{path}" for path in pins)]
    assert DAEMON["ExecStartPre"] == ["+systemd-tmpfiles --create penstock.conf"]
    assert made["/var/lib/penstock/feeds"] == ("0755", "penstock-feeds")
    assert made["/run/penstock"] == ("0755", "penstock")


def test_the_example_of_settings_is_one() -> None:
    found = read_settings(PACKAGING / "etc")
    assert found != Settings()
    assert found.policy["edge.policy"].interfaces == ("eth0", "wan*")
    assert found.failure == Settings().failure


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_knows_every_key_and_finds_little_open(unit: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    for one in UNITS:
        (tmp_path / one.name).write_text(one.read_text().replace("/usr/bin/penstock", "/bin/true"))
    done = subprocess.run([analyze, "verify", str(tmp_path / unit.name)], capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if unit.stem in line] == []
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=25", str(tmp_path / unit.name)],
        capture_output=True,
        text=True,
    )
    if "Unknown" in done.stderr or "unrecognized" in done.stderr:
        pytest.skip("this systemd-analyze judges no files")
    assert done.returncode == 0, done.stdout[-300:]


def test_units_are_installed_where_they_belong(tmp_path: Path) -> None:
    argv = ["make", "-s", "install-units", f"DESTDIR={tmp_path}", "PREFIX=/opt"]
    subprocess.run(argv, cwd=PACKAGING.parent, check=True)
    unit = (tmp_path / "opt/lib/systemd/system/penstock.service").read_text()
    assert "ExecStart=/opt/bin/penstock daemon --no-fetch" in unit
    assert (tmp_path / "opt/lib/sysusers.d/penstock.conf").exists()
    assert (tmp_path / "opt/lib/tmpfiles.d/penstock.conf").exists()
