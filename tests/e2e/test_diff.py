"""`penstock diff`: what it prints, and its exit codes, which are diff(1)'s."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.conftest import Cli, Here

from penstock.compiler.analysis import change
from penstock.model.packet import build_packet, parse_packet
from penstock.observe.pcap import frames_of, write_pcap

OLD = """filter edge at xdp {
    pass if src net 10.0.0.0/8 and tcp dst port 22
    ssh: drop if tcp dst port 22
    dns: drop if udp dst port 53
}
"""
NEW = """filter edge at xdp {
    pass if src net 10.1.0.0/16 and tcp dst port 22
    ssh: drop if tcp dst port 22 or 23
    dns: drop if udp dst port 53
    web: count if tcp dst port 80
}
"""


@pytest.fixture
def cli() -> Cli:
    return Here()


@pytest.fixture
def policies(tmp_path: Path) -> tuple[str, str]:
    old, new = tmp_path / "old.policy", tmp_path / "new.policy"
    old.write_text(OLD)
    new.write_text(NEW)
    return str(old), str(new)


def test_the_report(cli: Cli, policies: tuple[str, str]) -> None:
    old, new = policies
    done = cli("diff", old, new)
    assert done.code == 1
    assert done.out == (
        "pass -> drop  tcp dst port 23\n"
        f"    default  ->  {new}:3 ssh\n"
        "    e.g. IPv4/TCP(dport=23)\n"
        "pass -> drop  src net 10.0.0.0/8 and not src net 10.1.0.0/16 and tcp dst port 22\n"
        f"    {old}:2 edge:2  ->  {new}:3 ssh\n"
        '    e.g. IPv4(src="10.0.0.1")/TCP(dport=22)\n'
        "counters only in the new: web\n"
        "counters different: edge:2, ssh\n"
        "2 classes of packets change verdict\n"
    )


def test_a_class_says_no_more_than_it_must(cli: Cli, tmp_path: Path) -> None:
    """The rules before it ask of addresses and `ttl`, which tells apart nothing that changes."""
    before = (
        "    pass if (src net 10.0.0.0/8 or 2001:db8::/32) and tcp dst port 22\n    drop if udp dst port 53"
    )
    old, new = tmp_path / "old.policy", tmp_path / "new.policy"
    old.write_text(f"filter f at xdp {{\n{before}\n    drop if tcp dst portrange 20-30\n}}\n")
    new.write_text(f"filter f at xdp {{\n{before} and ttl < 64\n    drop if tcp dst portrange 20-31\n}}\n")
    conditions = [found["condition"] for found in cli("diff", str(old), str(new), "--json").record["classes"]]
    assert conditions == ["tcp dst port 31", "udp dst port 53 and ttl >= 64"]


def test_every_example_is_explained_as_it_says(cli: Cli, policies: tuple[str, str]) -> None:
    for found in cli("diff", *policies, "--json").record["classes"]:
        for path, side in zip(policies, ("old", "new"), strict=True):
            told = cli("explain", path, found["example"], "--json").record
            assert told["verdict"] == found[side]["verdict"]
            assert told["decided_by"] in [one["name"] for one in found[side]["by"]]
            assert told["frame"] == found["frame"]


def test_exit_codes(cli: Cli, policies: tuple[str, str], tmp_path: Path) -> None:
    old, new = policies
    assert cli("diff", old, old).code == 0
    assert cli("diff", old, new).code == 1
    broken = tmp_path / "broken.policy"
    broken.write_text("filter x at xdp { drop if tcp prot 22 }\n")
    for arguments in (
        (old, str(broken)),
        (old, str(tmp_path / "missing.policy")),
        (old,),
        (old, new, "--limit", "x"),
        (old, new, "--fail-on", "tcp prot 22"),
        (old, new, "--pcap", str(tmp_path / "missing.pcap")),
        (old, new, "--filter", "other"),
    ):
        done = cli("diff", *arguments)
        assert (done.code, bool(done.err)) == (2, True), arguments


def test_fail_on(cli: Cli, policies: tuple[str, str]) -> None:
    concerned = ("tcp dst port 22", "tcp", "src host 10.9.9.9", "dst port 23 and ttl < 3", "ether[40] == 1")
    for expression in concerned:
        assert cli("diff", *policies, "--fail-on", expression).code == 1, expression
    for expression in ("udp", "src net 10.1.0.0/16 and tcp dst port 22", "tcp dst port 443", "arp"):
        assert cli("diff", *policies, "--fail-on", expression).code == 0, expression


def test_fail_on_shows_packets_that_the_expression_matches(cli: Cli, policies: tuple[str, str]) -> None:
    out = cli("diff", *policies, "--fail-on", "src host 10.9.9.9 and ttl < 5").out.splitlines()
    assert out[-3:] == [
        "2 classes of packets change verdict",
        "--fail-on src host 10.9.9.9 and ttl < 5: 1 class of packets that it may match changes verdict",
        '    pass -> drop  IPv4(src="10.9.9.9", ttl=4)/TCP(dport=22)',
    ]
    none = cli("diff", *policies, "--fail-on", "arp").out.splitlines()
    assert none[-1] == "--fail-on arp: no packet that it matches is concerned"


BLOCKLIST = """filter f at xdp {
    drop if src net 192.0.2.0/24 or 198.51.100.7 or 203.0.113.0/25 or 2001:db8:bad::/48
    drop if tcp dst port 445 or 139
}
"""
WEB = """filter f at xdp {
    default drop
    pass if arp
    pass if tcp dst port 80 or 443
    pass if tcp[13] & 0x10 != 0
    pass if tcp dst port 22 and src net 10.0.0.0/8
    pass if icmp or icmp6
}
"""


def test_odd_packets_come_last_and_no_class_twice(cli: Cli, tmp_path: Path) -> None:
    old, new = tmp_path / "old.policy", tmp_path / "new.policy"
    old.write_text(BLOCKLIST)
    new.write_text(WEB)
    classes = cli("diff", str(old), str(new), "--json").record["classes"]
    told = [(one["condition"], one["old"]["verdict"], one["new"]["verdict"]) for one in classes]
    assert len(set(told)) == len(told)
    odd = ["and malformed" in one["condition"] for one in classes]
    assert odd == sorted(odd)
    assert 0 < sum(odd) < len(odd)


def test_counters_and_labels_alone_are_no_difference(cli: Cli, tmp_path: Path) -> None:
    old, new = tmp_path / "old.policy", tmp_path / "new.policy"
    old.write_text("filter f at xdp {\n    drop if tcp dst port 22 or 23\n}\n")
    new.write_text(
        "filter f at xdp {\n    count if udp\n    drop if tcp dst port 23\n    a: drop if tcp dst port 22\n}\n"
    )
    done = cli("diff", str(old), str(new))
    assert done.code == 0
    assert done.out.splitlines()[-1] == "same verdict for every packet; counters differ"


def test_settings_are_told(cli: Cli, tmp_path: Path) -> None:
    old, new = tmp_path / "old.policy", tmp_path / "new.policy"
    old.write_text("filter f at xdp {\n    drop if tcp dst port 22\n}\n")
    new.write_text("filter f at xdp {\n    default drop\n    on fragment drop\n    pass if tcp\n}\n")
    done = cli("diff", str(old), str(new), "--json").record
    names = [one["name"] for one in done["settings"]]
    assert names == ["default", "on malformed", "on fragment"]
    confirmed = [one for one in done["classes"] if one["example"]]
    assert len(confirmed) >= 3
    for found in confirmed[:6]:
        for path, side in ((old, "old"), (new, "new")):
            told = cli("explain", str(path), found["example"], "--json").record
            assert told["verdict"] == found[side]["verdict"]


def test_traffic_weighs_the_classes(cli: Cli, policies: tuple[str, str], tmp_path: Path) -> None:
    capture = tmp_path / "a.pcap"
    packets = ['IPv4(src="10.0.0.9")/TCP(dport=22)'] * 3 + ["IPv4/TCP(dport=23)", "IPv4/UDP(dport=53)", "ARP"]
    write_pcap(capture, frames_of([build_packet(parse_packet(text)) for text in packets]))
    done = cli("diff", *policies, "--pcap", str(capture), "--json").record
    assert [found["packets"] for found in done["classes"]] == [3, 1]
    assert done["traffic"] == {"packets": 6, "bytes": 300, "unaffected_packets": 2, "unaffected_bytes": 84}
    lines = cli("diff", *policies, "--pcap", str(capture)).out.splitlines()
    assert "    3 packets (50%), 162 bytes" in lines
    assert "unaffected: 2 of 6 packets (33.33%), 84 of 300 bytes" in lines


def test_more_classes_than_are_shown(cli: Cli, policies: tuple[str, str]) -> None:
    done = cli("diff", *policies, "--limit", "1")
    assert "… and 1 more class (--limit)" in done.out
    told = cli("diff", *policies, "--limit", "1", "--json").record
    assert (len(told["classes"]), told["more_classes"]) == (1, 1)


def test_many_classes_are_told_as_one(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change, "MAX_PATHS", 20)
    hosts = [f"    pass if src host 10.0.{at}.1 and dst host 10.1.{at}.{at}" for at in range(30)]
    old, new = tmp_path / "old.policy", tmp_path / "new.policy"
    old.write_text("filter f at xdp {\n" + "\n".join(hosts) + "\n}\n")
    new.write_text("filter f at xdp {\n" + "\n".join([*hosts, "    drop if ttl < 9"]) + "\n}\n")
    (found,) = cli("diff", str(old), str(new), "--json").record["classes"]
    assert found["parts"] > 20
    assert found["condition"] == "ttl <= 8"
    assert found["example"] == "IPv4(ttl=8)/UDP"
    assert cli("diff", str(old), str(new), "--fail-on", "src host 10.0.7.1 and dst host 10.1.7.7").code == 0
    assert cli("diff", str(old), str(new), "--fail-on", "src host 10.0.7.1 and dst host 10.1.7.8").code == 1
    capture = tmp_path / "a.pcap"
    packets = ['IPv4(src="10.0.7.1", dst="10.1.7.7", ttl=8)/UDP', "IPv4(ttl=8)/UDP", "IPv4(ttl=9)/UDP"]
    write_pcap(capture, frames_of([build_packet(parse_packet(text)) for text in packets]))
    (found,) = cli("diff", str(old), str(new), "--pcap", str(capture), "--json").record["classes"]
    assert found["packets"] == 1


def test_the_page_shows_what_is_printed(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    _, shown = page.split("$ penstock diff old.policy new.policy\n")
    monkeypatch.chdir(tmp_path)
    lines = ["pass if src net 10.0.0.0/8 and tcp dst port 22", "ssh: drop if tcp dst port 22"]
    edited = [lines[0].replace("10.0.0.0/8", "10.1.0.0/16"), f"{lines[1]} or 23"]
    for name, body in (("old.policy", lines), ("new.policy", edited)):
        Path(name).write_text("filter edge at xdp {\n    " + "\n    ".join(body) + "\n}\n")
    assert cli("diff", "old.policy", "new.policy").out == shown.partition("```")[0]


def test_what_is_not_decided_is_told_with_evidence(
    cli: Cli, policies: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change, "SECONDS", -1.0)
    done = cli("diff", *policies)
    assert done.code == 1
    assert "not decided: tcp dst portrange 22-23\n    changes: IPv4" in done.out
    assert "0 classes of packets change verdict; not everything could be decided" in done.out
    capture = tmp_path / "a.pcap"
    packets = ["IPv4/TCP(dport=22)", "IPv4/TCP(dport=23)"]
    write_pcap(capture, frames_of([build_packet(parse_packet(text)) for text in packets]))
    found = cli("diff", *policies, "--pcap", str(capture), "--json").record
    assert found["traffic"]["unaffected_packets"] == 1
    assert cli("diff", *policies, "--fail-on", "tcp").code == 1
    assert cli("diff", *policies, "--fail-on", "udp").code == 0


def test_a_rule_that_moved_to_another_line_is_the_same_counter(cli: Cli, tmp_path: Path) -> None:
    old, new = tmp_path / "old.policy", tmp_path / "new.policy"
    old.write_text("filter f at xdp {\n    drop if udp\n    drop if tcp\n    a: count\n}\n")
    new.write_text(
        "filter f at xdp {\n\n    drop if tcp\n    drop if udp\n    a: count if ip\n    count if arp\n}\n"
    )
    found = cli("diff", str(old), str(new), "--json").record
    assert found["same_verdicts"]
    assert found["counters"] == {"old_only": [], "new_only": ["f:6"], "changed": ["a"]}


def test_a_rule_that_asks_deeper_judges_deeper(cli: Cli, tmp_path: Path) -> None:
    """`malformed` is judged down to what the rules ask for; the other conditions do not change by that."""
    old, new = tmp_path / "old.policy", tmp_path / "new.policy"
    old.write_text("filter f at xdp {\n    default drop\n    pass if src net 10.0.0.0/8\n}\n")
    new.write_text(
        "filter f at xdp {\n    default drop\n    pass if src net 10.0.0.0/8\n    drop if dport > 9\n}\n"
    )
    (found,) = cli("diff", str(old), str(new), "--json").record["classes"]
    assert found["condition"] == (
        "src net 10.0.0.0/8 and malformed (down to transport) and not (malformed (down to network))"
    )
    assert not found["is_expression"]
    assert cli("explain", str(old), found["example"], "--json").record["verdict"] == "pass"
    assert cli("explain", str(new), found["example"], "--json").record["decided_by"] == "on malformed"


MARKING = """set bad : host size 64
filter edge at tc ingress {
    voice: mark 0x1 if udp dst port 5060
    mirror eth1 if icmp
    dscp ef if udp dst port 53
    ban: add src to @bad for 1h if tcp dst port 23
    remove src from @bad if tcp dst port 22
}
"""


def differing(cli: Cli, tmp_path: Path, *edits: tuple[str, str]) -> list[str]:
    old, new = tmp_path / "old.policy", tmp_path / "new.policy"
    text = MARKING
    for before, after in edits:
        assert before in text
        text = text.replace(before, after)
    old.write_text(MARKING)
    new.write_text(text)
    done = cli("diff", str(old), str(new))
    assert done.code == 0
    return [line for line in done.out.splitlines() if not line.startswith("counters ")]


def test_what_rules_do_besides_deciding(cli: Cli, tmp_path: Path) -> None:
    assert differing(cli, tmp_path, ("0x1 ", "0x2 ")) == [
        "voice: mark 0x1 if udp dst port 5060  ->  mark 0x2 if udp dst port 5060",
        "same verdict for every packet; what rules do differs: mark",
    ]
    assert differing(cli, tmp_path, ("for 1h", "for 2h"), ("eth1", "eth2")) == [
        "edge:4: mirror eth1 if icmp  ->  mirror eth2 if icmp",
        "ban: add src to @bad for 1h if tcp dst port 23  ->  add src to @bad for 2h if tcp dst port 23",
        "same verdict for every packet; what rules do differs: mirror, add",
    ]
    assert differing(cli, tmp_path, ("dscp ef", "# dscp ef"), ("remove src", "remove dst")) == [
        "edge:7: remove src from @bad if tcp dst port 22  ->  remove dst from @bad if tcp dst port 22",
        "only in the old  edge:5: dscp ef if udp dst port 53",
        "same verdict for every packet; what rules do differs: remove, dscp",
    ]


def test_rules_that_do_the_same_are_no_difference_but_their_order_is(cli: Cli, tmp_path: Path) -> None:
    lines = MARKING.splitlines(keepends=True)
    assert differing(cli, tmp_path, (lines[3], f"\n\n{lines[3]}")) == ["same verdict for every packet"]
    assert differing(cli, tmp_path, (lines[2] + lines[3], lines[3] + lines[2])) == [
        "same verdict for every packet"
    ]
    assert differing(cli, tmp_path, (lines[5] + lines[6], lines[6] + lines[5])) == [
        "in another order: edge:6, ban",
        "same verdict for every packet; rules that do something stand in another order",
    ]


def test_json_has_what_rules_do(cli: Cli, tmp_path: Path) -> None:
    old, new = tmp_path / "old.policy", tmp_path / "new.policy"
    old.write_text(MARKING)
    new.write_text(MARKING.replace("voice: mark", "voice: dscp 8 if arp\n loud: mark"))
    found = cli("diff", str(old), str(new), "--json").record["effects"]
    assert found["reordered"] == []
    assert found["changed"] == [{"name": "voice", "old": None, "new": "dscp 8 if arp"}]


def test_what_is_asked_of_a_set_again_behind_a_rule_that_changes_it_is_told_apart(
    cli: Cli, tmp_path: Path
) -> None:
    old, new = tmp_path / "old.policy", tmp_path / "new.policy"
    rules = " pass if src in @s\n add src to @s if tcp dst port 23\n drop if {} and src in @s\n"
    for place, port in ((old, "udp"), (new, "udp dst port 9")):
        place.write_text(f"set s : host timeout 10m\nfilter edge at xdp {{\n{rules.format(port)}}}\n")
    told = cli("diff", str(old), str(new)).out
    assert "src in @s behind 1 rule that changes it and not (addr.src in @s)" in told
