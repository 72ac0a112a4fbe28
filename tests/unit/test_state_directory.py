"""What penstock keeps: whole files, for those to whom the directory belongs, and never through their links."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.daemon import state
from penstock.errors import PenstockError
from penstock.kernel.lock import open_lock
from penstock.model import moment
from penstock.model.moment import Moment
from penstock.model.state_directory import make_place, write_atomically
from penstock.pipeline import feeding, history, peers, subscriptions
from penstock.pipeline.entry_file import EntryFile
from penstock.pipeline.ledger import Ledger, Line

OWNER = 65_534, 65_533


@pytest.fixture
def careful_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_where_proc_has_processes_alone_moments_go_by_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under ProcSubset=pid: two moments of boots that nobody can tell apart may be of two."""

    def hidden(_path: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", hidden)
    moment.boot_id.cache_clear()
    now = moment.moment()
    monkeypatch.undo()
    moment.boot_id.cache_clear()
    assert now.boot_id == ""
    assert Moment(now.wall - 5, now.boot_ns + 10**12, "").elapsed_s(now) == pytest.approx(5)
    assert moment.moment().boot_id


def test_a_file_has_the_new_content_or_the_old(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    write_atomically(file, b"old", mode=0o644)

    write_atomically(file, b"new", memoryview(b" and whole"))
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"new and whole", 0o600)
    with pytest.raises(TypeError):
        write_atomically(file, b"half", None)  # type: ignore[arg-type]
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [
        ("state.json", b"new and whole")
    ]


def test_a_directory_that_is_a_link_is_written_through_only_where_that_is_meant(tmp_path: Path) -> None:
    (elsewhere := tmp_path / "etc").mkdir()
    (link := tmp_path / "linked").symlink_to(elsewhere)
    with pytest.raises(NotADirectoryError):
        write_atomically(link / "shadow", b"mine", follows_links=False)
    assert list(elsewhere.iterdir()) == []
    write_atomically(link / "shadow", b"mine")
    assert (elsewhere / "shadow").read_bytes() == b"mine"


@pytest.mark.usefixtures("careful_umask")
def test_what_is_closed_to_others_closes_nothing_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fetcher, who is another user, has to get through to its own directory."""
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(tmp_path / "state"))
    with history._writing() as place:
        assert place.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o755


@pytest.mark.privileged
@pytest.mark.usefixtures("careful_umask")
def test_what_root_makes_belongs_to_whom_the_directory_belongs(tmp_path: Path) -> None:
    """Commands are root's, the daemon has a user of its own and has to go on with what they have begun."""
    os.chown(tmp_path, *OWNER)
    ledger = Ledger("threats", tmp_path)
    with ledger.changing():
        ledger.append(Line("add", Moment(0.0, 0, "one"), "root", (("192.0.2.9/32", 0),)))
    ledger.close()
    make_place(tmp_path / "feeds" / "drop")
    for _ in range(2):
        os.close(open_lock(f"{tmp_path}/eth0.lock"))
    made = list(tmp_path.rglob("*"))
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {OWNER}
    assert {path.stat().st_mode & 0o777 for path in made} == {0o755, 0o644, 0o600}


@pytest.mark.parametrize("damage", [b'{"pid": "\xff"}', b"[", b"", b"[1, 2]"])
def test_a_file_that_is_damaged_is_as_if_it_was_not_there_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(tmp_path))
    threats = tmp_path / "sets" / "threats"
    make_place(threats)
    make_place(tmp_path / "history")
    for file in (
        *(tmp_path / name for name in ("daemon.json", "failures.json", "peers.json", "history/eth0.json")),
        *(threats / name for name in ("folded.json", "feeds.json", "1.entries", "journal")),
    ):
        file.write_bytes(damage)
    assert (state.load(), state.counts()) == (state.Memory(), state.Counts())
    assert (peers.recent_peers(), feeding.notes("threats")) == ((), {})
    assert Ledger("threats").book().few == {}
    with pytest.raises(PenstockError, match="history of eth0"):
        history.entries("eth0")
    with pytest.raises(PenstockError, match=r"feeds\.json"):
        subscriptions.owned("threats")
    with pytest.raises(PenstockError, match=r"1\.entries"):
        assert EntryFile(threats / "1.entries").count
