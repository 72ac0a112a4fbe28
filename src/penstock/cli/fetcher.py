"""The daemon's child that fetches feeds: `penstock feed fetch` without any capability, seen by nobody."""

from __future__ import annotations

import asyncio
import os

import click

from penstock.cli import output
from penstock.cli.feed_sets import fetch


@click.command("_fetch", hidden=True)
@click.argument("parent", type=int)
@click.argument("names", nargs=-1)
@click.pass_context
def command(context: click.Context, parent: int, names: tuple[str, ...]) -> int:
    """Give up all privileges, and fetch feeds until the daemon, process PARENT, ends; or those NAMES, once."""
    from penstock.kernel.libc import end_with_parent, give_up_capabilities
    from penstock.pipeline.fetch_user import become, fetches_as
    from penstock.pipeline.fetching import Fetcher, fetch_named, fetched_record

    if user := fetches_as():
        become(*user)
    # Behind it: who becomes another user does not end with its parent any more (prctl(2), PR_SET_PDEATHSIG).
    end_with_parent()
    if os.getppid() != parent:
        return 0  # It has ended before we asked to hear of it.
    give_up_capabilities()
    if names:
        for one in asyncio.run(fetch_named(Fetcher(), names)):
            output.bare(fetched_record(one))
        return 0
    code: int = context.invoke(fetch, once=False, as_json=False)
    return code
