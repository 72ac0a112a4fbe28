"""`penstock drop 'EXPR' -i IF --for 2h`: stop a flood now, for a time."""

from __future__ import annotations

import click

from penstock.cli import output
from penstock.cli.options import (
    DURATION,
    duration_text,
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
@mode_option
@netns_option
@json_option
def command(expression: str, interface: str, seconds: float, mode: str, as_json: bool) -> None:
    """Drop what an expression matches, before any rule of the policy in place, for a time.

    It lapses by itself, also if every process of penstock has died by then; `penstock status` shows the time left,
    `penstock undrop` takes it back.
    """
    from penstock.cli.expiry import start_expiry
    from penstock.pipeline.emergency import start

    started = start(interface, expression, seconds, "drop", mode)
    start_expiry(interface)
    for notice in started.applied.notices:
        output.warn(notice)
    if as_json:
        content = {
            "interface": interface,
            "rule": started.rule.name,
            "expression": expression,
            "seconds": seconds,
        }
        output.record("penstock.drop/1", {**content, "until_boottime_ns": started.rule.until_ns})
        return
    output.answer(f"{started.rule.name}: dropping on {interface} for {duration_text(seconds)}: {expression}")
    output.note(f"`penstock undrop {started.rule.name} -i {interface}{netns_words()}` takes it back")
