"""One fault or warning about a policy, and how it is shown under the text it speaks of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from penstock.compiler.lang.source import Source, Span


class Severity(Enum):
    """An error stops the build; a warning does not, unless `--strict`; a note never does."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """A stable `code` (``PS101``), one sentence, a place, notes and at most one hint."""

    code: str
    severity: Severity
    message: str
    source: Source
    span: Span
    notes: tuple[str, ...] = ()
    hint: str | None = None

    @property
    def line(self) -> int:
        return self.source.position(self.span.start)[0]

    @property
    def column(self) -> int:
        return self.source.position(self.span.start)[1]
