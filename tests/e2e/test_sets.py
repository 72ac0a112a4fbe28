"""`penstock set` and the Python API on filters that are in place: shared, changed under traffic, kept, taken away."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.e2e.conftest import CLIENT, COLD, Cli, Wire, write
from tests.property.test_kernel_agrees import oldest_clang

import penstock

pytestmark = pytest.mark.privileged

TEXT = """
set banned : host size 100 timeout 10m counters
set open   : port

filter guard at {hook} {{
    default pass
    banned: drop if udp dst port 8000 and src in @banned
    drop if udp dst port 8000 and not udp dst port in @open
}}
"""
PAGE = (Path(__file__).parents[2] / "docs/sets.md").read_text()


@pytest.fixture
def guard(host: Cli, tmp_path: Path) -> Path:
    """A policy with sets, in place; its sets go at the end."""
    path = write(tmp_path / "guard.policy", TEXT.format(hook="xdp"))
    assert host("apply", str(path), "-i", "v1").code == 0
    return path


@pytest.fixture(autouse=True)
def _no_sets_are_left(host: Cli) -> object:
    yield
    for hook in ("xdp", "tc-ingress"):
        host("detach", "-i", "v1", "--hook", hook)
    for name in re.findall(r'"set": "(\w+)"', host("set", "list", "--json").out):
        host("set", "delete", name)


def test_a_change_is_met_by_the_next_packet(wire: Wire, host: Cli, guard: Path) -> None:
    assert wire.arrived(8000) == 0
    assert "2 added" in host("set", "add", "open", "8000-8001").err
    assert wire.arrived(8000) == 5
    assert host("set", "add", "banned", CLIENT).code == 0
    assert wire.arrived(8000, count=3) == 0
    counted = host("set", "list", "banned", "--json").record
    assert (counted["entry"], counted["packets"]) == (CLIENT, 3)
    assert 590 < counted["expires_in_s"] <= 600
    assert host("set", "remove", "banned", CLIENT).code == 0
    assert wire.arrived(8000) == 5


def test_the_running_sets_answer_for_a_packet(host: Cli, guard: Path) -> None:
    packet = f'IPv4(src="{CLIENT}")/UDP(dport=8000)'
    host("set", "add", "banned", CLIENT)
    host("set", "add", "open", "8000")
    told = host("explain", str(guard), packet, "--sets", "live", "--json").record
    assert (told["decided_by"], told["because"]) == ("banned", [f"{CLIENT} is in @banned, by {CLIENT}"])
    assert "8000 is not in @open" in host("explain", str(guard), packet).out
    told = host("explain", str(guard), packet, "--sets", "live", "--set", "banned=").out
    assert f"{CLIENT} is not in @banned" in told
    assert "pass by default" in told
    test = f'test "x" {{\n packet {packet} -> drop by banned\n}}\n'
    for engine in ("reference", "kernel"):
        arguments = ("test", str(write(guard, guard.read_text() + test)), "--engine", engine)
        assert host(*arguments).code == 1
        assert host(*arguments, "--sets", "live").code == 0
    other = write(guard.with_name("other.policy"), guard.read_text().replace("open   : port", "none : port"))
    write(other, other.read_text().replace("@open", "@none"))
    assert "no set @none runs here" in host("explain", str(other), packet, "--sets", "live").err
    write(other, guard.read_text().replace("banned : host", "banned : net"))
    refused = host("explain", str(other), packet, "--sets", "live")
    assert (refused.code, "is of host, and the policy's of net" in refused.err) == (1, True)
    counted = host("set", "list", "banned", "--json").record
    assert counted["packets"] == 0, "nothing was counted"


# The wall clock as a process has it that was started while it was set to another day.
_OTHER_DAY = """
extern long syscall(long number, ...);
struct moment {{ long seconds, nanoseconds; }};
int clock_gettime(int clock, struct moment *now)
{{
	long failed = syscall({number}L, clock, now);

	if (!failed && !clock)
		now->seconds += {jump}L;
	return (int)failed;
}}
"""
_CLOCK_GETTIME = {"x86_64": 228, "aarch64": 113}


@pytest.mark.check(27)
@pytest.mark.parametrize("jump", [-86_400, 86_400])
def test_check_27_processes_whose_wall_clocks_are_a_day_apart(
    wire: Wire, host: Cli, guard: Path, tmp_path: Path, jump: int
) -> None:
    """What one adds for an hour stays an hour for the other, for packets, lists and ledgers."""
    library = tmp_path / "day.so"
    text = _OTHER_DAY.format(number=_CLOCK_GETTIME[platform.machine()], jump=jump)
    clang = [oldest_clang().path, "-shared", "-fPIC", "-nostdlib", "-x", "c", "-", "-o", str(library)]
    subprocess.run(clang, input=text, text=True, check=True)
    other = Cli({**host.environment, "LD_PRELOAD": str(library), COLD: "1"}, host.prefix)
    seen = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"],
        env={**os.environ, **other.environment},
        capture_output=True,
        check=True,
    )
    assert abs(float(seen.stdout) - time.time() - jump) < 60
    _means_the_same_times(wire, host, other)


@pytest.mark.check(27)
@pytest.mark.parametrize("jump", [-3600, 86_400])
def test_check_27_processes_whose_boot_clocks_are_a_day_apart(
    wire: Wire, host: Cli, guard: Path, jump: int
) -> None:
    """A time namespace gives its processes another boot clock; that of programs is the host's."""
    prefix = ("unshare", "--time", "--boottime", str(jump))
    seen = subprocess.run([*prefix, "cat", "/proc/uptime"], capture_output=True, check=True, text=True)
    assert abs(float(seen.stdout.split()[0]) - time.clock_gettime(time.CLOCK_BOOTTIME) - jump) < 60
    _means_the_same_times(wire, host, Cli(host.environment, (*prefix, *host.prefix)))


def _means_the_same_times(wire: Wire, host: Cli, other: Cli) -> None:
    host("set", "add", "open", "8000")
    for adding, looking in ((host, other), (other, host)):
        assert adding("set", "add", "banned", CLIENT, "--timeout", "1h").code == 0
        assert 3500 < looking("set", "list", "banned", "--json").record["expires_in_s"] <= 3600
        assert "expires in 1h" in looking("why", CLIENT).out or "expires in 59m" in looking("why", CLIENT).out
        assert wire.arrived(8000) == 0
        assert "1 removed" in looking("set", "remove", "banned", CLIENT).err
        assert wire.arrived(8000) == 5


def test_bytes_that_are_no_text_and_times_without_end_are_refused(host: Cli, guard: Path) -> None:
    for entry, comment in (("192.0.2.1", "\udcff"), ("\udcff", "")):
        done = host("set", "add", "banned", entry, "--comment", comment)
        assert (done.code, "is not UTF-8 text" in done.err) == (1, True)
    done = host("set", "import", "banned", "-", stdin="192.0.2.1 timeout 999999999d\n")
    assert (done.code, "longer than an entry can stay" in done.err) == (1, True)
    # fail2ban doubles its bans without an end.
    assert host("set", "add", "banned", "192.0.2.2", "--timeout", f"{20 * 366 * 86_400}s").code == 0
    assert [
        json.loads(line)["entry"] for line in host("set", "list", "banned", "--json").out.splitlines()
    ] == ["192.0.2.2"]


@pytest.mark.parametrize("beside", ["a policy that asks it", "one that does not", "nothing"])
def test_emergency_rules_ask_the_sets_that_are_there(
    wire: Wire, host: Cli, guard: Path, tmp_path: Path, beside: str
) -> None:
    if beside == "nothing":
        host("detach", "-i", "v1")
    elif beside == "one that does not":
        other = write(tmp_path / "other.policy", "filter other at xdp { drop if udp dst port 11 }")
        assert host("apply", str(other), "-i", "v1").code == 0
    assert host("set", "add", "banned", CLIENT).code == 0
    done = host("drop", "udp dst port 7000 and src in @banned", "-i", "v1", "--for", "1m")
    assert done.code == 0, done.err
    assert wire.arrived(7000) == 0
    host("set", "remove", "banned", CLIENT)
    assert wire.arrived(7000) == 5
    assert host("set", "delete", "banned").code == 1, "the rule asks it"
    refused = host("drop", "src in @bannd", "-i", "v1", "--for", "1m")
    assert (refused.code, "the set `@bannd` is not defined" in refused.err) == (1, True)
    assert host("undrop", "-i", "v1").code == 0


def test_content_outlives_reload_and_detach_and_is_shared(
    wire: Wire, host: Cli, guard: Path, tmp_path: Path
) -> None:
    assert host("set", "add", "open", "8000").code == 0
    assert host("apply", str(guard), "-i", "v1").code == 0
    assert wire.arrived(8000) == 5
    other = write(tmp_path / "tc.policy", TEXT.format(hook="tc ingress"))
    assert host("apply", str(other), "-i", "v1").code == 0
    assert host("set", "add", "banned", CLIENT).code == 0
    assert wire.arrived(8000) == 0
    assert host("detach", "-i", "v1", "--hook", "xdp").code == 0
    assert wire.arrived(8000) == 0
    assert len(host("set", "info", "banned", "--json").record["programs"]) == 1
    assert host("detach", "-i", "v1").code == 0
    assert host("set", "info", "banned", "--json").record["entries"] == 1
    assert host("apply", str(guard), "-i", "v1").code == 0
    assert wire.arrived(8000) == 0


def test_another_set_of_the_name_is_refused_and_left_alone(host: Cli, guard: Path, tmp_path: Path) -> None:
    assert host("set", "add", "banned", "192.0.2.1").code == 0
    assert host("apply", str(guard), "-i", "lo").code == 0
    text = TEXT.format(hook="xdp").replace("size 100", "size 200")
    text = text.replace("set open", "set a : net\nset more").replace("@open", "@more or src in @a")
    done = host("apply", str(write(tmp_path / "other.policy", text)), "-i", "v1")
    assert done.code == 1
    there = "is there already, and is another: set banned : host size 100 timeout 10m counters"
    assert f"the set @banned {there}; guard on lo use it" in done.err
    assert "let all of them say the same, or detach those first" in done.err
    assert host("detach", "-i", "lo").code == 0
    text = text.replace("banned : host", "banned : net")
    done = host("apply", str(write(tmp_path / "other.policy", text)), "-i", "v1")
    assert (done.code, "penstock set delete banned" in done.err) == (1, True)
    assert host("set", "list", "banned").out.startswith("192.0.2.1")
    assert [one for one in host("set", "list").out.split() if one in ("a", "more")] == []


def test_a_set_that_is_defined_otherwise_is_made_anew_with_its_content(
    wire: Wire, host: Cli, guard: Path
) -> None:
    assert host("set", "add", "open", "8000").code == 0
    assert host("set", "add", "banned", CLIENT, "192.0.2.1", "2001:db8::1", "--timeout", "1h").code == 0
    assert host("apply", str(guard), "-i", "lo").code == 0
    old = host("set", "info", "banned").out
    text = guard.read_text().replace("size 100 timeout 10m counters", "size 200 dynamic")
    done = host("apply", str(write(guard, text.replace("size 200", "size 1"))), "-i", "v1", "--dry-run")
    assert (done.code, "@banned holds 3 entries" in done.err) == (1, True)
    done = host("apply", str(guard), "-i", "v1")
    assert (done.code, "@banned holds 3 entries, and this policy gives it a size of 1" in done.err) == (
        1,
        True,
    )
    done = host("apply", str(write(guard, text)), "-i", "v1", "--confirm", "60s")
    assert (done.code, "which --confirm could not take back" in done.err) == (1, True)
    assert (host("set", "info", "banned").out, host("status").code, wire.arrived(8000)) == (old, 0, 0)
    done = host("apply", str(guard), "-i", "v1", "--dry-run")
    assert (done.code, "applied" in done.out) == (0, False)
    would = "@banned would be made anew, with all 3 of its entries: set banned : host size 200 dynamic"
    assert would in done.err
    assert host("apply", str(guard), "-i", "v1", "--dry-run", "--json").record["notices"] == [
        "guard on lo goes on with what @banned held: apply the policy there too", would,
    ]  # fmt: skip
    assert (
        "which --confirm could not"
        in host("apply", str(guard), "-i", "v1", "--dry-run", "--confirm", "9s").err
    )
    assert (host("set", "info", "banned").out, host("status").code) == (old, 0)
    done = host("apply", str(guard), "-i", "v1")
    assert "@banned was made anew, with all 3 of its entries: set banned : host size 200 dynamic" in done.err
    assert "guard on lo goes on with what @banned held: apply the policy there too" in done.err
    assert wire.arrived(8000) == 0
    entries = host("set", "list", "banned").out
    assert sorted(line.split()[0] for line in entries.splitlines()) == sorted(
        [CLIENT, "192.0.2.1", "2001:db8::1"]
    )
    assert entries.count("expires in 59m") == 3
    assert host("status").code == 3
    # What cannot wait goes on with the set that the policy has there.
    assert host("rule", "add", "drop if udp port 7777", "-i", "lo", "--rebuild").code == 0
    assert host("drop", "-i", "lo", "--for", "1m", "udp port 7778").code == 0
    assert "@banned was taken away or made anew under it" in host("status").out
    assert host("undrop", "-i", "lo").code == 0
    assert host("apply", str(guard), "-i", "lo").code == 0
    assert (host("status").code, host("detach", "-i", "lo").code) == (0, 0)
    assert host("set", "remove", "banned", CLIENT).code == 0
    assert wire.arrived(8000) == 5
    # What was there before comes back as the set that it had.
    assert host("set", "add", "banned", CLIENT).code == 0
    write(guard, text.replace(" dynamic", "").replace("size 200", "size 300"))
    assert "rules of other policies add to the set @banned" in host("apply", str(guard), "-i", "v1").err
    write(guard, text.replace("size 200", "size 300 counters"))
    assert host("apply", str(guard), "-i", "v1").code == 0
    assert host("rollback", "-i", "v1").code == 0
    assert "size 200" in host("set", "info", "banned").out
    assert (host("status").code, wire.arrived(8000)) == (0, 0)


def test_a_set_that_is_taken_away_under_a_program_is_told_until_it_is_applied_again(
    wire: Wire, host: Cli, guard: Path
) -> None:
    assert host("set", "add", "open", "8000").code == 0
    assert host("set", "add", "banned", CLIENT).code == 0
    done = host("set", "delete", "banned", "--force")
    assert (done.code, "warning: guard on v1 goes on with what it held" in done.err) == (0, True)
    found = host("status")
    assert (found.code, "@banned was taken away or made anew under it" in found.out) == (3, True)
    assert f"`penstock apply {guard} -i v1` mends it" in found.out
    assert wire.arrived(8000) == 0
    assert host("drop", "-i", "v1", "--for", "1m", "udp port 7777").code == 0
    assert host("rule", "add", "drop if udp port 7778", "-i", "v1", "--rebuild").code == 0
    assert [wire.arrived(port) for port in (8000, 7777, 7778, 7779)] == [0, 0, 0, 5]
    assert host("status").code == 3
    assert host("undrop", "-i", "v1").code == 0
    assert wire.arrived(8000) == 0
    assert host("apply", str(guard), "-i", "v1").code == 0
    assert (host("status").code, wire.arrived(8000)) == (0, 5)
    assert host("set", "add", "banned", CLIENT).code == 0
    assert wire.arrived(8000) == 0


def test_files_in_and_out(host: Cli, guard: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "drop.txt", "# head\n192.0.2.1\n192.0.2.2 timeout 1h ; note\n2001:db8::1\n")
    assert host("set", "import", "banned", str(file), "--json").record["added"] == 3
    assert host("set", "replace", "banned", "-", "--json", "--forever", stdin="192.0.2.2\n192.0.2.9\n").record == {
        "schema": "penstock.set.change/1", "set": "banned", "added": 1, "changed": 1, "removed": 2, "entries": 2,
    }  # fmt: skip
    out = tmp_path / "out.txt"
    assert host("set", "export", "banned", str(out)).code == 0
    assert sorted(out.read_text().split()) == ["192.0.2.2", "192.0.2.9"]
    update = ("set", "update", "banned", "--add", "-", "--json")
    done = host(*update, "--remove", str(out), "--forever", stdin="192.0.2.9\n192.0.2.3\n")
    assert [done.record[word] for word in ("added", "changed", "removed", "entries")] == [1, 0, 1, 2]
    assert [host(*more).code for more in (("set", "update", "banned"), (*update, "--remove", "-"))] == [1, 1]
    done = host("set", "add", "banned", "192.0.2.7", "--comment", 1001 * "x")
    assert (done.code, "at most 1,000 characters" in done.err) == (1, True)
    wrong = write(tmp_path / "wrong.txt", "192.0.2.3\n<html>\n")
    done = host("set", "import", "banned", str(wrong))
    assert (done.code, "wrong.txt:2: `<html>` is no address" in done.err) == (1, True)
    many = write(tmp_path / "many.txt", "\n".join(f"192.0.2.{number}" for number in range(101)))
    refused = host("set", "replace", "banned", str(many)).err
    refused = host("set", "replace", "banned", str(many)).err
    assert "@banned is full: it takes 100 entries; it was left as it was" in refused
    assert host("set", "flush", "banned", "--json").record["removed"] == 2
    assert host("set", "list", "banned").out == ""


def test_what_is_not_there_or_in_use(host: Cli, guard: Path) -> None:
    assert "there is no set `nope`" in host("set", "add", "nope", "1.2.3.4").err
    assert "there are: banned, open" in host("set", "list", "../x").err
    assert "is in use by guard on v1" in host("set", "delete", "banned").err
    assert "used by: guard on v1\n" in host("set", "info", "banned").out
    assert " KiB of memory\n" in host("set", "info", "banned").out
    assert host("set", "info", "banned", "--json").record["memory_bytes"] > 0
    for word in ("del", "rm"):
        done = host("set", word, "banned", "192.0.2.1")
        assert (done.code, f"there is no command `penstock set {word}`" in done.err) == (1, True)
        assert "`penstock set remove NAME ENTRY…` takes entries back, `penstock set delete NAME`" in done.err
    assert "`penstock set remove banned 192.0.2.1`" in host("set", "delete", "banned", "192.0.2.1").err
    row = next(line for line in host("set", "list").out.splitlines() if line.startswith("banned"))
    assert row.split() == ["banned", "host", "hash", "0", "100", "10m", "guard", "on", "v1"]
    assert host("set", "add", "banned", "192.0.2.1", "--timeout", "1h", "--forever").code == 1


def test_whether_entries_are_there_is_an_exit_code(host: Cli, guard: Path) -> None:
    assert host("set", "add", "open", "80-90", "443", "9").code == 0
    assert host("set", "list", "open").out.split() == [*map(str, (9, *range(80, 91), 443))]
    done = host("set", "test", "open", "85", "443")
    assert (done.code, done.out) == (0, "85 is in @open\n443 is in @open\n")
    done = host("set", "test", "@open", "443", "22")
    assert (done.code, done.out) == (1, "443 is in @open\n22 is not in @open\n")
    done = host("set", "test", "banned", "192.0.2.0/24")
    hint = "hint: @banned is a set of host: single addresses; networks are for a set of net\n"
    assert (done.code, hint in done.err) == (1, True)


def test_a_key_of_too_few_parts_is_shown_one(host: Cli, tmp_path: Path) -> None:
    text = (
        "set pairs : host . proto . port\nfilter guard at xdp { drop if src . proto . dst port in @pairs }\n"
    )
    assert host("apply", str(write(tmp_path / "p.policy", text)), "-i", "v1").code == 0
    told = host("set", "add", "pairs", "192.0.2.1").err
    assert "`192.0.2.1` has 1 part, and a key of @pairs has 3, as in '192.0.2.7 . tcp . 443'" in told
    assert host("set", "add", "pairs", "192.0.2.7 . tcp . 443").code == 0
    host("detach", "-i", "v1")
    assert "@pairs: taken away" in host("set", "delete", "pairs").err


def test_an_added_rule_asks_the_policys_sets(wire: Wire, host: Cli, guard: Path) -> None:
    assert host("set", "add", "open", "8000").code == 0
    assert host("set", "add", "banned", CLIENT).code == 0
    assert host("rule", "add", "pass if src in @banned and udp", "-i", "v1", "--before", "banned").code == 0
    assert wire.arrived(8000) == 5


def test_the_python_api(wire: Wire, host: Cli) -> None:
    with wire.server.inside():
        running = penstock.attach("v1", TEXT.format(hook="xdp"))
    with running:
        running.sets["open"].update(["8000"])
        assert wire.arrived(8000) == 5
        assert running.sets["banned"].update([CLIENT], timeout=60).added == 1
        assert CLIENT in running.sets["banned"]
        running.replace(TEXT.format(hook="xdp").replace("banned: drop", "renamed: drop"))
        assert wire.arrived(8000, count=2) == 0
        assert running.counters()["renamed"].packets == 2
        running.sets["banned"].clear()
        assert wire.arrived(8000) == 5


def test_a_shared_set_is_opened_by_name(
    host: Cli, guard: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_BPFFS", str(root))
    with penstock.open_set("banned") as banned:
        banned.update(["192.0.2.1"], forever=True)
        assert [entry.text for entry in banned] == ["192.0.2.1"]
    assert host("set", "export", "banned").out == "192.0.2.1\n"


def test_the_pages_policy_is_one(cli: Cli, tmp_path: Path) -> None:
    example = PAGE.split("```\n")[1]
    done = cli("check", str(write(tmp_path / "edge.policy", example)))
    assert done.code == 0, done.err
