"""`penstock completion SHELL`: the script that teaches a shell the commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from penstock.cli import output
from penstock.errors import PenstockError


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of a shell: `eval "$(penstock completion bash)"`."""
    from penstock.cli.main import commands

    found = get_completion_class(shell)
    if found is None:
        raise PenstockError(f"click cannot complete for {shell}")
    output.text(found(commands, {}, "penstock", "_PENSTOCK_COMPLETE").source() + "\n")
