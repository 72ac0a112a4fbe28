"""`penstock daemon`: be the daemon; `daemon reload`, `daemon status`: talk to it."""

from __future__ import annotations

from typing import Any

import click

from penstock.cli import output
from penstock.cli.keeping import daemon_lines
from penstock.cli.options import Group, json_option, netns_option


@click.group("daemon", cls=Group, invoke_without_command=True)
@click.option("--no-fetch", is_flag=True, help="Do not start the process that fetches feeds.")
@click.option(
    "--foreground", is_flag=True, expose_value=False, hidden=True, help="As always: it does not fork."
)
@netns_option
@click.pass_context
def command(context: click.Context, no_fetch: bool) -> None:
    """Keep the policies in /etc/penstock in place, and answer commands.

    Where they go is in /etc/penstock/settings.toml; eth0.policy goes to eth0 by itself.  What is in place is taken
    over, what has changed is replaced in one step, what somebody else has taken off is put back.  Files that change and
    SIGHUP are a reload.  It ends without touching what filters.
    """
    if context.invoked_subcommand is None:
        from penstock.daemon.service import serve
        from penstock.daemon.settings import config_directory

        serve(config_directory(), fetches=not no_fetch)


@command.command("reload")
@json_option
def reload(as_json: bool) -> int:
    """Have the daemon read settings and policies again and put in place what they say; waits for it.

    What was put in place by hand is replaced.  Exits with 3 if something is wrong then.
    """
    from penstock.control.client import connect_surely

    with connect_surely(patience_s=300.0) as daemon:
        return show(daemon.ask("Reload"), as_json)


@command.command("status")
@json_option
def status(as_json: bool) -> int:
    """Say what the daemon keeps in place and what is wrong.

    Exits with 5 if none runs, with 3 if something is wrong.
    """
    from penstock.control.client import connect_surely

    with connect_surely(to_read=True) as daemon:
        return show(daemon.ask("Status"), as_json)


def show(found: dict[str, Any], as_json: bool) -> int:
    """Print what a daemon has told of itself; 3 if something is wrong."""
    if as_json:
        output.record("penstock.daemon/1", found)
    else:
        for line in daemon_lines(found):
            output.answer(line)
    return 3 if found["alarms"] else 0
