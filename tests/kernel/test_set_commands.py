"""Sets changed by command: kernel and ledger say the same, whatever is refused or killed in between."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path

import numpy as np
import pytest
from tests import once

import penstock
from penstock.control.protocol import SetAdd
from penstock.daemon import sets
from penstock.errors import LimitError, PenstockError
from penstock.kernel import pin
from penstock.model.moment import moment
from penstock.model.prefixes import Prefixes
from penstock.model.sets import SetSpec
from penstock.pipeline import set_commands
from penstock.pipeline.dynamic_set import DynamicSet
from penstock.pipeline.ledger import Ledger, Line
from penstock.pipeline.live_set import LiveSet
from penstock.pipeline.set_commands import SetCommands
from penstock.pipeline.set_keys import read_entries
from penstock.pipeline.set_record import memory_of
from penstock.pipeline.set_remaking import Applying, remade
from penstock.pipeline.set_store import delete, open_set, sets_root, shared

pytestmark = pytest.mark.privileged

NET = SetSpec("threats", ("net",), size=1000)
NOBODY = Applying(frozenset(), "")


@pytest.fixture
def threats(bpffs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A set of networks, pinned, with a ledger."""
    monkeypatch.setenv("PENSTOCK_BPFFS", str(bpffs / "commands"))
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(tmp_path))
    with shared([NET]):
        pass
    yield "threats"
    delete("threats", force=True)


def held() -> dict[str, float | None]:
    with open_set("threats") as found:
        return {entry.text: entry.expires_in for entry in found}


def told() -> set[str]:
    return set(Ledger("threats").book().few)


def of_feed(*lines: str) -> None:
    """Let the feed `drop` list these, as its last copy had them."""
    ledger = Ledger("threats")
    with ledger.changing():
        file = ledger.write_entries(NET.kind, read_entries(NET, "\n".join(lines).encode(), 0, 0))
        ledger.append(Line("feed", moment(), "feed", file=file, source="drop"))
    with open_set("threats") as found:
        found.update(lines)


def test_kernel_and_ledger_say_the_same(threats: str) -> None:
    with SetCommands() as commands:
        done = commands.add(threats, ["192.0.2.0/24", "2001:db8::1"], by="alice", timeout=60, comment="why")
        assert (done.added, done.entries) == (2, 2)
        assert told() == set(held()) == {"192.0.2.0/24", "2001:db8::1/128"}
        commands.add(threats, ["192.0.2.0/24"], by="alice", forever=True)
        assert held()["192.0.2.0/24"] is None
        assert commands.remove(threats, ["2001:db8::1", "192.0.2.1"], by="bob").removed == 1
        assert told() == set(held()) == {"192.0.2.0/24"}
        commands.replace(threats, b"198.51.100.0/24\n203.0.113.0/24\n", by="bob")
        assert told() == set(held()) == {"198.51.100.0/24", "203.0.113.0/24"}
        assert commands.flush(threats, by="bob").removed == 2
        assert told() == set(held()) == set()


def test_what_the_kernel_refuses_is_not_in_the_ledger(threats: str) -> None:
    many = "\n".join(f"10.{n >> 8}.{n & 255}.0/24" for n in range(1001))
    once.add(threats, ["192.0.2.0/24"], by="alice")
    for change in (once.add, once.replace):
        with pytest.raises(LimitError):
            change(threats, many, by="alice")
        with pytest.raises(PenstockError, match=r"^`<html>` is no address"):
            change(threats, ["192.0.2.1", "<html>"], by="alice")
        assert set(held()) == told() == {"192.0.2.0/24"}
        assert Ledger("threats").book().lots == []
    once.add(threats, many.splitlines()[0], by="alice")
    assert list(Ledger("threats").place.glob("*.entries")) == []


@pytest.mark.check(35)
def test_check_35_what_a_feed_lists_too_stays(threats: str) -> None:
    of_feed("192.0.2.0/24", "198.51.100.0/24")
    once.add(threats, ["192.0.2.0/24", "203.0.113.0/24"], by="alice")
    done = once.remove(threats, ["192.0.2.0/24", "203.0.113.0/24"], by="alice")
    assert (done.removed, [(one.entry, one.feeds) for one in done.kept]) == (1, [("192.0.2.0/24", ("drop",))])
    assert set(held()) == {"192.0.2.0/24", "198.51.100.0/24"}
    assert told() == set()
    once.replace(threats, b"203.0.113.9\n", by="alice")
    assert set(held()) == {"192.0.2.0/24", "198.51.100.0/24", "203.0.113.9/32"}
    assert once.flush(threats, by="alice").entries == 2


@pytest.mark.check(35)
def test_check_35_entries_come_and_go_in_one_step_and_those_of_feeds_stay(threats: str) -> None:
    of_feed("192.0.2.0/24")
    many = [f"10.0.{n >> 4}.{16 * (n & 15)}/28" for n in range(600)]
    with SetCommands() as commands:
        commands.add(threats, ["192.0.2.0/24", "203.0.113.0/24", "2001:db8::1"], by="alice", timeout=60)
        gone, come = (
            ["192.0.2.0/24", "203.0.113.0/24", "192.0.2.7", "10.0.0.0/28"],
            "\n".join([*many, "2001:db8::1"]),
        )
        done = commands.update(threats, come, gone, by="bob", timeout=30, comment="difference")
        assert (done.added, done.removed, done.entries) == (600, 1, 602)
        assert [(one.entry, one.feeds) for one in done.kept] == [("192.0.2.0/24", ("drop",))]
        found = held()
        assert set(found) == {*many, "2001:db8::1/128", "192.0.2.0/24"}
        assert (found["2001:db8::1/128"] or 0) > 50 > 40 > (found["10.0.0.0/28"] or 0) > 20
        assert found["192.0.2.0/24"] is None
        book = Ledger(threats).book()
        assert told() == {"2001:db8::1/128"}
        assert [lot.line.comment for lot in book.lots] == ["difference"]
        assert len(book.content(NET, moment(), feeds=False)["v4"]) == 600


def test_a_difference_that_is_refused_changes_nothing(threats: str) -> None:
    once.add(threats, ["192.0.2.0/24"], by="alice")
    many = "\n".join(f"10.{n >> 8}.{n & 255}.0/24" for n in range(1001))
    with SetCommands() as commands:
        for come, gone, fault in (
            (many, "192.0.2.0/24", "is full"),
            ("192.0.2.1", "x", "gone:1: `x` is no address"),
        ):
            with pytest.raises(PenstockError, match=fault):
                commands.update(threats, come, gone, by="bob", files=("come", "gone"))
            assert set(held()) == told() == {"192.0.2.0/24"}


def test_a_large_change_lies_in_a_file_and_single_entries_of_it_can_go(threats: str) -> None:
    lines = [f"10.0.{n >> 4}.{16 * (n & 15)}/28" for n in range(900)]
    once.add(threats, "\n".join(lines), by="alice", comment="bulk")
    assert len(Ledger("threats").book().lots) == 1
    once.remove(threats, lines[:300], by="alice")
    assert set(held()) == set(lines[300:])
    with open_set("threats") as found:
        content = Ledger("threats").book().content(NET, moment())
        assert found.exchange(content, content).added == 0
    assert set(held()) == set(lines[300:])


@pytest.mark.check(35)
def test_check_35_of_many_that_go_those_of_feeds_stay_and_ledgers_are_tidied_later(threats: str) -> None:
    lines = [f"10.0.{n >> 4}.{16 * (n & 15)}/28" for n in range(900)] + ["2001:db8::1/128", "2001:db8::2/128"]
    of_feed(*lines[:40], "2001:db8::1/128", "203.0.113.0/24")
    with SetCommands(tidies_later=True) as commands:
        commands.add(threats, "\n".join(lines), by="alice")
        for turn in range(9):
            some = "\n".join(lines[-300 - turn :])
            done = commands.update(threats, "", some, by="bob")
            assert (done.kept_count, [one.entry for one in done.kept]) == (1, ["2001:db8::1/128"])
            commands.add(threats, some, by="bob")
            assert len(list(Ledger("threats").place.glob("*.entries"))) == 4 + 2 * turn
        assert commands.is_untidy
        done = commands.remove(threats, "\n".join(lines[20:400]), by="bob")
        assert (done.removed, done.kept_count, len(done.kept)) == (360, 20, 20)
        before = Ledger("threats").book().content(NET, moment())
        commands.tidy()
        assert not commands.is_untidy
        assert len(list(Ledger("threats").place.glob("*.entries"))) < 6
        after = Ledger("threats").book().content(NET, moment())
    assert {family: one.by_key() for family, one in after.items()} == {
        family: one.by_key() for family, one in before.items()
    }
    assert set(held()) == {*lines[:40], *lines[400:], "203.0.113.0/24"}


def test_a_set_that_was_made_anew_is_found_and_the_old_ledger_is_gone(threats: str) -> None:
    with SetCommands() as commands:
        commands.add(threats, ["192.0.2.0/24"], by="alice")
        delete("threats")
        with shared([NET]):
            pass
        assert (told(), held()) == (set(), {})
        commands.add(threats, ["198.51.100.0/24"], by="alice")
    assert told() == set(held()) == {"198.51.100.0/24"}


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory on a file system of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], check=True)
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def add_many(count: int) -> None:
    """One by one, each with a long comment."""
    for number in range(count):
        once.add("threats", [f"203.0.{number}.0/24"], by="alice", comment="x" * 200)


@pytest.mark.check(26)
def test_check_26_a_full_disk_changes_nothing_and_says_so(threats: str, small_disk: Path) -> None:
    once.add(threats, ["192.0.2.0/24", "198.51.100.0/24"], by="alice")
    with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    # The journal's last page has room for some lines still.
    with pytest.raises(PenstockError, match="No space left on device") as error:
        add_many(200)
    assert "nothing was changed" in (error.value.hint or "")
    assert set(held()) == told()
    many = "\n".join(f"10.{n >> 8}.{n & 255}.0/24" for n in range(900))
    with pytest.raises(PenstockError, match=r"write .*\.entries: No space left on device"):
        once.add(threats, many, by="alice")
    with pytest.raises(PenstockError, match="No space left on device") as error:
        once.remove(threats, ["192.0.2.0/24", *(f"10.0.{n}.0/24" for n in range(200))], by="alice")
    assert "the set was changed" in (error.value.hint or "")
    assert told() - set(held()) == {"192.0.2.0/24"}
    (small_disk / "filler").unlink()
    once.remove(threats, ["192.0.2.0/24"], by="alice")
    assert set(held()) == told()


def test_python_programs_change_kernel_and_ledger(threats: str) -> None:
    """Text, objects of ipaddress, arrays and Prefixes; what a program adds is told, and comes back behind a reboot."""
    of_feed("198.51.100.0/24")
    with penstock.open_set("@threats") as found:
        found.update([ip_address("192.0.2.1"), ip_network("2001:db8::/32")], 60, comment="INC-4711")
        found.update(np.array([0xC0000202], np.uint32))
        assert found.update(Prefixes.of(["203.0.113.0/24"])).entries == 5
        assert "203.0.113.9" in found
        assert len(found) == found.count == 5
        book = Ledger("threats").book()
        assert set(book.few) == {"192.0.2.1/32", "2001:db8::/32", "192.0.2.2/32", "203.0.113.0/24"}
        (claim,) = book.few["192.0.2.1/32"].values()
        assert (claim.comment, claim.by) == ("INC-4711", set_commands.who())
        done = found.discard(["198.51.100.0/24", "192.0.2.2/32"])
        assert (done.removed, done.kept[0].feeds) == (1, ("drop",))
        found.replace(Prefixes.of(["192.0.2.9"]))
        assert [entry.text for entry in found] == ["192.0.2.9/32", "198.51.100.0/24"]
        found.clear()
        assert set(held()) == {"198.51.100.0/24"}
    assert told() == set()
    with pytest.raises(PenstockError, match="there is no set `other`"):
        penstock.open_set("other")


def test_the_daemon_walks_no_large_set_of_networks_while_others_wait(
    threats: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wide network has all that it covers looked at: of a million that takes seconds, and so not at once."""
    monkeypatch.setattr(sets, "_FEW_NETWORKS", 3)
    kept = sets.OpenSets()
    for number in range(4):
        kept.add(SetAdd(set=threats, entries=(f"192.0.2.{number}",)), by="alice")
        assert kept.is_quick(threats, 1) == (number < 3)
    kept.close()


@pytest.mark.check(31)
@pytest.mark.usefixtures("threats")
@pytest.mark.parametrize(("kind", "entry_bytes"), [("net", 40), ("host", 250)])
def test_check_31_a_million_entries_within_their_budget(kind: str, entry_bytes: int) -> None:
    """Processor time from text to set and of a change of 1 %, and the memory of an entry, all far above the usual."""
    size, more = 1_000_000, 10_000
    with shared([SetSpec("million", (kind,), size=size + more)]), open_set("million") as found:
        # From 10.0.0.0 on, one address in sixteen.
        numbers = range(10 << 24, (10 << 24) + 16 * (size + more), 16)
        texts = [f"{n >> 24}.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}\n" for n in numbers]
        first, others = ("".join(one).encode() for one in (texts[:size], texts[size:]))
        try:
            began = time.process_time()
            assert once.add("million", first, by="alice").entries == size
            loaded = time.process_time() - began
            kernel = memory_of(found) or 0
            began = time.process_time()
            done = once.add("million", others, by="alice")
            changed = time.process_time() - began
        finally:
            delete("million", force=True)
    assert (done.added, done.entries) == (more, size + more)
    assert loaded < 10
    assert changed < 5
    assert 4 * size < kernel < entry_bytes * size


@pytest.mark.parametrize("structure", ["trie", "flat"])
def test_a_range_comes_and_goes_by_the_same_text(
    bpffs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, structure: str
) -> None:
    monkeypatch.setenv("PENSTOCK_BPFFS", str(bpffs / "ranges"))
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(tmp_path))
    with (
        shared([SetSpec("ranges", ("net",), 5000, structure=structure, dynamic=True)]),
        SetCommands() as commands,
    ):
        texts = ["192.0.2.1-192.0.2.6", "2001:db8:: - 2001:db8::ff"]
        assert commands.add("ranges", [*texts, "192.0.2.1-192.0.2.1"], by="alice").added == 6 - 1
        found = commands.live("ranges")
        nets = {"192.0.2.1/32", "192.0.2.2/31", "192.0.2.4/31", "192.0.2.6/32", "2001:db8::/120"}
        assert {entry.text for entry in found} == set(Ledger("ranges").book().few) == nets
        asked = [*texts, "192.0.2.3-192.0.2.6", "192.0.2.3-192.0.2.7", "192.0.2.0-192.0.2.3", "192.0.2.2"]
        assert [one in found for one in asked] == [True] * 3 + [False] * 2 + [True]
        assert commands.remove("ranges", texts, by="alice").removed == 5
        assert (found.count, Ledger("ranges").book().few) == (0, {})
    delete("ranges", force=True)


KINDS_OF_NETS = [
    SetSpec("threats", ("net",), 5000, structure="flat"),
    SetSpec("threats", ("net",), 2000, structure="trie", dynamic=True),
    SetSpec("threats", ("net",), 3000, 60_000_000_000, counters=True, structure="trie", dynamic=True),
    SetSpec("threats", ("net",), 6000, structure="flat", dynamic=True),
]


def test_a_set_becomes_another_with_all_that_it_holds(threats: str) -> None:
    wanted = {f"10.{n >> 8}.{n & 255}.0/24" for n in range(500)} | {
        "2001:db8::/32",
        "192.0.2.7/32",
        "203.0.113.0/24",
    }
    with SetCommands() as commands:
        commands.add(threats, sorted(wanted - {"203.0.113.0/24"}), by="alice")
        commands.add(threats, ["203.0.113.0/24"], by="alice", timeout=3600)
        for spec in KINDS_OF_NETS:
            before = commands.live(threats)
            with pytest.raises(LimitError, match="stop"), remade([spec], NOBODY):
                raise LimitError("stop", limit="")
            assert commands.live(threats) is before
            small = SetSpec("threats", ("net",), 100, spec.timeout_ns, dynamic=spec.dynamic)
            with pytest.raises(PenstockError, match="gives it a size of 100"), remade([small], NOBODY):
                pass
            with remade([spec], NOBODY) as made, shared([spec], made.places) as maps:
                if "ps_set0_tally" in maps and before.spec.dynamic:
                    # Rules add to the old one until their program is replaced.
                    added_by_a_rule(before, "198.51.100.9")
            with pytest.raises(PenstockError, match="made anew or taken away meanwhile"):
                before.update(["192.0.2.0/24"])
            found = commands.live(threats)
            texts = {one.text: one for one in found}
            assert (found.spec, texts.keys() - {"198.51.100.9/32"}) == (spec, wanted)
            assert 3500 < (texts["203.0.113.0/24"].expires_in or 0) <= 3600
            assert all(one.expires_in is None for one in found if one.text.startswith("10."))
            if "198.51.100.9/32" in texts:
                assert texts["198.51.100.9/32"].by_rule
                assert "198.51.100.9" in found
        assert "198.51.100.9/32" in texts
        assert commands.remove(threats, ["198.51.100.9"], by="alice").removed == 1
        assert commands.flush(threats, by="alice").entries == 0
    assert pin.unfinished(sets_root()) == []


def added_by_a_rule(found: LiveSet, address: str) -> None:
    """What a program does to the maps of what rules add."""
    assert isinstance(found, DynamicSet)
    key = ip_address(address).packed
    found.added.maps["v4_added"].update(key, bytes(found.added.maps["v4_added"].size))
    found.added.maps["v4_turn"].update(b"", key)
    tally = found.added.maps["tally"].memory().cast("Q")
    tally[0] += 1
