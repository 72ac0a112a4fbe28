"""Diagnostics on the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.cli import output
from penstock.compiler.lang.diagnostic import Diagnostic, Severity


def show_diagnostics(diagnostics: Iterable[Diagnostic], *, in_full: bool = True) -> None:
    """Errors and warnings under the text they speak of, on standard error; notes, unless `--quiet`, a line each.

    `in_full` shows notes as if they were warnings.
    """
    from penstock.compiler.lang.render import render

    for diagnostic in diagnostics:
        is_note = diagnostic.severity is Severity.NOTE
        if is_note and output.is_quiet():
            continue
        color = output.errors_have_colour()
        output.rendered(render(diagnostic, color=color, brief=is_note and not in_full))


def count(diagnostics: Iterable[Diagnostic], severity: Severity) -> int:
    """How many have that severity."""
    return sum(diagnostic.severity is severity for diagnostic in diagnostics)
