"""What runs on a hook of an interface, whoever put it there, in the order in which packets meet it.

    programs_at(4, Hook.TC_INGRESS)   ->  (AttachedProgram("tcx", 57, 9), AttachedProgram("clsact", 42, …))

A tcx program comes before every filter on clsact, whatever its priority.
"""

from __future__ import annotations

from penstock.errors import NotSupportedError
from penstock.kernel import clsact, tcx
from penstock.kernel.clsact import CLSACT_FILTER
from penstock.kernel.link import TCX_LINK, AttachedProgram, LinkInfo, attached
from penstock.kernel.netlink import Interface
from penstock.model.hook import Hook

TCX, CLSACT = "tcx", "clsact"


def programs_at(ifindex: int, hook: Hook) -> tuple[AttachedProgram, ...]:
    """The programs on a hook.  Raises KernelError: no such interface, or it may not be asked."""
    if not hook.is_tc:
        return attached(ifindex)
    by_priority = clsact.filters(ifindex, hook)
    return (
        *(AttachedProgram(TCX, found.id, found.link_id) for found in _tcx(ifindex, hook)),
        *(AttachedProgram(CLSACT, one.program_id, None, one.priority, one.kind) for one in by_priority),
    )


def mode_on(place: Interface, info: LinkInfo) -> str:
    """The mode in which a link's or a filter's program runs on an interface; empty when it does not."""
    if place.index != info.ifindex:
        return ""
    if info.type == CLSACT_FILTER:
        return CLSACT
    if info.type == TCX_LINK:
        hook = next(hook for hook, number in tcx.ATTACH_TYPES.items() if number == info.attach_type)
        return TCX if any(found.link_id == info.id for found in _tcx(place.index, hook)) else ""
    return next((found.mode for found in place.xdp if found.id == info.program_id), "")


def _tcx(ifindex: int, hook: Hook) -> tuple[tcx.TcxProgram, ...]:
    try:
        return tcx.query(ifindex, hook).programs
    except NotSupportedError:
        return ()
