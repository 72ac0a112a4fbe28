"""The policy files of a directory, and where each of their filters goes.

    files = read_policies(directory, settings, {})
    where(files, ["eth0", "wan1"])      ->  {Place("wan1", Hook.XDP): Wanted(file, "edge"), …}

A file goes to the interfaces that the settings name for it, or to the one that
it is named after: `eth0.policy`.  The hooks are those of its filters.  Nothing
is compiled here: what a file means where nothing has changed needs no compiler.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import msgspec

from penstock.compiler.lang.diagnostic import Diagnostic, Severity
from penstock.compiler.lang.source import Source
from penstock.daemon.settings import PolicySettings, Settings
from penstock.errors import PenstockError, PolicyError
from penstock.model.hook import Hook
from penstock.model.regular_file import read_regular
from penstock.pipeline.built import is_built, split
from penstock.pipeline.policy import checked
from penstock.pipeline.policy_file import MAX_BYTES, refuse_untrusted

ENDINGS = (".policy", ".pso")


class Place(NamedTuple):
    """An interface by its name, and a hook."""

    interface: str
    hook: Hook

    def __str__(self) -> str:
        return self.interface if self.hook is Hook.XDP else f"{self.interface} ({self.hook.value})"


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A file as it is now.  `filters` are hook and name of each; `fault` says why it cannot be used."""

    path: Path
    settings: PolicySettings
    content: bytes = field(repr=False)
    filters: tuple[tuple[Hook, str], ...] = ()
    text: str = field(default="", repr=False)
    fault: str | None = None

    @property
    def name(self) -> str:
        """The file's name, as settings call it."""
        return self.path.name

    @property
    def is_built(self) -> bool:
        """Whether `penstock build` has made it."""
        return is_built(self.content)

    @property
    def mark(self) -> str:
        """Another one when the file or what the settings say of it is another."""
        return hashlib.sha256(self.content + msgspec.json.encode(self.settings)).hexdigest()[:16]

    @property
    def patterns(self) -> tuple[str, ...]:
        """The interfaces that it goes to."""
        return self.settings.interfaces if self.settings.interfaces is not None else (self.path.stem,)

    def goes_to(self, interface: str) -> bool:
        """Whether it is for an interface of that name."""
        return any(fnmatchcase(interface, pattern) for pattern in self.patterns)


#: What makes a pattern of a name.
_MANY = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One filter of a file, wanted somewhere."""

    file: PolicyFile
    filter: str


def read_policies(
    directory: Path, settings: Settings, known: Mapping[str, PolicyFile]
) -> tuple[PolicyFile, ...]:
    """The files of a directory, sorted by name; those that are as in `known` are not read again.

    Raises:
        PenstockError: the directory is there and cannot be read.
    """
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix in ENDINGS)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise PenstockError(f"{directory} cannot be read: {error.strerror}") from error
    return tuple(_read(path, settings.policy.get(path.name, PolicySettings()), known) for path in paths)


def _read(path: Path, settings: PolicySettings, known: Mapping[str, PolicyFile]) -> PolicyFile:
    try:
        content = _content(path)
    except PenstockError as error:
        return PolicyFile(path, settings, b"", fault=error.message)
    before = known.get(path.name)
    if before is not None and (before.content, before.settings) == (content, settings):
        return before
    try:
        text, filters = _understood(path, content, settings.filter)
    except PenstockError as error:
        return PolicyFile(path, settings, content, fault=sentence(error))
    return PolicyFile(path, settings, content, filters, text)


def _content(path: Path) -> bytes:
    """Raises PenstockError: it cannot be read, or everybody may write to it."""
    try:
        found, state = read_regular(path, MAX_BYTES)
    except OSError as error:
        raise PenstockError(f"{path} cannot be read: {error.strerror}") from error
    refuse_untrusted(str(path), state)
    if len(found) > MAX_BYTES:
        raise PenstockError(f"{path} is larger than {MAX_BYTES >> 20} MiB")
    return found


def _understood(path: Path, content: bytes, only: str | None) -> tuple[str, tuple[tuple[Hook, str], ...]]:
    """The policy's text, and its filters at interfaces."""
    if is_built(content):
        _, identity = split(content, str(path))
        return identity.text, ((Hook(identity.hook), identity.name),)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PenstockError(f"{path} is not UTF-8 text") from error
    policy, _ = checked(Source(str(path), text))
    filters = [(Hook(one.hook), one.name) for one in policy.filters if only in (None, one.name)]
    found = tuple(one for one in filters if one[0] is not Hook.SOCKET)
    if not found:
        raise PenstockError(f"{path} has no filter {only or 'for an interface'}")
    if len({hook for hook, _ in found}) < len(found):
        raise PenstockError(
            f"{path} has several filters at one hook", hint="`filter` in the settings says which"
        )
    return text, found


def where(
    files: Iterable[PolicyFile], interfaces: Sequence[str]
) -> tuple[dict[Place, Wanted], tuple[str, ...]]:
    """What is wanted on which of these interfaces, and a sentence for each filter that another one has come before."""
    found: dict[Place, Wanted] = {}
    beaten = []
    for file in files:
        for interface in filter(file.goes_to, interfaces):
            for hook, name in file.filters:
                place = Place(interface, hook)
                first = found.setdefault(place, Wanted(file, name))
                if first.file is not file:
                    beaten.append(f"{file.path}: {place} has {first.file.name} already")
    return found, tuple(beaten)


def absent(files: Iterable[PolicyFile], interfaces: Sequence[str]) -> Iterator[tuple[Place, Wanted]]:
    """What is wanted on interfaces that do not exist, named as the settings name them.

    A pattern is told of only where its file goes nowhere at all.
    """
    for file in files:
        is_somewhere = any(map(file.goes_to, interfaces))
        for pattern in file.patterns:
            if pattern not in interfaces and not (is_somewhere and _MANY.intersection(pattern)):
                yield from ((Place(pattern, hook), Wanted(file, name)) for hook, name in file.filters)


def sentence(error: PenstockError) -> str:
    """An error in one line: the first fault of a policy with its place, and how many more there are."""
    if isinstance(error, PolicyError):
        faults = [one for one in error.diagnostics if one.severity is Severity.ERROR]
        if faults:
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            return _shown(faults[0]) + more
    return f"{error.message} ({error.hint})" if error.hint else error.message


def _shown(fault: Diagnostic) -> str:
    hint = f" ({fault.hint})" if fault.hint else ""
    return f"{fault.source.name}:{fault.line}:{fault.column}: {fault.message}{hint}"
