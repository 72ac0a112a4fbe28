"""Show a diagnostic: the sentence, the line it speaks of with a caret under the place, notes, a hint.

    edge.policy:12:15: error[PS103]: `tpc` is not a word that can stand here
      12 |     drop if tpc dst port 53
         |             ^^^
      hint: did you mean `tcp`?

Whatever comes from a policy is data: characters that a terminal would act upon
are shown escaped, and the caret takes the width of what is shown into account.
"""

from __future__ import annotations

from unicodedata import combining, east_asian_width

from penstock.compiler.lang.diagnostic import Diagnostic, Severity

_TAB = 8
#: A longer line is cut to a part of this many characters around the place.
_WIDEST = 160
_BEFORE = 60

_COLORS = {Severity.ERROR: "\x1b[1;31m", Severity.WARNING: "\x1b[1;35m", Severity.NOTE: "\x1b[1;36m"}
_BOLD, _BLUE, _RESET = "\x1b[1m", "\x1b[1;34m", "\x1b[0m"


def render(diagnostic: Diagnostic, *, color: bool = False, brief: bool = False) -> str:
    """The diagnostic as lines of text for a terminal, with a line end after the last; if `brief` without the policy's.

    edge.policy:9:5: note[PS234]: some packets are decided by no rule (`ARP` is one of them)
    """

    def paint(style: str, text: str) -> str:
        return f"{style}{text}{_RESET}" if color else text

    style = _COLORS[diagnostic.severity]
    title = paint(style, f"{diagnostic.severity.value}[{diagnostic.code}]")
    where = paint(_BOLD, f"{escape(diagnostic.source.name)}:{diagnostic.line}:{diagnostic.column}:")
    sentence = f"{where} {title}: {paint(_BOLD, escape(diagnostic.message))}"
    if brief:
        return " ".join([sentence, *(f"({escape(note)})" for note in diagnostic.notes)]) + "\n"
    lines = [sentence]
    number = str(diagnostic.line)
    shown, caret = excerpt(diagnostic)
    if shown.strip():
        gutter = f"  {' ' * len(number)} |"
        lines.append(f"{paint(_BLUE, f'  {number} |')} {shown}".rstrip())
        lines.append(f"{paint(_BLUE, gutter)} {paint(style, caret)}")
    lines += [f"  note: {escape(note)}" for note in diagnostic.notes]
    if diagnostic.hint:
        lines.append(f"  {paint(_BLUE, 'hint:')} {escape(diagnostic.hint)}")
    return "\n".join(lines) + "\n"


def as_record(diagnostic: Diagnostic) -> dict[str, object]:
    """The diagnostic as plain values, for JSON; lines and columns count from 1, and the end is exclusive."""
    end_line, end_column = diagnostic.source.position(diagnostic.span.end)
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity.value,
        "message": diagnostic.message,
        "file": diagnostic.source.name,
        "line": diagnostic.line,
        "column": diagnostic.column,
        "end_line": end_line,
        "end_column": end_column,
        "notes": list(diagnostic.notes),
        "hint": diagnostic.hint,
    }


def excerpt(diagnostic: Diagnostic) -> tuple[str, str]:
    """The line that holds the place's start, as shown, and the line of blanks and carets under it."""
    line = diagnostic.source.line(diagnostic.line)
    start = min(diagnostic.column - 1, len(line))
    end = min(start + max(diagnostic.span.end - diagnostic.span.start, 1), max(len(line), start + 1))
    first = max(0, start - _BEFORE) if len(line) > _WIDEST else 0
    last = first + _WIDEST
    before = _shown(line[first:start], "…" if first else "")
    marked = _shown(line[start : min(end, last)], before)
    after = _shown(line[min(end, last) : last], marked) + ("…" if len(line) > last else "")
    indent = _width(before)
    return after, " " * indent + "^" * max(1, _width(marked) - indent)


def escape(text: str) -> str:
    r"""The text with everything that is not printable written as an escape, `\x1b` for instance."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _shown(text: str, before: str) -> str:
    """What stands on the line already, followed by `text` as a terminal shows it."""
    for char in text:
        if char == "\t":
            before += " " * (_TAB - _width(before) % _TAB)
        else:
            before += escape(char)
    return before


def _width(text: str) -> int:
    """The columns that a text takes on a terminal."""
    wide = sum(east_asian_width(char) in {"W", "F"} for char in text)
    return len(text) + wide - sum(combining(char) > 0 for char in text)
