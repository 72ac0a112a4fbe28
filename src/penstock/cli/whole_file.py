"""Files that commands write: what was there, or all that is new.

    write_whole(Path("banned.txt"), ["192.0.2.1\\n", …])

Written beside and renamed, so that a full disk, Ctrl-C or a signal leaves the old file, or none, and never a part that
would be taken for the whole.  A link stays a link; a pipe or a device is written to as it is.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def write_whole(path: Path, parts: Iterable[str]) -> None:
    """Make these parts the content of a file.  Raises OSError; the file is as it was then."""
    target = path.resolve()
    if target.exists() and not target.is_file():
        with target.open("w", encoding="utf-8") as file:
            file.writelines(parts)
        return
    temporary = target.with_name(f".{target.name[:200]}-{os.urandom(8).hex()}")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.writelines(parts)
            file.flush()
            _as_before(target, file.fileno())
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _as_before(target: Path, made: int) -> None:
    """Give a file the owner and the mode of the one whose place it takes, if there is one."""
    with suppress(FileNotFoundError):
        before = target.stat()
        with suppress(PermissionError):
            os.fchown(made, before.st_uid, before.st_gid)
        os.fchmod(made, before.st_mode & 0o7777)
