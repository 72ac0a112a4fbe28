"""`penstock detach -i IF [--hook HOOK]`: take penstock's filters off an interface."""

from __future__ import annotations

import click

from penstock.cli import output
from penstock.cli.confirm import report_overdue
from penstock.cli.options import hook_option, interface_option, json_option, netns_option
from penstock.control.client import ask_if_there
from penstock.errors import DaemonError


@click.command("detach")
@interface_option()
@hook_option("Only the one at this hook; else all of the interface.")
@netns_option
@json_option
def command(interface: str, hook: str | None, as_json: bool) -> None:
    """Take the policies off an interface.  Programs of others are left alone.

    A daemon that keeps one there leaves it off until it is told to reload.
    """
    from penstock.kernel.netns import inode
    from penstock.pipeline.apply import detach

    report_overdue()
    # Before it is gone: the daemon would put it back.
    try:
        if ask_if_there("Release", interface=interface, netns=inode(), hook=hook) is not None:
            output.note("the daemon does not put it back before `penstock daemon reload`")
    except DaemonError as error:
        # Whoever detaches may have to, and the daemon may be what stands still.
        output.warn(f"{error.message}, and may put it back when it goes on")
    for done in detach(interface, hook):
        if not as_json:
            output.answer(f"{done.name}: taken off {interface} at {done.hook}")
            continue
        counters = {
            name: {"packets": found.packets, "bytes": found.bytes} for name, found in done.counters.items()
        }
        content = {"interface": interface, "hook": done.hook, "policy": done.name, "counters": counters}
        output.record("penstock.detach/1", content)
