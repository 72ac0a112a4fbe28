"""A policy that would lock its host out is refused before it is attached: check 21."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.e2e.conftest import CLIENT, SERVER, Cli, Done, Here, Wire, counters, write

from penstock.errors import LockoutError
from penstock.kernel.attach_point import attach_point
from penstock.model.hook import Hook
from penstock.model.packet import read_packet
from penstock.pipeline.lifelines import lifelines

pytestmark = [pytest.mark.privileged, pytest.mark.check(21)]

SSH = {"SSH_CONNECTION": f"{CLIENT} 50022 {SERVER} 22"}
SSH6 = {"SSH_CONNECTION": "2001:db8::1 50022 2001:db8::2 22"}
HOOKS = ["xdp", "tc ingress", "tc egress"]


class Session(Here):
    """The command in this process, with variables of its own."""

    def __call__(self, *arguments: str, stdin: str | None = None) -> Done:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            return super().__call__(*arguments)


@pytest.fixture
def host(wire: Wire, root: Path) -> Iterator[Cli]:
    """The command in the server's namespace; what it left attached goes with that."""
    with wire.server.inside():
        made = Session({"PENSTOCK_BPFFS": str(root)})
        yield made
        for one in made("status", "--json").record["filters"]:
            made("detach", "-i", one["interface"])


def outside(host: Cli, wire: Wire, *prefix: str) -> Cli:
    """The command in a process of its own."""
    return Cli(host.environment, (*wire.server.command(), *prefix))


def over_ssh(host: Cli, variables: dict[str, str] = SSH) -> Cli:
    return replace(host, environment={**host.environment, **variables})


def with_resolvers(host: Cli, wire: Wire, tmp_path: Path, *servers: str) -> Cli:
    """The command with a resolv.conf of its own, in a mount namespace that it alone sees."""
    file = write(tmp_path / "resolv.conf", "".join(f"nameserver {server}\n" for server in servers))
    script = f'mount --bind {file} /etc/resolv.conf && exec "$@"'
    return outside(host, wire, "unshare", "--mount", "sh", "-c", script, "sh")


@pytest.fixture
def wire6(wire: Wire) -> Wire:
    """The wire, with IPv6 and default gateways."""
    for side, dev, end in ((wire.client, "v0", "1"), (wire.server, "v1", "2")):
        side.ip("address", "add", f"2001:db8::{end}/64", "dev", dev, "nodad")
    wire.server.ip("route", "add", "default", "via", CLIENT)
    wire.server.ip("-6", "route", "add", "default", "via", "2001:db8::1")
    return wire


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("variables", [SSH, SSH6], ids=["ipv4", "ipv6"])
def test_the_ssh_connection(
    wire6: Wire, host: Cli, tmp_path: Path, hook: str, variables: dict[str, str]
) -> None:
    side = "src" if hook == "tc egress" else "dst"
    text = f"filter edge at {hook} {{\n default pass\n shut: drop if tcp {side} port 22\n}}\n"
    policy = write(tmp_path / "edge.policy", text)
    done = over_ssh(host, variables)("apply", str(policy), "-i", "v1")
    assert done.code == 1
    peer = variables["SSH_CONNECTION"].split()[0]
    assert f"would cut off the SSH connection from {peer}" in done.err
    assert f"shut ({policy}:3): shut: drop if tcp {side} port 22" in done.err
    assert "--force" in done.err
    assert host("status", "--json").record["filters"] == []
    mended = next(line.split()[1:] for line in done.err.splitlines() if line.strip().startswith("mend"))
    rule = " ".join(mended).partition("(")[0]
    write(policy, text.replace(" shut:", f" {rule}\n shut:"))
    done = over_ssh(host, variables)("apply", str(policy), "-i", "v1")
    assert done.code == 0, done.err
    assert counters(host("status", "--json"))["shut"] == 0


SYN = "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn"
BOTH = ["the SSH connection", "a new SSH connection"]
RATES = {
    "drop if over 1/h per rule burst 1": [*BOTH, "ARP", "neighbour"],
    "drop if tcp and over 2/s per src": BOTH[:1],
    "drop if tcp and over 200/s bytes per src": BOTH[:1],
    f"drop if {SYN} and over 1/h per src": BOTH[1:],
    "pass if tcp and not over 1/h per src\n drop if tcp": BOTH,
    "add src to @flood for 1h if tcp and over 1/s per src\n drop if src in @flood": [*BOTH, "ARP"],
    "drop if arp and over 1/h per rule": ["ARP"],
    # What is usual.
    f"drop if {SYN} and over 20/s per src\n"
    f" drop if {SYN} and dst port 22 and over 3/m per src\n"
    " drop if over 1000/s per rule\n"
    " drop if tcp and over 50k/s bytes per src\n"
    " drop if (arp or icmp6) and over 1/s per rule\n"
    " drop if icmp and over 1/h per rule burst 1\n"
    " count if over 1/h per rule burst 1\n"
    " add src to @flood for 1h if tcp and over 100/s per src\n"
    " drop if src in @flood": [],
}


@pytest.mark.parametrize("rules", RATES)
def test_rates_that_steady_packets_are_over(wire6: Wire, host: Cli, tmp_path: Path, rules: str) -> None:
    """A full bucket pays for one packet, which is no connection."""
    sets = "set flood : host\n" if "@flood" in rules else ""
    policy = write(tmp_path / "edge.policy", f"{sets}filter edge at xdp {{\n {rules}\n}}\n")
    done = over_ssh(host)("apply", str(policy), "-i", "v1", "--dry-run", "--json", "--force")
    assert done.code == 0, done.err
    words = [*BOTH, "ARP", "neighbour"]
    lost = done.record["would_cut_off"]
    assert [word for word in words if any(one.startswith(word) for one in lost)] == RATES[rules]


SHAPES = {
    # What real packets have, and the plainest ones have not.
    "drop if len > 500": "the SSH connection",
    "drop if tcp[tcpflags] = tcp-ack": "the SSH connection",
    "drop if tcp[12] >> 4 > 8": "a new SSH connection",
    "drop if tcp[4:4] > 1": "the SSH connection",
    "drop if ip[6] & 0x40 != 0 and tcp": "the SSH connection",
    "add src to @seen if tcp and len > 300\n drop if src in @seen": "the SSH connection",
    "drop if tcp and sample 1/4": "the SSH connection",
    # What they never are.
    "drop if tcp and less 65": None,
    "drop if tcp and greater 1515": None,
    "drop if tcp[4:4] = 0": None,
    "drop if tcp[12] >> 4 = 5": None,
    "drop if sample 1/10": None,
}


@pytest.mark.parametrize("rules", SHAPES)
def test_packets_of_ssh_are_as_real_ones(wire: Wire, host: Cli, tmp_path: Path, rules: str) -> None:
    """With options, sizes, numbers and flags; a sample of every fourth leaves no connection."""
    sets = "set seen : host size 64\n" if "@seen" in rules else ""
    policy = write(tmp_path / "edge.policy", f"{sets}filter edge at xdp {{\n {rules}\n}}\n")
    done = over_ssh(host)("apply", str(policy), "-i", "v1", "--dry-run", "--force", "--json")
    assert done.code == 0, done.err
    lost = done.record["would_cut_off"]
    what = SHAPES[rules]
    assert any(one.startswith(what) for one in lost) if what else lost == []


@pytest.mark.parametrize(
    ("hook", "side", "variables"),
    [("xdp", "src", SSH), ("tc egress", "dst", SSH), ("tc ingress", "src", SSH6)],
)
def test_the_ssh_peer_on_the_link_has_to_be_found(
    wire6: Wire, host: Cli, tmp_path: Path, hook: str, side: str, variables: dict[str, str]
) -> None:
    """No gateway leads to it: without its ARP or ND the connection ends when the neighbour table does."""
    wire6.server.ip("route", "replace", "default", "via", "10.9.0.254")
    wire6.server.ip("-6", "route", "del", "default")
    peer = variables["SSH_CONNECTION"].split()[0]
    rule = f"drop if icmp6 and {side} host {peer}" if ":" in peer else f"drop if arp and {side} host {peer}"
    policy = write(tmp_path / "edge.policy", f"filter edge at {hook} {{\n {rule}\n}}\n")
    done = over_ssh(host, variables)("apply", str(policy), "-i", "v1")
    assert done.code == 1, done.err
    assert f"the SSH peer {peer}" in done.err
    assert "SSH connection" not in done.err


def test_a_default_route_that_a_router_tells_of_goes_without_it(
    wire6: Wire, host: Cli, tmp_path: Path
) -> None:
    policy = write(tmp_path / "edge.policy", "filter edge at xdp {\n drop if icmp6[icmp6type] = 134\n}\n")
    assert host("apply", str(policy), "-i", "v1").code == 0
    wire6.server.ip("-6", "route", "replace", "default", "via", "fe80::77", "dev", "v1", "proto", "ra")
    done = host("apply", str(policy), "-i", "v1")
    assert done.code == 1
    assert "would cut off router advertisements from fe80::77" in done.err


def test_what_is_said_of_a_rate_that_is_too_low(wire6: Wire, host: Cli, tmp_path: Path) -> None:
    policy = write(
        tmp_path / "edge.policy", "filter edge at tc ingress {\n slow: drop if tcp and over 1/s per src\n}\n"
    )
    for _ in range(2):
        done = over_ssh(host)("apply", str(policy), "-i", "v1")
        assert done.code == 1
        assert "would cut off the SSH connection from" in done.err
        assert "over 1/s per src (of 300 in a minute, which is not much)" in done.err
        assert "hint: add a higher rate or what is missing" in done.err
    assert over_ssh(host)("apply", str(policy), "-i", "v1", "--force").code == 0
    (found,) = host("status", "--json").record["filters"]
    assert [one["held"] for one in found["limiters"]] == [0], "no token was taken"
    assert next(entry for entry in found["counters"] if entry["name"] == "slow")["packets"] == 0


def test_a_dry_run_ends_as_the_apply_would(wire6: Wire, host: Cli, tmp_path: Path) -> None:
    policy = write(tmp_path / "edge.policy", "filter edge at xdp {\n shut: drop if tcp dst port 22\n}\n")
    done = over_ssh(host)("apply", str(policy), "-i", "v1", "--dry-run")
    assert done.code == 1
    assert "it would be refused, as it cuts off: the SSH connection from" in done.err
    forced = over_ssh(host)("apply", str(policy), "-i", "v1", "--dry-run", "--force", "--json")
    assert (forced.code, len(forced.record["would_cut_off"])) == (0, 2)
    assert host("apply", str(policy), "-i", "v1", "--dry-run").code == 0
    assert host("status", "--json").record["filters"] == []


def test_a_dry_run_asks_with_what_the_sets_hold(wire6: Wire, host: Cli, tmp_path: Path) -> None:
    """Also of a set that would be made anew; and what it makes for that is gone, and the set as it was."""
    text = "set s : host size {}\nfilter edge at xdp {{\n {}\n}}\n"
    shut, open_ = "drop if src in @s", "default drop\n pass if arp or icmp6 or udp\n pass if src in @s"
    policy = write(tmp_path / "edge.policy", text.format(64, "count if src in @s"))
    assert over_ssh(host)("apply", str(policy), "-i", "v1").code == 0
    assert host("set", "add", "s", CLIENT).code == 0
    root = Path(host.environment["PENSTOCK_BPFFS"]).parent
    pins = sorted((path, path.stat().st_ino) for path in root.rglob("*"))
    for size in (64, 128):
        for rules, code in ((shut, 1), (open_, 0)):
            write(policy, text.format(size, rules))
            done = over_ssh(host)("apply", str(policy), "-i", "v1", "--dry-run")
            assert done.code == code, done.err
    assert sorted((path, path.stat().st_ino) for path in root.rglob("*")) == pins
    assert host("set", "remove", "s", CLIENT).code == 0
    assert over_ssh(host)("apply", str(policy), "-i", "v1", "--dry-run").code == 1


def test_force_overrides_with_a_notice_and_nothing_is_counted(wire6: Wire, host: Cli, tmp_path: Path) -> None:
    text = "filter edge at xdp {\n pass if arp or icmp6\n refused: reject if tcp dst port 22\n}\n"
    policy = write(tmp_path / "edge.policy", text)
    refused = over_ssh(host)("apply", str(policy), "-i", "v1")
    assert refused.code == 1
    done = over_ssh(host)("apply", str(policy), "-i", "v1", "--force", "--json")
    assert done.code == 0
    assert "would cut off the SSH connection" in done.record["notices"][0]
    (one,) = host("status", "--json").record["filters"]
    assert one["refusals"] == {"answered": 0, "suppressed": 0}
    assert next(entry for entry in one["counters"] if entry["name"] == "refused")["packets"] == 0


def test_what_runs_stays_when_the_next_one_is_refused(
    wire6: Wire, host: Cli, policy: Path, tmp_path: Path
) -> None:
    before = over_ssh(host)("apply", str(policy), "-i", "v1", "--json").record["program_id"]
    other = write(tmp_path / "other.policy", "filter guard at xdp { drop if src host 10.9.0.1 }")
    assert over_ssh(host)("apply", str(other), "-i", "v1").code == 1
    (one,) = host("status", "--json").record["filters"]
    assert one["program_id"] == before
    assert wire6.arrived(8000) == 5


def test_sudo_clears_the_variable_but_a_parent_has_it(wire6: Wire, host: Cli, tmp_path: Path) -> None:
    policy = write(tmp_path / "edge.policy", "filter edge at xdp { drop if tcp dst port 22 }")
    shell = ("sh", "-c", 'env -u SSH_CONNECTION "$@"; exit $?', "sh")
    as_sudo = outside(over_ssh(host), wire6, *shell)
    assert as_sudo("apply", str(policy), "-i", "v1").code == 1


@pytest.mark.parametrize("hook", HOOKS)
def test_the_gateways(wire6: Wire, host: Cli, tmp_path: Path, hook: str) -> None:
    text = f"filter edge at {hook} {{\n default drop\n pass if tcp or udp\n}}\n"
    policy = write(tmp_path / "edge.policy", text)
    done = host("apply", str(policy), "-i", "v1")
    assert done.code == 1
    way = "to" if hook == "tc egress" else "from"
    for what in ("ARP requests", "ARP replies"):
        assert f"{what} {way} the gateway {CLIENT}" in done.err
    for what in ("solicitations", "advertisements"):
        assert f"neighbour {what} {way} the gateway 2001:db8::1: default: drop" in done.err
    assert "pass if arp   (before the default)" in done.err
    write(policy, text.replace("pass if", "pass if arp or icmp6\n pass if"))
    assert host("apply", str(policy), "-i", "v1").code == 0


@pytest.mark.parametrize("hook", ["xdp", "tc egress"])
def test_the_resolvers(wire6: Wire, host: Cli, tmp_path: Path, hook: str) -> None:
    policy = write(tmp_path / "edge.policy", f"filter edge at {hook} {{ drop if udp port 53 }}")
    servers = with_resolvers(host, wire6, tmp_path, "192.0.2.53", "2001:db8:53::1", "127.0.0.53")
    done = servers("apply", str(policy), "-i", "v1")
    assert done.code == 1
    assert "would cut off the resolver 192.0.2.53, the resolver 2001:db8:53::1" in done.err
    assert "127.0.0.53" not in done.err
    assert "127.0.0.53" in servers("apply", str(policy), "-i", "lo").err


def test_the_renewal_of_leases(wire6: Wire, host: Cli, tmp_path: Path) -> None:
    policy = write(tmp_path / "edge.policy", "filter edge at xdp { drop if udp dst port (68 or 546) }")
    assert host("apply", str(policy), "-i", "v1").code == 0
    for own in (f"{SERVER}/24", "2001:db8::77/128"):
        wire6.server.ip("address", "replace", own, "dev", "v1", "valid_lft", "3600", "preferred_lft", "3600")
    done = host("apply", str(policy), "-i", "v1")
    assert done.code == 1
    assert "this host's DHCP lease" in done.err
    assert "this host's DHCPv6 lease" in done.err


def test_loopback(wire6: Wire, host: Cli, tmp_path: Path) -> None:
    policy = write(tmp_path / "edge.policy", "filter edge at xdp { drop if tcp dst portrange 32768-60999 }")
    done = host("apply", str(policy), "-i", "lo")
    assert done.code == 1
    assert "the host's own connections (127.0.0.1), the host's own connections (::1)" in done.err
    assert host("apply", str(policy), "-i", "v1").code == 0


def test_only_what_goes_by_this_interface(wire6: Wire, host: Cli, tmp_path: Path) -> None:
    wire6.server.ip("link", "add", "other", "type", "bridge")
    wire6.server.ip("link", "set", "other", "up")
    policy = write(tmp_path / "edge.policy", "filter edge at xdp { default drop }")
    assert over_ssh(host)("apply", str(policy), "-i", "other").code == 0
    elsewhere = {"SSH_CONNECTION": f"{CLIENT} 50022 192.0.2.77 22"}
    shut = write(tmp_path / "shut.policy", "filter edge at xdp { drop if tcp dst port 22 }")
    assert over_ssh(host, elsewhere)("apply", str(shut), "-i", "v1").code == 0


def test_the_parts_of_a_bridge_carry_what_goes_by_it(wire6: Wire, host: Cli, tmp_path: Path) -> None:
    ip = wire6.server.ip
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "set", "br0", "up")
    ip("link", "set", "v1", "master", "br0")
    ip("address", "del", f"{SERVER}/24", "dev", "v1")
    ip("address", "add", f"{SERVER}/24", "dev", "br0")
    policy = write(tmp_path / "edge.policy", "filter edge at xdp { drop if tcp dst port 22 }")
    assert over_ssh(host)("apply", str(policy), "-i", "v1").code == 1


def test_a_policy_of_many_rules(wire6: Wire, host: Cli, tmp_path: Path) -> None:
    rules = "\n".join(f" drop if src net 10.{n}.0.0/16 and udp dst port {n + 100}" for n in range(250))
    text = f"filter edge at xdp {{\n{rules}\n tcp: drop if tcp dst port 22\n}}\n"
    policy = write(tmp_path / "edge.policy", text)
    done = over_ssh(host)("apply", str(policy), "-i", "v1")
    assert done.code == 1
    assert f"tcp ({policy}:252)" in done.err
    assert over_ssh(host)("apply", str(policy), "-i", "v1", "--force").code == 0
    assert sum(counters(host("status", "--json")).values()) < 50


@pytest.mark.parametrize("hook", list(Hook)[:3], ids=lambda hook: hook.value)
def test_the_packets_are_packets(wire6: Wire, hook: Hook) -> None:
    with wire6.server.inside():
        found = lifelines(attach_point("v1", hook), SSH)
    assert len(found) >= 6
    for one in found:
        assert len(read_packet(one.packet)) >= 42


def test_python_hears_it_as_an_error_with_its_parts(
    wire6: Wire, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import penstock

    monkeypatch.setenv("PENSTOCK_BPFFS", str(root))
    monkeypatch.setenv("SSH_CONNECTION", SSH["SSH_CONNECTION"])
    with wire6.server.inside(), pytest.raises(LockoutError) as caught:
        penstock.apply("v1", "filter edge at xdp { drop if tcp dst port 22 }")
    assert [loss.key.name for loss in caught.value.losses] == ["edge:1", "edge:1"]


SHUT_LATER = {
    "by the same packet": " bad: add src to @seen for 1h if tcp dst port 22\n shut: drop if src in @seen\n",
    "by the next packet": " shut: drop if src in @seen\n bad: add src to @seen if tcp dst port 22\n",
    "by another's content": " bad: add src to @seen if src in @friends\n shut: drop if src in @seen\n",
}


@pytest.mark.parametrize(
    ("rules", "hook"), [*zip(SHUT_LATER.values(), ["xdp", "tc ingress", "xdp"], strict=True)], ids=SHUT_LATER
)
def test_check_21_who_is_let_in_once_and_put_into_a_set(
    wire6: Wire, host: Cli, tmp_path: Path, rules: str, hook: str
) -> None:
    """Refused, with the sets as they were, and also where they hold what the rule asks; `--force` overrides."""
    sets = "set friends : host\nset seen : host size 64\n"
    friends = " count if src in @friends\n"
    policy = write(tmp_path / "edge.policy", f"{sets}filter edge at {hook} {{\n default pass\n{friends}}}\n")
    assert over_ssh(host)("apply", str(policy), "-i", "v1").code == 0
    assert host("set", "add", "friends", CLIENT).code == 0
    write(policy, f"{sets}filter edge at {hook} {{\n default pass\n{friends}{rules}}}\n")
    done = over_ssh(host)("apply", str(policy), "-i", "v1")
    assert done.code == 1, done.err
    assert f"the SSH connection from {CLIENT}" in done.err
    assert "shut: drop if src in @seen (once rules have added such packets to sets)" in done.err
    write(policy, policy.read_text().replace(friends, f"{friends} pass if src host {CLIENT} and tcp\n"))
    done = over_ssh(host)("apply", str(policy), "-i", "v1")
    assert done.code == (0 if "dst port" in rules else 1), done.err
    done = over_ssh(host)("apply", str(policy), "-i", "v1", "--force")
    assert done.code == 0, done.err
    assert host("set", "export", "seen").out == ""


def test_check_21_a_set_that_shuts_out_nobody_of_them(wire6: Wire, host: Cli, tmp_path: Path) -> None:
    """A rate that nobody exceeds adds nobody, and who is in a set may be let in for that."""
    text = (
        "set seen : host size 64\nfilter edge at xdp {\n default pass\n"
        " add src to @seen for 1h if tcp and over 100/s per src\n drop if src in @seen\n}\n"
    )
    policy = write(tmp_path / "edge.policy", text)
    done = over_ssh(host)("apply", str(policy), "-i", "v1")
    assert done.code == 0, done.err
    text = (
        "set known : host size 64\nfilter edge at xdp {\n default pass\n"
        " pass if tcp src port 22 and src in @known\n add src to @known if tcp dst port 22\n}\n"
    )
    assert over_ssh(host)("apply", str(write(policy, text)), "-i", "v1").code == 0
