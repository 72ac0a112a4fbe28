"""`penstock doctor` on an interface of the tests' own: what it finds is there, and what it says mends it."""

from __future__ import annotations

import shlex
import shutil
from typing import Any

import pytest
from tests.e2e.conftest import Cli
from tests.kernel.conftest import CompileC, compile_c  # noqa: F401 - a fixture
from tests.netns import Namespace, veth

from penstock.kernel.bpf_object import load_object
from penstock.kernel.netlink import NATIVE, interface, set_xdp

pytestmark = pytest.mark.privileged

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


def test_what_is_found_is_mended_by_its_command(cli: Cli, compile_c: CompileC) -> None:  # noqa: F811
    """Another's XDP program on the interface; jumbo frames; tags that the device takes out."""
    source = 'SEC("xdp") int theirs(struct xdp_md *ctx) { return XDP_PASS; }'
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


def test_nothing_is_changed(host: Cli) -> None:
    before = host("status", "--json").out
    findings(host, "-i", "v1")
    assert host("status", "--json").out == before


def test_an_interface_that_is_not_there(cli: Cli) -> None:
    done = cli("doctor", "-i", "nothere")
    assert done.code == 3
    assert "nothere" in done.err
