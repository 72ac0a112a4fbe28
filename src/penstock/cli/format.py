"""`penstock format FILE…`: policies in their canonical form."""

from __future__ import annotations

from difflib import unified_diff
from pathlib import Path

import click

from penstock.cli import output
from penstock.cli.whole_file import write_whole
from penstock.compiler.lang.source import Source
from penstock.errors import PenstockError
from penstock.pipeline.policy_file import STDIN, read_policy


@click.command("format")
@click.argument("files", nargs=-1, required=True, metavar="FILE…", type=click.Path())
@click.option("--check", is_flag=True, help="Change nothing; show what would change and exit with 1.")
@click.option("-w", "--in-place", is_flag=True, help="Rewrite the files.")
def command(files: tuple[str, ...], check: bool, in_place: bool) -> int:
    """Write policies in their canonical form to standard output.  `-` reads standard input."""
    if check and in_place:
        raise click.UsageError("--check and --in-place contradict each other")
    changed = [_format(path, check, in_place) for path in files]
    return 1 if check and any(changed) else 0


def _format(path: str, check: bool, in_place: bool) -> bool:
    """Whether the file differs from its canonical form."""
    from penstock.compiler.lang.format import format_policy
    from penstock.compiler.lang.parser import parse_policy

    source = read_policy(path)
    canonical = format_policy(parse_policy(source))
    changed = canonical != source.text
    if check:
        _show_difference(source, canonical)
    elif in_place and path != STDIN:
        if changed:
            _replace(Path(path), canonical)
            output.note(f"{path} rewritten")
    else:
        output.text(canonical)
    return changed


def _show_difference(source: Source, canonical: str) -> None:
    before, after = source.text.splitlines(keepends=True), canonical.splitlines(keepends=True)
    output.text("".join(unified_diff(before, after, source.name, f"{source.name} (canonical)")))


def _replace(path: Path, text: str) -> None:
    try:
        write_whole(path, [text])
    except OSError as error:
        raise PenstockError(f"{path} cannot be written: {error.strerror}") from error
