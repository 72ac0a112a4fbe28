"""`penstock version`."""

from __future__ import annotations

import platform

import click

import penstock
from penstock.cli import output


@click.command("version")
@click.option("--json", "as_json", is_flag=True, help="JSON, one record a line.")
def command(as_json: bool) -> None:
    """Print the version."""
    if as_json:
        record = {
            "version": penstock.__version__,
            "python": platform.python_version(),
            "kernel": platform.release(),
        }
        output.record("penstock.version/1", record)
    else:
        output.answer(f"penstock {penstock.__version__}")
