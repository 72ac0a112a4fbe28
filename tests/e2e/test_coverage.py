"""`penstock coverage`: the listing, its figures, and exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.conftest import Cli, Here

from penstock.model.packet import build_packet, parse_packet
from penstock.observe.pcap import frames_of, write_pcap

PAGE = Path(__file__).parents[2] / "docs/operations.md"


@pytest.fixture
def cli() -> Cli:
    return Here()


@pytest.fixture
def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The policy of docs/operations.md, in the working directory."""
    monkeypatch.chdir(tmp_path)
    _, _, shown = PAGE.read_text().partition("<!-- edge.policy -->\n```\n")
    Path("edge.policy").write_text(shown.partition("```")[0])
    return "edge.policy"


def capture(path: Path, *packets: str) -> str:
    write_pcap(path, frames_of([build_packet(parse_packet(text)) for text in packets]))
    return str(path)


def test_the_page_shows_what_is_printed(cli: Cli, edge: str) -> None:
    _, shown = PAGE.read_text().split("$ penstock coverage edge.policy\n")
    assert cli("coverage", edge).out == shown.partition("```")[0]


def test_captures_take_the_place_of_the_tests(cli: Cli, edge: str, tmp_path: Path) -> None:
    first = capture(tmp_path / "a.pcap", "IPv4/TCP(dport=22)", "ARP", "IPv4(ihl=3)/UDP")
    second = capture(tmp_path / "b.pcap", "IPv4/TCP(dport=22)", "IPv4/UDP(dport=53)")
    found = cli("coverage", edge, "--pcap", first, "--pcap", second, "--json").record
    assert found["packets"] == 5
    assert found["default"]["packets"] == 1
    assert found["conditions"][0] == {"name": "on malformed", "packets": 1, "bytes": 42, "decided": 1}
    matched = {rule["name"]: (rule["tried"], rule["packets"]) for rule in found["rules"]}
    assert matched == {"edge:3": (4, 0), "ssh": (4, 2), "dns": (2, 1), "old": (1, 0)}
    ssh = found["rules"][1]["terms"]
    assert ssh == [{"text": "tcp dst port 22", "line": 4, "column": 18, "true": 2, "false": 2}]


def test_why_a_rule_never_matched(cli: Cli, edge: str, tmp_path: Path) -> None:
    lines = cli("coverage", edge).out
    assert "this rule can never match" in lines
    nothing = capture(tmp_path / "a.pcap", "IPv4(ihl=3)/UDP")
    rules = cli("coverage", edge, "--pcap", nothing, "--json").record["rules"]
    assert rules[0]["reason"] == "never tried: every packet was decided before"
    none = capture(tmp_path / "b.pcap")
    assert (
        cli("coverage", edge, "--pcap", none, "--json").record["rules"][0]["reason"] == "there was no packet"
    )


def test_fail_under(cli: Cli, edge: str) -> None:
    percent = cli("coverage", edge, "--json").record["percent"]
    assert cli("coverage", edge, "--fail-under", str(percent - 1)).code == 0
    done = cli("coverage", edge, "--fail-under", str(percent + 1))
    assert (done.code, done.out.splitlines()[-1]) == (1, f"that is less than {percent + 1:g}%")


def test_what_cannot_be_measured(cli: Cli, edge: str, tmp_path: Path) -> None:
    bare = tmp_path / "bare.policy"
    bare.write_text("filter f at xdp { drop if tcp }\n")
    for arguments, told in (
        ((str(bare),), "has no test block"),
        ((edge, "--pcap", "missing.pcap"), "missing.pcap"),
        ((edge, "--filter", "other"), "has no filter other"),
        (("missing.policy",), "there is no file"),
    ):
        done = cli("coverage", *arguments)
        assert done.code == 1
        assert told in done.err


def test_what_lies_beside_a_packet_has_terms_as_well(cli: Cli, tmp_path: Path) -> None:
    policy = tmp_path / "beside.policy"
    rule = "drop if mark = 7 or ifindex 3 or (inbound and tcp)"
    policy.write_text(
        f'filter f at tc ingress {{\n    {rule}\n}}\ntest "t" {{\n    packet IPv4/TCP -> drop\n}}\n'
    )
    done = cli("coverage", str(policy))
    assert done.code == 0, done.err
    assert [line.split("^ ")[1] for line in done.out.splitlines() if "^ " in line] == [
        "never true: mark = 7",
        "never true: ifindex 3",
        "never false: inbound",
        "never false: tcp",
    ]


def test_several_filters_have_tests_of_their_own(cli: Cli, tmp_path: Path) -> None:
    policy = tmp_path / "two.policy"
    filters = "filter a at xdp {\n    drop if tcp\n}\nfilter b at xdp {\n    drop if udp\n}\n"
    tests = 'test "a" {\n    packet IPv4/TCP -> drop\n}\ntest "b" for b {\n    packet IPv4/UDP -> drop\n}\n'
    policy.write_text(filters + tests)
    for name in ("a", "b"):
        (rule,) = cli("coverage", str(policy), "--filter", name, "--json").record["rules"]
        assert (rule["tried"], rule["packets"]) == (1, 1)


def test_policies_with_rates_and_sets(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "edge.policy"
    path.write_text(
        "set threats : net\nset hosts : host\nfilter edge at xdp {\n"
        " drop if src in @threats\n fast: drop if udp and over 5/s per src\n drop if dst in @hosts\n}\n"
        'test "x" {\n packet IPv4(dst="10.0.0.9")/UDP -> pass\n'
        ' with @threats 192.0.2.0/24\n packet IPv4(dst="10.0.0.9")/UDP -> drop\n}\n'
        'test "y" {\n packet IPv4(dst="10.0.0.9")/UDP -> pass\n}\n'
    )
    for options, matched in (((), [1, 0, 0]), (("--set", "hosts=10.0.0.9"), [1, 0, 2])):
        rules = cli("coverage", str(path), *options, "--json").record["rules"]
        assert [rule["packets"] for rule in rules] == matched
