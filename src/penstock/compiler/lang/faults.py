"""Collecting the faults of one text, so that all of them can be shown together.

`Faults.error` notes a fault and goes on; `Faults.fail` makes the exception that
leaves the statement, which the parser catches where the next statement begins.
"""

from __future__ import annotations

from penstock.compiler.lang.diagnostic import Diagnostic, Severity
from penstock.compiler.lang.source import Source, Span

MAX_FAULTS = 100


class SyntaxFault(Exception):  # noqa: N818 - it never leaves this package
    """A fault after which the rest of the statement cannot be understood."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


class TooManyFaults(Exception):  # noqa: N818 - it never leaves this package
    """Enough faults were found; reading on would bury the first ones."""


class Faults:
    """The faults found in `source` so far, in the order of their discovery."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.found: list[Diagnostic] = []

    def diagnostic(
        self, code: str, message: str, span: Span, *, notes: tuple[str, ...] = (), hint: str | None = None
    ) -> Diagnostic:
        return Diagnostic(code, Severity.ERROR, message, self.source, span, notes, hint)

    def fail(self, code: str, message: str, span: Span, *, hint: str | None = None) -> SyntaxFault:
        """The exception to raise for a fault that ends the statement."""
        return SyntaxFault(self.diagnostic(code, message, span, hint=hint))

    def error(
        self, code: str, message: str, span: Span, *, notes: tuple[str, ...] = (), hint: str | None = None
    ) -> None:
        """Note a fault and go on."""
        self.add(self.diagnostic(code, message, span, notes=notes, hint=hint))

    def add(self, diagnostic: Diagnostic) -> None:
        if len(self.found) >= MAX_FAULTS:
            raise TooManyFaults
        self.found.append(diagnostic)

    def sorted(self) -> tuple[Diagnostic, ...]:
        """The faults in the order of their places, each once."""
        by_place = sorted(self.found, key=lambda fault: (fault.span.start, fault.span.end, fault.code))
        return tuple(dict.fromkeys(by_place))
