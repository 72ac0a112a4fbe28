"""What penstock keeps: whole files, for those to whom the directory belongs, and never through their links."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

from penstock.daemon import state
from penstock.errors import PenstockError
from penstock.feeds.store import FeedState, Store
from penstock.kernel.lock import open_lock
from penstock.model import moment
from penstock.model.moment import Moment
from penstock.model.state_directory import make_place, read_kept, state_directory, write_atomically
from penstock.pipeline import feeding, history, peers, subscriptions
from penstock.pipeline.entry_file import EntryFile
from penstock.pipeline.fetch_user import fetches_as
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


def linked(place: Path, to: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(to)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What whoever has the state directory may not touch, and would have root touch."""
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(tmp_path / "state"))
    place = tmp_path / "root"
    (place / "threats" / "deep").mkdir(parents=True)
    for file in ("threats/journal", "threats/1.entries", "threats/kept", "threats/feeds.json"):
        (place / file).write_bytes(b"root's, without an end of line")
    return place


@pytest.mark.parametrize("link", ["sets", "sets/threats", "sets/threats/journal"])
def test_a_ledger_is_not_written_truncated_or_removed_through_a_link(elsewhere: Path, link: str) -> None:
    before = {path: path.is_file() and path.read_bytes() for path in elsewhere.rglob("*")}
    linked(state_directory() / link, elsewhere / Path(link).relative_to("sets"))
    ledger = Ledger("threats")
    with pytest.raises(PenstockError), ledger.changing():
        ledger.append(Line("add", Moment(0.0, 0, "one"), "root", (("192.0.2.9/32", 0),)))
    with pytest.raises(PenstockError):
        subscriptions.subscribe("threats", subscriptions.Subscription("tor-exits"))
    if link != "sets/threats/journal":
        with pytest.raises(PenstockError):
            ledger.forget()
    assert {path: path.is_file() and path.read_bytes() for path in elsewhere.rglob("*")} == before


def test_feeds_and_history_are_not_written_or_removed_through_a_link(elsewhere: Path) -> None:
    before = sorted(elsewhere.rglob("*"))
    linked(state_directory() / "feeds", elsewhere)
    linked(state_directory() / "history", elsewhere)
    with pytest.raises(PenstockError):
        Store().write("threats", FeedState())
    with pytest.raises(PenstockError):
        Store().forget("threats")
    with pytest.raises(PenstockError), history._writing():
        pass
    with pytest.raises(OSError, match=r"link|directory"):
        make_place(state_directory() / "feeds" / "new" / "deep")
    with pytest.raises(OSError, match="leads out"):
        read_kept(state_directory() / "history/policies/../../../root/threats/kept")
    assert sorted(elsewhere.rglob("*")) == before


def test_a_pipe_keeps_nobody_waiting_and_what_has_no_end_is_not_read(elsewhere: Path) -> None:
    place = state_directory() / "sets" / "threats"
    place.mkdir(parents=True)
    os.mkfifo(place / "journal")
    os.mkfifo(place / "1.entries")
    (place / "feeds.json").symlink_to("/dev/zero")
    with pytest.raises(PenstockError, match="no regular file"):
        Ledger("threats").book()
    with pytest.raises(PenstockError, match="no regular file"):
        EntryFile(place / "1.entries").check()
    with pytest.raises(PenstockError, match="link"):
        subscriptions.owned("threats")


@pytest.fixture
def state_of_another(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory that another user can reach: pytest's own are root's alone."""
    with TemporaryDirectory() as name:
        os.chmod(name, 0o755)  # noqa: PTH101
        place = Path(name) / "state"
        monkeypatch.setenv("PENSTOCK_STATE_DIR", str(place))
        monkeypatch.setenv("SECRET_OF_ROOT", "hush")
        make_place(place)
        command = "id -u; id -G; grep CapPrm /proc/self/status; env"
        source = f"exec:sh -c '({command}) > $PENSTOCK_STATE_DIR/feeds/seen; echo 198.51.100.7'"
        subscriptions.subscribe("threats", subscriptions.Subscription(source))
        yield place


@pytest.mark.privileged
@pytest.mark.parametrize(("how", "owned"), [("fetch --once", ""), ("refresh", "sets/threats/feeds.json")])
def test_commands_of_a_feed_are_roots_only_where_nobody_else_has_named_them(
    state_of_another: Path, how: str, owned: str
) -> None:
    make_place(state_of_another / "feeds")
    for place in (owned, "feeds"):
        os.chown(state_of_another / place, *OWNER)
    done = subprocess.run(
        [sys.executable, "-m", "penstock", "feed", *how.split()], capture_output=True, text=True
    )
    seen = (state_of_another / "feeds/seen").read_text().splitlines()
    assert seen[:3] == ["65534", "65533", "CapPrm:\t0000000000000000"], done
    assert not [one for one in seen if one.startswith("SECRET_OF_ROOT")]
    assert [Store().state(name).entries for name in Store().names()] == [1]


@pytest.mark.privileged
def test_where_all_is_roots_feeds_are_asked_as_root(state_of_another: Path) -> None:
    assert fetches_as() is None
    (state_of_another / "feeds").symlink_to("/root")
    os.chown(state_of_another, *OWNER)
    # A link of whoever has the directory, to something of root's, makes nobody root.
    assert fetches_as() == OWNER


@pytest.mark.privileged
def test_a_built_policy_that_another_could_have_written_is_not_loaded_by_root(state_of_another: Path) -> None:
    entry = history.Entry("0" * 64, (), "edge.pso", "", 0, "apply", is_built=True)
    make_place(state_of_another / "history" / "policies")
    (state_of_another / "history/policies" / entry.digest).write_bytes(b"")
    history._refuse_of_another(entry)
    os.chown(state_of_another / "history", *OWNER)
    with pytest.raises(PenstockError, match="user 65534 can write"):
        history._refuse_of_another(entry)


def test_what_is_known_of_namespaces_that_are_gone_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MOST_NAMESPACES", 2)
    make_place(tmp_path / "policies")
    now = moment.boot_id()
    files = {"eth0": "", "4026532%a": "an earlier one", "1%v0": now, "2%v0": now, "3%v0": now}
    for age, (name, boot) in enumerate(files.items()):
        digest = f"{age:064}"
        entry = history.Entry(digest, (), "edge.policy", "", 0, "apply", boot=boot)
        (tmp_path / f"{name}.json").write_bytes(msgspec.json.encode((entry,)))
        os.utime(tmp_path / f"{name}.json", ns=(age, age))
        (tmp_path / "policies" / digest).write_bytes(b"")
    history._forget_unused(tmp_path)
    assert {path.stem for path in tmp_path.glob("*.json")} == {"eth0", "2%v0", "3%v0"}
    assert {int(path.name) for path in (tmp_path / "policies").iterdir()} == {0, 3, 4}
