"""Diagnostics on the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.cli import output
from penstock.compiler.lang.diagnostic import Diagnostic, Severity


def show_diagnostics(diagnostics: Iterable[Diagnostic]) -> None:
    """Errors and warnings under the text they speak of, on standard error; notes too, unless `--quiet`."""
    from penstock.compiler.lang.render import render

    for diagnostic in diagnostics:
        if diagnostic.severity is Severity.NOTE and output.is_quiet():
            continue
        output.rendered(render(diagnostic, color=output.errors_have_colour()))


def count(diagnostics: Iterable[Diagnostic], severity: Severity) -> int:
    """How many have that severity."""
    return sum(diagnostic.severity is severity for diagnostic in diagnostics)
