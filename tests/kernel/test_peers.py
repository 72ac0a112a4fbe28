"""Other filters with the same rules: they take what is said to them, and let the same packets through."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.kernel.netns import isolated
from penstock.model.packet import read_packet
from penstock.pipeline.policy import load_policy, rule_set_of
from penstock.price.peers import compare, iptables, nft
from penstock.price.peers.clauses import plain_rules
from penstock.price.peers.compare import ALL, DROP_ALL, PASS_ALL, Peer
from penstock.price.peers.tools import missing, own_bpffs, path_of, run
from penstock.price.peers.wire import Wire, prepared

pytestmark = pytest.mark.privileged

POLICY = """
let nets = 10.0.0.0/8, 192.168.0.0/16
filter rand at xdp {
    default pass
    drop if src net $nets and tcp dst port 22
    drop if not udp and not tcp and ip
    pass if tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn and (dst portrange 8000-8100 or dst port 80)
    drop if ip6 and src net 2001:db8::/32
    drop if src host 198.51.100.7 and udp dst portrange 50-60
    drop if ttl < 5
    count if ip6
    drop if not dst port 443 and tcp
}
"""
LISTS = "filter lists at xdp {\n drop if udp dst port 53\n drop if dst host 192.0.2.9 and ip\n}"
LIST_PEERS = {"C, naive and linear", "xdp-filter"}


def frames(count: int) -> Iterator[bytes]:
    """Random packets around the policy's corners."""
    rng = random.Random(7)
    for _ in range(count):
        four = rng.random() < 0.6
        sources = (
            ("10.1.2.3", "192.168.3.4", "198.51.100.7", "203.0.113.5")
            if four
            else ("2001:db8::1", "2001:db9::1")
        )
        kind, hops = ("IPv4", "ttl") if four else ("IPv6", "hlim")
        tcp = f'TCP(dport={rng.choice((22, 80, 443, 8050))}, flags="{rng.choice(("S", "A", "SA", ""))}")'
        inner = rng.choice(
            (tcp, f"UDP(dport={rng.choice((49, 50, 53, 60, 61))})", "ICMP" if four else "ICMPv6")
        )
        target = ', dst="192.0.2.9"' if four and rng.random() < 0.2 else ""
        yield read_packet(
            f'{kind}(src="{rng.choice(sources)}", {hops}={rng.choice((1, 4, 5, 64))}{target})/{inner}'
        )


def installed(peer: Peer) -> bool:
    return missing(*peer.programs) is None


@pytest.mark.parametrize("hook", ["netdev", "inet"])
def test_nft_takes_what_is_said(hook: nft.Hook) -> None:
    rules = rule_set_of(POLICY)
    with isolated():
        text = nft.script(plain_rules(rules), rules.default, hook, "lo")
        assert run("nft", "-c", "-f", "-", text=text) == ""


def test_iptables_takes_what_is_said() -> None:
    rules = rule_set_of(POLICY)
    found = iptables.tables(plain_rules(rules), rules.default, "lo")
    with isolated():
        run("ipset", "restore", text=found.sets)
        run("iptables-restore", "--test", text=found.ipv4)
        run("ip6tables-restore", "--test", text=found.ipv6)


@pytest.mark.parametrize("text", [POLICY, LISTS], ids=["fields", "lists"])
def test_every_filter_delivers_what_the_reference_passes(text: str) -> None:
    policy = load_policy(text)
    assert policy.rule_set is not None
    peers = [peer for peer in ALL if installed(peer)]
    found = compare(
        policy.rule_set, policy.elf, {"mixed": list(frames(300))}, peers=peers, packets=1024, rounds=1
    )
    names = {price.peer for price in found.prices}
    assert {DROP_ALL, PASS_ALL, "penstock"} <= names
    said = {peer.name for peer in peers if peer.name.startswith(("nft", "iptables"))}
    assert said <= names, found.left_out
    if text == LISTS:
        assert {peer.name for peer in peers} & LIST_PEERS <= names, found.left_out
    delivered = {price.delivered["mixed"] for price in found.prices if price.peer not in (DROP_ALL, PASS_ALL)}
    assert len(delivered) == 1


def test_a_filter_that_errs_is_left_out() -> None:
    policy = load_policy("filter all at xdp { default pass }")
    assert policy.rule_set is not None
    wrong = load_policy("filter none at xdp { default drop }")
    found = compare(
        policy.rule_set, wrong.elf, {"udp": [read_packet("IPv4/UDP")]}, peers=(), packets=256, rounds=1
    )
    assert [one.peer for one in found.left_out] == ["penstock"]
    assert "delivers 0 of 256" in found.left_out[0].reason


def test_what_is_bounced_is_not_delivered_and_comes_to_rest() -> None:
    policy = load_policy("filter echo at xdp {\n bounce if udp dst port 7\n}")
    assert policy.rule_set is not None
    traffic = {"echo": [read_packet("IPv4/UDP(dport=7)"), read_packet("IPv4/UDP(dport=8)")]}
    found = compare(policy.rule_set, policy.elf, traffic, packets=256, rounds=1)
    delivered = {price.peer: price.delivered["echo"] for price in found.prices}
    assert delivered == {DROP_ALL: 0, PASS_ALL: 256, "penstock": 128}
    reasons = {one.peer: one.reason for one in found.left_out if "installed" not in one.reason}
    assert all("sends packets back" in reason for peer, reason in reasons.items() if peer.startswith("nft"))


def test_a_filter_that_is_not_there_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        __import__("penstock.price.peers.tools", fromlist=["PACKAGES"]).PACKAGES, "no-such-filter", "nosuch"
    )
    policy = load_policy("filter all at xdp { default pass }")
    assert policy.rule_set is not None
    absent = Peer("absent", ("no-such-filter",), ALL[0].place)
    found = compare(
        policy.rule_set,
        policy.elf,
        {"udp": [read_packet("IPv4/UDP")]},
        peers=(absent,),
        packets=256,
        rounds=1,
    )
    assert found.left_out[0].reason == "no-such-filter is not installed; the package is nosuch"


def test_a_wire_leaves_nothing_behind() -> None:
    with Wire(len(prepared([read_packet("IPv4/UDP")])[0])) as wire, wire.inside():
        assert "ps-in" in subprocess.run(["ip", "link"], capture_output=True, text=True).stdout
    assert "ps-in" not in subprocess.run(["ip", "link"], capture_output=True, text=True).stdout


@pytest.mark.skipif(path_of("unshare") is None, reason="unshare is missing")
def test_what_is_pinned_in_a_file_system_of_its_own_is_seen_by_nobody() -> None:
    with own_bpffs([["mkdir", "/sys/fs/bpf/penstock-peer-test"]]):
        assert not Path("/sys/fs/bpf/penstock-peer-test").exists()


_HOLDING = """
import sys
from pathlib import Path
from penstock.price.peers.tools import own_bpffs
with own_bpffs([["mkdir", "/sys/fs/bpf/held"]]):
    print(Path(f"/proc/self/task/{__import__('os').getpid()}/children").read_text(), flush=True)
    sys.stdin.read()
"""


def test_what_holds_a_file_system_ends_with_a_process_that_is_killed() -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    children = [int(number) for number in holder.stdout.readline().split()]
    assert children
    with holder:
        holder.kill()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{child}/exe").exists() for child in children):
        assert time.monotonic() < deadline, "the shell outlives its process"
        time.sleep(0.01)
