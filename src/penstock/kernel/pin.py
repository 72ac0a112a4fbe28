"""Names in the BPF file system, so that a filter outlives the command that made it.

In: open maps, programs and links.  Out: a directory for each attach point,

    /sys/fs/bpf/penstock/eth0/{link,counters,identity}

that appears, changes and goes in one step: it is filled under another name and
then exchanged, so a reader never sees half of it and a crash leaves the old or
the new.  bpffs belongs to the mount namespace: pins are seen from every network
namespace, which is why the name of an attach point says where it is.

    staged = stage(root, "eth0", {"link": link, "counters": counters})
    publish(root, "eth0", staged)
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import KernelError
from penstock.kernel import libc, netns, syscall
from penstock.kernel.capability import BPF, NET_ADMIN, PERFMON, kernel_error, kernel_errors
from penstock.model.state_directory import make_place, open_directory, owner_of, remove_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from penstock.kernel.syscall import Descriptor

DEFAULT_ROOT = Path("/sys/fs/bpf/penstock")
_ENVIRONMENT = "PENSTOCK_BPFFS"
# The name of an attach point writes '%' as '%25', so no interface has one that
# begins like these; bpffs allows no leading dot.
_STAGED = "%new-"
_LEAVING = "%old-"
_TEMPORARY = re.compile(r"%(new|old)-[0-9a-f]{8}-(?P<name>.+)")


def pin_root() -> Path:
    """The directory of all pins: $PENSTOCK_BPFFS, else /sys/fs/bpf/penstock."""
    return Path(os.environ.get(_ENVIRONMENT) or DEFAULT_ROOT)


def prepare_root(root: Path) -> None:
    """Make the directory of all pins, readable by its owner alone, who is that of the directory above.

    Raises:
        KernelError: no BPF file system is mounted there, or it is read-only; the hint says how to mend it.
    """
    require_bpffs(root)
    try:
        make_place(root, 0o700)
    except OSError as error:
        raise _pin_error("create", root, error) from error
    if os.statvfs(root).f_flag & os.ST_RDONLY:
        raise _read_only("pin in", root)


def require_bpffs(root: Path, operation: str = "pin in") -> None:
    """Make sure that `root` is, or would be made, in a BPF file system.  Raises KernelError."""
    # The root of bpffs is root's alone by default, so that even `exists` is refused to others.
    with kernel_errors("look at", str(root), needs=(BPF, NET_ADMIN, PERFMON)):
        existing = next(place for place in (root, *root.parents) if place.exists())
        magic = libc.filesystem_magic(existing)
    if magic != libc.BPF_FS_MAGIC:
        raise KernelError(
            operation,
            str(root),
            errno.ENODEV,
            meaning="no BPF file system is mounted there",
            hint=_mount_hint(root),
        )


def require_visible(root: Path) -> None:
    """Make sure that pins which are not found are not merely hidden by `ip netns exec`.  Raises KernelError."""
    if netns.hiding():
        require_bpffs(root, "look for pins in")


def stage(root: Path, name: str, objects: Mapping[str, Descriptor]) -> Path:
    """Pin `objects` in a new directory that no reader looks at.  On failure nothing is left of it.

    Raises:
        KernelError: no usable BPF file system, or a pin was refused.
    """
    prepare_root(root)
    staged = root / f"{_STAGED}{os.urandom(4).hex()}-{name}"
    with ExitStack() as undo:
        undo.callback(discard, staged)
        try:
            make_place(staged, 0o700)
            for pin, held in objects.items():
                put(held, staged / pin)
        except OSError as error:
            raise _pin_error("pin", root / name, error) from error
        undo.pop_all()
    return staged


def publish(root: Path, name: str, staged: Path) -> None:
    """Make a staged directory the pins of `name`, in one step; the old pins are gone afterwards.

    Raises:
        KernelError: the exchange failed; the old pins are still in place.
    """
    place = root / name
    try:
        if not place.exists():
            staged.rename(place)
            return
        old = _exchange(root, name, staged)
    except OSError as error:
        raise _pin_error("publish", place, error) from error
    discard(old)


def _exchange(root: Path, name: str, staged: Path) -> Path:
    """Put `staged` in its place and give the path that the old directory now has."""
    try:
        libc.exchange(staged, root / name)
    except OSError as error:
        # bpffs exchanges from Linux 5.16 on.  Before, a reader may for a moment find nothing.
        if error.errno != errno.EINVAL:
            raise
        return _exchange_in_two_steps(root, name, staged)
    return staged


def _exchange_in_two_steps(root: Path, name: str, staged: Path) -> Path:
    leaving = _leaving(root, name)
    (root / name).rename(leaving)
    staged.rename(root / name)
    return leaving


def exchange_pin(directory: Path, name: str, held: Descriptor, *, without: str) -> None:
    """Let a pin name another object, in one step, and then remove the pins whose names begin with `without`.

    Raises:
        KernelError: it cannot be changed; the pins are as they were.
    """
    aside = directory / f"{name}-new"
    try:
        remove_files(directory, lambda found: found == aside.name)
        put(held, aside)
        aside.rename(directory / name)
        remove_files(directory, lambda leftover: leftover.startswith(without))
    except OSError as error:
        raise _pin_error("change", directory / name, error) from error


def remove(root: Path, name: str, ending: Callable[[], object] | None = None) -> bool:
    """Take the pins of `name` away; False when there were none.

    What only the pins kept alive ends with them: an unheld link detaches its program.
    What they only tell of has to be ended by `ending`, called when no reader finds them
    any more and all are still there: whoever is killed meanwhile leaves enough to go on
    from, and if it fails they have their name again.
    """
    leaving = _leaving(root, name)
    try:
        (root / name).rename(leaving)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _pin_error("remove", root / name, error) from error
    with ExitStack() as undo:
        undo.callback(leaving.rename, root / name)
        if ending is not None:
            ending()
        undo.pop_all()
    discard(leaving)
    return True


def discard(directory: Path) -> None:
    """Remove one directory of pins.  Raises KernelError."""
    try:
        remove_files(directory, lambda _name: True)
        directory.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _pin_error("remove", directory, error) from error


def pins(root: Path, name: str) -> dict[str, Path]:
    """The pins of an attach point by their names; none when it has no directory."""
    with kernel_errors("list", str(root / name)):
        try:
            return {path.name: path for path in sorted((root / name).iterdir())}
        except FileNotFoundError:
            return {}


def attach_points(root: Path) -> Iterator[str]:
    """The names of the attach points that have pins, sorted.

    Raises:
        KernelError: they may not be read, or `ip netns exec` hides them.
    """
    from penstock.kernel.attach_point import decode

    for path in _directories(root):
        try:
            decode(path.name)
        except ValueError:
            continue
        if not _TEMPORARY.fullmatch(path.name):
            yield path.name


def leftovers(root: Path, name: str) -> list[Path]:
    """Staged or leaving directories of `name`, which a killed command left if you hold the lock."""
    matches = ((path, _TEMPORARY.fullmatch(path.name)) for path in _directories(root))
    return [path for path, match in matches if match and match["name"] == name]


def discard_leftovers(root: Path, name: str) -> None:
    """Remove them.  Hold the lock of `name`.  Raises KernelError."""
    for left in leftovers(root, name):
        discard(left)


def unfinished(root: Path) -> list[str]:
    """The names of the attach points of which there are leftovers, sorted."""
    matches = (_TEMPORARY.fullmatch(path.name) for path in _directories(root))
    return sorted({match["name"] for match in matches if match})


def swap(root: Path, one: str, other: str) -> None:
    """Let two directories of pins change names.

    Raises:
        OSError: they cannot; both have their old names.
    """
    try:
        libc.exchange(root / one, root / other)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        aside = root / f"~{other}"
        (root / other).rename(aside)
        (root / one).rename(root / other)
        aside.rename(root / one)


def put(held: Descriptor, path: Path) -> None:
    """Give an object this name, for whoever has the directory.  Raises OSError; it may be no link."""
    # Another user's directory may be put aside, and a link into its place, between any two of these.
    directory = open_directory(path.parent, follows_links=False)
    try:
        syscall.pin(held.fd, f"/proc/self/fd/{directory}/{path.name}")
        if owner := owner_of(directory):
            os.chown(path.name, *owner, dir_fd=directory, follow_symlinks=False)
    finally:
        os.close(directory)


def _leaving(root: Path, name: str) -> Path:
    return root / f"{_LEAVING}{os.urandom(4).hex()}-{name}"


def _directories(root: Path) -> list[Path]:
    with kernel_errors("list", str(root)):
        try:
            return sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink())
        except FileNotFoundError:
            require_visible(root)
            return []


def _pin_error(operation: str, path: Path, error: OSError) -> KernelError:
    if error.errno == errno.EROFS:
        return _read_only(operation, path)
    return kernel_error(operation, str(path), error.errno or 0)


def _read_only(operation: str, path: Path) -> KernelError:
    meaning, hint = "the BPF file system is mounted read-only", f"`mount -o remount,rw {_mount_place(path)}`"
    if "NOTIFY_SOCKET" in os.environ:
        # A unit may write to directories that were there when it was started, and to nothing beside them.
        hint = "somebody took the daemon's directory there away: `systemctl restart penstock` makes it anew"
    return KernelError(operation, str(path), errno.EROFS, meaning=meaning, hint=hint)


def _mount_place(path: Path) -> Path:
    """Where the file system of `path` is mounted, or where one is expected."""
    existing = (place for place in (path, *path.parents) if place.exists())
    return next((place for place in existing if os.path.ismount(place)), DEFAULT_ROOT.parent)


def _mount_hint(root: Path) -> str:
    place = DEFAULT_ROOT.parent if root == DEFAULT_ROOT else root.parent
    name = netns.hiding()
    if name is None:
        return f"`mount -t bpf bpf {place}`"
    # `ip netns exec` mounts a new /sys, in a mount namespace that ends with the
    # command: a bpffs mounted there would take the pins with it.
    return f"`ip netns exec` hides /sys/fs/bpf: use `penstock --netns {name}`, or `nsenter --net=/run/netns/{name}`"
