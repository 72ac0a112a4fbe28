"""What the files say now: settings and policies, read again when one of them has changed.

    desired = Desired(directory, journal, told)
    desired.read()       what is there; seconds to wait if a file is still being written

In: a directory.  Out: `settings`, `files` by their names, `faulty` names.  A file
with a fault leaves what was read of it before in force; `told` hears of the fault.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from penstock.daemon.journal import Journal
from penstock.daemon.policies import PolicyFile, read_policies, sentence
from penstock.daemon.settings import FILE, Settings, read_settings
from penstock.errors import PenstockError, SettingsError

_SOON_S = 0.3


class Desired:
    """`is_new` where the last `read` has read anything."""

    def __init__(self, directory: Path, journal: Journal, told: Callable[[str, str], None]) -> None:
        self.settings: Settings | None = None
        self.files: dict[str, PolicyFile] = {}
        self.faulty: frozenset[str] = frozenset()
        self.is_new = False
        self._directory, self._journal, self._told = directory, journal, told
        self._signature: object = None
        self._changing: object = None

    def read(self, *, is_asked: bool = False) -> float | None:
        """Read what has changed, or, if it `is_asked` for, all; a time if it is still changing."""
        signature = _signature(self._directory)
        self.is_new = is_asked or signature != self._signature
        if not self.is_new:
            return None
        if self._signature is not None and signature != self._changing and not is_asked:
            self._changing, self.is_new = signature, False
            return _SOON_S
        self._signature = self._changing = signature
        self._read_settings()
        if self.settings is not None:
            self._read_policies(self.settings)
        return None

    def _read_settings(self) -> None:
        try:
            self.settings = read_settings(self._directory)
        except SettingsError as error:
            kept = "; the settings before it stay in force" if self.settings else "; nothing is changed"
            self._journal.alarm("settings", f"{sentence(error)}{kept}")
        else:
            self._journal.settle("settings", f"{self._directory / FILE} is without fault again")

    def _read_policies(self, settings: Settings) -> None:
        try:
            found = read_policies(self._directory, settings, self.files)
        except PenstockError as error:
            self._journal.alarm("policies", error.message)
            return
        self._journal.settle("policies", f"{self._directory} can be read again")
        for name in [name for name in settings.policy if not any(one.name == name for one in found)]:
            self._journal.warn(
                f"the settings speak of {name}, and there is no such file in {self._directory}"
            )
        self.faulty = frozenset(one.name for one in found if one.fault)
        self.files = {one.name: self._usable(one) for one in found}
        self._journal.settle_all_but("file ", {f"file {name}" for name in self.faulty})

    def _usable(self, file: PolicyFile) -> PolicyFile:
        """The file, or what was read of it before it had a fault."""
        key = f"file {file.name}"
        if file.fault is None:
            self._journal.settle(key, f"{file.path} is without fault again")
            return file
        self._told(key, f"{file.fault}; what runs of {file.name} runs on")
        return self.files.get(file.name, file)


def _signature(directory: Path) -> object:
    """Another value when a file of the directory has changed."""
    try:
        return [(path.name, _state(path)) for path in sorted(directory.iterdir())]
    except OSError as error:
        return error.errno


def _state(path: Path) -> object:
    """Another value when a file has changed.  Of a link that leads nowhere, an editor's say, why it does."""
    try:
        one = path.stat()
    except OSError as error:
        return error.errno
    return one.st_mtime_ns, one.st_size, one.st_ino, one.st_mode
