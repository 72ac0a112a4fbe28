"""Attach a loaded program at its hook: where, how, and in which order among others.

In: a `Program`, an attach point, and a `Wish`.  Out: what holds the program, a
link or a filter on clsact; if the block around it fails, what was there is
there again.

    with put_on(program, point, Wish(order=FIRST), notices) as holder:
        …

At TC, `auto` is a tcx link where the kernel has them, which is tried and not
looked up by version, and a filter on clsact elsewhere.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from penstock.errors import NotSupportedError, PenstockError
from penstock.kernel.attached import CLSACT, TCX, mode_on
from penstock.kernel.clsact import plan_filter
from penstock.kernel.foreign import taken_place
from penstock.kernel.link import Link, LinkInfo, attach_xdp
from penstock.kernel.netlink import GENERIC, NATIVE, interfaces
from penstock.kernel.order import LAST, Order
from penstock.kernel.tcx import attach_tcx
from penstock.model.hook import Hook

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from penstock.kernel.attach_point import AttachPoint
    from penstock.kernel.program import Program
    from penstock.pipeline.slot import Holder

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Wish:
    """How a filter is to be attached.

    `mode` is one of the hook's (`MODES`) or `auto`; `order` the place among other
    programs at TC; `replace` takes over from other programs at XDP.
    """

    mode: str = AUTO
    order: Order | None = None
    replace: bool = False


MODES = {Hook.XDP: (NATIVE, GENERIC), Hook.TC_INGRESS: (TCX, CLSACT), Hook.TC_EGRESS: (TCX, CLSACT)}


def wishes(hooks: Sequence[Hook], wish: Wish) -> list[Wish]:
    """What is wished of each hook: a mode, an order or a replacement goes to the hooks that know it.

    Raises:
        PenstockError: one of the hooks is none of an interface, or none of them knows it.
    """
    if Hook.SOCKET in hooks:
        raise PenstockError(
            "a filter at socket is attached to a socket, not to an interface",
            hint="in Python: penstock.attach_socket(sock, policy)",
        )
    named = " or ".join(hook.value for hook in hooks)
    if wish.mode != AUTO and not any(wish.mode in MODES[hook] for hook in hooks):
        known = sorted({mode for hook in hooks for mode in MODES[hook]})
        raise PenstockError(f"{wish.mode} is no mode at {named}", hint=f"there are: {', '.join(known)}")
    if wish.replace and Hook.XDP not in hooks:
        raise PenstockError(
            f"nothing has to make room at {named}: programs run there one after the other",
            hint="--order says where among them",
        )
    if wish.order is not None and not any(hook.is_tc for hook in hooks):
        raise PenstockError(
            f"there is no order at {named}: one program runs there",
            hint="leave --order out; --replace takes the place of another program",
        )
    return [
        Wish(
            wish.mode if wish.mode in MODES[hook] else AUTO,
            wish.order if hook.is_tc else None,
            wish.replace and not hook.is_tc,
        )
        for hook in hooks
    ]


@contextmanager
def put_on(program: Program, point: AttachPoint, wish: Wish, notices: list[str]) -> Iterator[Holder]:
    """Attach a program for good if the block succeeds; if it does not, what was there is there again.

    Gives what holds it; a `Filter` holds nothing yet, and is for the block to
    `attach`.  What had to be done differently is added to `notices`.

    Raises:
        KernelError: another program is there and `wish.replace` is false, or the kernel refuses.
    """
    with ExitStack() as undo:
        if wish.replace:
            taken = undo.enter_context(taken_place(point.ifindex))
            notices.extend(f"took the place of {found}" for found in taken)
        link = (
            _attach_tc(program, point, wish, notices)
            if point.hook.is_tc
            else _attach(program, point, wish, notices)
        )
        undo.push(partial(_detach_after_failure, link))
        yield link


def _detach_after_failure(link: Holder, kind: object, _error: object, _at: object) -> None:
    # Closing would do it too, but later: the place must be free before its former owner comes back.
    if kind is not None:
        with link:
            link.detach()


def _attach(program: Program, point: AttachPoint, wish: Wish, notices: list[str]) -> Link:
    if wish.mode != AUTO:
        return attach_xdp(program, point.ifindex, mode=wish.mode)
    try:
        return attach_xdp(program, point.ifindex, mode=NATIVE)
    except NotSupportedError:
        notices.append(
            f"the driver of {point.ifname} refuses native XDP: generic mode is used, which is several times slower"
        )
        return attach_xdp(program, point.ifindex, mode=GENERIC)


def _attach_tc(program: Program, point: AttachPoint, wish: Wish, notices: list[str]) -> Holder:
    order = wish.order or LAST
    if wish.mode == CLSACT:
        return plan_filter(point.ifindex, point.hook, order)
    try:
        return attach_tcx(program, point.ifindex, point.hook, order)
    except NotSupportedError:
        if wish.mode != AUTO:
            raise
        notices.append(
            f"this kernel has no tcx links (Linux 6.6 and newer have): a clsact filter is used at {point.hook.value}"
        )
        return plan_filter(point.ifindex, point.hook, order)


def mode_of(info: LinkInfo) -> str:
    """The mode in which a program runs on its interface; empty when either is not here."""
    found = (place for place in interfaces() if place.index == info.ifindex)
    return next((mode_on(place, info) for place in found), "")
