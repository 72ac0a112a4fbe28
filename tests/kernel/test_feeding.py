"""Feeds in sets of the kernel: folded, exchanged, refused, taken back, restored; from a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from tests import once
from tests.feedserver import BOMB, Answer, FeedServer, body, serving, truncated

from penstock.daemon import patience
from penstock.daemon.feeding import Feeding
from penstock.daemon.journal import Journal
from penstock.errors import PenstockError
from penstock.feeds import schedule
from penstock.feeds.store import Store
from penstock.kernel import pin
from penstock.kernel.maps import Map
from penstock.model.moment import Moment
from penstock.model.sets import SetSpec
from penstock.pipeline import feeding, fetching, set_store
from penstock.pipeline.damage import damage
from penstock.pipeline.feed_listing import FeedRow, feed_rows
from penstock.pipeline.feeding import Folded, fold, restore
from penstock.pipeline.fetching import Fetched, Fetcher, fetch_due, fetch_named, keep_fetching
from penstock.pipeline.live_set import LiveSet
from penstock.pipeline.set_store import changing, delete, open_set, sets_root, shared
from penstock.pipeline.subscriptions import Subscription, subscribe, unsubscribe

pytestmark = pytest.mark.privileged

NET = SetSpec("threats", ("net",), size=1000)
LISTED = "".join(f"198.51.{n}.0/24\n" for n in range(100))


@pytest.fixture
def threats(bpffs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A set of networks, pinned."""
    monkeypatch.setenv("PENSTOCK_BPFFS", str(bpffs / "feeding"))
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(fetching, "least_interval_s", lambda source: 0.0)
    with shared([NET]):
        pass
    yield "threats"
    delete("threats", force=True)


@pytest.fixture
def server() -> Iterator[FeedServer]:
    with serving() as found:
        yield found


def held() -> set[str]:
    with open_set("threats") as found:
        return {entry.text for entry in found}


def refresh(*names: str, fetcher: Fetcher | None = None) -> tuple[list[Fetched], Folded]:
    found = asyncio.run(fetch_named(fetcher or Fetcher(), names))
    return found, fold("threats", again=True)


def row(number: int = 0) -> FeedRow:
    return list(feed_rows())[number]


def file_feed(tmp_path: Path, name: str, *lines: str, is_private: bool = False) -> Subscription:
    (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    one = Subscription(str(tmp_path / name), is_private=is_private)
    subscribe("threats", one)
    return one


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many entries each change of a set's maps has written."""
    counts: list[int] = []
    whole, many, one = Map.update_all, Map.update_many, Map.update

    def all_counted(self: Map, keys: Sequence[object], values: object) -> None:
        counts.append(len(keys))
        whole(self, keys, values)  # type: ignore[arg-type]

    def many_counted(self: Map, entries: Mapping[bytes, bytes]) -> None:
        if len(entries) > 1:
            counts.append(len(entries))
        many(self, entries)

    def counted(self: Map, *arguments: object) -> None:
        counts.append(1)
        one(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Map, "update_all", all_counted)
    monkeypatch.setattr(Map, "update_many", many_counted)
    monkeypatch.setattr(Map, "update", counted)
    return counts


@pytest.mark.check(28)
@pytest.mark.check(31)
def test_check_28_31_what_has_not_changed_is_not_written(
    threats: str, server: FeedServer, writes: list[int]
) -> None:
    server.answer = body(LISTED.encode(), etag='"1"')
    subscribe(threats, Subscription(server.url()))
    found, done = refresh()
    assert (done.added, found[0].reason, sum(writes) >= 100) == (100, None, True)
    assert (row().state, row().entries) == ("ok", 100)
    writes.clear()
    found, done = refresh()
    assert server.requests[-1]["If-None-Match"] == '"1"'
    assert (found[0].outcome and found[0].outcome.is_changed, done.added, writes) == (False, 0, [])
    server.answer = body(LISTED.replace("198.51.7.0/24", "203.0.113.0/24").encode(), etag='"2"')
    _, done = refresh()
    assert (done.added, done.removed, held() & {"198.51.7.0/24", "203.0.113.0/24"}) == (
        1,
        1,
        {"203.0.113.0/24"},
    )
    assert sum(writes) <= 4


FAULTS: dict[str, tuple[Answer, str]] = {
    "truncated": (truncated, "cut off"),
    "declared": (body(b"# Entries : 90 subnets\n" + LISTED.encode()), "says that it has 90"),
    "html": (body(b"<!DOCTYPE html><html>busy</html>"), "web page"),
    "empty": (body(b""), "no entries"),
    "bomb": (body(BOMB, Content_Encoding="gzip"), "32 MiB"),
    "5xx": (body(b"", status=503), "503"),
    "shrunk": (body(b"198.51.1.0/24\n"), "99 % fewer"),
    "everything": (body(b"0.0.0.0/0\n" + LISTED.encode()), "wider than /8"),
}


@pytest.mark.check(29)
@pytest.mark.check(30)
@pytest.mark.parametrize("fault", FAULTS)
def test_check_29_30_the_last_good_copy_stays_in_the_set(
    threats: str, server: FeedServer, fault: str, writes: list[int]
) -> None:
    server.answer = body(LISTED.encode())
    subscribe(threats, Subscription(server.url(), "netset"))
    refresh()
    before = held()
    writes.clear()
    server.answer, words = FAULTS[fault]
    found, done = refresh()
    assert found[0].has_failed
    assert (held(), writes, done.added, done.removed) == (before, [], 0, 0)
    assert row().state == "stale"
    assert words in (row().reason or "")


@pytest.mark.check(30)
def test_check_30_protected_addresses_never_come_in(
    threats: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "203.0.113.77 50000 203.0.113.1 22")
    one = file_feed(tmp_path, "list", "10.0.0.0/8", "127.0.0.1", "203.0.113.64/27", "198.51.100.0/24")
    _, done = refresh()
    with open_set(threats) as found:
        assert "203.0.113.77" not in found
        assert "203.0.113.76" in found
        assert "203.0.113.78" in found
        assert "10.1.1.1" not in found
    assert done.notes[one.name].left_out == row().left_out == 3
    # The daemon has no SSH connection of its own: it leaves free whoever had one lately, and finds nothing to do.
    monkeypatch.setenv("SSH_CONNECTION", "no connection")
    assert (fold(threats).added, fold(threats).notes) == (0, done.notes)
    own = file_feed(tmp_path, "own", "10.0.0.0/9", "127.0.0.1", is_private=True)
    _, done = refresh(own.name)
    assert "10.0.0.0/9" in held()
    assert done.notes[own.name].left_out == 1


@pytest.mark.check(32)
def test_check_32_a_feed_that_does_not_fit_is_refused_whole(threats: str, tmp_path: Path) -> None:
    one = file_feed(tmp_path, "list", *LISTED.split())
    refresh()
    before = held()
    (tmp_path / "list").write_text("".join(f"198.{n >> 8}.{n & 255}.0/24\n" for n in range(990)))
    once.add(threats, [f"203.0.{n}.0/24" for n in range(50)], by="alice")
    _, done = refresh()
    assert "@threats is full" in (done.notes[one.name].refused or "")
    assert held() == before | {f"203.0.{n}.0/24" for n in range(50)}
    assert (row().state, row().entries) == ("refused", 100)
    assert "@threats is full" in (row().reason or "")
    # Nobody tries again by himself; whoever makes room and asks for it is heard.
    once.flush(threats, by="alice")
    assert fold(threats).added == 0
    assert (fold(threats, again=True).added > 800, row().state) == (True, "ok")


@pytest.mark.check(35)
def test_check_35_an_entry_goes_with_the_last_source_that_lists_it(threats: str, tmp_path: Path) -> None:
    one = file_feed(tmp_path, "one", "198.51.100.0/24", "198.51.101.0/24", "203.0.113.9")
    file_feed(tmp_path, "two", "198.51.100.0/24", "198.51.102.0/24")
    once.add(threats, ["203.0.113.9"], by="alice", timeout=3600)
    refresh()
    assert held() == {"198.51.100.0/24", "198.51.101.0/24", "198.51.102.0/24", "203.0.113.9/32"}
    unsubscribe(threats, one.source)
    fold(threats)
    assert held() == {"198.51.100.0/24", "198.51.102.0/24", "203.0.113.9/32"}
    with open_set(threats) as found:
        left = {entry.text: entry.expires_in for entry in found}["203.0.113.9/32"]
    assert left is not None
    assert 3500 < left <= 3600
    (tmp_path / "two").write_text("198.51.102.0/24\n198.51.103.0/24\n")
    refresh()
    once.remove(threats, ["203.0.113.9"], by="alice")
    assert held() == {"198.51.102.0/24", "198.51.103.0/24"}


def test_a_kill_between_ledger_and_kernel_is_mended_by_the_next_fold(
    threats: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = file_feed(tmp_path, "list", "198.51.100.0/24", "198.51.101.0/24")
    refresh()
    (tmp_path / "list").write_text("198.51.101.0/24\n198.51.102.0/24\n")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    asyncio.run(fetch_named(Fetcher(), ()))
    with monkeypatch.context() as patch:
        patch.setattr(LiveSet, "exchange_claims", killed)
        with pytest.raises(KeyboardInterrupt):
            fold(threats)
    assert held() == {"198.51.100.0/24", "198.51.101.0/24"}
    fold(threats)
    assert held() == {"198.51.101.0/24", "198.51.102.0/24"}
    assert len(feeding.Ledger(threats).book().feeds[one.name]) == 1


def test_a_set_that_is_made_anew_holds_what_it_held(threats: str, tmp_path: Path) -> None:
    file_feed(tmp_path, "list", *LISTED.split())
    refresh()
    once.add(threats, ["203.0.113.0/24"], by="alice")
    once.add(threats, ["203.0.112.0/24"], by="alice", timeout=3600)
    before = held()
    # What a reboot leaves: no pins, and all that is on the disk.
    pin.remove(sets_root(), threats)
    with shared([NET]):
        assert held() == before
    assert restore(threats) == 0


def test_a_set_that_is_made_anew_with_less_room_holds_what_fits(threats: str, tmp_path: Path) -> None:
    one = file_feed(tmp_path, "list", *LISTED.split())
    refresh()
    once.add(threats, ["203.0.113.0/24"], by="alice")
    pin.remove(sets_root(), threats)
    with shared([SetSpec("threats", ("net",), size=50)]):
        assert held() == {"203.0.113.0/24"}
    assert (row().state, row().entries) == ("refused", 0)
    assert "it takes 50 entries" in (feeding.notes(threats)[one.name].refused or "")


@pytest.mark.check(27)
@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_check_27_entries_of_a_feed_stay_as_long_as_was_said_when_it_was_fetched(
    threats: str, tmp_path: Path, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    decision = {"duration": "1h", "id": 1, "scope": "Ip", "type": "ban", "value": "198.51.100.7"}
    (tmp_path / "stream").write_text(json.dumps({"deleted": None, "new": [decision]}))
    subscribe(threats, Subscription(str(tmp_path / "stream"), "crowdsec"))
    asyncio.run(fetch_named(Fetcher(), ()))
    true = feeding.moment
    monkeypatch.setattr(feeding, "moment", lambda: Moment(true().wall + jump, true().boot_ns, true().boot_id))
    fold(threats)
    with open_set(threats) as found:
        (entry,) = found
    assert entry.expires_in is not None
    assert 3590 < entry.expires_in <= 3600
    # A file has all decisions each time: what it has no more is over.
    fetcher, other = Fetcher(), {**decision, "value": "198.51.100.8"}
    for one in (decision, other):
        (tmp_path / "stream").write_text(json.dumps({"deleted": None, "new": [one]}))
        asyncio.run(fetch_named(fetcher, ()))
    fold(threats)
    assert held() == {"198.51.100.8/32"}


def test_a_stream_of_decisions_is_asked_for_what_has_changed(
    threats: str, server: FeedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_FEED_KEY", "a key")

    def told(new: list[tuple[int, str]], deleted: list[tuple[int, str]]) -> Answer:
        shape = {"duration": "4h", "scope": "Ip", "type": "ban"}
        sides = (
            [{**shape, "id": number, "value": value} for number, value in side] for side in (new, deleted)
        )
        return body(json.dumps(dict(zip(("new", "deleted"), sides, strict=True))).encode())

    fetcher = Fetcher()
    subscribe(threats, Subscription(server.url("/v1/decisions/stream"), "crowdsec"))
    server.answer = told([(1, "198.51.100.7"), (2, "198.51.100.7"), (3, "198.51.100.8")], [])
    refresh(fetcher=fetcher)
    assert server.requests[-1]["path"].endswith("stream?startup=true")
    assert server.requests[-1]["X-Api-Key"] == "a key"
    assert held() == {"198.51.100.7/32", "198.51.100.8/32"}
    server.answer = told([(4, "198.51.100.9")], [(1, "198.51.100.7"), (3, "198.51.100.8")])
    refresh(fetcher=fetcher)
    assert server.requests[-1]["path"].endswith("stream?startup=false")
    assert held() == {"198.51.100.7/32", "198.51.100.9/32"}
    server.answer = told([], [])
    found, done = refresh(fetcher=fetcher)
    assert (found[0].reason, done.added, done.changed, done.removed) == (None, 0, 0, 0)
    server.answer = told([], [(2, "198.51.100.7")])
    refresh(fetcher=fetcher)
    assert held() == {"198.51.100.9/32"}
    # A process that has just started asks for all of them.
    server.answer = told([(9, "198.51.100.10")], [])
    refresh(fetcher=Fetcher())
    assert server.requests[-1]["path"].endswith("stream?startup=true")
    assert held() == {"198.51.100.10/32"}
    # So does one that is not the last to have asked: what came meanwhile was told to the other one.
    refresh(fetcher=fetcher)
    assert server.requests[-1]["path"].endswith("stream?startup=true")
    server.answer = told([], [])
    refresh(fetcher=fetcher)
    assert server.requests[-1]["path"].endswith("stream?startup=false")
    assert held() == {"198.51.100.10/32"}


def test_a_set_of_addresses_takes_addresses_alone(threats: str, tmp_path: Path) -> None:
    hosts = SetSpec("hosts", ("host",))
    with shared([hosts]):
        pass
    (tmp_path / "list").write_text("198.51.100.7\n2001:db8::7\n")
    subscribe("hosts", Subscription(str(tmp_path / "list")))
    asyncio.run(fetch_named(Fetcher(), ()))
    assert fold("hosts").added == 2
    (tmp_path / "list").write_text("198.51.100.7\n2001:db8::/64\n")
    asyncio.run(fetch_named(Fetcher(), ()))
    (note,) = fold("hosts").notes.values()
    assert "1 networks, and @hosts is a set of addresses" in (note.refused or "")
    with open_set("hosts") as found:
        assert found.count == 2
    delete("hosts")


def test_the_schedule_asks_what_is_due_and_ends_when_told(
    threats: str, server: FeedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = body(LISTED.encode())
    subscribe(threats, Subscription(server.url()))
    fetcher = Fetcher()
    assert [one.reason for one in asyncio.run(fetch_due(fetcher))] == [None]
    assert asyncio.run(fetch_due(fetcher)) == []
    assert 0 < fetcher.due()[1] <= fetching.LONGEST_SLEEP_S
    monkeypatch.setattr(schedule, "after_success", lambda *_: 0.0)
    heard: list[Fetched] = []

    async def watched() -> None:
        enough = asyncio.Event()

        def told(found: Fetched) -> None:
            heard.append(found)
            if len(heard) == 3:
                enough.set()

        Store().write(heard_name(), Store().state(heard_name()).__class__())
        running = asyncio.ensure_future(keep_fetching(fetcher, told))
        await asyncio.wait_for(enough.wait(), 20)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(watched())
    assert [one.reason for one in heard] == [None] * 3


def heard_name() -> str:
    return row().name


def test_a_set_whose_feeds_cannot_be_read_keeps_no_other_from_being_filled(
    threats: str, tmp_path: Path
) -> None:
    journal = Journal(lambda *_: None)
    with shared([SetSpec("aside", ("net",), size=10)]):
        pass
    try:
        (damaged := tmp_path / "sets/aside/feeds.json").parent.mkdir(parents=True)
        damaged.write_bytes(b"{")
        file_feed(tmp_path, "list", "198.51.100.0/24")
        daemon = Feeding(journal)
        refresh()
        daemon.look()
        assert [one.message.partition(":")[0] for one in journal.alarms] == ["@aside cannot be filled"]
        with pytest.raises(PenstockError, match=r"aside/feeds\.json") as found:
            refresh("aside")
        assert "`penstock feed add aside SOURCE`" in str(found.value.hint)
        assert held() == {"198.51.100.0/24"}
        damaged.unlink()
        daemon.look()
        assert journal.alarms == ()
        assert held() == {"198.51.100.0/24"}
    finally:
        delete("aside", force=True)


def test_what_is_wrong_with_a_set_is_over_when_the_feed_or_the_set_is_gone(
    threats: str, tmp_path: Path
) -> None:
    journal = Journal(lambda *_: None)
    daemon = Feeding(journal)
    one = file_feed(tmp_path, "many", *(f"10.{n >> 8}.{n & 255}.0/24" for n in range(1100)), is_private=True)
    refresh()
    daemon.look()
    assert [alarm.key for alarm in journal.alarms] == [f"feed @threats {one.name}"]
    unsubscribe(threats, one.source)
    daemon.look()
    assert journal.alarms == ()
    (tmp_path / "sets/threats/feeds.json").write_bytes(b"{")
    daemon.look()
    assert [alarm.key for alarm in journal.alarms] == ["set @threats"]
    delete(threats)
    daemon.look()
    assert journal.alarms == ()
    with shared([NET]):
        pass


def test_a_set_that_was_busy_is_filled_later(
    threats: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(lambda *_: None)
    daemon = Feeding(journal)
    file_feed(tmp_path, "list", "198.51.100.0/24")
    asyncio.run(fetch_named(Fetcher(), ()))
    monkeypatch.setattr(set_store, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(patience, "FIRST_S", 0.0)
    with changing(threats):
        daemon.look()
    assert "busy" in journal.alarms[0].message
    daemon.look()
    assert (held(), journal.alarms) == ({"198.51.100.0/24"}, ())


def test_changes_of_feeds_and_folds_that_fail_leave_nothing_open(threats: str, tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    one = file_feed(tmp_path, "list", "198.51.100.0/24")
    before = descriptors()
    unsubscribe(threats, one.source)
    subscribe(threats, one)
    assert descriptors() == before
    (tmp_path / "sets" / threats / "feeds.json").write_text("{")
    with pytest.raises(PenstockError, match=r"feeds\.json"):
        fold(threats)
    assert descriptors() == before


@pytest.mark.parametrize("damage_of", ["cut", "missing", "text"])
def test_a_feed_whose_entries_are_damaged_in_the_ledger_is_folded_anew(
    threats: str, tmp_path: Path, damage_of: str
) -> None:
    file_feed(tmp_path, "list", "198.51.100.0/24", "203.0.113.0/24")
    refresh()
    once.add("threats", ["192.0.2.0/24"], by="alice")
    (entries,) = (tmp_path / "sets/threats").glob("*.entries")
    whole = entries.read_bytes()
    entries.unlink()
    if damage_of != "missing":
        entries.write_bytes(whole[:-3] if damage_of == "cut" else b'{"schema": "\xff"}\n')
    (found,) = damage("threats")
    assert str(entries) in found.message
    assert "`penstock feed refresh threats`" in str(found.hint)
    # What the damaged file told goes with the copy that lists it no more.
    (tmp_path / "list").write_text("203.0.113.0/24\n")
    refresh()
    assert held() == {"192.0.2.0/24", "203.0.113.0/24"}
    assert damage("threats") == ()
    (entries,) = (tmp_path / "sets/threats").glob("*.entries")
    entries.write_bytes(b"")
    assert fold("threats").notes[row().name].refused is None
    assert damage("threats") == ()


def test_a_set_whose_ledger_is_damaged_is_made_anew_with_what_can_be_read(
    threats: str, tmp_path: Path
) -> None:
    once.add("threats", [f"10.{n >> 8}.{n & 255}.0/24" for n in range(300)], by="alice")
    once.add("threats", ["192.0.2.0/24"], by="alice")
    (entries,) = (tmp_path / "sets/threats").glob("*.entries")
    entries.write_bytes(entries.read_bytes()[:100])
    journal = tmp_path / "sets/threats/journal"
    journal.write_bytes(b'{"op": "add", "at": \xff}\n' + journal.read_bytes())
    (tmp_path / "sets/threats/feeds.json").write_bytes(b"\xff")
    pin.remove(sets_root(), "threats")
    with shared([NET]):
        assert held() == {"192.0.2.0/24"}
    said = [error.message for error in damage("threats")]
    assert [str(tmp_path) in one for one in said] == [True] * 3
    assert f"{journal}: 1 lines of it are not what was written there" in said
    once.replace("threats", ["192.0.2.0/24"], by="alice")
    assert [error.message for error in damage("threats") if "journal" not in error.message] == [said[0]]
