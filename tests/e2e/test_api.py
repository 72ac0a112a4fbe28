"""The Python API does what the commands do."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.e2e.conftest import Wire

import penstock

TEXT = "filter guard at xdp { dns: drop if udp dst port 53\n ntp: drop if udp dst port 123 }"


def test_every_public_name_is_there() -> None:
    for name in penstock.__all__:
        assert getattr(penstock, name).__doc__, name
    assert set(penstock.__all__) <= set(dir(penstock))
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = penstock.nope


def test_importing_it_is_cheap() -> None:
    script = (
        "import sys, penstock; print(sorted(name for name in sys.modules if name.startswith('penstock')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['penstock', 'penstock.version']"


def test_a_policy_loads_without_privilege() -> None:
    policy = penstock.load_policy(TEXT)
    assert policy.name == "guard"
    assert [key.name for key in policy.rule_keys] == ["dns", "ntp"]
    with pytest.raises(penstock.PolicyError):
        penstock.load_policy("filter f at xdp { drop if udp dts port 53 }")


def test_one_of_several_filters_is_named() -> None:
    text = "filter a at xdp { drop }\nfilter b at xdp { pass }"
    with pytest.raises(penstock.PenstockError, match="2 filters"):
        penstock.load_policy(text)
    assert penstock.load_policy(text, filter="b").name == "b"
    with pytest.raises(penstock.PenstockError, match="no filter c"):
        penstock.load_policy(text, filter="c")


@pytest.mark.privileged
def test_a_filter_lasts_as_long_as_its_block(wire: Wire) -> None:
    with wire.server.inside():
        running = penstock.attach("v1", TEXT)
    with running:
        assert wire.arrived(53, count=4) == 0
        assert running.counters()["dns"] == penstock.Counter(4, 4 * 62)
        assert wire.arrived(8000) == 5
    assert wire.arrived(53) == 5


@pytest.mark.privileged
def test_a_replacement_keeps_counters_and_a_faulty_one_changes_nothing(wire: Wire) -> None:
    with wire.server.inside():
        running = penstock.attach("v1", TEXT)
    with running:
        wire.arrived(53, count=4)
        first = running.program_id
        with pytest.raises(penstock.PolicyError):
            running.replace("filter guard at xdp { drop if }")
        assert running.program_id == first
        running.replace("filter guard at xdp { dns: drop if udp dst port 5353 }")
        assert running.counters()["dns"].packets == 4
        assert "ntp" not in running.counters()
        assert wire.arrived(53) == 5
        running.replace(TEXT)
        assert wire.arrived(53, count=2) == 0
        assert running.counters()["dns"].packets == 6


@pytest.mark.privileged
def test_a_fault_in_the_block_takes_the_filter_off(wire: Wire) -> None:
    with pytest.raises(ZeroDivisionError), wire.server.inside(), penstock.attach("v1", TEXT):
        raise ZeroDivisionError
    assert wire.arrived(53) == 5


@pytest.mark.privileged
def test_the_interface_goes_away_within_the_block(wire: Wire) -> None:
    with wire.server.inside(), penstock.attach("v1", TEXT) as running:
        assert running.mode == "native"
        wire.server.ip("link", "del", "v1")
        assert running.mode == ""
        assert running.counters()["dns"].packets == 0
        with pytest.raises(penstock.KernelError, match="its interface is gone"):
            running.replace("filter guard at xdp { drop }")
        assert "dns" in running.counters()


@pytest.mark.privileged
def test_the_mode_is_asked_from_elsewhere(wire: Wire) -> None:
    with wire.server.inside():
        running = penstock.attach("v1", TEXT)
    with running, wire.client.inside():
        assert running.mode == ""


@pytest.mark.privileged
def test_a_second_filter_is_refused_and_the_first_is_named(wire: Wire) -> None:
    with wire.server.inside(), penstock.attach("v1", TEXT) as running:
        with pytest.raises(penstock.KernelError, match=f"id {running.program_id}"):
            penstock.attach("v1", TEXT)
        with penstock.attach("v1", TEXT, replace=True) as second:
            assert second.notices
        assert wire.arrived(53) == 5
