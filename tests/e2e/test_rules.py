"""Rules added to a running policy: in force at once, exact in their place, and never half there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import Cli, Wire, counters
from tests.e2e.killing import killed

from penstock.errors import PenstockError, PolicyError
from penstock.pipeline import emergency, rules
from penstock.pipeline.apply import apply
from penstock.pipeline.policy import load_built, load_policy
from penstock.pipeline.status import Status, status

pytestmark = pytest.mark.privileged

#: Enough rules for tables; two that traffic meets stand in their midst.
LARGE = "\n".join(
    [
        "let bad = 10.9.0.1, 192.0.2.0/24",
        "filter guard at xdp {",
        *(f"drop if src net 172.16.{at}.0/24 and tcp dst port {at + 1}" for at in range(160)),
        "web: pass if udp dst port 8000",
        "dns: drop if udp dst port 53",
        *(f"drop if src net 172.17.{at}.0/24 and tcp dst port {at + 1}" for at in range(160)),
        "}\n",
    ]
)


@pytest.fixture(scope="session")
def built() -> bytes:
    """A policy whose rules become tables, compiled once."""
    return load_policy(LARGE, name="large.policy").to_bytes()


@pytest.fixture
def here(wire: Wire, host: Cli) -> Iterator[None]:
    """In the server's namespace, with the pins of this session: for calls in this process."""
    with wire.server.inside(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_BPFFS", host.environment["PENSTOCK_BPFFS"])
        yield


@pytest.fixture
def running(here: None, built: bytes) -> None:
    """The policy, in place on v1."""
    apply("v1", load_built(built, "large.pso"))


def the_status() -> Status:
    (found,) = status("v1")
    return found


@pytest.mark.parametrize("label", ["a: drop if tcp #", "a b", "1:", "#"])
def test_a_label_is_nothing_but_a_label(running: None, label: str) -> None:
    """Else a rule could follow in it, and the one that was meant be its comment."""
    with pytest.raises(PenstockError):
        rules.add_rule("v1", "drop if udp dst port 9", label=label)
    assert rules.added_rules("v1") == ()


def test_a_rule_is_in_force_and_counted_until_it_is_removed(wire: Wire, host: Cli, running: None) -> None:
    program = host("status", "--json").record["filters"][0]["program_id"]
    added = host("rule", "add", "-i", "v1", "drop if udp dst port 8001", "--label", "closed", "--json")
    assert added.code == 0, added.err
    assert (added.record["rule"], added.record["how"], added.record["why"]) == ("closed", "overlay", None)
    assert wire.arrived(8001, count=4) == 0
    assert wire.arrived(8002) == 5
    found = host("status", "--json")
    assert counters(found)["closed"] == 4
    assert found.record["filters"][0]["program_id"] == program
    assert "closed" in host("status").out
    (listed,) = host("rule", "list", "-i", "v1", "--json").record["rules"]
    assert (listed["rule"], listed["packets"], listed["how"]) == ("closed", 4, "overlay")
    removed = host("rule", "remove", "-i", "v1", "closed", "--json")
    assert removed.record["how"] == "overlay"
    assert wire.arrived(8001) == 5
    assert "closed" not in counters(host("status", "--json"))


@pytest.mark.parametrize("size", ["large", "small"])
def test_places(wire: Wire, here: None, built: bytes, policy: Path, size: str) -> None:
    """The same rules at the same places, by the overlay and by compiling, do the same."""
    apply("v1", load_built(built, "large.pso") if size == "large" else policy.read_text())
    how = "overlay" if size == "large" else "compiled"
    assert rules.add_rule("v1", "count if udp dst port 53", label="behind").how == how
    assert rules.add_rule("v1", "count if udp dst port 53", label="ahead", before="dns").how == how
    assert rules.add_rule("v1", "count if udp", label="start", first=True).how == how
    assert wire.arrived(53, count=3) == 0
    assert [the_status().counters[name].packets for name in ("start", "ahead", "dns", "behind")] == [
        3 + 1,
        3,
        3,
        0,
    ]
    rules.add_rule("v1", "pass if udp dst port 53", label="open", before="ahead")
    assert wire.arrived(53, count=2) == 2
    found = the_status()
    assert [found.counters[name].packets for name in ("open", "ahead", "dns", "behind")] == [2, 3, 3, 0]
    order = [key.name for key in found.keys]
    assert order.index("start") < order.index("open") < order.index("ahead") < order.index("dns")
    assert [one.name for one in rules.added_rules("v1")] == ["start", "open", "ahead", "behind"]
    rules.remove_rule("v1", "open")
    assert wire.arrived(53) == 0


def test_what_the_overlay_cannot_say_is_compiled_and_says_why(wire: Wire, host: Cli, running: None) -> None:
    rules.add_rule("v1", "drop if udp dst port 8001", label="kept")
    assert wire.arrived(8001, count=2) == 0
    done = rules.add_rule("v1", "drop if udp[4:2] & 1 == 1 and dst port 8002", label="odd")
    assert done.how == "compiled"
    assert done.why == "it is no plain test of fields"
    assert wire.arrived(8002, size=21) == 0
    assert wire.arrived(8002, size=20) == 5
    assert wire.arrived(8001, count=3) == 0
    assert the_status().counters["kept"].packets == 5
    assert [one.how for one in rules.added_rules("v1")] == ["compiled", "compiled"]
    assert rules.add_rule("v1", "drop if udp dst port 8003", before="odd").how == "overlay"
    assert [one.name for one in rules.added_rules("v1")] == ["kept", "rule#1", "odd"]
    done = rules.remove_rule("v1", "kept")
    assert done.why == "kept is compiled in"
    assert wire.arrived(8003) == 0
    assert wire.arrived(8001) == 5


def test_a_record_cannot_refuse(wire: Wire, host: Cli, running: None) -> None:
    done = rules.add_rule("v1", "reject if udp dst port 8003", label="told")
    assert (done.how, done.why) == ("compiled", "a record cannot say `reject`")
    assert wire.arrived(8003, count=3) == 0
    found = the_status()
    assert found.counters["told"].packets == 3
    assert found.refusals is not None
    assert found.refusals.answered + found.refusals.suppressed == 3


def test_rebuilding_and_a_full_overlay(wire: Wire, host: Cli, running: None) -> None:
    for port in range(9000, 9064):
        assert rules.add_rule("v1", f"drop if udp dst port {port}", label=f"p{port}").how == "overlay"
    assert wire.arrived(9063, count=2) == 0
    done = rules.add_rule("v1", "drop if udp dst port 9064", label="p9064")
    assert (done.how, "full" in (done.why or "")) == ("compiled", True)
    assert {one.how for one in rules.added_rules("v1")} == {"compiled"}
    assert wire.arrived(9064) == wire.arrived(9000) == wire.arrived(9063, count=1) == 0
    assert the_status().counters["p9063"].packets == 3
    rules.add_rule("v1", "drop if udp dst port 9100")
    assert rules.add_rule("v1", "drop if udp dst port 9101", rebuild=True).why == "asked for"
    assert {one.how for one in rules.added_rules("v1")} == {"compiled"}
    assert wire.arrived(9100) == wire.arrived(9101) == 0


def test_more_text_than_the_overlay_has_room_for(wire: Wire, running: None) -> None:
    rules.add_rule("v1", "drop if udp dst port 8001", label="kept")
    long = "drop if udp dst port 8002" + " or udp dst port 8002" * 2000
    done = rules.add_rule("v1", long)
    assert (done.how, "text" in (done.why or "")) == ("compiled", True)
    assert wire.arrived(8001) == wire.arrived(8002) == 0
    assert [one.how for one in rules.added_rules("v1")] == ["compiled", "compiled"]
    assert rules.add_rule("v1", "drop if udp dst port 8003").how == "overlay"
    assert [len(one.text) for one in rules.added_rules("v1")] == [25, len(long), 25]


def test_constants_of_the_policy(wire: Wire, host: Cli, running: None) -> None:
    assert rules.add_rule("v1", "drop if src net $bad and udp dst port 8004").how == "overlay"
    assert wire.arrived(8004) == 0
    with pytest.raises(PolicyError):
        rules.add_rule("v1", "drop if src net $worse")


@pytest.mark.parametrize(
    ("text", "before", "says"),
    [
        ("dns: drop if arp", None, "there is a rule dns already"),
        ("default: drop if arp", None, "default"),
        ("drop if arp", "nope", "no rule nope"),
        ("drop if arp }\nfilter other at xdp { pass", None, "not one rule"),
        ("drop if arp\npass if udp", None, "not one rule"),
        ("default drop", None, "not one rule"),
        ("on malformed drop", None, "not one rule"),
        ("# nothing", None, "not one rule"),
        ("", None, "not one rule"),
        ('test "x" { }', None, "not one rule"),
        ("let a = 1", None, "not one rule"),
    ],
)
def test_what_is_no_rule_changes_nothing(running: None, text: str, before: str | None, says: str) -> None:
    with pytest.raises(PenstockError, match=says):
        rules.add_rule("v1", text, before=before)
    assert rules.added_rules("v1") == ()


def test_a_policy_from_a_file_replaces_added_rules_and_names_them(
    wire: Wire, host: Cli, running: None
) -> None:
    rules.add_rule("v1", "drop if udp dst port 8001", label="kept")
    rules.add_rule("v1", "drop if udp dst port 8002")
    wire.arrived(8001, count=3)
    again = LARGE.replace("dns:", "kept: drop if udp dst port 8001\ndns:")
    (notice,) = apply("v1", again).notices
    assert "rule#1: drop if udp dst port 8002" in notice
    assert "kept" not in notice
    assert wire.arrived(8002) == 5
    assert wire.arrived(8001) == 0
    assert the_status().counters["kept"].packets == 8


def test_drop_on_a_large_policy_compiles_nothing(wire: Wire, host: Cli, running: None) -> None:
    program = host("status", "--json").record["filters"][0]["program_id"]
    assert host("drop", "udp dst port 8000", "-i", "v1", "--for", "1h").code == 0
    host("rule", "add", "-i", "v1", "pass if udp dst port 8000", "--first")
    assert wire.arrived(8000) == 0
    found = host("status", "--json").record["filters"][0]
    assert found["program_id"] == program
    assert [rule["name"] for rule in found["emergencies"]] == ["drop#1"]
    assert host("undrop", "-i", "v1").code == 0
    assert wire.arrived(8000) == 5
    assert host("status", "--json").record["filters"][0]["emergencies"] == []
    assert [one["rule"] for one in host("rule", "list", "-i", "v1", "--json").record["rules"]] == ["rule#1"]


def test_a_try_on_a_large_policy_counts_and_compiles_nothing(wire: Wire, running: None) -> None:
    program = the_status().identity.program
    started = emergency.start("v1", "udp dst port 53", 3600, "audit")
    assert wire.arrived(53, count=4) == 0
    found = the_status()
    assert found.identity.program == program
    assert (found.counters[started.rule.name].packets, found.counters["dns"].packets) == (4, 4)
    emergency.end("v1", started.rule.name)
    assert started.rule.name not in the_status().counters


def test_emergencies_and_added_rules_live_through_a_rebuild(
    wire: Wire, host: Cli, running: None, built: bytes
) -> None:
    host("drop", "udp dst port 8000", "-i", "v1", "--for", "1h")
    rules.add_rule("v1", "drop if udp dst port 8001", rebuild=True)
    assert wire.arrived(8000) == wire.arrived(8001) == 0
    assert [rule.name for rule, _ in the_status().emergencies] == ["drop#1"]
    apply("v1", load_built(built, "large.pso"))
    assert wire.arrived(8000) == 0
    assert wire.arrived(8001) == 5


def test_where_there_is_no_policy(wire: Wire, host: Cli) -> None:
    assert host("rule", "add", "-i", "v1", "drop if arp").code == 3
    host("drop", "udp dst port 8000", "-i", "v1", "--for", "1h")
    refused = host("rule", "add", "-i", "v1", "drop if arp")
    assert refused.code == 1
    assert "no policy" in refused.err


_CHANGE = """
from penstock.pipeline.rules import add_rule, remove_rule
(change,) = arguments
if change == "remove":
    remove_rule("v1", "first")
else:
    rebuild = change == "rebuild"
    add_rule("v1", "drop if udp dst port 8002", label="second", first=True, rebuild=rebuild)
"""

_MAP = ("penstock.kernel.maps", "Map", "update")
_WAIT = ("penstock.kernel.libc", "", "synchronize_rcu")
_BARRIER = ("penstock.kernel.libc", "", "memory_barrier")
STEPS = {
    "add: before the counter is cleared": ("add", *_MAP, "before", "1", "old"),
    "add: after the counter is cleared": ("add", *_MAP, "after", "1", "old"),
    "add: after the bank is filled": ("add", *_MAP, "after", "2", "old"),
    "add: before the switch": ("add", *_BARRIER, "after", "1", "old"),
    "add: after the switch": ("add", *_MAP, "after", "3", "new"),
    "add: before the wait": ("add", *_WAIT, "before", "1", "new"),
    "add: after the wait": ("add", *_WAIT, "after", "1", "new"),
    "add: after all": ("add", *_MAP, "after", "4", "new"),
    "remove: before the switch": ("remove", *_MAP, "before", "1", "old"),
    "remove: after the switch": ("remove", *_MAP, "after", "1", "new"),
    "remove: after the wait": ("remove", *_WAIT, "after", "1", "new"),
    "rebuild: before the link's update": (
        "rebuild",
        "penstock.kernel.link",
        "Link",
        "update",
        "before",
        "1",
        "old",
    ),
    "rebuild: after the link's update": (
        "rebuild",
        "penstock.kernel.link",
        "Link",
        "update",
        "after",
        "1",
        "new",
    ),
    "rebuild: before publishing": ("rebuild", "penstock.kernel.pin", "", "publish", "before", "1", "new"),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_kill(wire: Wire, host: Cli, running: None, step: tuple[str, ...]) -> None:
    """Afterwards the kernel runs exactly the old rules or the new ones, says so, and takes the next change."""
    change, *point, nth, side = step
    rules.add_rule("v1", "drop if udp dst port 8001", label="first")
    assert wire.arrived(8001, count=2) == 0
    killed(host, point, _CHANGE, change, nth=int(nth))
    names = {"old": ["first"], "new": [] if change == "remove" else ["second", "first"]}[side]
    is_open = [name not in names for name in ("first", "second")]
    assert [wire.arrived(8001) == 5, wire.arrived(8002) == 5] == is_open
    assert [one.name for one in rules.added_rules("v1")] == names
    found = the_status()
    assert found.trouble is None
    assert {name: found.counters[name].packets for name in names} == {
        name: {"first": 7, "second": 5}[name] for name in names
    }
    rules.add_rule("v1", "drop if udp dst port 8003", label="third")
    assert [one.name for one in rules.added_rules("v1")] == [*names, "third"]
    assert wire.arrived(8003, count=3) == 0
    assert the_status().counters["third"].packets == 3
    assert [wire.arrived(8001, 1) == 1, wire.arrived(8002, 1) == 1] == is_open
