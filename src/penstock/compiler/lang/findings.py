"""What the checks have found so far."""

from __future__ import annotations

from penstock.compiler.lang.diagnostic import Diagnostic, Severity
from penstock.compiler.lang.source import Source, Span


class Findings:
    """Collects the diagnostics of one source; `place` names a place of it in a sentence."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.found: list[Diagnostic] = []

    def error(self, code: str, message: str, span: Span, *, hint: str | None = None) -> None:
        self._add(code, Severity.ERROR, message, span, (), hint)

    def warning(
        self, code: str, message: str, span: Span, *, notes: tuple[str, ...] = (), hint: str | None = None
    ) -> None:
        self._add(code, Severity.WARNING, message, span, notes, hint)

    def note(self, code: str, message: str, span: Span, *, hint: str | None = None) -> None:
        self._add(code, Severity.NOTE, message, span, (), hint)

    def place(self, span: Span) -> str:
        return f"line {self.source.position(span.start)[0]}"

    def sorted(self) -> tuple[Diagnostic, ...]:
        """The findings in the order of their places, each once."""
        by_place = sorted(self.found, key=lambda finding: (finding.span.start, finding.code))
        return tuple(dict.fromkeys(by_place))

    def _add(
        self,
        code: str,
        severity: Severity,
        message: str,
        span: Span,
        notes: tuple[str, ...],
        hint: str | None,
    ) -> None:
        self.found.append(Diagnostic(code, severity, message, self.source, span, notes, hint))
