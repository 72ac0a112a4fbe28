"""`penstock bench`: the shape of its answers; what it measures is no matter for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import Cli, write

from penstock.model.packet import read_packet
from penstock.observe.pcap import frames_of, write_pcap
from penstock.pipeline.policy import load_policy
from penstock.price.report import figures_of

pytestmark = pytest.mark.privileged

DNS = Path(__file__).parents[2] / "examples" / "dns.policy"
QUICK = ("--rounds", "1")
KEYS = {
    "name",
    "packets",
    "share",
    "verdict",
    "decided_by",
    "ns",
    "empty_ns",
    "hand_written_ns",
    "cold_ns",
    "cold_empty_ns",
}
MEASURED = ("ns", "empty_ns", "hand_written_ns", "cold_ns", "cold_empty_ns")
FIGURES = ("instructions", "verified_instructions", "verifier_states", "verifier_peak_states", "stack_bytes")
RANDOM = "random over the rules"


def without_privilege() -> Cli:
    """The command line of a root that has lost every capability."""
    return Cli(
        prefix=("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--clear-groups", "--regid=0", "--")
    )


@pytest.fixture
def two_rules(tmp_path: Path) -> Path:
    return write(
        tmp_path / "two.policy",
        "filter two at xdp {\n    dns: drop if udp dst port 53\n    shell: drop if tcp dst port 22\n}\n",
    )


def by_name(record: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one for one in record["traffic"]}


def test_the_record_of_a_policy_with_a_program_by_hand(cli: Cli) -> None:
    done = cli("bench", "--json", *QUICK, str(DNS))
    assert done.code == 0, done.err
    record = done.record
    assert [one["name"] for one in record["traffic"]][:2] == ["udp dns", "udp other"]
    for one in record["traffic"]:
        assert set(one) == KEYS
        measured = [one[key] for key in MEASURED]
        if one["name"] == RANDOM:
            assert measured[-2:] == [None, None]
            measured = measured[:-2]
        assert all(isinstance(value, float) and value > 0 for value in measured)
    assert by_name(record)["udp dns"]["verdict"] == "drop"
    assert by_name(record)["udp dns"]["decided_by"] == "dns"
    assert by_name(record)["udp other"]["decided_by"] == "default"
    assert all(isinstance(record[key], int) and record[key] > 0 for key in FIGURES)
    assert record["verifier_peak_states"] <= record["verifier_states"] <= record["verified_instructions"]
    assert 0 < record["object_instructions"] <= record["instructions"]
    assert record["map_memory_bytes"] >= record["map_bytes"] > record["table_bytes"] == 0
    assert record["compile_ms"] > 0
    assert (record["rules"], record["peers"], record["budget"]) == (None, None, None)


def test_the_table_has_a_line_for_each_kind_of_traffic_and_the_budget_is_kept(cli: Cli, policy: Path) -> None:
    done = cli("bench", *QUICK, "--budget", "insns=100000,states=100000,ns=100000", str(policy))
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "within the budget"
    for kind in ("udp dns", "tcp6 data", "arp", "first fragment", "ip options", RANDOM):
        assert any(line.startswith(kind) for line in done.out.splitlines())


def test_a_built_file_is_measured_by_a_captures_classes_with_their_shares(
    cli: Cli, policy: Path, tmp_path: Path
) -> None:
    built = tmp_path / "guard.pso"
    assert cli("build", str(policy), "-o", str(built)).code == 0
    kinds = ["IPv4/UDP(dport=53)"] * 6 + ["IPv4/TCP(dport=80)"] * 3 + ["ARP(op=1)"]
    capture = tmp_path / "some.pcap"
    write_pcap(capture, frames_of([read_packet(kind) for kind in kinds]))
    record = cli("bench", "--json", *QUICK, "--pcap", str(capture), str(built)).record
    assert record["compile_ms"] is None
    found = [(one["name"], one["packets"], one["share"]) for one in record["traffic"]]
    assert found[:3] == [
        ("udp, drop by dns", 6, 0.6),
        ("tcp, pass by default", 3, 0.3),
        ("arp, pass by default", 1, 0.1),
    ]
    assert [name for name, _, _ in found[3:]] == ["the capture in turn", RANDOM]


def test_the_price_of_each_rule(cli: Cli, two_rules: Path) -> None:
    record = cli("bench", "--json", *QUICK, "--rules", str(two_rules)).record
    assert record["rules"]["of"] == 2
    prices = record["rules"]["prices"]
    assert [(one["number"], one["name"], one["line"]) for one in prices] == [(1, "dns", 2), (2, "shell", 3)]
    assert all(one["instructions"] > 0 for one in prices)
    # States are pruned that a program without the rule never comes to: a rule may cost the verifier less than nothing.
    assert all(one["verified_instructions"] != 0 for one in prices)


def test_a_budget_that_is_crossed_names_the_rule_unless_none_is_to_blame(cli: Cli, two_rules: Path) -> None:
    one = load_policy("filter two at xdp {\n    dns: drop if udp dst port 53\n}\n")
    most = figures_of(one.elf, one.name).instructions
    budget = f"insns={most},states=1000000,stack=1"
    done = cli("bench", "--json", *QUICK, "--budget", budget, str(two_rules))
    assert done.code == 1
    crossed, kept, hopeless = done.record["budget"]
    assert (crossed["key"], crossed["crossed"], crossed["rule"], crossed["line"]) == (
        "insns",
        True,
        "shell",
        3,
    )
    assert crossed["text"].endswith(f"the budget is {most:,}; rule shell (line 3) crosses it")
    assert (kept["key"], kept["crossed"], kept["text"]) == ("states", False, None)
    assert (hopeless["rule"], "none of them is to blame" in hopeless["text"]) == (None, True)


def test_one_of_several_filters(cli: Cli, tmp_path: Path) -> None:
    both = "filter a at xdp { drop if udp }\nfilter b at xdp { drop if tcp }\n"
    policy = write(tmp_path / "both.policy", both)
    assert cli("bench", "--json", *QUICK, "--filter", "b", str(policy)).record["policy"] == "b"
    assert "--filter" in cli("bench", str(policy)).err


def test_a_limit_that_does_not_exist_is_a_fault_of_usage(cli: Cli, policy: Path) -> None:
    done = cli("bench", "--budget", "nss=40", str(policy))
    assert (done.code, done.out) == (1, "")
    assert "did you mean ns?" in done.err


def test_the_peers_are_there_or_left_out_with_a_reason(cli: Cli, policy: Path) -> None:
    done = cli("bench", "--json", *QUICK, "--peers", str(policy))
    assert done.code == 0, done.err
    peers = done.record["peers"]
    assert {"XDP, drops everything", "XDP, passes everything", "penstock"} <= {
        one["peer"] for one in peers["prices"]
    }
    for one in peers["prices"]:
        assert set(one) == {"peer", "traffic", "ns", "ratio", "delivered"}
        assert one["ns"] > 0
    for one in peers["left_out"]:
        assert "not installed" in one["reason"], one


def test_a_policy_that_no_peer_can_say_names_its_rule(cli: Cli, tmp_path: Path) -> None:
    policy = write(tmp_path / "land.policy", "filter land at xdp {\n    drop if ip[12:4] == ip[16:4]\n}\n")
    done = cli("bench", *QUICK, "--peers", str(policy))
    assert done.code == 0, done.err
    said = [line for line in done.out.splitlines() if line.startswith("left out: nft")]
    assert said
    assert all("rule land:2 (line 2) computes with the packet's bytes" in line for line in said)


def test_without_privilege_the_object_is_told_of(policy: Path) -> None:
    done = without_privilege()("bench", str(policy))
    assert done.code == 4, done.err
    assert "instructions in the object, 0 bytes of tables" in done.out
    assert "CAP_" in done.err


def test_without_privilege_the_record_has_the_same_keys(cli: Cli, policy: Path) -> None:
    done = without_privilege()("bench", "--json", str(policy))
    assert done.code == 4, done.err
    record = done.record
    measured = cli("bench", "--json", *QUICK, str(policy)).record
    assert list(record) == list(measured)
    assert {one["hand_written_ns"] for one in measured["traffic"]} == {None}
    assert (record["traffic"], record["instructions"]) == ([], None)
    assert record["object_instructions"] > 0
