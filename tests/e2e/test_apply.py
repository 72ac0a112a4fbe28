"""`apply`, `status`, `detach` on real interfaces with real sockets."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.conftest import Cli, Wire, counters, write
from tests.netns import Namespace, veth

from penstock.compiler.clang import compile_c
from penstock.kernel.attach_point import encode
from penstock.kernel.lock import lock
from penstock.pipeline.built import join
from penstock.pipeline.policy import load_policy

pytestmark = pytest.mark.privileged


def test_the_right_packets_are_dropped_and_the_filter_outlives_the_command(
    wire: Wire, host: Cli, policy: Path
) -> None:
    assert wire.arrived(53) == 5
    done = host("apply", str(policy), "-i", "v1")
    assert done.code == 0, done.err
    assert wire.arrived(53) == 0
    assert wire.arrived(123) == 0
    assert wire.arrived(8000) == 5


def test_status_counts_packets_and_bytes(wire: Wire, host: Cli, policy: Path) -> None:
    host("apply", str(policy), "-i", "v1")
    wire.arrived(53, count=7, size=30)
    (one,) = host("status", "-i", "v1", "--json").record["filters"]
    dns = next(entry for entry in one["counters"] if entry["name"] == "dns")
    assert (dns["packets"], dns["bytes"]) == (7, 7 * (14 + 20 + 8 + 30))
    assert one["mode"] == "native"
    assert one["trouble"] is None
    assert "drop" in host("status").out


def test_status_measures_rates(wire: Wire, host: Cli, policy: Path) -> None:
    host("apply", str(policy), "-i", "v1")
    running = host.start("status", "-i", "v1", "--json", "--interval", "2s")
    wire.arrived(53, count=20)
    out, _ = running.communicate(timeout=30)
    assert running.returncode == 0
    assert '"packets_per_s"' in out


def test_a_replacement_keeps_the_counters_of_equal_labels_and_the_link(
    wire: Wire, host: Cli, policy: Path, tmp_path: Path
) -> None:
    host("apply", str(policy), "-i", "v1")
    wire.arrived(53, count=4)
    wire.arrived(123, count=3)
    before = counters(host("status", "--json"))
    assert (before["dns"], before["ntp"]) == (4, 3)
    changed = write(
        tmp_path / "new.policy",
        "filter guard at xdp { dns: drop if udp dst port 5353\n drop if udp dst port 99 }",
    )
    done = host("apply", str(changed), "-i", "v1", "--json").record
    assert done["replaced"] == "guard"
    after = counters(host("status", "--json"))
    assert after["dns"] == 4
    assert "ntp" not in after
    assert after["default"] >= before["default"]
    assert wire.arrived(53) == 5


def test_an_unlabelled_rule_keeps_its_counter_only_if_it_is_the_same(
    wire: Wire, host: Cli, tmp_path: Path
) -> None:
    first = write(
        tmp_path / "one.policy", "filter f at xdp {\n drop if udp dst port 53\n drop if udp dst port 54 }"
    )
    other = write(
        tmp_path / "two.policy", "filter f at xdp {\n drop if udp dst port 53\n drop if udp dst port 55 }"
    )
    host("apply", str(first), "-i", "v1")
    wire.arrived(53, count=4)
    wire.arrived(54, count=3)
    host("apply", str(other), "-i", "v1")
    after = counters(host("status", "--json"))
    assert (after["f:2"], after["f:3"]) == (4, 0)


@pytest.mark.check(1)
def test_a_faulty_policy_changes_nothing(wire: Wire, host: Cli, policy: Path, tmp_path: Path) -> None:
    host("apply", str(policy), "-i", "v1")
    before = host("status", "--json").record["filters"][0]["program_id"]
    faulty = write(tmp_path / "faulty.policy", "filter guard at xdp {\n    drop if udp dts port 53\n}\n")
    done = host("apply", str(faulty), "-i", "v1")
    assert done.code == 1
    assert "faulty.policy:2:" in done.err
    assert "^" in done.err
    assert host("status", "--json").record["filters"][0]["program_id"] == before
    assert wire.arrived(53) == 0


@pytest.mark.check(11)
def test_a_policy_that_the_verifier_refuses_changes_nothing(
    wire: Wire, host: Cli, policy: Path, tmp_path: Path
) -> None:
    """A built file whose program reads a packet without looking how long it is."""
    host("apply", str(policy), "-i", "v1")
    wire.arrived(53, count=3)
    before = host("status", "--json").record["filters"][0]["program_id"]
    good = load_policy(policy.read_text(), name="guard.policy")
    source = (
        "#define SEC(name) __attribute__((section(name), used))\n"
        'struct xdp_md { unsigned data, data_end; };\nchar ps_license[] SEC("license") = "GPL";\n'
        '#line 4 "guard.policy"\n'
        'SEC("xdp.frags") int ps_filter(struct xdp_md *ctx) { return *(char *)(long)ctx->data; }\n'
    )
    bad = tmp_path / "bad.pso"
    bad.write_bytes(join(compile_c(source, [("guard.policy", policy.read_text())]), good.identity))
    done = host("apply", str(bad), "-i", "v1")
    assert done.code == 3
    assert "verifier refused it at guard.policy:4" in done.err
    assert "invalid access to packet" in done.err
    after = host("status", "--json")
    assert after.record["filters"][0]["program_id"] == before
    assert counters(after)["dns"] == 3
    assert wire.arrived(53) == 0


def test_detach_takes_it_off_and_leaves_no_pin(wire: Wire, host: Cli, policy: Path, root: Path) -> None:
    host("apply", str(policy), "-i", "v1")
    assert host("detach", "-i", "v1").code == 0
    assert wire.arrived(53) == 5
    assert list(root.iterdir()) == []
    again = host("detach", "-i", "v1")
    assert again.code == 3
    assert "penstock has put no filter there" in again.err


@pytest.mark.check(17)
def test_a_foreign_program_is_named_and_left_alone_until_told(wire: Wire, host: Cli, policy: Path) -> None:
    from penstock.kernel.link import attached

    other = Cli({"PENSTOCK_BPFFS": host.environment["PENSTOCK_BPFFS"] + "-other"}, host.prefix)
    other("apply", str(policy), "-i", "v1")
    with wire.server.inside():
        from penstock.kernel.netlink import interface

        (foreign,) = attached(interface("v1").index)
    refused = host("apply", str(policy), "-i", "v1")
    assert refused.code == 3
    assert f"id {foreign.program_id}" in refused.err
    assert "--replace" in refused.err
    taken = host("apply", str(policy), "-i", "v1", "--replace")
    assert taken.code == 0, taken.err
    assert str(foreign.program_id) in taken.err
    other("detach", "-i", "v1")
    assert wire.arrived(53) == 0


def test_generic_mode_on_request(wire: Wire, host: Cli, policy: Path) -> None:
    done = host("apply", str(policy), "-i", "v1", "--mode", "generic", "--json")
    assert done.record["mode"] == "generic"
    assert wire.arrived(53) == 0
    refused = host("apply", str(policy), "-i", "v1", "--mode", "native")
    assert refused.code == 1
    assert "detach" in refused.err


def test_generic_mode_when_the_driver_refuses_after_saying_so(host: Cli, policy: Path) -> None:
    assert host("apply", str(policy), "-i", "lo", "--mode", "native").code == 3
    done = host("apply", str(policy), "-i", "lo", "--json")
    assert done.code == 0, done.err
    assert done.record["mode"] == "generic"
    assert "generic mode is used" in done.err


def test_jumbo_frames_load_in_native_mode(wire: Wire, host: Cli, policy: Path) -> None:
    for place, name in ((wire.client, "v0"), (wire.server, "v1")):
        place.ip("link", "set", name, "mtu", "9000")
    done = host("apply", str(policy), "-i", "v1", "--json")
    assert done.record["mode"] == "native"
    assert wire.arrived(8000, size=8000) == 5
    assert wire.arrived(53, size=8000) == 0
    (one,) = host("status", "--json").record["filters"]
    dns = next(entry for entry in one["counters"] if entry["name"] == "dns")
    assert (dns["packets"], dns["bytes"]) == (5, 5 * (14 + 20 + 8 + 8000))


def test_a_dry_run_loads_but_changes_nothing(wire: Wire, host: Cli, policy: Path) -> None:
    done = host("apply", str(policy), "-i", "v1", "--dry-run", "--json")
    assert done.record["applied"] is False
    assert done.record["verified_instructions"] > 0
    assert wire.arrived(53) == 5


def test_a_dry_run_says_what_would_change(wire: Wire, host: Cli, policy: Path, tmp_path: Path) -> None:
    told = host("apply", str(policy), "-i", "v1", "--dry-run").out
    assert "nothing of penstock's is there; 2 rules would come" in told
    host("apply", str(policy), "-i", "v1")
    wire.arrived(123, count=2)
    new = write(
        tmp_path / "new.policy",
        "filter guard at xdp {\n web: drop if udp dst port 80\n dns: drop if udp dst port 5353\n}\n",
    )
    found = host("apply", str(new), "-i", "v1", "--dry-run", "--json").record
    assert found["replaces"] == "guard"
    assert [(one["change"], one["rule"]) for one in found["rules"]] == [
        ("added", "web"),
        ("changed", "dns"),
        ("removed", "ntp"),
    ]
    assert found["counters_lost"] == ["ntp"]
    told = host("apply", str(new), "-i", "v1", "--dry-run").out
    assert "changed dns: drop if udp dst port 5353   (now: dns: drop if udp dst port 53)" in told
    assert wire.arrived(53) == 0


def test_a_built_policy_needs_no_compiler(wire: Wire, host: Cli, policy: Path, tmp_path: Path) -> None:
    built = tmp_path / "guard.pso"
    assert host("build", str(policy), "-o", str(built)).code == 0
    bare = Cli({**host.environment, "PENSTOCK_CLANG": "/nonexistent/clang"}, host.prefix)
    assert bare("apply", str(policy), "-i", "v1").code == 2
    done = bare("apply", str(built), "-i", "v1")
    assert done.code == 0, done.err
    assert wire.arrived(53) == 0
    assert counters(bare("status", "--json"))["dns"] == 5


def test_a_built_policy_of_many_rules_carries_its_tables(wire: Wire, host: Cli, tmp_path: Path) -> None:
    policy, built = tmp_path / "many.policy", tmp_path / "many.pso"
    rules = [f"    drop if src net 10.0.{n}.0/24 and tcp dst port {n + 1}\n" for n in range(200)]
    policy.write_text(f"filter many at xdp {{\n{''.join(rules)}    dns: drop if udp dst port 53\n}}\n")
    assert host("build", str(policy), "-o", str(built)).code == 0
    bare = Cli({**host.environment, "PENSTOCK_CLANG": "/nonexistent/clang"}, host.prefix)
    done = bare("apply", str(built), "-i", "v1")
    assert done.code == 0, done.err
    assert wire.arrived(53) == 0
    assert wire.arrived(54) == 5
    assert counters(bare("status", "--json"))["dns"] == 5


def test_an_unknown_interface_gets_the_nearest_name(host: Cli, policy: Path) -> None:
    done = host("apply", str(policy), "-i", "v11")
    assert done.code == 3
    assert "did you mean v1?" in done.err


def test_an_unknown_namespace(policy: Path) -> None:
    done = Cli()("--netns", "ps-no-such", "apply", str(policy), "-i", "lo")
    assert done.code == 3
    assert "no such network namespace" in done.err


def test_the_namespace_option(wire: Wire, root: Path, policy: Path) -> None:
    outside = Cli({"PENSTOCK_BPFFS": str(root)})
    assert outside("apply", str(policy), "-i", "v1", "--netns", wire.server.name).code == 0
    assert wire.arrived(53) == 0
    hint = outside("drop", "icmp", "-i", "v1", "--netns", wire.server.name, "--for", "1h").err
    assert hint == f"`penstock undrop drop#1 -i v1 --netns {wire.server.name}` takes it back\n"
    assert outside("--netns", wire.server.name, "detach", "-i", "v1").code == 0


def test_without_permission_the_capability_is_named(wire: Wire, policy: Path, root: Path) -> None:
    bare = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--clear-groups", "--regid=0", "--")
    done = Cli({"PENSTOCK_BPFFS": str(root)}, (*wire.server.command(), *bare))(
        "apply", str(policy), "-i", "v1"
    )
    assert done.code == 4
    assert "CAP_BPF" in done.err


@pytest.mark.parametrize("missing", ["bpf", "net_admin"])
@pytest.mark.parametrize("command", ["apply", "drop", "try"])
def test_a_single_capability_that_is_missing_is_named(
    wire: Wire, policy: Path, root: Path, missing: str, command: str
) -> None:
    """CAP_SYS_ADMIN stands for CAP_BPF too, so it goes with each of them."""
    caps = f"-{missing},-sys_admin"
    bare = ("setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}", "--")
    cli = Cli({"PENSTOCK_BPFFS": str(root)}, (*wire.server.command(), *bare))
    words = (str(policy),) if command == "apply" else ("udp dst port 53", "--for", "1s")
    done = cli(command, *words, "-i", "v1")
    assert done.code == 4, done.err
    assert f"CAP_{missing.upper()}" in done.err
    assert not root.exists() or list(root.iterdir()) == []
    assert wire.arrived(53) == 5


@pytest.mark.check(7)
def test_a_policy_that_everybody_can_write_is_refused(host: Cli, policy: Path) -> None:
    policy.chmod(0o666)
    done = host("apply", str(policy), "-i", "v1")
    assert done.code == 1
    assert "chmod o-w" in done.err


@pytest.mark.check(7)
@pytest.mark.parametrize("other", ["edge.policy", "../../../../etc/shadow", "/dev/zero"])
def test_a_policy_is_one_file(host: Cli, tmp_path: Path, other: str) -> None:
    """Nothing is included, so nothing in a circle, and nothing from elsewhere: no other file is opened."""
    text = f'include "{other}"\nfilter edge at xdp {{ drop if udp dst port 53 }}\n'
    done = host("apply", str(write(tmp_path / "edge.policy", text)), "-i", "v1")
    assert done.code == 1
    assert (
        "edge.policy:1:1: error[PS107]: `include` (including other files) is not in this version" in done.err
    )
    assert host("status", "--json").record["filters"] == []


@pytest.mark.check(16)
def test_of_two_applies_one_hears_busy(wire: Wire, host: Cli, policy: Path) -> None:
    with wire.server.inside():
        from penstock.kernel import netns

        name = encode("v1", netns.inode())
    with lock(name):
        done = host("apply", str(policy), "-i", "v1")
    assert done.code == 3
    assert "busy" in done.err
    assert host("apply", str(policy), "-i", "v1").code == 0


@pytest.mark.check(18)
def test_an_interface_that_is_renamed_keeps_its_filter(wire: Wire, host: Cli, policy: Path) -> None:
    host("apply", str(policy), "-i", "v1")
    wire.arrived(53, count=3)
    wire.server.ip("link", "set", "v1", "down")
    wire.server.ip("link", "set", "v1", "name", "wan")
    wire.server.ip("link", "set", "wan", "up")
    status = host("status", "--json")
    assert status.record["filters"][0]["interface"] == "wan"
    assert "now called wan" in status.record["filters"][0]["trouble"]
    assert host("apply", str(policy), "-i", "wan").code == 0
    assert counters(host("status", "-i", "wan", "--json"))["dns"] == 3
    assert wire.arrived(53) == 0
    assert host("detach", "-i", "wan").code == 0


@pytest.mark.check(18)
def test_an_interface_that_comes_back_gets_its_filter_again(wire: Wire, host: Cli, policy: Path) -> None:
    host("apply", str(policy), "-i", "v1")
    wire.arrived(53, count=3)
    wire.client.ip("link", "del", "v0")
    gone = host("status", "--json")
    assert gone.code == 3
    assert "v1 is gone" in gone.record["filters"][0]["trouble"]
    veth(wire.client, "v0", wire.server, "v1")
    wire.client.ip("address", "add", "10.9.0.1/24", "dev", "v0")
    wire.server.ip("address", "add", "10.9.0.2/24", "dev", "v1")
    again = host("apply", str(policy), "-i", "v1")
    assert again.code == 0, again.err
    assert "had been away" in again.err
    assert wire.arrived(53) == 0
    assert counters(host("status", "--json"))["dns"] == 8


@pytest.mark.check(18)
def test_what_a_vanished_interface_left_can_be_detached(host: Cli, wire: Wire, policy: Path) -> None:
    host("apply", str(policy), "-i", "v1")
    wire.client.ip("link", "del", "v0")
    assert host("detach", "-i", "v1").code == 0
    assert host("status", "--json").record["filters"] == []


@pytest.mark.check(25)
def test_without_a_bpf_file_system_it_says_how_to_mount_one(host: Cli, policy: Path, tmp_path: Path) -> None:
    place = Cli({"PENSTOCK_BPFFS": str(tmp_path / "plain")}, host.prefix)
    done = place("apply", str(policy), "-i", "v1")
    assert done.code == 3
    assert "no BPF file system" in done.err
    assert "mount -t bpf" in done.err


def test_status_of_nothing(host: Cli, wire: Wire) -> None:
    assert host("status", "--json").record["filters"] == []
    assert host("status", "-i", "v1").code == 0
    assert host("status", "-i", "nope").code == 3


def test_two_namespaces_with_interfaces_of_one_name_do_not_mix(
    wire: Wire, host: Cli, policy: Path, root: Path
) -> None:
    with Namespace("e2e-other") as other:
        other.ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
        second = Cli({"PENSTOCK_BPFFS": str(root)}, tuple(other.command()))
        host("apply", str(policy), "-i", "v1")
        assert second("apply", str(policy), "-i", "v1").code == 0
        assert len(second("status", "--json").record["filters"]) == 1
        assert second("detach", "-i", "v1").code == 0
        assert wire.arrived(53) == 0
