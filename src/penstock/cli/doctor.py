"""`penstock doctor [-i IF]`: what is in the way of penstock here, each with the command that mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.options import interface_option, json_option, netns_option

if TYPE_CHECKING:
    from penstock.pipeline.findings import Finding

_PREVENTED = 3


@click.command("doctor")
@interface_option(required=False)
@netns_option
@json_option
def command(interface: str | None, as_json: bool) -> None:
    """Look at this machine, and at an interface, and say what mends what is found.  Nothing is changed.

    Exit codes: 0 nothing is in the way (advice apart), 3 something keeps penstock from running here.
    """
    from penstock.pipeline import findings
    from penstock.pipeline.doctor import examine_device, examine_machine

    machine = examine_machine()
    found = list(findings.of_machine(machine))
    if interface is not None:
        found += findings.of_device(examine_device(interface))
    if as_json:
        _record(machine.kernel, interface, found)
    else:
        _show(found)
    if any(one.level is findings.Level.FAULT for one in found):
        click.get_current_context().exit(_PREVENTED)


def _show(found: list[Finding]) -> None:
    for one in found:
        output.answer(f"{one.level.value:<7} {one.check}: {one.text}")
        if one.command is not None:
            output.answer(f"        mend: {one.command}")


def _record(kernel: str, interface: str | None, found: list[Finding]) -> None:
    listed = [
        {"check": one.check, "level": one.level.value, "text": one.text, "command": one.command}
        for one in found
    ]
    output.record("penstock.doctor/1", {"kernel": kernel, "interface": interface, "findings": listed})
