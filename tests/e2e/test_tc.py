"""Policies at TC, in and out, by tcx links and by clsact: put in place, in order, replaced, taken off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from tests.e2e.conftest import Cli, Done, Here, Wire, counters, write
from tests.netns import Namespace

import penstock
from penstock.errors import KernelError, PenstockError
from penstock.kernel.attached import programs_at
from penstock.kernel.clsact import Filter, filters
from penstock.kernel.link import attached
from penstock.kernel.netlink import interface
from penstock.kernel.program import Program
from penstock.kernel.tcx import query
from penstock.model.hook import Hook
from penstock.pipeline.putting import Putting, put_together

pytestmark = pytest.mark.privileged

INGRESS, EGRESS = Hook.TC_INGRESS, Hook.TC_EGRESS
Sides = dict[Hook, tuple[Cli, str, Namespace]]
MODES = ["tcx", "clsact"]
BOTH = """
filter guard at xdp { dns: drop if udp dst port 53 }
filter inward at tc ingress { ntp: drop if udp dst port 123 }
filter outward at tc egress { snmp: drop if udp dst port 161 }
"""


def text_at(hook: Hook, name: str = "guard") -> str:
    """A policy that drops DNS and NTP by labelled rules."""
    return f"filter {name} at {hook.value} {{\n dns: drop if udp dst port 53\n ntp: drop if udp dst port 123\n}}\n"


@pytest.fixture(params=[INGRESS, EGRESS], ids=["ingress", "egress"])
def hook(request: pytest.FixtureRequest) -> Hook:
    """A direction."""
    found: Hook = request.param
    return found


@cache
def _compiled(text: str) -> bytes:
    return penstock.load_policy(text).to_bytes()


def built(path: Path, text: str) -> str:
    """A file that `penstock build` would have made: clang runs once for all tests that ask for the same."""
    path.write_bytes(_compiled(text))
    return str(path)


@dataclass(frozen=True)
class Near(Here):
    """The command in this process, in a network namespace: starting one would be most of what it takes."""

    place: Namespace | None = None

    def __call__(self, *arguments: str, stdin: str | None = None) -> Done:
        assert self.place is not None
        with self.place.inside():
            return super().__call__(*arguments, stdin=stdin)


@pytest.fixture
def host(wire: Wire, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Near]:
    """The command line in the server's namespace; what it left attached is taken off at the end."""
    monkeypatch.setenv("PENSTOCK_BPFFS", str(root))
    made = Near(place=wire.server)
    yield made
    made("detach", "-i", "v1")
    made("detach", "-i", "wan")


@pytest.fixture
def both(wire: Wire, host: Near) -> Iterator[Sides]:
    """The command line and the interface where datagrams from client to server meet a hook."""
    there = Near(place=wire.client)
    yield {INGRESS: (host, "v1", wire.server), EGRESS: (there, "v0", wire.client)}
    there("detach", "-i", "v0")


@pytest.mark.parametrize("mode", MODES)
def test_a_policy_is_put_in_place_replaced_and_taken_off(
    wire: Wire, both: Sides, root: Path, tmp_path: Path, hook: Hook, mode: str
) -> None:
    cli, name, side = both[hook]
    path = write(tmp_path / "a.policy", text_at(hook))
    done = cli("apply", str(path), "-i", name, "--mode", mode, "--json")
    assert (done.record["hook"], done.record["mode"]) == (hook.value, mode)
    assert wire.arrived(53, count=3) == 0
    assert wire.arrived(8000) == 5
    found = cli("status", "--json")
    assert (found.code, counters(found)["dns"]) == (0, 3)
    (one,) = found.record["filters"]
    assert (one["interface"], one["hook"], one["mode"], one["trouble"]) == (name, hook.value, mode, None)
    assert [own["program_id"] for own in one["programs"]] == [one["program_id"]]
    write(path, text_at(hook).replace("port 53", "port 5353"))
    again = cli("apply", str(path), "-i", name, "--json").record
    assert (again["replaced"], again["mode"], again["kept_counters"] >= 3) == ("guard", mode, True)
    assert wire.arrived(53) == 5
    assert counters(cli("status", "--json"))["dns"] == 3
    gone = cli("detach", "-i", name, "--json").record
    assert (gone["hook"], gone["counters"]["dns"]["packets"]) == (hook.value, 3)
    assert list(root.iterdir()) == []
    with side.inside():
        assert programs_at(interface(name).index, hook) == ()
    assert "clsact" not in side.run("tc", "qdisc", "show", "dev", name).stdout


def test_filters_of_several_hooks_come_and_go_together(
    wire: Wire, host: Near, root: Path, tmp_path: Path
) -> None:
    path = write(tmp_path / "both.policy", BOTH)
    done = host("apply", str(path), "-i", "v1")
    assert done.code == 0, done.err
    assert "at tc egress" in done.out
    found = host("status", "-i", "v1", "--json").record["filters"]
    assert [(one["hook"], one["policy"]) for one in found] == [
        ("xdp", "guard"),
        ("tc ingress", "inward"),
        ("tc egress", "outward"),
    ]
    assert (wire.arrived(53), wire.arrived(123), wire.arrived(161)) == (0, 0, 5)
    assert host("apply", str(path), "-i", "v1").out.count("in the place of") == 3
    one = host("detach", "-i", "v1", "--hook", "tc-ingress")
    assert one.out.splitlines() == ["inward: taken off v1 at tc ingress"]
    assert (wire.arrived(53), wire.arrived(123)) == (0, 5)
    rest = host("detach", "-i", "v1")
    assert rest.out.splitlines() == ["guard: taken off v1 at xdp", "outward: taken off v1 at tc egress"]
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("refusal", ["order", "qdisc"])
def test_of_several_filters_all_or_none_are_put_in_place(
    wire: Wire, host: Near, root: Path, tmp_path: Path, refusal: str
) -> None:
    """The last is refused when its link is made, or (clsact) when the change itself is made."""
    path = write(tmp_path / "both.policy", BOTH)
    if refusal == "qdisc":
        wire.server.run("tc", "qdisc", "add", "dev", "v1", "ingress")
    how = ("--order", "after:4294967295") if refusal == "order" else ("--mode", "clsact")
    done = host("apply", str(path), "-i", "v1", *how)
    assert done.code == 3
    assert "tc" in done.err
    assert list(root.iterdir()) == []
    assert host("status", "--json").record["filters"] == []
    with wire.server.inside():
        index = interface("v1").index
        assert attached(index) == ()
        assert all(programs_at(index, one) == () for one in (INGRESS, EGRESS))
    assert (wire.arrived(53), wire.arrived(123)) == (5, 5)


def test_a_refused_filter_leaves_those_that_ran(wire: Wire, host: Near, root: Path, tmp_path: Path) -> None:
    old = write(tmp_path / "old.policy", "filter guard at xdp { dns: drop if udp dst port 53 }")
    host("apply", str(old), "-i", "v1")
    wire.arrived(53, count=2)
    new = write(tmp_path / "new.policy", BOTH.replace("port 53", "port 5353"))
    assert host("apply", str(new), "-i", "v1", "--order", "after:4294967295").code == 3
    assert wire.arrived(53) == 0
    found = host("status", "--json")
    assert (found.code, counters(found)["dns"]) == (0, 7)
    assert len(list(root.iterdir())) == 1


class Refused(Putting):
    """A filter that the kernel refuses at the last moment."""

    def switch(self, undo: ExitStack) -> None:
        super().switch(undo)
        raise KernelError("replace by", "it", 5)


def test_what_was_replaced_already_is_put_back(
    wire: Wire, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_BPFFS", str(root))
    monkeypatch.setattr(
        "penstock.pipeline.apply.put_together",
        lambda puttings: put_together([*puttings[:-1], _refused(puttings[-1])]),
    )
    old, new = (penstock.load_policies(text) for text in (BOTH, BOTH.replace("port 53", "port 5353")))
    with wire.server.inside():
        with monkeypatch.context() as whole:
            whole.setattr("penstock.pipeline.apply.put_together", put_together)
            before = penstock.apply_all("v1", old)
        with pytest.raises(KernelError, match="replace by it"):
            penstock.apply_all("v1", new)
        found = penstock.status("v1")
        assert {one.identity.program for one in found} == {one.program_id for one in before}
        assert all(one.trouble is None and one.is_current for one in found)
        assert wire.arrived(53, count=4) == 0
        assert penstock.status("v1")[0].counters["dns"].packets == 4
        penstock.detach("v1")
    assert list(root.iterdir()) == []


def _refused(one: Putting) -> Putting:
    one.__class__ = Refused
    return one


def test_order_among_other_programs(wire: Wire, both: Sides, tmp_path: Path, hook: Hook) -> None:
    cli, name, side = both[hook]
    path = built(tmp_path / "a.pso", text_at(hook))
    with side.inside():
        index = interface(name).index
        other = penstock.load_policy(text_at(hook, "other"))
        others = [penstock.attach(name, other) for _ in range(2)]
    with others[0], others[1]:
        ids = [one.program_id for one in others]
        for order, place in (
            (("--order", "first"), 0),
            (("--order", f"before:{ids[1]}"), 1),
            (("--order", f"after {ids[0]}"), 1),
            (("--order", "last"), 2),
            ((), 2),
        ):
            done = cli("apply", path, "-i", name, *order, "--json")
            assert done.code == 0, done.err
            with side.inside():
                found = [one.id for one in query(index, hook).programs]
            assert found.index(done.record["program_id"]) == place
            again = cli("apply", path, "-i", name, *order)
            assert again.code == 0, again.err
            shown = cli("status").out
            assert (shown.count("before it:"), shown.count("behind it:")) == (place, 2 - place)
            cli("detach", "-i", name)
        cli("apply", path, "-i", name, "--order", "first")
        moved = cli("apply", path, "-i", name, "--order", "last")
        assert moved.code == 1
        assert "a replacement keeps its place" in moved.err
        assert wire.arrived(53, count=2) == 0
        assert others[0].counters()["dns"].packets == 0


def test_clsact_filters_run_by_priority(wire: Wire, host: Near, tmp_path: Path) -> None:
    path = built(tmp_path / "a.pso", text_at(INGRESS))
    with wire.server.inside():
        index = interface("v1").index
        with penstock.attach("v1", text_at(INGRESS, "other"), "clsact") as other:
            (theirs,) = filters(index, INGRESS)
            done = host("apply", path, "-i", "v1", "--mode", "clsact", "--order", "7", "--json").record
            assert [(one.priority, one.program_id) for one in filters(index, INGRESS)] == [
                (7, done["program_id"]),
                (theirs.priority, other.program_id),
            ]
            assert f"behind it: program id {other.program_id}" in host("status").out
        assert len(filters(index, INGRESS)) == 1
        assert wire.arrived(53) == 0
        assert host("detach", "-i", "v1").code == 0
        assert "clsact" in wire.server.run("tc", "qdisc", "show", "dev", "v1").stdout


def test_what_a_hook_does_not_know_is_said(host: Near, tmp_path: Path) -> None:
    xdp = built(tmp_path / "xdp.pso", text_at(Hook.XDP))
    tc = built(tmp_path / "tc.pso", text_at(INGRESS))
    socket = write(tmp_path / "socket.policy", text_at(Hook.SOCKET))
    for arguments, sentence in (
        ((xdp, "--mode", "tcx"), "tcx is no mode at xdp"),
        ((tc, "--mode", "native"), "native is no mode at tc ingress"),
        ((tc, "--replace"), "programs run there one after the other"),
        ((xdp, "--order", "first"), "there is no order at xdp"),
        ((tc, "--order", "middle"), "no place among other programs"),
        ((tc, "--order", "100"), "have no priority"),
        ((socket,), "attach_socket"),
    ):
        done = host("apply", str(arguments[0]), "-i", "v1", *map(str, arguments[1:]))
        assert done.code in (1, 3)
        assert sentence in done.err, done.err
    assert host("detach", "-i", "v1", "--hook", "socket").code == 1
    assert host("status", "--json").record["filters"] == []


def test_a_filter_at_socket_beside_others_is_left_out_and_said(host: Near, tmp_path: Path) -> None:
    path = write(tmp_path / "two.policy", text_at(INGRESS) + text_at(Hook.SOCKET, "ear"))
    done = host("apply", str(path), "-i", "v1")
    assert done.code == 0, done.err
    assert "ear is at socket, and left out" in done.err
    assert "guard: attached" in done.out
    named = host("apply", str(path), "-i", "v1", "--filter", "guard")
    assert "ear" not in named.err


def test_a_filter_that_somebody_took_off_is_told_and_comes_back(
    wire: Wire, host: Near, root: Path, tmp_path: Path
) -> None:
    path = built(tmp_path / "a.pso", text_at(INGRESS))
    host("apply", path, "-i", "v1", "--mode", "clsact")
    wire.arrived(53, count=3)
    wire.server.run("tc", "qdisc", "del", "dev", "v1", "clsact")
    found = host("status", "--json")
    assert found.code == 3
    assert "somebody has taken its filter off v1" in found.record["filters"][0]["trouble"]
    assert wire.arrived(53) == 5
    assert host("apply", path, "-i", "v1", "--mode", "clsact").code == 0
    assert wire.arrived(53, count=4) == 0
    assert counters(host("status", "--json"))["dns"] == 7
    wire.server.run("tc", "qdisc", "del", "dev", "v1", "clsact")
    assert host("detach", "-i", "v1").code == 0
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("mode", MODES)
def test_a_renamed_interface_keeps_its_filter(wire: Wire, host: Near, tmp_path: Path, mode: str) -> None:
    path = built(tmp_path / "a.pso", text_at(INGRESS))
    host("apply", path, "-i", "v1", "--mode", mode)
    wire.arrived(53, count=3)
    for command in (("down",), ("name", "wan"), ("up",)):
        wire.server.ip("link", "set", "wan" if command == ("up",) else "v1", *command)
    (found,) = host("status", "--json").record["filters"]
    assert (found["interface"], found["mode"]) == ("wan", mode)
    assert "now called wan" in found["trouble"]
    assert host("apply", path, "-i", "wan").code == 0
    assert host("status", "--json").record["filters"][0]["trouble"] is None
    assert wire.arrived(53, count=2) == 0
    assert counters(host("status", "--json"))["dns"] == 5
    assert host("detach", "-i", "wan").code == 0
    assert wire.arrived(53) == 5


@pytest.mark.parametrize("mode", MODES)
def test_an_interface_that_moves_to_another_namespace(
    wire: Wire, host: Near, root: Path, tmp_path: Path, mode: str
) -> None:
    """A tcx link goes with it; the kernel takes a clsact off, filters and all."""
    path = built(tmp_path / "a.pso", text_at(INGRESS))
    host("apply", path, "-i", "v1", "--mode", mode)
    with Namespace("e2e-moved") as place:
        there = Near(place=place)
        wire.server.ip("link", "set", "v1", "netns", place.name)
        assert host("status").code == 3
        found = there("status", "--json").record["filters"]
        assert [one["mode"] for one in found] == (["tcx"] if mode == "tcx" else [])
        assert there("apply", path, "-i", "v1").code == 0
        assert there("detach", "-i", "v1").code == 0
        host("detach", "-i", "v1")
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("mode", MODES)
def test_a_filter_lasts_as_long_as_its_block(wire: Wire, hook: Hook, both: Sides, mode: str) -> None:
    _, name, side = both[hook]
    with side.inside():
        running = penstock.attach(name, text_at(hook), mode)
    with running:
        assert wire.arrived(53, count=4) == 0
        assert running.counters()["dns"].packets == 4
        with pytest.raises(PenstockError, match="takes no place"):
            running.replace(text_at(Hook.XDP))
        running.replace(text_at(hook).replace("53", "5353"))
        assert wire.arrived(53) == 5
        assert running.counters()["dns"].packets == 4
    assert wire.arrived(123) == 5
    assert "clsact" not in side.run("tc", "qdisc", "show", "dev", name).stdout


def test_emergency_rules_at_tc(wire: Wire, host: Near, root: Path, tmp_path: Path) -> None:
    at = ("-i", "v1", "--hook", "tc-ingress")
    done = host("drop", "udp dst port 8000", *at, "--for", "1h")
    assert done.code == 0, done.err
    assert "undrop drop#1 -i v1 --hook tc-ingress" in done.err
    assert wire.arrived(8000) == 0
    path = write(tmp_path / "a.policy", text_at(INGRESS))
    assert host("apply", str(path), "-i", "v1").code == 0
    assert wire.arrived(8000) == 0
    found = host("try", "udp dst port 8001", *at, "--for", "200ms", "--json")
    assert found.record["hook"] == "tc ingress"
    assert host("undrop", "-i", "v1").code == 0
    assert wire.arrived(8000) == 5
    added = host("rule", "add", "drop if udp dst port 8000", "-i", "v1", "--json")
    assert added.code == 0, added.err
    assert wire.arrived(8000, count=2) == 0
    (rule,) = host("rule", "list", *at, "--json").record["rules"]
    assert (rule["rule"], rule["packets"]) == ("rule#1", 2)
    assert host("rule", "remove", "rule#1", *at).code == 0
    assert host("detach", "-i", "v1").code == 0
    assert list(root.iterdir()) == []


def test_rules_are_of_xdp_unless_a_hook_is_named(wire: Wire, host: Near, tmp_path: Path) -> None:
    path = write(tmp_path / "both.policy", BOTH)
    host("apply", str(path), "-i", "v1")
    assert host("rule", "add", "count if icmp", "-i", "v1").code == 0
    assert len(host("rule", "list", "-i", "v1", "--hook", "xdp", "--json").record["rules"]) == 1
    host("detach", "-i", "v1", "--hook", "xdp")
    done = host("rule", "list", "-i", "v1")
    assert done.code == 1
    assert "say which with --hook" in done.err
    assert host("rule", "list", "-i", "v1", "--hook", "tc egress").code == 0


def test_two_filters_share_the_clsact_that_was_made_for_them(wire: Wire, host: Near, tmp_path: Path) -> None:
    for number, one in enumerate((INGRESS, EGRESS)):
        path = write(tmp_path / f"{number}.policy", text_at(one))
        assert host("apply", str(path), "-i", "v1", "--mode", "clsact").code == 0
    show = "tc", "qdisc", "show", "dev", "v1"
    host("detach", "-i", "v1", "--hook", "tc-ingress")
    assert "clsact" in wire.server.run(*show).stdout
    host("detach", "-i", "v1", "--hook", "tc-egress")
    assert "clsact" not in wire.server.run(*show).stdout


def test_damaged_pins_of_a_clsact_filter(wire: Wire, host: Near, root: Path, tmp_path: Path) -> None:
    path = built(tmp_path / "a.pso", text_at(INGRESS))
    host("apply", path, "-i", "v1", "--mode", "clsact")
    (place,) = root.iterdir()
    (place / "counters").unlink()
    found = host("status", "--json")
    assert (found.code, found.record["filters"][0]["hook"]) == (3, "tc ingress")
    assert host("detach", "-i", "v1").code == 0
    assert wire.arrived(53) == 5
    assert list(root.iterdir()) == []


def test_a_filter_of_the_same_place_but_another_name_is_not_ours(
    wire: Wire, host: Near, tmp_path: Path
) -> None:
    path = built(tmp_path / "a.pso", text_at(INGRESS))
    host("apply", path, "-i", "v1", "--mode", "clsact")
    with wire.server.inside():
        index = interface("v1").index
        (own,) = filters(index, INGRESS)
        mine, theirs = (
            Filter(index, INGRESS, name, own.priority, owns_qdisc=False) for name in (own.name, "theirs")
        )
        with Program.by_id(own.program_id) as program, mine, theirs:
            mine.detach()
            theirs.attach(program)
        assert host("status").code == 3
        assert host("detach", "-i", "v1").code == 0
        assert [one.name for one in filters(index, INGRESS)] == ["theirs"]


@pytest.mark.parametrize("mode", MODES)
def test_a_large_policy_takes_rules_while_it_runs(
    wire: Wire, root: Path, hook: Hook, both: Sides, tmp_path: Path, mode: str
) -> None:
    """What the overlay decides is turned into the hook's own answer, as what is compiled in."""
    cli, name, _ = both[hook]
    many = "\n".join(
        f" drop if src net 172.{net}.{at}.0/24 and tcp dst port {at + 1}"
        for net in (16, 17)
        for at in range(160)
    )
    path = built(tmp_path / "large.pso", f"filter large at {hook.value} {{\n{many}\n}}\n")
    assert cli("apply", path, "-i", name, "--mode", mode).code == 0
    assert wire.arrived(8000) == 5
    done = cli("rule", "add", "drop if udp dst port 8000", "-i", name, "--json").record
    assert done["how"] == "overlay", done
    assert wire.arrived(8000, count=3) == 0
    assert cli("rule", "add", "pass if udp dst port 8000", "-i", name, "--first", "--json").code == 0
    assert wire.arrived(8000, count=2) == 2
    rules = {one["rule"]: one["packets"] for one in cli("rule", "list", "-i", name, "--json").record["rules"]}
    assert rules == {"rule#1": 3, "rule#2": 2}
