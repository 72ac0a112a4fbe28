"""Put a hand-written program on an interface, at XDP or TC, and say how it is held there.

    with put_at(program, place, Hook.TC_INGRESS, Wanted(), notices) as held:
        …          # pins; if this raises, the program is off again

A `Link` holds the program from then on.  A `Filter`, where the kernel has no
tcx, holds nothing before its `attach`, so that what describes it is pinned
first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from penstock.errors import NotSupportedError, PenstockError
from penstock.kernel.attach_point import AttachPoint
from penstock.kernel.clsact import Filter, plan_filter
from penstock.kernel.link import Link
from penstock.kernel.order import LAST, Order
from penstock.kernel.program import Program
from penstock.kernel.tcx import attach_tcx
from penstock.model.hook import Hook
from penstock.pipeline.attach import AUTO, mode_of, put_on

TCX, CLSACT = "tcx", "clsact"
_MODES = {Hook.XDP: ("native", "generic"), Hook.TC_INGRESS: (TCX, CLSACT), Hook.TC_EGRESS: (TCX, CLSACT)}


@dataclass(frozen=True, slots=True)
class Wanted:
    """How it is to be attached; `order` is its place among others at TC, `replace` takes over at XDP."""

    mode: str = AUTO
    order: Order | None = None
    replace: bool = False


def check_wanted(hook: Hook, wanted: Wanted) -> None:
    """Make sure that the hook knows what is wanted of it.  Raises PenstockError."""
    modes = _MODES[hook]
    if wanted.mode not in (AUTO, *modes):
        raise PenstockError(
            f"{wanted.mode} is no mode at {hook.value}", hint=f"there are: {', '.join(modes)}"
        )
    if wanted.order is not None and not hook.is_tc:
        raise PenstockError(
            f"there is no order at {hook.value}: one program runs there", hint="--replace takes its place"
        )
    if wanted.replace and hook.is_tc:
        raise PenstockError(
            f"nothing has to make room at {hook.value}: programs run there one after the other",
            hint="--order says where among them",
        )


@contextmanager
def put_at(
    program: Program, place: AttachPoint, hook: Hook, wanted: Wanted, notices: list[str]
) -> Iterator[Link | Filter]:
    """Attach a program for good if the block succeeds; if it does not, what was there is there again.

    Raises:
        KernelError: another program is there, or the kernel refuses.
    """
    if hook is Hook.XDP:
        with put_on(program, place.ifindex, wanted.mode, notices, replace=wanted.replace) as link:
            yield link
        return
    with ExitStack() as undo:
        held = _at_tc(program, place, hook, wanted, notices)
        undo.push(partial(_off_after_failure, held))
        yield held


def mode_at(held: Link | Filter, place: AttachPoint, program: Program) -> str:
    """The mode in which a program is held."""
    if isinstance(held, Filter):
        return CLSACT
    return mode_of(place.ifindex, program.id) or TCX


def _at_tc(
    program: Program, place: AttachPoint, hook: Hook, wanted: Wanted, notices: list[str]
) -> Link | Filter:
    order = wanted.order or LAST
    if wanted.mode == CLSACT:
        return plan_filter(place.ifindex, hook, order)
    try:
        return attach_tcx(program, place.ifindex, hook, order)
    except NotSupportedError:
        if wanted.mode != AUTO:
            raise
    notices.append("this kernel has no tcx links (Linux 6.6 and newer have): a clsact filter is used")
    return plan_filter(place.ifindex, hook, order)


def _off_after_failure(held: Link | Filter, kind: object, _error: object, _at: object) -> None:
    if kind is not None:
        with held:
            held.detach()
