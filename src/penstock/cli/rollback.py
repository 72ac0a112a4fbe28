"""`penstock rollback -i IF [N|ID]`: put an earlier policy of an interface in place again."""

from __future__ import annotations

import click

from penstock.cli.apply import put_in_place
from penstock.cli.options import DURATION, interface_option, json_option, netns_option


@click.command("rollback")
@click.argument("which", metavar="[N|ID]", default="1")
@interface_option()
@click.option("--force", is_flag=True, help="Also if it drops what this host needs.")
@click.option(
    "--confirm",
    "confirm_s",
    type=DURATION,
    metavar="TIME",
    help="As of `apply`: put back what was there after this time, unless `penstock confirm` comes first.",
)
@click.option("--wait", is_flag=True, help="With --confirm: wait for it; exits with 7 if it does not come.")
@netns_option
@json_option
def command(
    which: str, interface: str, force: bool, confirm_s: float | None, wait: bool, as_json: bool
) -> int:
    """Put an earlier policy in place again: N steps back (1), or the one with that ID in `penstock history`.

    It is the text as it was then, whatever has become of the file; it is put in place as `penstock apply` does it.
    """
    from penstock.pipeline import history

    if wait and confirm_s is None:
        raise click.UsageError("--wait goes with --confirm")
    entry = history.chosen(interface, which)
    policies = history.policies_of(entry)
    return put_in_place(
        interface,
        policies,
        f"rollback to {entry.id}",
        force=force,
        confirm_s=confirm_s,
        wait=wait,
        as_json=as_json,
    )
