"""Text for C: lines with an indentation, and strings that cannot leave their quotes.

Everything that a policy's author chose (names, labels, the file's name) reaches
the C through `string` or `comment`, and through nothing else.

>>> string('a"b\\\\n')
'"a\\\\042b\\\\134n"'
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import wrap

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:;_-+=()[]<>@$!&|^~'/*")
WIDTH = 110


def string(text: str) -> str:
    """A C string literal of the text's UTF-8 bytes; whatever is not plain is an octal escape of three digits.

    Three digits end the escape even before another digit; `?` is escaped
    because of trigraphs.
    """
    return '"' + "".join(_character(byte) for byte in text.encode("utf-8", "replace")) + '"'


def _character(byte: int) -> str:
    return chr(byte) if chr(byte) in _PLAIN else f"\\{byte:03o}"


def comment(text: str) -> str:
    """A one-line C comment; what could end it, or start another, is replaced by `.`."""
    plain = "".join(char if char in _PLAIN and char not in "/*" else "." for char in text)
    return f"/* {plain} */"


def line_directive(number: int, name: str) -> str:
    """`#line`: the next line is line `number` of the file `name`."""
    return f"#line {max(number, 1)} {string(name)}"


def indented(lines: Iterable[str], depth: int = 1) -> Iterator[str]:
    """The lines, each behind `depth` tabs."""
    for line in lines:
        yield "\t" * depth + line


def enumeration(entries: Iterable[tuple[str, int]]) -> list[str]:
    """An anonymous enum of these constants, filled to the width of a page."""
    body = ", ".join(f"{name}\0=\0{value}" for name, value in entries)
    return ["enum {", *("\t" + line.replace("\0", " ") for line in wrap(body, WIDTH - 8)), "};"]
