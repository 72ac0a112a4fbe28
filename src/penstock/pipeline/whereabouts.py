"""Which pins belong to which interface, while interfaces are renamed, moved, deleted and made again.

    find(root, attach_point("wan"))       ->  "eth0": applied to eth0, which is called wan now
    follow(root, "eth0", point)           ->  "wan": the pins have the interface's name again

A directory of pins has the name that the interface had at the last command.
What tells where a filter really is, is the kernel: the program of its link is
on an interface of this network namespace, or on none (a filter on clsact is
known by its name, slot.py).  An index alone does not
tell, because other namespaces use the same numbers.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from penstock.errors import KernelError, PenstockError
from penstock.kernel import pin
from penstock.kernel.attach_point import AttachPoint, attach_point, decode, encode, here
from penstock.kernel.attached import mode_on
from penstock.kernel.capability import kernel_errors
from penstock.kernel.clsact import Filter
from penstock.kernel.link import LinkInfo
from penstock.kernel.lock import lock
from penstock.kernel.netlink import Interface, interfaces
from penstock.model.hook import Hook
from penstock.pipeline import program_slot
from penstock.pipeline.slot import open_holder, settle

#: The hooks of an interface.
HOOKS = (Hook.XDP, Hook.TC_INGRESS, Hook.TC_EGRESS)


class Places:
    """The interfaces of this network namespace at one time, and what runs on them."""

    def __init__(self) -> None:
        self._found = {found.index: found for found in interfaces()}

    def of(self, link: LinkInfo) -> Interface | None:
        """The interface that a link's program runs on; None when it is gone, or in another namespace."""
        found = self._found.get(link.ifindex)
        return found if found is not None and mode_on(found, link) else None


def names_here(root: Path) -> list[str]:
    """The names of the pins that were made in this network namespace, or whose filter runs in it, sorted."""
    own, places = here(), Places()
    return [
        name for name in pin.attach_points(root) if decode(name).netns == own or _runs_in(places, root / name)
    ]


def find(root: Path, point: AttachPoint) -> str | None:
    """The name of the pins of an attach point, None when it has none.

    Pins of its own name whose link is defunct, or missing, are its own too: it
    has been away and come back.  For an interface that is not here (index 0)
    they are those of its name.
    """
    places = Places()
    for name in pin.attach_points(root):
        if decode(name).hook is not point.hook:
            continue
        found = _link_of(root / name)
        if found is not None and (place := places.of(found)) is not None and place.index == point.ifindex:
            return name
    if not (root / point.name).exists():
        return None
    own = _link_of(root / point.name)
    return point.name if own is None or own.ifindex == 0 or point.ifindex == 0 else None


def is_used(root: Path, ifname: str, hook: Hook) -> bool:
    """Whether an interface of that name has pins at a hook, or has left some."""
    try:
        point = attach_point(ifname, hook)
    except KernelError:
        return true_name(ifname, hook) in names_here(root)
    return find(root, point) is not None


def chosen_hook(root: Path, ifname: str, hook: str | None) -> Hook:
    """The hook that was named; else XDP, or the only one where the interface has a filter.

    Raises:
        PenstockError: both directions of TC have one, and XDP none.
    """
    if hook is not None:
        return Hook(hook)
    used = [one for one in HOOKS if is_used(root, ifname, one)]
    if len(used) > 1 and Hook.XDP not in used:
        listed = " and ".join(one.value for one in used)
        raise PenstockError(f"{ifname} has filters at {listed}", hint="say which with --hook")
    return used[0] if used else Hook.XDP


def owns_clsact(root: Path, point: AttachPoint) -> bool:
    """Whether penstock made the clsact of an interface, for a filter in the other direction or a program."""
    if any(
        one.owns_qdisc and (one.ifindex, one.netns) == (point.ifindex, point.netns)
        for one in program_slot.kept()
    ):
        return True
    for hook in HOOKS:
        name = find(root, replace(point, hook=hook)) if hook.is_tc and hook is not point.hook else None
        link = open_holder(root / name) if name else None
        if link is not None:
            with link:
                return isinstance(link, Filter) and link.owns_qdisc
    return False


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
    wanted = encode(place.name, here(), point.hook) if place else point.name
    with kernel_errors("rename pins of", point.ifname):
        (root / point.name).rename(root / _free_name(root, wanted))


def settle_what_is_free(root: Path) -> None:
    """Finish what killed commands left in this namespace, apart from what a living command is at work on."""
    for name in pin.unfinished(root):
        if decode(name).netns == here():
            try:
                with lock(name):
                    settle(root, name)
            except KernelError:
                continue


def true_name(ifname: str, hook: Hook = Hook.XDP) -> str:
    """The name of the pins of an interface of this network namespace, whether or not the interface exists."""
    return encode(ifname, here(), hook)


def _free_name(root: Path, wanted: str) -> str:
    """`eth0`, or `eth0~2` and so on where that is taken: pins of an interface that has lost its name to another."""
    end = re.search("[:@]|$", wanted)
    assert end is not None
    ifname, rest = wanted[: end.start()], wanted[end.start() :]
    candidates = (wanted, *(f"{ifname}~{number}{rest}" for number in range(2, 1000)))
    return next(name for name in candidates if not (root / name).exists())


def _runs_in(places: Places, directory: Path) -> bool:
    found = _link_of(directory)
    return found is not None and places.of(found) is not None


def _is_alive(directory: Path) -> bool:
    found = _link_of(directory)
    return found is not None and found.ifindex != 0


def _link_of(directory: Path) -> LinkInfo | None:
    """What the link of a directory ties together; None without a link that can be read."""
    link = open_holder(directory)
    if link is None:
        return None
    with link:
        try:
            return link.info()
        except KernelError:
            return None
