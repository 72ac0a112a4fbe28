"""Options that say what sets contain, for commands that ask a policy about packets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli import output

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.cli.options import F
    from penstock.model.sets import SetSpec
    from penstock.pipeline.set_contents import Contents


def contents_options(function: F) -> F:
    """`--set NAME=ENTRY,…` and `--sets live`."""
    of_one = click.option(
        "--set",
        "set_texts",
        metavar="NAME=ENTRY,…|@FILE",
        multiple=True,
        help="What a set contains, entries or a file of them; repeatable.",
    )
    of_all = click.option(
        "--sets",
        "sets_are",
        type=click.Choice(["empty", "live"]),
        default="empty",
        show_default=True,
        help="What all others contain: nothing, or what the sets contain that run here (needs privilege).",
    )
    return of_one(of_all(function))


def chosen_contents(specs: Iterable[SetSpec], set_texts: tuple[str, ...], sets_are: str) -> Contents:
    """What the options say of a policy's sets; sets that do not run here are told.

    Raises:
        PenstockError: there is no such set, something is no entry, or running sets cannot be read.
    """
    if not set_texts and sets_are == "empty":
        return {}
    from penstock.pipeline.set_contents import given, running

    specs = tuple(specs)
    told = given(specs, set_texts)
    if sets_are == "empty":
        return told
    found, missing = running(spec for spec in specs if spec.name not in told)
    for name in missing:
        output.warn(f"no set @{name} runs here: it is taken as empty")
    return {**found, **told}
