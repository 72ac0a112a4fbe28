"""docs/json.md shows the records as the commands print them: the same keys, all the way down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import Cli

from penstock.model.packet import build_packet, parse_packet
from penstock.observe.pcap import frames_of, write_pcap

TOP = Path(__file__).parents[2]
DNS = str(TOP / "examples/dns.policy")
#: xdp-filter cannot say it, so that something is left out wherever this runs.
DENY = str(TOP / "examples/deny.policy")
#: A policy of which `check` has everything to say.
EDGE = """filter edge at xdp {
    pass if src net 10.0.0.0/8
    drop if tcp dst port 23
    drop if tcp dst portrange 20-25 and dst portrange 23-23
    pass if udp
}
"""
#: Where these are objects, they have a key for each verdict or rule.
OPEN = ("verdicts", "rules", "counters")


def documented() -> list[str]:
    """The shapes of the page's records."""
    blocks = (TOP / "docs/json.md").read_text().split("```json\n")[1:]
    return [shape(line) for block in blocks for line in block.partition("```")[0].splitlines()]


def shape(line: str) -> str:
    """A record's schema and keys, in order, without its values."""
    record = json.loads(line)
    return f"{record.get('schema')} {_keys(record)}"


def _keys(value: Any) -> Any:
    match value:
        case dict():
            return {key: _below(key, below) for key, below in value.items()}
        case [first, *_] if isinstance(first, dict):
            return [_keys(first)]
        case _:
            return ()


def _below(key: str, value: Any) -> Any:
    return {} if key in OPEN and isinstance(value, dict) else _keys(value)


def assert_documented(*commands: tuple[Cli, tuple[str, ...]]) -> None:
    shown = documented()
    for cli, arguments in commands:
        lines = cli(*arguments, "--json").out.splitlines()
        assert lines, arguments
        for line in lines:
            assert shape(line) in shown, arguments


def test_what_needs_no_privilege(cli: Cli, tmp_path: Path) -> None:
    capture = tmp_path / "a.pcap"
    write_pcap(capture, frames_of([build_packet(parse_packet("IPv4/UDP(dport=53)"))]))
    edited = str(tmp_path / "edited.policy")
    Path(edited).write_text("filter dns at xdp {\n    default drop\n    pass if tcp\n}\n")
    edge = tmp_path / "edge.policy"
    edge.write_text(EDGE)
    blocklist = tmp_path / "list"
    blocklist.write_text("203.0.113.0/24\n010.0.0.1\n10.0.0.0/8\n")
    calls = [
        ("check", DNS),
        ("check", DNS, "--hook", "socket"),
        ("check", str(edge)),
        ("explain", DNS, "IPv4/UDP(dport=123)"),
        ("test", DNS),
        ("test", DNS, "--pcap", str(capture)),
        ("coverage", DNS),
        ("diff", DNS, edited),
        ("diff", DNS, edited, "--pcap", str(capture), "--fail-on", "tcp"),
        ("match", "udp port 53", str(capture)),
        ("match", "udp prot 53", str(capture)),
        ("feed", "check", str(blocklist)),
        ("feed", "presets"),
        ("version",),
    ]
    assert_documented(*((cli, call) for call in calls))


#: It lacks a header, has a map and changes packets, so that its records have everything that there is.
PROGRAM = """\
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, IPPROTO_UDP);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");
SEC("xdp") int counts(struct xdp_md *ctx) {
	__u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 key = 0;

	if (data + ETH_HLEN > end || !bpf_map_lookup_elem(&seen, &key))
		return XDP_ABORTED;
	data[0] ^= 1;
	return XDP_PASS;
}
char _license[] SEC("license") = "GPL";
"""


@pytest.mark.privileged
def test_programs(host: Cli, tmp_path: Path) -> None:
    file, capture = tmp_path / "counts.c", tmp_path / "a.pcap"
    file.write_text(PROGRAM)
    frame = build_packet(parse_packet("IPv4/UDP(dport=53)"))
    write_pcap(capture, frames_of([frame]))
    loaded = host("program", "load", str(file), "-i", "v1", "--json")
    assert shape(loaded.out) in documented()
    number = str(loaded.record["program_id"])
    calls = [
        ("build", str(file)),
        ("list",),
        ("show", number),
        ("run", number, "--packet", frame.hex()),
        ("run", number, "--pcap", str(capture)),
        ("detach", number),
    ]
    assert_documented(*((host, ("program", *call)) for call in calls))


@pytest.mark.privileged
def test_sets(host: Cli, tmp_path: Path) -> None:
    policy = tmp_path / "sets.policy"
    policy.write_text(
        "set threats : net\nset banned : host timeout 10m counters\n"
        "filter edge at xdp { drop if src in @threats or src in @banned }\n"
    )
    assert host("apply", str(policy), "-i", "v1").code == 0
    calls = [
        ("add", "threats", "198.51.100.0/24"),
        ("add", "banned", "203.0.113.9"),
        ("list",),
        ("list", "banned"),
        ("list", "threats"),
        ("info", "banned"),
        ("test", "threats", "198.51.100.7"),
        ("remove", "threats", "198.51.100.0/24"),
        ("sweep", "threats"),
        ("flush", "banned"),
    ]
    assert_documented(*((host, ("set", *call)) for call in calls[:7]))
    blocklist = tmp_path / "list"
    blocklist.write_text("203.0.113.0/24\n")
    feeds = [
        ("feed", "add", "threats", str(blocklist)),
        ("feed", "refresh"),
        ("feed", "list"),
        ("why", "203.0.113.9"),
        ("feed", "remove", "threats", str(blocklist)),
    ]
    assert_documented(*((host, call) for call in feeds))
    assert_documented(*((host, ("set", *call)) for call in calls[7:]))
    assert host("detach", "-i", "v1").code == 0
    assert_documented(*((host, ("set", "delete", name)) for name in ("threats", "banned")))


@pytest.mark.privileged
def test_what_needs_privilege(host: Cli) -> None:
    calls = [
        ("apply", DNS, "-i", "v1"),
        ("apply", DNS, "-i", "v1", "--dry-run"),
        ("drop", "icmp", "-i", "v1", "--for", "1h"),
        ("status",),
        ("history", "-i", "v1"),
        ("undrop", "-i", "v1"),
        ("try", "icmp", "-i", "v1", "--for", "200ms"),
        ("rule", "add", "drop if icmp", "-i", "v1"),
        ("rule", "list", "-i", "v1"),
        ("rule", "remove", "rule#1", "-i", "v1"),
        ("detach", "-i", "v1"),
        ("probe",),
        ("probe", "--for", DNS),
        ("doctor", "-i", "v1"),
        ("bench", DNS, "--rounds", "1"),
        ("bench", DENY, "--rounds", "1", "--rules", "--peers", "--budget", "ns=1000"),
    ]
    assert_documented(*((host, call) for call in calls))
