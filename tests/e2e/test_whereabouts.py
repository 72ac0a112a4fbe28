"""Filters and their pins while interfaces are renamed, moved and made again, and where others' programs are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import Cli, Wire, counters
from tests.netns import Namespace

from penstock.kernel import netlink
from penstock.kernel.link import attached
from penstock.kernel.netlink import GENERIC, NATIVE, interface
from penstock.model.spec import PROGRAM
from penstock.pipeline.attach import attach as temporary

pytestmark = [pytest.mark.privileged, pytest.mark.check(18)]


@pytest.fixture
def elsewhere(wire: Wire, host: Cli) -> Iterator[tuple[Namespace, Cli]]:
    """A third namespace, and the command line in it."""
    with Namespace("e2e-elsewhere") as place:
        yield place, Cli(host.environment, tuple(place.command()))


def program_on(place: Namespace, name: str) -> list[int]:
    """The ids of the programs on an interface."""
    with place.inside():
        return [found.program_id for found in attached(interface(name).index)]


def rename(place: Namespace, old: str, new: str) -> None:
    """Give an interface another name."""
    place.ip("link", "set", old, "down")
    place.ip("link", "set", old, "name", new)
    place.ip("link", "set", new, "up")


def test_a_new_interface_with_the_old_name_takes_nothing_from_the_renamed_one(
    wire: Wire, host: Cli, policy: Path
) -> None:
    host("apply", str(policy), "-i", "v1")
    rename(wire.server, "v1", "wan")
    wire.server.ip("link", "add", "v1", "type", "veth", "peer", "name", "v2")
    assert host("apply", str(policy), "-i", "v1").code == 0
    assert wire.arrived(53) == 0
    found = {one["interface"]: one for one in host("status", "--json").record["filters"]}
    assert sorted(found) == ["v1", "wan"]
    assert program_on(wire.server, "wan") == [found["wan"]["program_id"]]
    assert host("detach", "-i", "v1").code == 0
    assert wire.arrived(53) == 0
    assert host("detach", "-i", "wan").code == 0
    assert wire.arrived(53) == 5


def test_two_interfaces_exchange_their_names(wire: Wire, host: Cli, policy: Path, root: Path) -> None:
    wire.server.ip("link", "add", "v2", "type", "veth", "peer", "name", "v3")
    for name in ("v1", "v2"):
        host("apply", str(policy), "-i", name)
    wire.arrived(53, count=3)
    for old, new in (("v1", "aside"), ("v2", "v1"), ("aside", "v2")):
        rename(wire.server, old, new)
    assert host("apply", str(policy), "-i", "v2").code == 0
    assert counters(host("status", "-i", "v2", "--json"))["dns"] == 3
    assert host("detach", "-i", "v1").code == 0
    assert wire.arrived(53) == 0
    assert host("detach", "-i", "v2").code == 0
    assert list(root.iterdir()) == []


def test_an_interface_that_moves_takes_its_filter_with_it(
    host: Cli, wire: Wire, elsewhere: tuple[Namespace, Cli], policy: Path, root: Path
) -> None:
    place, there = elsewhere
    host("apply", str(policy), "-i", "v1")
    wire.server.ip("link", "set", "v1", "netns", place.name)
    left = host("status", "--json")
    assert left.code == 3
    assert "moved to another network namespace" in left.record["filters"][0]["trouble"]
    came = there("status", "--json")
    assert came.record["filters"][0]["mode"] == "native"
    assert "moved here" in came.record["filters"][0]["trouble"]
    assert there("apply", str(policy), "-i", "v1").code == 0
    assert there("status").code == 0
    assert host("status", "--json").record["filters"] == []
    assert there("detach", "-i", "v1").code == 0
    assert program_on(place, "v1") == []
    assert list(root.iterdir()) == []


def test_what_moved_away_can_be_detached_from_where_it_was_applied(
    host: Cli, wire: Wire, elsewhere: tuple[Namespace, Cli], policy: Path, root: Path
) -> None:
    place, _ = elsewhere
    host("apply", str(policy), "-i", "v1")
    wire.server.ip("link", "set", "v1", "netns", place.name)
    assert host("detach", "-i", "v1").code == 0
    assert program_on(place, "v1") == []
    assert list(root.iterdir()) == []


def test_equal_numbers_in_two_namespaces_are_no_equal_interfaces(
    host: Cli, wire: Wire, elsewhere: tuple[Namespace, Cli], policy: Path
) -> None:
    place, _ = elsewhere
    host("apply", str(policy), "-i", "v1")
    with wire.server.inside():
        index = str(interface("v1").index)
    wire.server.ip("link", "set", "v1", "netns", place.name)
    wire.server.ip("link", "add", "v9", "index", index, "type", "veth", "peer", "name", "v10")
    before = program_on(place, "v1")
    assert host("apply", str(policy), "-i", "v9").code == 0
    assert program_on(place, "v1") == before
    assert len(program_on(wire.server, "v9")) == 1


@pytest.mark.parametrize("missing", ["link", "counters", "carried", "identity"])
def test_damaged_pins_are_told_and_can_be_detached(
    host: Cli, wire: Wire, policy: Path, root: Path, missing: str
) -> None:
    host("apply", str(policy), "-i", "v1")
    (place,) = root.iterdir()
    (place / missing).unlink()
    status = host("status", "--json")
    assert status.code == 3
    assert str(place / missing) in status.record["filters"][0]["trouble"]
    assert host("status").code == 3
    again = host("apply", str(policy), "-i", "v1")
    assert again.code == 3
    assert "penstock detach -i v1" in again.err
    assert host("detach", "-i", "v1").code == 0
    assert list(root.iterdir()) == []
    assert host("apply", str(policy), "-i", "v1").code == 0
    assert wire.arrived(53) == 0


@pytest.mark.parametrize("name", ["v1.100", "a-name-of-15-ch", "x+y@z", "v1~2", "-i"])
def test_odd_names(host: Cli, wire: Wire, policy: Path, root: Path, name: str) -> None:
    wire.server.ip("link", "add", "name", name, "type", "veth", "peer", "name", "peer")
    done = host("apply", str(policy), f"--interface={name}", "--json")
    assert done.code == 0, done.err
    assert [one["interface"] for one in host("status", "--json").record["filters"]] == [name]
    assert host("detach", f"--interface={name}").code == 0
    assert list(root.iterdir()) == []


def test_an_alternative_name(host: Cli, wire: Wire, policy: Path) -> None:
    wire.server.ip("link", "property", "add", "dev", "v1", "altname", "the-uplink-of-the-left-rack")
    done = host("apply", str(policy), "-i", "the-uplink-of-the-left-rack", "--json")
    assert done.record["interface"] == "v1"
    assert len(host("status", "-i", "the-uplink-of-the-left-rack", "--json").record["filters"]) == 1
    assert wire.arrived(53) == 0
    assert host("detach", "-i", "the-uplink-of-the-left-rack").code == 0
    assert wire.arrived(53) == 5


@pytest.mark.check(17)
@pytest.mark.parametrize("way", ["link", "netlink"])
def test_a_foreign_program_is_back_when_ours_cannot_be_attached(
    host: Cli, wire: Wire, policy: Path, way: str
) -> None:
    """The driver of lo has no native XDP, which is known when the foreign program is off already."""
    with wire.server.inside(), temporary("lo", "filter theirs at xdp { pass }", GENERIC) as theirs:
        (before,) = attached(1)
        if way == "netlink":
            program = theirs._object.programs[PROGRAM]
            theirs._link.detach()
            netlink.set_xdp(1, program.fd, GENERIC)
        done = host("apply", str(policy), "-i", "lo", "--replace", "--mode", NATIVE)
        assert done.code == 3
        assert "native XDP" in done.err
        assert program_on(wire.server, "lo") == [before.program_id]
        assert host("status", "--json").record["filters"] == []


@pytest.mark.check(17)
def test_a_foreign_program_is_back_when_the_pins_fail(
    host: Cli, wire: Wire, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    """The identity does not fit its map: a fault after the attachment."""
    from penstock.errors import KernelError
    from penstock.kernel import blob
    from penstock.pipeline.apply import apply

    monkeypatch.setenv("PENSTOCK_BPFFS", str(root))
    monkeypatch.setattr(blob, "LARGEST", 100)
    with wire.server.inside(), temporary("v1", "filter theirs at xdp { pass }") as theirs:
        with pytest.raises(KernelError, match="the most is 100"):
            apply("v1", "filter f at xdp { drop }", replace=True)
        assert program_on(wire.server, "v1") == [theirs.program_id]
        assert wire.arrived(53) == 5
    assert list(root.iterdir()) == []
