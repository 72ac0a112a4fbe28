"""Pins, attach points, locks and namespaces."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.netns import Namespace

from penstock.errors import KernelError, PrivilegeError
from penstock.kernel import netns, pin
from penstock.kernel.attach_point import attach_point, decode, encode
from penstock.kernel.features import features, is_bpffs
from penstock.kernel.lock import lock, lock_directory
from penstock.kernel.maps import Map, MapType
from penstock.kernel.netlink import interface
from penstock.model.hook import Hook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.kernel.bpf_object import BpfObject

pytestmark = pytest.mark.privileged


def make_map(name: str) -> Map:
    """A small map."""
    return Map.create(MapType.ARRAY, name, key_size=4, value_size=8, max_entries=1)


@pytest.fixture
def root(bpffs: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A pin root of the test's own; everything in it is removed at the end."""
    place = bpffs / f"root-{abs(hash(request.node.name))}"
    yield place
    for directory in place.iterdir() if place.exists() else ():
        pin.discard(directory)


def identities(root: Path, name: str) -> dict[str, int]:
    """Which maps are pinned: their ids."""
    found = {}
    for key, path in pin.pins(root, name).items():
        with Map.open(path) as opened:
            found[key] = opened.info.id
    return found


def test_a_bpf_file_system_of_another_user_is_a_missing_capability(bpffs: Path) -> None:
    closed = bpffs / "closed"
    closed.mkdir(mode=0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(PrivilegeError) as refused:
            pin.prepare_root(closed / "penstock")
    finally:
        os.seteuid(0)
        closed.rmdir()
    assert "CAP_BPF + CAP_NET_ADMIN + CAP_PERFMON" in str(refused.value)


def test_what_a_link_leads_to_is_not_removed(root: Path, tmp_path: Path) -> None:
    """The directory of pins is the daemon's user's, and root tidies up in it."""
    (kept := tmp_path / "kept").write_bytes(b"root's")
    pin.prepare_root(root)
    for name in ("%old-0123abcd-eth0", "eth0"):
        (root / name).symlink_to(tmp_path)
    assert pin.leftovers(root, "eth0") == []
    assert list(pin.attach_points(root)) == []
    with pytest.raises(KernelError):
        pin.discard(root / "%old-0123abcd-eth0")
    with pytest.raises(KernelError):
        pin.remove(root, "eth0")
    with make_map("one") as one, pytest.raises(KernelError):
        pin.exchange_pin(root / "%old-0123abcd-eth0", "one", one, without="k")
    assert kept.read_bytes() == b"root's"
    for link in root.iterdir():
        link.unlink()


def test_nothing_is_pinned_where_a_link_leads(root: Path, bpffs: Path) -> None:
    """Whoever has the directory may put a link in the place of one that root is about to fill."""
    pin.prepare_root(root)
    (elsewhere := bpffs / "elsewhere").mkdir()
    (root / "%new-0123abcd-eth0").symlink_to(elsewhere)
    with make_map("one") as one:
        with pytest.raises(NotADirectoryError):
            pin.put(one, root / "%new-0123abcd-eth0" / "one")
        assert list(elsewhere.iterdir()) == []
        (root / "%new-0123abcd-eth0").unlink()
        elsewhere.rename(root / "eth0")
        pin.put(one, root / "eth0" / "one")
        assert identities(root, "eth0") == {"one": one.info.id}
    pin.discard(root / "eth0")


def test_what_root_pins_belongs_to_whoever_has_the_directory(root: Path) -> None:
    pin.prepare_root(root)
    os.chown(root, 65534, 65534)
    with make_map("one") as one:
        staged = pin.stage(root, "eth0", {"one": one})
    try:
        assert {(found.stat().st_uid, found.stat().st_gid) for found in (staged, staged / "one")} == {
            (65534, 65534)
        }
        assert staged.stat().st_mode & 0o777 == 0o700
    finally:
        pin.discard(staged)
        os.chown(root, 0, 0)


def test_nothing_is_seen_before_it_is_published(root: Path) -> None:
    with make_map("one") as one, make_map("two") as two:
        staged = pin.stage(root, "eth0", {"link": one, "counters": two})
        assert list(pin.attach_points(root)) == []
        assert pin.pins(root, "eth0") == {}
        assert pin.leftovers(root, "eth0") == [staged]
        pin.publish(root, "eth0", staged)
        assert list(pin.attach_points(root)) == ["eth0"]
        assert identities(root, "eth0") == {"link": one.info.id, "counters": two.info.id}
        assert pin.leftovers(root, "eth0") == []


def test_a_second_set_takes_the_place_of_the_first_whole(root: Path) -> None:
    with make_map("old") as old, make_map("new") as new:
        pin.publish(root, "eth0", pin.stage(root, "eth0", {"link": old, "counters": old}))
        pin.publish(root, "eth0", pin.stage(root, "eth0", {"link": new}))
        assert identities(root, "eth0") == {"link": new.info.id}
        assert [entry.name for entry in root.iterdir()] == ["eth0"]


def test_a_reader_never_sees_half(root: Path) -> None:
    """A second process lists the pins without pause while they are replaced: it must meet only whole sets."""
    watch = (
        "import os, sys\n"
        "seen = set()\n"
        "print('ready', flush=True)\n"
        "while not os.path.exists(sys.argv[1] + '/stop'):\n"
        "    try: fd = os.open(sys.argv[1] + '/eth0', os.O_RDONLY)\n"
        "    except FileNotFoundError: seen.add('absent'); continue\n"
        "    here = os.stat(sys.argv[1] + '/eth0').st_ino\n"
        "    names = ' '.join(sorted(os.listdir(fd)))\n"
        "    if here == os.fstat(fd).st_ino == os.stat(sys.argv[1] + '/eth0').st_ino: seen.add(names)\n"
        "    os.close(fd)\n"
        "print(sorted(seen))\n"
    )
    with make_map("one") as one:
        pin.publish(root, "eth0", pin.stage(root, "eth0", {"a": one, "b": one}))
        with subprocess.Popen(
            [sys.executable, "-c", watch, str(root)], stdout=subprocess.PIPE, text=True
        ) as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
            for round_number in range(300):
                names = ("a", "b") if round_number % 2 else ("c", "d", "e")
                pin.publish(root, "eth0", pin.stage(root, "eth0", dict.fromkeys(names, one)))
            (root / "stop").mkdir()
            seen = reader.stdout.read().strip()
    assert "absent" not in seen
    assert set(eval(seen)) <= {"a b", "c d e"}


def test_where_bpffs_cannot_exchange_two_steps_end_the_same(root: Path) -> None:
    """Linux before 5.16; this kernel can, so the second way is called by its name."""
    with make_map("old") as old, make_map("new") as new:
        pin.publish(root, "eth0", pin.stage(root, "eth0", {"link": old}))
        staged = pin.stage(root, "eth0", {"link": new})
        leaving = pin._exchange_in_two_steps(root, "eth0", staged)
        assert identities(root, "eth0") == {"link": new.info.id}
        assert pin.leftovers(root, "eth0") == [leaving]


def test_removing_takes_everything_away(root: Path) -> None:
    with make_map("one") as one:
        pin.publish(root, "eth0", pin.stage(root, "eth0", {"link": one}))
        assert pin.remove(root, "eth0") is True
        assert pin.remove(root, "eth0") is False
        assert list(root.iterdir()) == []


def test_a_stage_that_fails_leaves_nothing(root: Path) -> None:
    with make_map("one") as one, make_map("closed") as closed:
        closed.close()
        with pytest.raises(ValueError, match="closed"):
            pin.stage(root, "eth0", {"link": one, "counters": closed})
        with pytest.raises(KernelError):
            pin.stage(root, "eth0", {"link": one, "a.dot": one})
        assert list(root.iterdir()) == []


def test_the_root_is_chosen_by_environment_or_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_BPFFS", raising=False)
    assert pin.pin_root() == Path("/sys/fs/bpf/penstock")
    monkeypatch.setenv("PENSTOCK_BPFFS", "/elsewhere")
    assert pin.pin_root() == Path("/elsewhere")


@pytest.mark.check(25)
def test_without_a_bpf_file_system_the_error_says_how_to_mount_it(tmp_path: Path, passing: BpfObject) -> None:
    root = tmp_path / "penstock"
    with pytest.raises(KernelError, match="no BPF file system is mounted there") as caught:
        pin.stage(root, "eth0", {"program": passing.programs["ps_pass"]})
    assert caught.value.hint == f"`mount -t bpf bpf {tmp_path}`"
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


_SAY_HINT = """
import sys
from pathlib import Path
from penstock.errors import KernelError
from penstock.kernel import pin
try:
    pin.prepare_root(Path(sys.argv[1]))
except KernelError as error:
    print(error.hint)
"""


@pytest.mark.check(25)
def test_in_a_namespace_the_hint_speaks_of_ip_netns_exec(tmp_path: Path) -> None:
    with Namespace("kernel-pin") as space:
        with space.inside(), pytest.raises(KernelError) as caught:  # Mounts as ever: there is none.
            pin.prepare_root(tmp_path / "penstock")
        assert caught.value.hint == f"`mount -t bpf bpf {tmp_path}`"
        argv = [
            "ip",
            "netns",
            "exec",
            space.name,
            sys.executable,
            "-c",
            _SAY_HINT,
            str(tmp_path / "penstock"),
        ]
        hint = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert f"use `penstock --netns {space.name}`" in hint
    assert "mount -t" not in hint


@pytest.mark.check(25)
def test_a_read_only_bpf_file_system_is_told_apart(tmp_path: Path, passing: BpfObject) -> None:
    subprocess.run(["mount", "-t", "bpf", "-o", "ro", "bpf", str(tmp_path)], check=True)
    try:
        with pytest.raises(KernelError, match="mounted read-only") as caught:
            pin.stage(tmp_path / "penstock", "eth0", {"program": passing.programs["ps_pass"]})
        assert caught.value.errno == errno.EROFS
        assert caught.value.hint == f"`mount -o remount,rw {tmp_path}`"
        subprocess.run(["mount", "-o", "remount,rw", str(tmp_path)], check=True)
        staged = pin.stage(tmp_path / "penstock", "eth0", {"program": passing.programs["ps_pass"]})
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with pytest.raises(KernelError, match="mounted read-only"):
            pin.publish(tmp_path / "penstock", "eth0", staged)
        with pytest.raises(KernelError, match="mounted read-only"):
            pin.prepare_root(tmp_path / "penstock")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize(
    "ifname", ["eth0", "eth0.100", "a%b", "x@y", "..5", "wlp0s20f3", "br-é", "%new-x", "a+b-c_d", "a:b"]
)
@pytest.mark.parametrize("namespace", [None, 4026532177])
@pytest.mark.parametrize("hook", [Hook.XDP, Hook.TC_INGRESS, Hook.TC_EGRESS])
def test_names_of_attach_points_read_back_and_suit_bpffs(
    root: Path, ifname: str, namespace: int | None, hook: Hook
) -> None:
    name = encode(ifname, namespace, hook)
    assert decode(name) == (ifname, namespace, hook)
    with make_map("one") as one:
        pin.publish(root, name, pin.stage(root, name, {"link": one}))
    assert list(pin.attach_points(root)) == [name]


def test_names_of_xdp_are_what_they_were_and_no_interface_has_the_name_of_another_hook() -> None:
    assert encode("eth0", None) == "eth0"
    assert encode("eth0", 7, Hook.TC_EGRESS) == "eth0:tc-egress@7"
    assert encode("eth0:tc-egress", None) != encode("eth0", None, Hook.TC_EGRESS)
    for other in ("eth0:tc", "eth0:xdp", "eth0@x", "eth.0", "%programs", "", "eth0:tc-egress@"):
        with pytest.raises(ValueError, match="no"):
            decode(other)


def test_an_attach_point_says_in_which_namespace_it_is() -> None:
    with Namespace("kernel-point") as space:
        with space.inside():
            point = attach_point("lo")
            assert (point.ifname, point.ifindex, point.netns) == ("lo", 1, space.path.stat().st_ino)
            assert point.name == f"lo@{space.path.stat().st_ino}"
            assert not netns.is_initial()
        assert netns.inode() != point.netns


def test_entering_a_namespace_moves_this_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    home = netns.inode()
    with Namespace("kernel-enter") as space:
        with netns.inside(space.name):
            assert netns.inode() == space.path.stat().st_ino
            with pytest.raises(KernelError):
                interface("eth0")
        assert netns.inode() == home


def test_an_unknown_namespace_is_named_with_those_that_exist() -> None:
    with Namespace("kernel-known") as space, pytest.raises(KernelError, match="no-such-space") as caught:
        netns.enter("no-such-space")
    assert space.name in str(caught.value.hint)


def test_a_file_that_is_no_namespace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KernelError, match="enter network namespace"):
        netns.enter(str(tmp_path / "file"))


HOLD = """
import sys
from penstock.kernel.lock import lock
with lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.check(16)
def test_a_lock_names_the_process_that_holds_it() -> None:
    name = f"ps-test-{os.getpid()}"
    argv = [sys.executable, "-c", HOLD, name]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(KernelError, match=f"busy: process {holder.pid}") as caught, lock(name):
            pass
        assert caught.value.errno == errno.EBUSY
        with lock(f"{name}-other"):
            pass
        holder.kill()
    with lock(name), pytest.raises(KernelError, match=f"process {os.getpid()}"), lock(name):
        pass
    with lock(name):
        pass
    for path in lock_directory().glob(f"{name}*"):
        path.unlink()


def test_locks_are_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And at their usual place again without it."""
    with lock("ps-test-there"):
        monkeypatch.setenv("PENSTOCK_LOCK_DIR", str(tmp_path))
        with lock("ps-test-there"):
            assert [path.name for path in tmp_path.iterdir()] == ["ps-test-there.lock"]
        monkeypatch.delenv("PENSTOCK_LOCK_DIR")
        assert lock_directory() == Path("/run/penstock")


def test_what_this_kernel_can_do_is_found_out(bpffs: Path, tmp_path: Path) -> None:
    found = features()
    assert found.bpf_permitted
    assert found.missing == ()
    assert found.xdp_link is True
    assert found.btf == Path("/sys/kernel/btf/vmlinux").exists()
    assert is_bpffs(bpffs)
    assert not is_bpffs(tmp_path)
    assert not is_bpffs(tmp_path / "nothing")
