"""`penstock detach -i IF`: take penstock's filter off an interface."""

from __future__ import annotations

import click

from penstock.cli import output
from penstock.cli.options import interface_option, json_option, netns_option


@click.command("detach")
@interface_option()
@netns_option
@json_option
def command(interface: str, as_json: bool) -> None:
    """Take the policy off an interface.  Programs of others are left alone."""
    from penstock.pipeline.apply import detach

    done = detach(interface)
    if as_json:
        counters = {
            name: {"packets": found.packets, "bytes": found.bytes} for name, found in done.counters.items()
        }
        output.record(
            "penstock.detach/1", {"interface": interface, "policy": done.name, "counters": counters}
        )
        return
    output.answer(f"{done.name}: taken off {interface}")
