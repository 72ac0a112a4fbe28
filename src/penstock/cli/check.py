"""`penstock check FILE…`: is it a policy, and does it mean what it seems to?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.diagnostics import count, show_diagnostics
from penstock.cli.options import json_option
from penstock.cli.policy_file import read_policy
from penstock.compiler.lang.diagnostic import Diagnostic, Severity
from penstock.compiler.lang.source import Source
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from penstock.pipeline.policy import Checked


@click.command("check")
@click.argument("files", nargs=-1, required=True, metavar="FILE…", type=click.Path())
@click.option("--strict", is_flag=True, help="Warnings count as faults.")
@click.option("--notes", is_flag=True, help="Show notes as fully as warnings, with the text they speak of.")
@json_option
def command(files: tuple[str, ...], strict: bool, notes: bool, as_json: bool) -> int:
    """Check policies; needs no privilege and no kernel.  `-` reads standard input.

    Exits with 1 if a policy is wrong (with --strict also if it gets a warning).
    """
    wrong = [_check(path, strict, notes, as_json) for path in files]
    return 1 if any(wrong) else 0


def _check(path: str, strict: bool, notes: bool, as_json: bool) -> bool:
    """Whether the file is at fault; an unreadable file is, and the others are still checked."""
    from penstock.pipeline.policy import checked_text

    try:
        source = read_policy(path)
    except PenstockError as error:
        _report_unreadable(path, error, as_json)
        return True
    checked = checked_text(source)
    diagnostics = checked.diagnostics
    if as_json:
        _report_json(source, checked)
    else:
        _report(source, diagnostics, notes)
    errors, warnings = (count(diagnostics, severity) for severity in (Severity.ERROR, Severity.WARNING))
    return bool(errors or (strict and warnings))


def _report(source: Source, diagnostics: tuple[Diagnostic, ...], notes: bool) -> None:
    show_diagnostics(diagnostics, in_full=notes)
    errors, warnings = (count(diagnostics, severity) for severity in (Severity.ERROR, Severity.WARNING))
    counted = [_plural(errors, "error")] if errors else []
    counted += [_plural(warnings, "warning")] if warnings else []
    output.answer(f"{source.name}: {', '.join(counted) or 'fine'}")


def _report_json(source: Source, checked: Checked) -> None:
    from penstock.compiler.lang.render import as_record

    diagnostics = checked.diagnostics
    content = {
        "file": source.name,
        "errors": count(diagnostics, Severity.ERROR),
        "warnings": count(diagnostics, Severity.WARNING),
        "notes": count(diagnostics, Severity.NOTE),
        "diagnostics": [as_record(diagnostic) for diagnostic in diagnostics],
        "filters": [analysis.record() for analysis in checked.analyses],
    }
    output.record("penstock.check/1", content)


def _report_unreadable(path: str, error: PenstockError, as_json: bool) -> None:
    if as_json:
        output.record("penstock.check/1", {"file": path, "error": error.message, "hint": error.hint})
    else:
        output.fault(error)


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
