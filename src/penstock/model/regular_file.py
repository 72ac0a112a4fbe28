"""Files that are read without anybody asking: never one that keeps the reader waiting, never more than was asked for.

    read_regular(directory / "settings.toml", 1 << 20)      ->  the bytes, and what the file is

A pipe in the directory of policies would hold up whoever opens it until somebody writes,
and a device may have no end.  Of the state directory `state_directory.read_kept` reads, which follows no links.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_regular(path: Path, most: int) -> tuple[bytes, os.stat_result]:
    """Up to `most` bytes of a file and one more where there are more, and what the file is.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return file.read(most + 1), found
