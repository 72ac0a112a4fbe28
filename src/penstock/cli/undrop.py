"""`penstock undrop [NAME] -i IF`: take emergency rules back before their time."""

from __future__ import annotations

import click

from penstock.cli import output
from penstock.cli.confirm import report_overdue
from penstock.cli.options import hook_option, interface_option, json_option, netns_option


@click.command("undrop")
@click.argument("name", required=False)
@interface_option()
@hook_option("At which hook; else xdp, or the only one with a filter.")
@netns_option
@json_option
def command(name: str | None, interface: str, hook: str | None, as_json: bool) -> None:
    """Take back one emergency rule (`drop#1`), or all of them; the policy itself stays as it is."""
    from penstock.pipeline.emergency import cancel

    report_overdue()
    taken = cancel(interface, name, hook=hook)
    if as_json:
        output.record("penstock.undrop/1", {"interface": interface, "rules": [rule.name for rule in taken]})
        return
    for rule in taken:
        output.answer(f"{rule.name}: taken back on {interface}: {rule.expression}")
