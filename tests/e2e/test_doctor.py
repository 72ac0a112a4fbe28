"""`penstock doctor` on an interface of the tests' own: what it finds is there, and what it says mends it."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import Cli
from tests.kernel.conftest import CompileC, compile_c  # noqa: F401 - a fixture
from tests.netns import Namespace, veth

from penstock.kernel.bpf_object import load_object
from penstock.kernel.netlink import NATIVE, interface, set_xdp

pytestmark = pytest.mark.privileged

PROGRAM = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int mine(struct xdp_md *ctx) { return XDP_PASS; }
"""
POLICY = "filter dns at xdp { drop if udp dst port 53 }"


def findings(cli: Cli, *arguments: str) -> list[dict[str, Any]]:
    done = cli("doctor", *arguments, "--json")
    assert done.code == 0, done.err
    found: list[dict[str, Any]] = done.record["findings"]
    return found


def about(found: list[dict[str, Any]], check: str) -> list[str]:
    return [one["text"] for one in found if one["check"] == check]


def test_a_veth_pair_has_xdp_and_nobody_on_it(host: Cli) -> None:
    found = findings(host, "-i", "v1")
    assert "driver veth has XDP" in about(found, "driver")[0]
    assert about(found, "programs") == ["no BPF program on any hook"]


def test_programs_of_ours_and_of_others(host: Cli, tmp_path: Any) -> None:
    policy = tmp_path / "dns.policy"
    policy.write_text(POLICY)
    assert host("apply", str(policy), "-i", "v1").code == 0
    (text,) = about(findings(host, "-i", "v1"), "programs")
    assert text.startswith("xdp: ") and text.endswith("(penstock's)")  # noqa: PT018
    assert host("detach", "-i", "v1").code == 0
    assert about(findings(host, "-i", "v1"), "programs") == ["no BPF program on any hook"]


def test_what_is_found_is_mended_by_its_command(root: Path, compile_c: CompileC) -> None:  # noqa: F811
    """Another's XDP program on the interface; jumbo frames; tags that the device takes out."""
    source = 'SEC("xdp") int theirs(struct xdp_md *ctx) { return XDP_PASS; }'
    cli = Cli({"PENSTOCK_BPFFS": str(root)})
    with Namespace("doctor-l") as left, Namespace("doctor-r") as right:
        veth(left, "v0", right, "v1")
        with load_object(compile_c(source), "theirs") as loaded, right.inside():
            set_xdp(interface("v1").index, loaded.programs["theirs"].fd, NATIVE)
        before = findings(cli, "--netns", right.name, "-i", "v1")
        commands = [one["command"] for one in before if one["check"] in ("programs", "rxvlan")]
        assert "ip link set dev v1 xdp off" in commands
        for command in filter(None, commands):
            if shutil.which(shlex.split(command)[0]):
                right.run(*shlex.split(command))
        after = findings(cli, "--netns", right.name, "-i", "v1")
        assert about(after, "programs") == ["no BPF program on any hook"]


def test_without_a_bpf_file_system_it_is_a_fault(cli: Cli, tmp_path: Any) -> None:
    bare = Cli({**cli.environment, "PENSTOCK_BPFFS": str(tmp_path / "pins")}, cli.prefix)
    done = bare("doctor", "--json")
    assert done.code == 3
    faults = [one for one in done.record["findings"] if one["level"] == "fault"]
    assert [one["check"] for one in faults] == ["bpffs"]


def test_who_may_not_even_look_at_the_pins_hears_of_privilege(cli: Cli, tmp_path: Path) -> None:
    """/sys/fs/bpf is root's alone: to others `is it there?` is refused."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    os.chown(closed, 65534, 65534)
    pins = {"PENSTOCK_BPFFS": str(closed / "pins")}
    done = Cli({**cli.environment, **pins}, ("setpriv", "--bounding-set=-all", "--inh-caps=-all"))(
        "doctor", "--json"
    )
    faults = [one["check"] for one in done.record["findings"] if one["level"] == "fault"]
    assert (done.code, faults[0]) == (3, "privilege")


def test_a_program_of_the_users_own_is_taken_off_by_what_it_says(host: Cli, tmp_path: Path) -> None:
    source = tmp_path / "mine.c"
    source.write_text(PROGRAM)
    assert host("program", "load", str(source), "-i", "v1").code == 0
    (found,) = [one for one in findings(host, "-i", "v1") if one["check"] == "programs"]
    assert f"from {source}: `apply` refuses" in found["text"]
    assert host(*found["command"].split()[1:]).code == 0
    assert about(findings(host, "-i", "v1"), "programs") == ["no BPF program on any hook"]


def test_below_ip_netns_exec_nobody_is_told_that_nothing_is_in_place(cli: Cli) -> None:
    """It mounts a /sys of its own, and /sys/fs/bpf is gone with all pins."""
    with Namespace("doctor-h") as hidden:
        inside = Cli({"PENSTOCK_BPFFS": "/sys/fs/bpf/penstock"}, ("ip", "netns", "exec", hidden.name))
        for command in (("status",), ("detach", "-i", "lo"), ("program", "detach", "-i", "lo")):
            done = inside(*command)
            assert done.code == 3
            assert f"use `penstock --netns {hidden.name}`" in done.err
        (fault,) = [one for one in inside("doctor", "--json").record["findings"] if one["level"] == "fault"]
        assert (fault["check"], fault["command"]) == ("bpffs", f"penstock --netns {hidden.name} …")


def test_nothing_is_changed(host: Cli) -> None:
    before = host("status", "--json").out
    findings(host, "-i", "v1")
    assert host("status", "--json").out == before


def test_an_interface_that_is_not_there(cli: Cli) -> None:
    done = cli("doctor", "-i", "nothere")
    assert done.code == 3
    assert "nothere" in done.err
