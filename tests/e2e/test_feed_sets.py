"""`penstock feed` on sets of a policy that is in place, and `penstock why`."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import CLIENT, Cli, Wire, write

pytestmark = pytest.mark.privileged

TEXT = """set threats : net feed "{place}/list" every 5m {more}
set own     : net

filter edge at xdp {{
    default pass
    threat: drop if udp dst port 8000 and src in @threats
    mine:   drop if udp dst port 8000 and src in @own
}}
"""


TRAP = """set seen : host
filter trap at xdp {
    add src to @seen for 10m if udp dst port 8000
    drop if tcp and src in @seen
}
"""


@pytest.fixture
def fed(host: Cli, tmp_path: Path) -> Iterator[Path]:
    """A policy with a feed, in place."""
    write(tmp_path / "list", "198.51.100.0/24\n203.0.113.0/24\n10.0.0.0/8\n")
    path = write(tmp_path / "edge.policy", TEXT.format(place=tmp_path, more=""))
    done = host("apply", str(path), "-i", "v1")
    assert done.code == 0
    assert "was not fetched yet: `penstock feed refresh" in done.err
    yield path
    host("detach", "-i", "v1")
    for name in ("threats", "own"):
        host("set", "delete", name)


def entries(host: Cli, name: str) -> set[str]:
    return set(host("set", "list", name).out.split())


def test_many_feeds_that_were_not_fetched_are_told_in_one_sentence(host: Cli, tmp_path: Path) -> None:
    feeds = " ".join(
        f'feed "{write(tmp_path / f"{number}.txt", f"198.51.{number}.0/24")}"' for number in range(5)
    )
    text = f"set threats : net {feeds}\nfilter edge at xdp {{ drop if src in @threats }}\n"
    done = host("apply", str(write(tmp_path / "edge.policy", text)), "-i", "v1")
    assert "@threats: 5 feeds were not fetched yet: `penstock feed refresh @threats` does" in done.err
    assert done.err.count("not fetched") == 1
    assert host("feed", "refresh", "@threats").code == 0
    assert len(entries(host, "threats")) == 5
    host("detach", "-i", "v1")
    host("set", "delete", "threats")


def test_a_policys_feed_is_fetched_folded_and_taken_back(host: Cli, fed: Path, tmp_path: Path) -> None:
    assert host("feed", "list", "--json").record["state"] == "new"
    done = host("feed", "refresh")
    assert done.code == 0
    assert "@threats: 2 added" in done.err
    assert "@threats: 1 protected entry of" in done.err
    assert entries(host, "threats") == {"198.51.100.0/24", "203.0.113.0/24"}
    shown = host("feed", "list", "--json").record
    assert (shown["state"], shown["entries"], shown["protected"]) == ("ok", 2, 1)
    assert shown["owner"] == f"policy {fed}"
    write(tmp_path / "list", "<html>")
    done = host("feed", "refresh", "threats")
    assert (done.code, "web page" in done.err) == (8, True)
    assert "stale" in host("feed", "list").out
    assert len(entries(host, "threats")) == 2
    # The next version of the policy has another feed: what the first one alone listed goes.
    write(tmp_path / "other", "203.0.113.0/24\n192.0.2.0/24\n")
    host("feed", "add", "own", str(tmp_path / "other"))
    host("feed", "refresh", "own")
    text = TEXT.format(place=tmp_path, more="").replace(f"{tmp_path}/list", f"{tmp_path}/other")
    assert host("apply", str(write(fed, text)), "-i", "v1").code == 0
    assert entries(host, "threats") == entries(host, "own") == {"203.0.113.0/24", "192.0.2.0/24"}
    gone = host("feed", "remove", "own", str(tmp_path / "other"))
    assert (gone.code, "fills it no more" in gone.err) == (0, True)
    assert entries(host, "own") == set()
    assert "has no feed `nope`" in host("feed", "remove", "own", "nope").err
    # Its copy stays while another set wants it, and goes with the last.
    name = host("feed", "list", "--json").record["feed"]
    place = Path(os.environ["PENSTOCK_STATE_DIR"], "feeds", name)
    assert place.is_dir()
    assert host("feed", "remove", "threats", name).code == 0
    assert not place.exists()


def test_feeds_of_a_policy_that_is_taken_back_are_taken_back(host: Cli, fed: Path, tmp_path: Path) -> None:
    assert host("feed", "refresh").code == 0
    host("feed", "add", "own", str(tmp_path / "list"))
    before = sorted(host("feed", "list", "--json").out.splitlines())
    write(tmp_path / "other", "192.0.2.0/24\n")
    text = TEXT.format(place=tmp_path, more="").replace(f"{tmp_path}/list", f"{tmp_path}/other")
    assert host("apply", str(write(fed, text)), "-i", "v1", "--confirm", "100s").code == 0
    assert host("feed", "refresh", "threats").code == 0
    assert entries(host, "threats") == {"192.0.2.0/24"}
    assert host("confirm", "--undo").code == 0
    assert entries(host, "threats") == {"198.51.100.0/24", "203.0.113.0/24"}
    assert {keys(line) for line in host("feed", "list", "--json").out.splitlines()} == {*map(keys, before)}


def bare(tmp_path: Path) -> str:
    """The same filter in another file, whose sets have no feeds."""
    clause = f'feed "{tmp_path}/list" every 5m'
    return str(write(tmp_path / "bare.policy", TEXT.format(place=tmp_path, more="").replace(clause, "")))


def owners(host: Cli) -> set[tuple[str, str]]:
    told = map(json.loads, host("feed", "list", "--json").out.splitlines())
    return {(one["set"], one["owner"]) for one in told}


def test_feeds_of_a_policy_that_another_file_replaces_are_taken_back(
    host: Cli, fed: Path, tmp_path: Path
) -> None:
    listed, other = {"198.51.100.0/24", "203.0.113.0/24"}, bare(tmp_path)
    # Named from where it lies: who replaces it is somewhere else.
    running = host.start("apply", fed.name, "-i", "v1", cwd=tmp_path)
    assert running.wait(60) == 0
    running.communicate()
    assert host("feed", "refresh").code == 0
    assert host("feed", "add", "own", str(tmp_path / "list")).code == 0
    assert entries(host, "threats") == entries(host, "own") == listed
    done = host("apply", other, "-i", "v1")
    assert f"@threats: no more filled by what {fed} names, which was replaced" in done.err
    assert (entries(host, "threats"), entries(host, "own")) == (set(), listed)
    assert owners(host) == {("own", "command")}
    # What one interface has replaced another may still run.
    for name in ("v1", "lo"):
        assert host("apply", str(fed), "-i", name).code == 0
    assert host("apply", other, "-i", "lo").code == 0
    assert (entries(host, "threats"), owners(host)) == (
        listed,
        {("own", "command"), ("threats", f"policy {fed}")},
    )
    assert host("rollback", "-i", "lo").code == 0
    assert host("detach", "-i", "lo").code == 0
    assert host("apply", other, "-i", "v1").code == 0
    assert entries(host, "threats") == set()
    assert host("rollback", "-i", "v1").code == 0
    assert entries(host, "threats") == listed


@pytest.mark.parametrize("ending", ["undo", "time"])
def test_feeds_of_a_policy_come_back_with_it(host: Cli, fed: Path, tmp_path: Path, ending: str) -> None:
    assert host("feed", "refresh").code == 0
    times = ("--confirm", "100s") if ending == "undo" else ("--confirm", "1s", "--wait")
    done = host("apply", bare(tmp_path), "-i", "v1", *times)
    if ending == "undo":
        assert (done.code, entries(host, "threats")) == (0, set())
        assert host("confirm", "--undo").code == 0
    else:
        assert done.code == 7
    assert entries(host, "threats") == {"198.51.100.0/24", "203.0.113.0/24"}
    assert owners(host) == {("threats", f"policy {fed}")}


def test_damage_to_one_sets_files_is_named_and_stops_no_other(host: Cli, fed: Path, tmp_path: Path) -> None:
    state = Path(os.environ["PENSTOCK_STATE_DIR"], "sets")
    assert host("feed", "add", "own", str(tmp_path / "list")).code == 0
    assert host("set", "add", "own", "192.0.2.0/24").code == 0
    (state / "own/feeds.json").write_bytes(b'{"schema": "\xff')
    journal = state / "own/journal"
    journal.write_bytes(b"\x00\n" + journal.read_bytes())
    done = host("feed", "refresh")
    assert (done.code, entries(host, "threats")) == (8, {"198.51.100.0/24", "203.0.113.0/24"})
    assert f"error: @own: read {state}/own/feeds.json: " in done.err
    assert "hint: take it away, and `penstock feed add own SOURCE`" in done.err
    assert f"error: @own: {journal}: 1 lines of it are not what was written there" in done.err
    for command in (("feed", "list"), ("feed", "fetch", "--once")):
        done = host(*command)
        assert (done.code, f"@own: read {state}/own/feeds.json" in done.err) == (8, True)
    assert "ok" in host("feed", "list").out
    states = {
        one["set"]: one["state"] for one in map(json.loads, host("feed", "list", "--json").out.splitlines())
    }
    assert states == {"threats": "ok", "own": "damaged"}
    assert f"@own: {journal}: 1 lines" in host("apply", str(fed), "-i", "v1").err
    found = host("why", "198.51.100.7")
    assert (found.code, "198.51.100.7 is in @threats" in found.out) == (8, True)
    assert f"warning: not known: @own: {journal}" in found.err
    assert host("why", "192.0.2.1", "--json").record["held"][0]["reasons"][0]["source"] == "manual"
    # A set that cannot be opened, in the kernel.
    place = Path(
        os.environ.get("PENSTOCK_BPFFS", host.environment["PENSTOCK_BPFFS"]) + "-sets", "own", "spec"
    )
    place.unlink()
    done = host("set", "list")
    assert (done.code, "threats" in done.out, "some of its pins are missing" in done.err) == (8, True, True)
    assert "`penstock set delete --force own`" in done.err
    assert host("why", "198.51.100.7", "--json").code == 8
    assert host("set", "delete", "--force", "own").code == 0
    (state / "own/feeds.json").unlink()
    assert host("apply", str(fed), "-i", "v1").code == 0
    assert entries(host, "own") == {"192.0.2.0/24"}


def keys(line: str) -> tuple[object, ...]:
    told = json.loads(line)
    return told["set"], told["source"], told["owner"]


def test_a_feed_blocks_and_frees(wire: Wire, host: Cli, fed: Path, tmp_path: Path) -> None:
    assert wire.arrived(8000) == 5
    write(tmp_path / "mine", f"{CLIENT}\n")
    done = host("feed", "add", "own", str(tmp_path / "mine"), "--private", "--json").record
    assert host("feed", "refresh", done["feed"]).code == 0
    assert wire.arrived(8000) == 0
    assert host("feed", "remove", "own", done["feed"]).code == 0
    assert wire.arrived(8000) == 5


def test_a_policy_says_that_a_feed_may_list_private_addresses(host: Cli, fed: Path, tmp_path: Path) -> None:
    text = TEXT.format(place=tmp_path, more="private")
    write(tmp_path / "list", "198.51.100.0/24\n10.77.0.0/16\n")
    assert host("apply", str(write(fed, text)), "-i", "v1").code == 0
    assert host("feed", "refresh").code == 0
    assert entries(host, "threats") == {"10.77.0.0/16", "198.51.100.0/24"}
    # The clause without it is another feed: what only that one may list goes.
    assert host("apply", str(write(fed, text.replace(" private", ""))), "-i", "v1").code == 0
    assert (host("feed", "refresh").code, entries(host, "threats")) == (0, {"198.51.100.0/24"})


def test_what_cannot_be_a_feed_is_said(host: Cli, fed: Path) -> None:
    for arguments, words in (
        (("own", "spamhaus-dorp"), "did you mean `spamhaus-drop`?"),
        (("own", "spamhaus-drop", "--every", "5m"), "may be asked every 1h at most"),
        (("own", "tor-exits", "--format", "lst"), "did you mean `list`?"),
        (("own", "-"), "`set import SET -` reads it once"),
        (("none", "tor-exits"), "there is no set `none`"),
        (("own", "http://feeds.example/ips.txt"), "`--allow-http`"),
    ):
        done = host("feed", "add", *arguments)
        assert (done.code, words in done.err) == (1, True), done.err
    assert host("feed", "refresh", "nope").code == 1
    # As `feed remove`: a path from here is one from the root.
    assert host("feed", "refresh", os.path.relpath(fed.parent / "list")).code == 0


def test_the_fetcher_changes_no_set_and_ends_when_it_is_told(host: Cli, fed: Path, tmp_path: Path) -> None:
    running = host.start("feed", "fetch", "--json")
    assert running.stdout is not None
    assert '"state": "ok"' in running.stdout.readline()
    running.send_signal(signal.SIGTERM)
    assert running.wait(20) == 0
    running.communicate()
    # It has kept the copy and changed no set.
    assert entries(host, "threats") == set()
    assert host("apply", str(fed), "-i", "v1").code == 0
    assert len(entries(host, "threats")) == 2
    assert host("feed", "fetch", "--once").code == 0


def test_why_tells_every_source_and_what_becomes_of_packets(host: Cli, fed: Path, tmp_path: Path) -> None:
    host("feed", "refresh")
    assert (
        host("set", "add", "threats", "198.51.100.7", "--ttl", "1h", "--comment", "INC-4711\n\x1b[31m").code
        == 0
    )
    found = host("why", "198.51.100.7", "--json").record
    (held,) = found["held"]
    told = [(one["entry"], one["source"], one["is_feed"]) for one in held["reasons"]]
    name = host("feed", "list", "--json").record["feed"]
    assert told == [("198.51.100.7/32", "manual", False), ("198.51.100.0/24", name, True)]
    assert 3500 < held["reasons"][0]["left_s"] <= 3600
    assert (held["set"], held["is_in"], held["reasons"][0]["comment"]) == (
        "threats",
        True,
        "INC-4711\n\x1b[31m",
    )
    assert [(one["interface"], one["rule"], one["action"]) for one in found["asked"]] == [
        ("v1", "threat", "drop")
    ]
    assert {(one["packet"], one["verdict"]) for one in found["fates"]} == {("every", "pass")}
    shown = host("why", "198.51.100.7").out
    assert "198.51.100.7 is in @threats\n" in shown
    assert "“INC-4711\\n\\x1b[31m”" in shown
    assert (
        "asked on v1 (xdp) by rule threat of edge: threat: drop if udp dst port 8000 and src in @threats"
        in shown
    )


@pytest.mark.check(44)
def test_check_44_why_of_what_nobody_knows_and_of_what_is_no_address(host: Cli, fed: Path) -> None:
    done = host("why", "192.0.2.77")
    assert (done.code, done.out.splitlines()[0]) == (0, "192.0.2.77: no set holds it")
    assert host("why", "192.0.2.77", "--json").record["known"] is False
    assert "protected: no feed may list it (private)" in host("why", "10.9.9.9").out
    done = host("why", "192.0.2.\x1b[31m")
    assert (done.code, "is no address" in done.err, "\x1b" in done.err) == (1, True, False)


def test_why_tells_what_rules_have_added(wire: Wire, host: Cli, tmp_path: Path) -> None:
    assert host("apply", str(write(tmp_path / "trap.policy", TRAP)), "-i", "v1").code == 0
    assert wire.arrived(8000) == 5
    found = host("why", CLIENT, "--json").record
    (held,) = found["held"]
    assert [(one["entry"], one["source"]) for one in held["reasons"]] == [(CLIENT, "rule")]
    assert {(one["packet"], one["verdict"]) for one in found["fates"]} >= {
        ("TCP to 22", "drop"),
        ("UDP to 53", "pass"),
    }
    # A feed that has listed it too and takes it back leaves what the rule has added.
    write(tmp_path / "mine", f"{CLIENT}\n198.51.100.7\n")
    name = host("feed", "add", "seen", str(tmp_path / "mine"), "--private", "--json").record["feed"]
    host("feed", "refresh", name)
    assert len(host("why", CLIENT, "--json").record["held"][0]["reasons"]) == 2
    assert host("feed", "remove", "seen", name, "--json").record["removed"] == 2
    assert host("why", CLIENT, "--json").record["held"][0]["is_in"] is True
    host("detach", "-i", "v1")
    assert host("set", "delete", "seen").code == 0
