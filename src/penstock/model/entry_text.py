"""Texts of entries, from files, pipes and devices, of which some never end.

    read_entries("drop.txt")         b"198.51.100.0/24\\n…"
    read_entries("-")                standard input

Out: the bytes as they are.  Promised: no more than LONGEST bytes are kept, and what is no text
(a device of zeros, a sparse or a compressed file, UTF-16) is refused by its first zero byte, what
has no lines behind a mebibyte.  It imports little: `penstock set import` begins with it.
"""

from __future__ import annotations

import os
import stat

from penstock.errors import PenstockError

TYPE_CHECKING = False  # `typing` takes long to import (cli/start.py)
if TYPE_CHECKING:
    from typing import BinaryIO

#: Sixteen million networks of IPv6, the most of a set, are less.
LONGEST = 1 << 30
_PART = 1 << 20
_GZIP = b"\x1f\x8b"


def read_entries(file: str) -> bytes:
    """What a file holds, `-` for standard input.

    Raises:
        PenstockError: it cannot be read, is no text, or longer than LONGEST.
    """
    try:
        with open(0 if file == "-" else file, "rb", closefd=file != "-") as opened:
            return _text(opened, file)
    except OSError as error:
        raise PenstockError(f"read {file}: {error.strerror}") from error
    except ValueError as error:
        raise PenstockError(f"read {file!r}: {error}") from error


def is_told_once(file: str) -> bool:
    """Whether it can be read only once: a pipe, standard input."""
    if file == "-":
        return True
    try:
        return not stat.S_ISREG(os.stat(file).st_mode)  # noqa: PTH116 - `pathlib` takes long to import
    except (OSError, ValueError):
        return False


def _text(opened: BinaryIO, name: str) -> bytes:
    parts: list[bytes] = []
    length, lines = 0, 0
    while part := opened.read(_PART):
        parts.append(part)
        length += len(part)
        if b"\0" in part:
            line = lines + part.count(b"\n", 0, part.index(b"\0")) + 1
            raise _no_text(parts[0], f"{name}:{line} has a zero byte, so this is no text", name)
        if length > LONGEST:
            raise PenstockError(f"{name} is longer than {LONGEST >> 30} GiB, which no set has room for")
        count = part.count(b"\n")
        if count == 0 and len(part) == _PART:
            raise _no_text(parts[0], f"{name}:{lines + 1} is longer than any entry", name)
        lines += count
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _no_text(head: bytes, message: str, name: str) -> PenstockError:
    hint = "a file of entries has one a line, in UTF-8"
    if head.startswith(_GZIP):
        hint = f"it is compressed: `zcat {name} | penstock set import NAME -`"
    return PenstockError(message, hint=hint)
