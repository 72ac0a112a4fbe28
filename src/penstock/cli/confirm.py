"""`penstock confirm`: a policy on probation stays, or with --undo goes at once."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.options import interface_option, json_option, netns_option
from penstock.errors import KernelError, PenstockError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.pipeline.probation import Ended


@click.command("confirm")
@interface_option(required=False)
@click.option("--undo", is_flag=True, help="Put back at once what was there before.")
@netns_option
@json_option
def command(interface: str | None, undo: bool, as_json: bool) -> int:
    """Let policies that were applied with --confirm stay: all of them, or those of an interface.

    Exits with 7 if one was taken back already, because its time was over.
    """
    from penstock.pipeline import probation

    late = probation.end_overdue()
    done = probation.undo(interface) if undo else probation.confirm(interface)
    remember((*late, *done))
    for ended in (*late, *done):
        report(ended, as_json)
    gone = _gone(interface) if not undo and not done and not late else ()
    for name in gone:
        output.warn(f"{name} was on probation and is not there any more: it was taken back, or taken off")
    if not done and not late and not gone and not as_json:
        output.note("no policy is on probation")
    return 7 if (late or gone) and not undo else 0


def _gone(interface: str | None) -> tuple[str, ...]:
    """The policies for which a confirmation comes too late: what the history does not tell is none."""
    from penstock.pipeline import history, probation

    try:
        last = history.last_on_probation(interface)
    except PenstockError:
        return ()
    return tuple(
        one.name for entry in last if probation.outcome(entry.token) is False for one in entry.filters
    )


def report(ended: Ended, as_json: bool) -> None:
    """Tell how a probation has ended."""
    for notice in ended.notices:
        output.warn(notice)
    if as_json:
        content = {
            "interface": ended.interface,
            "hook": ended.hook,
            "policy": ended.name,
            "confirmed": ended.is_confirmed,
            "restored": ended.restored,
        }
        output.record("penstock.confirm/1", content)
        return
    output.answer(f"{ended.name}: {_outcome(ended)}")


def _outcome(ended: Ended) -> str:
    where = f"{ended.interface} at {ended.hook}"
    if ended.is_confirmed:
        return f"confirmed on {where}"
    if ended.restored is None:
        return f"taken off {where}, where nothing was before"
    return f"taken back on {where}, {ended.restored} is there again"


def remember(done: Sequence[Ended]) -> None:
    """Write down how probations have ended; a warning where that cannot be."""
    from penstock.pipeline import probation

    try:
        probation.remember(done)
    except PenstockError as error:
        output.warn(error.message)


def report_overdue() -> None:
    """End the probations whose time is over, which their own process should have done, and say so."""
    from penstock.pipeline.probation import end_overdue

    try:
        late = end_overdue()
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        # What is damaged must not keep `status` from telling, nor `detach` and `apply` from mending it.
        output.warn(f"a policy on probation cannot be taken back: {error.message}")
        return
    remember(late)
    for ended in late:
        output.warn(f"nobody has confirmed {ended.name}: {_outcome(ended)}")
