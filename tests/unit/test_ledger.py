"""The ledger of a set: lines, files, what they add up to; kills, full disks, clocks that jump."""

from __future__ import annotations

import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from penstock.errors import KernelError, PenstockError
from penstock.model.moment import Moment, boot_ns_of, moment
from penstock.model.set_text import text_of
from penstock.model.sets import SetSpec
from penstock.pipeline.entry_file import EntryFile, write_entries
from penstock.pipeline.ledger import Ledger, Line, ledgers
from penstock.pipeline.set_keys import Content, Entries, keys_of, read_entries, size

NET = SetSpec("threats", ("net",))
SECOND = 1_000_000_000
DAY = 86_400 * SECOND
NOON = Moment(1_790_000_000.0, 5_000 * SECOND, "one")


def content(*lines: str, spec: SetSpec = NET, end: int = 0) -> Content:
    return read_entries(spec, "\n".join(lines).encode(), end, 0)


def written(ledger: Ledger, *lines: Line) -> Ledger:
    with ledger.changing():
        for line in lines:
            ledger.append(line)
    return ledger


def added(entry: str, end: int = 0, at: Moment = NOON, by: str = "alice", **more: str) -> Line:
    return Line("add", at, by, ((entry, end),), **more)  # type: ignore[arg-type]


def claims(ledger: Ledger, entry: str) -> list[tuple[str, str | None, int]]:
    ((family, key),) = keys_of(NET, entry)
    return [(one.source, one.comment, one.end_ns) for one in ledger.book().claims(entry, family, key)]


def test_what_is_added_is_told_and_taken_back(tmp_path: Path) -> None:
    ledger = written(Ledger("threats", tmp_path), added("192.0.2.9/32", comment="INC-4711"))
    assert claims(ledger, "192.0.2.9/32") == [("manual", "INC-4711", 0)]
    # Another process sees it too, and so does the first one what that writes.
    other = written(Ledger("threats", tmp_path), added("192.0.2.0/24", 10 * SECOND))
    assert claims(ledger, "192.0.2.0/24") == [("manual", None, 10 * SECOND)]
    written(other, Line("remove", NOON, "bob", (("192.0.2.9/32", 0),)))
    assert claims(ledger, "192.0.2.9/32") == []
    written(other, Line("only", NOON, "bob"))
    assert ledger.book().few == {}
    assert ledgers(tmp_path) == ["threats"]


def test_a_process_that_is_stopped_holds_nobody_up_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = written(Ledger("threats", tmp_path), added("192.0.2.9/32"))
    script = (
        "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], 0), 2); print(flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", script, str(ledger.place)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.send_signal(signal.SIGSTOP)
        monkeypatch.setattr("penstock.pipeline.ledger._PATIENCE_S", 0.05)
        with pytest.raises(KernelError, match=f"@threats: busy: process {holder.pid} is changing it"):
            written(ledger, added("192.0.2.10/32"))
        holder.kill()
    written(ledger, added("192.0.2.10/32"))
    assert set(ledger.book().few) == {"192.0.2.9/32", "192.0.2.10/32"}


def test_adding_again_lets_an_entry_stay_longer_never_shorter(tmp_path: Path) -> None:
    ledger = Ledger("threats", tmp_path)
    for end, expected in ((9, 9), (5, 9), (12, 12), (0, 0), (20, 0)):
        written(ledger, added("192.0.2.9/32", end))
        assert claims(ledger, "192.0.2.9/32")[0][2] == expected


def test_many_entries_lie_in_a_file_and_are_found_without_reading_it_whole(tmp_path: Path) -> None:
    lines = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(0, 2000, 2)] + ["2001:db8::/32", "2001:db8::1/128"]
    ledger = Ledger("threats", tmp_path)
    with ledger.changing():
        file = ledger.write_entries(NET.kind, content(*reversed(lines), lines[0]))
        ledger.append(Line("add", NOON, "alice", file=file, source="import drop.txt"))
    for there in (lines[0], lines[999], lines[-1], lines[-2]):
        assert claims(ledger, there) == [("import drop.txt", None, 0)]
    for absent in ("10.0.1.0/24", "0.0.0.0/0", "255.0.0.0/8", "2001:db8::2/128"):
        assert claims(ledger, absent) == []
    assert EntryFile(ledger.place / file).count == len(lines)
    written(ledger, Line("remove", NOON, "bob", ((lines[0], 0),)))
    assert claims(ledger, lines[0]) == []
    assert size(ledger.book().content(NET, NOON)) == len(lines) - 1


def test_a_file_keeps_the_latest_end_of_equal_entries(tmp_path: Path) -> None:
    keys = content("192.0.2.0/24", "198.51.100.0/24", "192.0.2.0/24")["v4"].keys
    for ends, expected in (((16, 32, 48), (48, 32)), ((16, 32, 0), (0, 32)), ((0, 16, 32), (0, 16))):
        entries = Entries(keys, np.array(ends, np.uint64))
        assert write_entries(tmp_path / "a", ("net",), {"v4": entries}) == 2
        found = EntryFile(tmp_path / "a")
        assert tuple(found.end_of("v4", keys[at].tobytes()) for at in (0, 1)) == expected
        assert sorted(found.content()["v4"].expiry.tolist()) == sorted(expected)


def imported(ledger: Ledger, number: int, lines: list[str], at: Moment, end: int = 0, **more: str) -> None:
    with ledger.changing():
        file = ledger.write_entries(NET.kind, content(*lines, end=end))
        more = {"source": "import drop.txt", **more}
        ledger.append(Line("add", at, "alice", file=file, comment=f"{number}" if number else None, **more))  # type: ignore[arg-type]
        ledger.tidy()


def test_a_list_that_is_imported_every_day_leaves_one_file_a_week_at_most(tmp_path: Path) -> None:
    """Its entries stay, with their ends; so do those of others, and what was taken back stays away."""
    ledger, now = Ledger("threats", tmp_path), moment()
    late = now.boot_ns + DAY
    imported(ledger, 1, ["203.0.113.0/24", "10.0.3.0/24"], now)
    for day in range(30):
        at = Moment(now.wall + day, now.boot_ns + day, now.boot_id)
        imported(ledger, 0, [f"10.0.{day}.0/24", "192.0.2.0/24"], at, late if day == 5 else 0)
        if day == 3:
            written(ledger, Line("remove", at, "bob", (("10.0.3.0/24", 0), ("10.0.2.0/24", 0))))
        assert len(ledger.book().lots) < 10
        assert {path.name for path in ledger.place.glob("*.entries")} == ledger.book().files()
    # Another process reads what this one has written.
    for one in (ledger, Ledger("threats", tmp_path)):
        assert claims(one, "10.0.5.0/24") == [("import drop.txt", None, late)]
        assert claims(one, "203.0.113.0/24") == [("import drop.txt", "1", 0)]
        assert {claim[2] for claim in claims(one, "192.0.2.0/24")} == {0}
        for gone in ("10.0.2.0/24", "10.0.3.0/24"):
            assert claims(one, gone) == []
        assert len({key.tobytes() for key in one.book().content(NET, now)["v4"].keys}) == 28 + 2
        written(one, Line("remove", now, "bob", (("10.0.0.0/24", 0),)), added("10.0.0.0/24"))
        assert claims(one, "10.0.0.0/24") == [("manual", None, 0)]


def test_what_was_taken_back_of_large_files_is_not_said_again_for_each(tmp_path: Path) -> None:
    """As of `set update` of 1 %: the journal and its files stay as large as what they say."""
    ledger, now = Ledger("threats", tmp_path), moment()
    lines = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(60_000)] + ["2001:db8::/32", "2001:db8:1::/48"]
    imported(ledger, 0, lines, now)
    for turn in range(6):
        gone = [*lines[turn * 9_000 : (turn + 1) * 9_000], lines[-1 - turn % 2]]
        imported(ledger, turn, [f"172.16.{turn}.0/24"], now)
        with ledger.changing():
            ledger.append(Line("remove", now, "bob", tuple((entry, 0) for entry in gone)))
            ledger.tidy()
        assert (ledger.place / "journal").stat().st_size < 1_100_000
    for one in (ledger, Ledger("threats", tmp_path)):
        found = one.book().content(NET, now)
        assert (len(found["v4"]), len(found["v6"])) == (6_000 + 6, 0)
        assert claims(one, lines[-3]) == [("import drop.txt", None, 0)]
        assert claims(one, lines[0]) == claims(one, lines[53_999]) == []


def test_what_comes_and_goes_in_files_against_a_model(tmp_path: Path) -> None:
    """Large files stay as they are, small ones and those of what was taken back are joined: all say the same."""
    chance, now = random.Random(11), moment()
    world = [f"10.0.{n >> 8}.{n & 255}/32" for n in range(4000)] + [
        f"2001:db8::{n:x}/128" for n in range(1, 401)
    ]
    ledger, model = Ledger("threats", tmp_path), set[str]()
    sizes = set[int]()
    for turn in range(36):
        some = chance.sample(world, chance.choice([1, 5, 300, 300, 2000 if turn % 20 == 1 else 40]))
        has_come, is_in_file = chance.random() < 0.5, len(some) > 5
        with ledger.changing():
            file = ledger.write_entries(NET.kind, content(*some)) if is_in_file else None
            texts = () if is_in_file else tuple((entry, 0) for entry in some)
            ledger.append(Line("add" if has_come else "remove", now, "alice", texts, file))
            if chance.random() < 0.8:
                ledger.tidy()
        model = model | {*some} if has_come else model - {*some}
        sizes.add(len(list(ledger.place.glob("*.entries"))))
        if turn % 6 == 5:
            for one in (ledger, Ledger("threats", tmp_path)):
                assert told_by(one) == model
                asked = chance.sample(world, 50)
                assert [bool(claims(one, entry)) for entry in asked] == [entry in model for entry in asked]
    assert max(sizes) < 40
    with ledger.changing():
        ledger.rewrite()
    assert told_by(Ledger("threats", tmp_path)) == model
    assert {path.name for path in ledger.place.glob("*.entries")} >= ledger.book().files()


def told_by(ledger: Ledger) -> set[str]:
    found = ledger.book().content(NET, moment())
    return {text_of(NET, family, key) for family, one in found.items() for key, _ in one.items()}


def test_a_file_of_what_was_taken_back_that_is_damaged_takes_nothing_back(tmp_path: Path) -> None:
    ledger = Ledger("threats", tmp_path)
    imported(ledger, 0, ["192.0.2.0/24", "198.51.100.0/24"], NOON)
    written(ledger, added("203.0.113.0/24"))
    with ledger.changing():
        file = ledger.write_entries(NET.kind, content("192.0.2.0/24", "203.0.113.0/24"))
        ledger.append(Line("remove", NOON, "bob", file=file))
    assert told_by(ledger) == {"198.51.100.0/24"}
    (ledger.place / file).write_bytes(b"nothing")
    found = Ledger("threats", tmp_path).book().without_damage().content(NET, moment())
    assert size(found) == 3


def test_lots_of_an_earlier_boot_are_joined_on_its_clock(tmp_path: Path) -> None:
    ledger, now = Ledger("threats", tmp_path), moment()
    before = Moment(now.wall - 100, 5_000 * SECOND, "an earlier one")
    end = before.boot_ns + 1_000 * SECOND
    for day in range(8):
        at = Moment(before.wall + day, before.boot_ns + day * SECOND, before.boot_id)
        imported(ledger, 0, [f"10.0.{day}.0/24"], at, end)
    (lot,) = ledger.book().lots
    assert lot.line.at == at
    found = ledger.book().content(NET, now)["v4"]
    assert len(found) == 8
    assert np.allclose(found.expiry / 1e9, (now.boot_ns + 900 * SECOND) / 1e9, atol=1)


def test_lookups_need_no_numpy(tmp_path: Path) -> None:
    ledger = Ledger("threats", tmp_path)
    with ledger.changing():
        file = ledger.write_entries(NET.kind, content("192.0.2.0/24"))
        ledger.append(Line("add", NOON, "alice", file=file))
    script = (
        "import sys; from pathlib import Path; from penstock.pipeline.ledger import Ledger\n"
        f"lots = Ledger('threats', Path({str(tmp_path)!r})).book().lots\n"
        f"assert lots[0].file.end_of('v4', {keys_of_text('192.0.2.0/24')!r}) == 0\n"
        "assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def keys_of_text(text: str) -> bytes:
    return next(iter(keys_of(NET, text)))[1]


def test_files_of_entries_that_are_over_go(tmp_path: Path) -> None:
    """As of a command that adds hundreds of addresses for an hour, every ten minutes."""
    ledger, keys = Ledger("threats", tmp_path), content("192.0.2.0/24", "198.51.100.0/24")["v4"].keys
    for ends in ((0, 0), (7, 0), *((7, 7), (7, 9)) * 15):
        with ledger.changing():
            file = ledger.write_entries(NET.kind, {"v4": Entries(keys, np.array(ends, np.uint64))})
            ledger.append(Line("add", moment(), "cron", file=file))
            ledger.tidy()
    lots = [lot.file.path.name for lot in ledger.book().lots]
    assert lots == ["1.entries", "2.entries"]
    assert {path.name for path in ledger.place.glob("*.entries")} == {*lots}


def test_a_torn_last_line_is_passed_over_and_mended(tmp_path: Path) -> None:
    ledger = written(Ledger("threats", tmp_path), added("192.0.2.9/32"))
    journal = ledger.place / "journal"
    whole = journal.read_bytes()
    for torn in (b'{"op":"add","at":{"wa', whole[:-1], b"\x00" * 70_000):
        journal.write_bytes(whole + torn)
        assert len(Ledger("threats", tmp_path).book().few) == 1
        written(Ledger("threats", tmp_path), added("192.0.2.10/32"))
        assert len(Ledger("threats", tmp_path).book().few) == 2
        assert len(ledger.book().few) == 2


def test_a_line_that_is_damaged_costs_no_other_line(tmp_path: Path) -> None:
    ledger = written(Ledger("threats", tmp_path), added("192.0.2.9/32", comment="x"), added("192.0.2.10/32"))
    content = (ledger.place / "journal").read_bytes()
    (ledger.place / "journal").write_bytes(content.replace(b'"x"', b'"\xff"'))
    assert list(Ledger("threats", tmp_path).book().few) == ["192.0.2.10/32"]


def test_what_was_refused_is_taken_back_also_for_those_who_have_read_it(tmp_path: Path) -> None:
    writer, reader = Ledger("threats", tmp_path), Ledger("threats", tmp_path)
    with writer.changing():
        at = writer.append(added("192.0.2.9/32"))
        assert len(reader.book().few) == 1
        writer.take_back(at)
        writer.append(added("192.0.2.10/32", comment="longer than the line that it stands in place of"))
    assert list(reader.book().few) == list(writer.book().few) == ["192.0.2.10/32"]


def test_a_journal_that_says_little_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.pipeline.ledger._SMALL", 4_000)
    ledger, other = Ledger("threats", tmp_path), Ledger("threats", tmp_path)
    with ledger.changing():
        gone = ledger.write_entries(NET.kind, content("203.0.113.0/24"))
        ledger.append(Line("add", NOON, "alice", file=gone))
        kept = ledger.write_entries(NET.kind, content("198.51.100.0/24", "198.51.101.0/24"))
        ledger.append(Line("only", NOON, "alice", file=kept))
        ledger.append(Line("remove", NOON, "alice", (("198.51.101.0/24", 0),)))
    for number in range(100):
        with ledger.changing():
            ledger.append(
                added("192.0.2.9/32", moment().boot_ns + number * DAY, moment(), comment=str(number))
            )
            ledger.append(added("192.0.2.10/32", 16, moment()))
            ledger.tidy()
        assert ledger.place.joinpath("journal").stat().st_size < 5_000
        assert claims(other, "192.0.2.9/32")[0][1] == str(number)
    assert [path.name for path in ledger.place.glob("*.entries")] == [kept]
    ledger.rewrite()
    again = Ledger("threats", tmp_path)
    assert list(again.book().few) == ["192.0.2.9/32"]
    assert (claims(again, "198.51.100.0/24"), claims(again, "198.51.101.0/24")) == ([("manual", None, 0)], [])


@contextmanager
def full_after(count: int) -> Iterator[None]:
    """No file may become larger: to a writer that is what a full disk is, but for the number of the error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.check(26)
def test_check_26_a_full_disk_leaves_the_old_state(tmp_path: Path) -> None:
    ledger = written(Ledger("threats", tmp_path), added("192.0.2.9/32"))
    before = ledger.place.joinpath("journal").read_bytes()
    with full_after(len(before) + 20), ledger.changing():
        with pytest.raises(PenstockError, match=r"write .*journal: File too large") as error:
            ledger.append(added("192.0.2.10/32"))
        assert "nothing was changed" in (error.value.hint or "")
        with pytest.raises(PenstockError, match=r"write .*1\.entries: "):
            ledger.write_entries(NET.kind, content(*(f"10.0.{n}.0/24" for n in range(100))))
        ledger.rewrite()
    assert ledger.place.joinpath("journal").read_bytes() == before
    assert [path.name for path in ledger.place.iterdir()] == ["journal"]
    assert list(ledger.book().few) == ["192.0.2.9/32"]


# ── clocks ───────────────────────────────────────────────────────────────────


def later(noted: Moment, seconds: float, *, wall_jump: float = 0.0, boot: str | None = None) -> Moment:
    """So many seconds behind a moment, the wall clock set by `wall_jump` meanwhile, perhaps in another boot."""
    boot_ns = int((100 if boot else noted.boot_ns / 1e9 + seconds) * SECOND)
    return Moment(noted.wall + seconds + wall_jump, boot_ns, boot or noted.boot_id)


@pytest.mark.check(27)
@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_check_27_the_wall_clock_jumps_and_times_go_on(tmp_path: Path, jump: float) -> None:
    hour = NOON.boot_ns + 3600 * SECOND
    ledger = Ledger("threats", tmp_path)
    with ledger.changing():
        ledger.append(added("192.0.2.9/32", hour))
        file = ledger.write_entries(NET.kind, content("198.51.100.0/24", end=hour & ~15))
        ledger.append(Line("feed", NOON, "feed", file=file, source="list"))
    for seconds, there in ((3590, 2), (3610, 0), (90_000, 0)):
        assert size(ledger.book().content(NET, later(NOON, seconds, wall_jump=jump))) == there
    (claim,) = ledger.book().few["192.0.2.9/32"].values()
    assert claim.left_s(later(NOON, 600, wall_jump=jump)) == pytest.approx(3000)


@pytest.mark.check(27)
def test_check_27_behind_a_reboot_the_wall_clock_tells(tmp_path: Path) -> None:
    hour = NOON.boot_ns + 3600 * SECOND
    ledger = Ledger("threats", tmp_path)
    with ledger.changing():
        ledger.append(added("192.0.2.9/32", hour))
        ledger.append(added("192.0.2.10/32"))
        file = ledger.write_entries(NET.kind, content("198.51.100.0/24", end=hour & ~15))
        ledger.append(Line("feed", NOON, "feed", file=file, source="list"))
    assert size(ledger.book().content(NET, later(NOON, 3590, boot="two"))) == 3
    now = later(NOON, 600, boot="two")
    ends = ledger.book().content(NET, now)["v4"].expiry.tolist()
    left = sorted(round((end - now.boot_ns) / SECOND) if end else 0 for end in ends)
    assert left == [0, 3000, 3000]
    for seconds in (3610, 90_000_000):
        assert size(ledger.book().content(NET, later(NOON, seconds, boot="two"))) == 1
    # A clock that begins in 1970 must not make entries younger than they were when they were written.
    assert boot_ns_of(NOON, hour, Moment(0.0, SECOND, "two")) == 3601 * SECOND
