"""Which pins belong to which interface, while interfaces are renamed, moved, deleted and made again.

    find(root, attach_point("wan"))       ->  "eth0": applied to eth0, which is called wan now
    follow(root, "eth0", point)           ->  "wan": the pins have the interface's name again

A directory of pins has the name that the interface had at the last command.
What tells where a filter really is, is the kernel: the program of its link is
on an interface of this network namespace, or on none.  An index alone does not
tell, because other namespaces use the same numbers.
"""

from __future__ import annotations

from pathlib import Path

from penstock.errors import KernelError
from penstock.kernel import netns, pin
from penstock.kernel.attach_point import AttachPoint, decode, encode
from penstock.kernel.capability import kernel_errors
from penstock.kernel.link import Link, LinkInfo
from penstock.kernel.lock import lock
from penstock.kernel.netlink import Interface, interfaces
from penstock.pipeline.slot import LINK, settle


class Places:
    """The interfaces of this network namespace at one time, by the programs that run on them."""

    def __init__(self) -> None:
        self._found = {(found.index, program.id): found for found in interfaces() for program in found.xdp}

    def of(self, link: LinkInfo) -> Interface | None:
        """The interface that a link's program runs on; None when it is gone, or in another namespace."""
        return self._found.get((link.ifindex, link.program_id))


def names_here(root: Path) -> list[str]:
    """The names of the pins that were made in this network namespace, or whose filter runs in it, sorted."""
    here, places = namespace(), Places()
    return [
        name for name in pin.attach_points(root) if decode(name)[1] == here or _runs_in(places, root / name)
    ]


def find(root: Path, point: AttachPoint) -> str | None:
    """The name of the pins of an interface, None when it has none.

    Pins of its own name whose link is defunct, or missing, are its own too: it
    has been away and come back.  For an interface that is not here (index 0)
    they are those of its name.
    """
    places = Places()
    for name in pin.attach_points(root):
        found = _link_of(root / name)
        if found is not None and (place := places.of(found)) is not None and place.index == point.ifindex:
            return name
    if not (root / point.name).exists():
        return None
    own = _link_of(root / point.name)
    return point.name if own is None or own.ifindex == 0 or point.ifindex == 0 else None


def follow(root: Path, name: str, point: AttachPoint) -> str:
    """Name the pins of an interface after it; the name they have now.  Hold the lock of `point`.

    Pins of that name whose interface is gone are removed; those of a filter
    that runs elsewhere by now get the free name, and are found by their link.

    Raises:
        KernelError: another process is changing these pins (errno EBUSY).
    """
    if name == point.name:
        return name
    with lock(name), kernel_errors("rename pins of", point.ifname):
        settle(root, name)
        if _is_alive(root / point.name):
            pin.swap(root, name, point.name)
        else:
            pin.remove(root, point.name)
            (root / name).rename(root / point.name)
    return point.name


def make_room(root: Path, point: AttachPoint) -> None:
    """Rename pins of this name whose filter runs on another interface by now.  Hold the lock of `point`."""
    found = _link_of(root / point.name)
    if found is None or found.ifindex == 0:
        return
    place = Places().of(found)
    wanted = encode(place.name, namespace()) if place else point.name
    with kernel_errors("rename pins of", point.ifname):
        (root / point.name).rename(root / _free_name(root, wanted))


def settle_what_is_free(root: Path) -> None:
    """Finish what killed commands left in this namespace, apart from what a living command is at work on."""
    for name in pin.unfinished(root):
        if decode(name)[1] == namespace():
            try:
                with lock(name):
                    settle(root, name)
            except KernelError:
                continue


def true_name(ifname: str) -> str:
    """The name of the pins of an interface of this network namespace, whether or not the interface exists."""
    return encode(ifname, namespace())


def namespace() -> int | None:
    """This network namespace as names tell it: None for the initial one."""
    return None if netns.is_initial() else netns.inode()


def _free_name(root: Path, wanted: str) -> str:
    """`eth0`, or `eth0~2` and so on where that is taken: pins of an interface that has lost its name to another."""
    ifname, at, namespace = wanted.partition("@")
    candidates = (wanted, *(f"{ifname}~{number}{at}{namespace}" for number in range(2, 1000)))
    return next(name for name in candidates if not (root / name).exists())


def _runs_in(places: Places, directory: Path) -> bool:
    found = _link_of(directory)
    return found is not None and places.of(found) is not None


def _is_alive(directory: Path) -> bool:
    found = _link_of(directory)
    return found is not None and found.ifindex != 0


def _link_of(directory: Path) -> LinkInfo | None:
    """What the link of a directory ties together; None without a link that can be read."""
    if not (directory / LINK).exists():
        return None
    try:
        with Link.open(directory / LINK) as link:
            return link.info()
    except KernelError:
        return None
