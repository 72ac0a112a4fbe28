"""`penstock drop 'EXPR' -i IF --for 2h`: stop a flood now, for a time."""

from __future__ import annotations

import click

from penstock.cli import output
from penstock.cli.confirm import report_overdue
from penstock.cli.options import (
    DURATION,
    duration_text,
    hook_option,
    hook_words,
    interface_option,
    json_option,
    mode_option,
    netns_option,
    netns_words,
)


@click.command("drop")
@click.argument("expression", metavar="EXPR")
@interface_option()
@click.option("--for", "seconds", type=DURATION, required=True, help="How long: 30s, 10m, 2h.")
@hook_option("Where; else at xdp.")
@mode_option
@netns_option
@json_option
def command(
    expression: str, interface: str, seconds: float, hook: str | None, mode: str, as_json: bool
) -> None:
    """Drop what an expression matches, before any rule of the policy in place, for a time.

    It lapses by itself, also if every process of penstock has died by then; `penstock status` shows the time left,
    `penstock undrop` takes it back.
    """
    from penstock.cli.expiry import start_expiry
    from penstock.pipeline.emergency import start

    report_overdue()
    where = hook or "xdp"
    started = start(interface, expression, seconds, "drop", mode, hook=where)
    start_expiry(interface, where)
    for notice in started.applied.notices:
        output.warn(notice)
    if as_json:
        content = {
            "interface": interface,
            "hook": where,
            "rule": started.rule.name,
            "expression": expression,
            "seconds": seconds,
        }
        output.record("penstock.drop/1", {**content, "until_boottime_ns": started.rule.until_ns})
        return
    output.answer(f"{started.rule.name}: dropping on {interface} for {duration_text(seconds)}: {expression}")
    output.note(
        f"`penstock undrop {started.rule.name} -i {interface}{hook_words(where)}{netns_words()}` takes it back"
    )
