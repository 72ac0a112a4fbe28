"""A policy's text from a file or standard input, or one sentence that says why not.

    read_policy("edge.policy")   ->  Source("edge.policy", "filter edge at xdp { … }")
    read_policy("-")             ->  Source("<stdin>", …)

At most MAX_BYTES are read, so that a device or an endless pipe is refused like a
file that is too large.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from penstock.compiler.lang.source import Source
from penstock.errors import LimitError, PenstockError

MAX_BYTES = 32 << 20
STDIN = "-"
_MOST_LINKS = 40  # path_resolution(7)
_BUILT = "an object file goes to `penstock apply`; this needs the policy that it was built from"
_C = "`penstock program load` loads programs that are written in C, `penstock program run` tries them"
_START = "a policy has a filter:  filter edge at xdp { drop if udp dst port 53 }"


def read_policy(path: str, *, trusted: bool = False) -> Source:
    """The text of `path` (`-` is standard input) under the name it is shown as.

    With `trusted` a file that everybody may write to is refused: whoever can
    change it would decide what the kernel drops.

    Raises:
        PenstockError: it cannot be read, is no text, is empty, or is not to be trusted.
        LimitError: it is larger than MAX_BYTES.
    """
    source = read_text(path, trusted=trusted)
    if Path(path).suffix in (".c", ".h"):
        raise PenstockError(f"{source.name} is C and no policy", hint=_C)
    if not source.text.strip():
        raise PenstockError(f"{source.name} is empty", hint=_START)
    return source


def read_text(path: str, *, trusted: bool = False) -> Source:
    """Any text, an empty one too, and for the rest as `read_policy`."""
    name = "<stdin>" if path == STDIN else path
    data = _bytes(path, name, trusted)
    if len(data) > MAX_BYTES:
        raise LimitError(f"{name} is larger than {MAX_BYTES >> 20} MiB", limit="policy size")
    return Source(name, _text(data, name))


def _bytes(path: str, name: str, trusted: bool) -> bytes:
    try:
        if path == STDIN:
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        with Path(path).open("rb") as file:
            if trusted:
                refuse_untrusted(path, os.fstat(file.fileno()))
            return file.read(MAX_BYTES + 1)
    except IsADirectoryError as error:
        raise PenstockError(f"{name} is a directory", hint=_inside(path)) from error
    except FileNotFoundError as error:
        raise PenstockError(f"there is no file {name}", hint=_nearest(path)) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise PenstockError(f"{name} cannot be read: {reason}") from error


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"{name} is not UTF-8 text: line {line} has the byte 0x{data[error.start]:02x}"
        raise PenstockError(message, hint=_BUILT if data.startswith(b"\x7fELF") else None) from error


def refuse_untrusted(path: str, status: os.stat_result) -> None:
    """Refuse an open file that every user could change, or put another one in the place of.  Raises PenstockError."""
    _refuse_if_open_to_all(status, path)
    if stat.S_ISREG(status.st_mode):
        _refuse_if_exchangeable(path)


def _refuse_if_open_to_all(status: os.stat_result, name: str) -> None:
    if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IWOTH:
        message = f"{name} can be written by every user of this machine, so it is not put in place"
        raise PenstockError(message, hint=f"chmod o-w {name}")


def _refuse_if_exchangeable(path: str) -> None:
    place = Path(path).absolute()
    ways = (place, *_links(place), place.resolve())
    for directory in dict.fromkeys(directory for way in ways for directory in way.parents):
        status = directory.stat()
        # In a sticky directory (/tmp) others may add files, and not exchange those of somebody else.
        if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            message = f"every user of this machine can exchange {path}: {directory} can be written by all"
            raise PenstockError(message, hint=f"chmod o-w {directory}")


def _links(place: Path) -> list[Path]:
    """Where a symbolic link leads, and a link there; the file is open, so that there is an end."""
    found: list[Path] = []
    while place.is_symlink() and len(found) < _MOST_LINKS:
        place = place.parent / place.readlink()
        found.append(place)
    return found


def _inside(path: str) -> str | None:
    try:
        names = sorted(entry.name for entry in Path(path).iterdir() if entry.suffix == ".policy")
    except OSError:
        return None
    return f"it holds {', '.join(names[:5])}" if names else None


def _nearest(path: str) -> str | None:
    from difflib import get_close_matches

    place = Path(path)
    try:
        names = [entry.name for entry in place.parent.iterdir()]
    except OSError:
        return None
    near = get_close_matches(place.name, names, 1)
    return f"did you mean {place.with_name(near[0])}?" if near else None
