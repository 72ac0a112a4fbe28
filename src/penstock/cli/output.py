"""Everything that the command line prints goes through here.

In: sentences, records, tables.  Out: lines on standard output (what was asked
for) and standard error (notices, warnings, faults).  Promised: text that comes
from policies, captures or the kernel cannot move the cursor or change colours,
because control characters are shown as escapes; colour only on a terminal and
never with NO_COLOR; `--quiet` silences notices and progress, never answers or
faults; a record is one line of JSON that begins with its schema.

    answer("3 packets")     note("generic mode is used")     record("penstock.check/1", {"errors": 0})
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager

from penstock.errors import PenstockError
from penstock.model.printable import printable

TYPE_CHECKING = False  # `typing` takes long to import (cli/start.py)
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import TextIO

    from rich.console import Console

_STYLES = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "bold": "1", "dim": "2"}


class _Settings:
    quiet = False
    logs = False
    log_words = "PENSTOCK_DEBUG=1"


_settings = _Settings()


def be_quiet() -> None:
    """Print answers and faults only."""
    _settings.quiet = True


def is_quiet() -> bool:
    """Whether notices and progress are silenced."""
    return _settings.quiet


def show_logs(wanted: bool) -> None:
    """For a command with `--log`: show whole logs with an error, the verifier's and clang's, or name that option."""
    _settings.logs, _settings.log_words = wanted, "--log"


def log_words() -> str:
    """What shows whole logs."""
    return _settings.log_words


def logs_are_shown() -> bool:
    """Whether whole logs are shown with an error."""
    return _settings.logs or bool(os.environ.get("PENSTOCK_DEBUG"))


def has_colour(stream: TextIO) -> bool:
    """Whether colour sequences may be written: a terminal, and neither NO_COLOR nor a dumb one."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _painted(text: str, style: str, stream: TextIO) -> str:
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if has_colour(stream) else text


def answer(text: str = "") -> None:
    """What the user asked for, on standard output."""
    _write(printable(text) + "\n")


def _write(text: str) -> None:
    with _told():
        sys.stdout.write(text)


@contextmanager
def _told() -> Iterator[None]:
    """A full disk is the user's to hear of; that a reader has gone is settled at the edge."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise PenstockError(f"write to standard output: {error.strerror}") from error


def raw(data: bytes) -> None:
    """Bytes as they are, on standard output (`build -o -`)."""
    with _told():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def text(content: str) -> None:
    """A whole text as it is, without a line feed of its own: a formatted policy, generated C."""
    _write(content if not sys.stdout.isatty() else printable(content))


def record(schema: str, content: Mapping[str, object]) -> None:
    """One line of JSON that begins with its schema."""
    bare({"schema": schema, **content})


def bare(content: Mapping[str, object]) -> None:
    """One line of JSON whose keys are exactly `content`'s."""
    _write(json.dumps(content, ensure_ascii=True) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A notice about what is being done, on standard error; silenced by `--quiet`."""
    if not _settings.quiet:
        print(printable(text), file=sys.stderr, flush=True)


def progress(text: str = "") -> None:
    """What is being done, on one line of a terminal that the next call overwrites; nothing elsewhere."""
    if not _settings.quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        columns = _columns() - 1
        print(f"\r\x1b[K{printable(text)[:columns]}", end="", file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Something that may not be what the user wants, on standard error."""
    print(_painted("warning:", "yellow", sys.stderr), printable(text), file=sys.stderr, flush=True)


def fault(error: PenstockError, more: Sequence[str] = ()) -> None:
    """An error as one sentence and, where there is one, what can be done about it; `more` is told in between."""
    print(_painted("error:", "red", sys.stderr), printable(error.message), file=sys.stderr)
    for text in more:
        print(f"  {printable(text)}", file=sys.stderr)
    if error.hint:
        print(_painted("hint:", "blue", sys.stderr), printable(error.hint), file=sys.stderr)


def errors_have_colour() -> bool:
    """Whether what goes to standard error may be coloured."""
    return has_colour(sys.stderr)


def rendered(lines: str) -> None:
    """Lines for standard error in which control characters are shown as escapes already."""
    print(lines, end="" if lines.endswith("\n") else "\n", file=sys.stderr)


def said(text: str) -> None:
    """What another program has said, on standard error; nothing where it was silent."""
    if text.strip():
        rendered(printable(text))


def fault_text(text: str) -> None:
    """A fault that was rendered elsewhere, on standard error."""
    print(printable(text), file=sys.stderr)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Rows under titles in aligned columns; columns in `right` are aligned to the right."""
    for number, line in enumerate(table_lines(titles, rows, right=right)):
        _write((_painted(line, "bold", sys.stdout) if number == 0 else line) + "\n")


def table_lines(
    titles: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()
) -> list[str]:
    """The lines that `table` prints."""
    cells = [tuple(printable(cell) for cell in row) for row in (titles, *rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(titles))]
    return ["  ".join(_padded(row, widths, right)).rstrip() for row in cells]


def _padded(row: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> Iterable[str]:
    for at, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.rjust(width) if at in right else cell.ljust(width)


def verdict_word(word: str) -> str:
    """A verdict, coloured on a terminal."""
    return _painted(word, {"drop": "red", "pass": "green"}.get(word, "yellow"), sys.stdout)


def live(lines: Sequence[str]) -> None:
    """Replace what the last call printed by `lines`: on a terminal in place, else below it."""
    clear = "\x1b[H\x1b[2J" if has_cursor() else ""
    _write(clear + "".join(f"{printable(line)}\n" for line in lines))
    sys.stdout.flush()


def has_cursor() -> bool:
    """Whether standard output is a terminal that can be redrawn."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def width() -> int | None:
    """How many columns the terminal has; None where standard output is none."""
    return _columns() if sys.stdout.isatty() else None


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size().columns


def console() -> Console:
    """A rich console on standard output, for the live views; NO_COLOR is honoured by rich itself."""
    from rich.console import Console

    return Console(highlight=False)
