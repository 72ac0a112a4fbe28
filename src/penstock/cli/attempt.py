"""`penstock try 'EXPR' -i IF --for 30s`: what would a drop hit?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.interruption import Interruption
from penstock.cli.options import (
    DURATION,
    duration_text,
    hook_option,
    interface_option,
    json_option,
    mode_option,
    netns_option,
)

if TYPE_CHECKING:
    from penstock.pipeline.counters import Counter
    from penstock.pipeline.status import Status

_STEP_S = 1.0


@click.command("try")
@click.argument("expression", metavar="EXPR")
@interface_option()
@click.option("--for", "seconds", type=DURATION, default="30s", show_default=True, help="How long.")
@hook_option("Where; else at xdp.")
@mode_option
@netns_option
@json_option
def command(
    expression: str, interface: str, seconds: float, hook: str | None, mode: str, as_json: bool
) -> None:
    """Count what an expression would drop, for a time; nothing is dropped.

    The counting rule stands before the rules of the policy in place and is gone afterwards, also on Ctrl-C.
    """
    from penstock.cli.expiry import start_expiry
    from penstock.pipeline.emergency import end, start

    interruption, where = Interruption(), hook or "xdp"
    started = start(interface, expression, seconds, "audit", mode, hook=where)
    expiry = start_expiry(interface, where)
    last = None
    try:
        interruption.let_through()
        for notice in started.applied.notices:
            output.warn(notice)
        last = _follow(interface, where, started.rule.name, seconds)
    finally:
        interruption.hold()
        last = _read(interface, where, started.rule.name) or last
        with expiry:
            expiry.terminate()
        end(interface, started.rule.name, hook=where)
    _report(expression, interface, where, seconds, last, as_json)


def _follow(interface: str, hook: str, name: str, seconds: float) -> Counter | None:
    """Show the counts until shortly before the rule lapses."""
    end = time.monotonic() + seconds
    last = None
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(_STEP_S, left))
        last = _read(interface, hook, name) or last
        if last is not None and left > _STEP_S:
            output.note(f"{last.packets} packets, {last.bytes} bytes; {duration_text(left - _STEP_S)} left")
    return last


def _read(interface: str, hook: str, name: str) -> Counter | None:
    from penstock.pipeline.status import status

    found: Status | None = next((one for one in status(interface) if one.hook.value == hook), None)
    return found.counters.get(name) if found else None


def _report(
    expression: str, interface: str, hook: str, seconds: float, counted: Counter | None, as_json: bool
) -> None:
    packets, size = (counted.packets, counted.bytes) if counted else (0, 0)
    if as_json:
        content = {"interface": interface, "hook": hook, "expression": expression, "seconds": seconds}
        output.record("penstock.try/1", {**content, "packets": packets, "bytes": size})
        return
    output.answer(
        f"{packets} packets, {size} bytes in {duration_text(seconds)} would have been dropped: {expression}"
    )
