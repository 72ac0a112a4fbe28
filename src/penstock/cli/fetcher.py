"""The daemon's child that fetches feeds: `penstock feed fetch` without any capability, seen by nobody."""

from __future__ import annotations

import os

import click

from penstock.cli.feed_sets import fetch


@click.command("_fetch", hidden=True)
@click.argument("parent", type=int)
@click.pass_context
def command(context: click.Context, parent: int) -> int:
    """Give up all capabilities, and fetch feeds until the daemon, process PARENT, ends."""
    from penstock.kernel.libc import end_with_parent, give_up_capabilities

    end_with_parent()
    if os.getppid() != parent:
        return 0  # It has ended before we asked to hear of it.
    give_up_capabilities()
    code: int = context.invoke(fetch, once=False, as_json=False)
    return code
