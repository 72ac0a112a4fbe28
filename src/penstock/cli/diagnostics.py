"""Diagnostics on the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.cli import output
from penstock.compiler.lang.diagnostic import Diagnostic, Severity


def show_diagnostics(diagnostics: Iterable[Diagnostic]) -> None:
    """Each diagnostic under the text it speaks of, on standard error."""
    from penstock.compiler.lang.render import render

    for diagnostic in diagnostics:
        output.fault_text(render(diagnostic))


def as_record(diagnostic: Diagnostic) -> dict[str, object]:
    """A diagnostic as the `--json` records hold it."""
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity.value,
        "message": diagnostic.message,
        "file": diagnostic.source.name,
        "line": diagnostic.line,
        "column": diagnostic.column,
        "notes": list(diagnostic.notes),
        "hint": diagnostic.hint,
    }


def count(diagnostics: Iterable[Diagnostic], severity: Severity) -> int:
    """How many have that severity."""
    return sum(diagnostic.severity is severity for diagnostic in diagnostics)
