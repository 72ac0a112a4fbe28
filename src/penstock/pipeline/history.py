"""Which policies were put on an interface, by whom and when: the last ten, to be put there again.

    record("eth0", policies, how="apply")      ->  Entry(id="5f0c12ab", …)
    entries("eth0")                            ->  newest first
    chosen("eth0", "1")                        ->  the one before that which is in place
    policies_of(entry)                         ->  the same policies, from the text as it was then

    STATE/history/eth0.json                    the entries of an interface
    STATE/history/policies/5f0c12ab…           a policy's text, or built file, named by its SHA-256

Promised: a process that is killed, or a disk that is full, at any moment leaves
what was written before.  A text is written first; exchanging the list of
entries, which is flushed to disk before, is what makes it known.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from penstock.errors import PenstockError
from penstock.kernel.attach_point import attach_point, encode, here
from penstock.kernel.lock import hold_directory
from penstock.kernel.netlink import interfaces
from penstock.model.login import login_uid
from penstock.model.moment import boot_id
from penstock.model.state_directory import (
    foreign_owner,
    make_place,
    open_directory,
    read_kept,
    remove_files,
    state_directory,
    write_atomically,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from penstock.pipeline.policy import LoadedPolicy

MOST = 10
#: Interfaces in namespaces of their own of which is remembered what was put there.
MOST_NAMESPACES = 128
_SHOWN = 8
#: What became of a policy on probation.
CONFIRMED, TAKEN_BACK = "confirmed", "taken back"


class FilterAt(msgspec.Struct, frozen=True):
    """One filter of a policy, and its hook."""

    name: str
    hook: str


class Entry(msgspec.Struct, frozen=True):
    """A policy that was put in place: `digest` names its text, `login_uid` is who logged in, if anybody did."""

    digest: str
    filters: tuple[FilterAt, ...]
    path: str
    applied_at: str
    uid: int
    how: str
    login_uid: int | None = None
    sudo_user: str | None = None
    is_built: bool = False
    #: Of a policy on probation, its token and what became of it.
    token: str = ""
    outcome: str = ""
    #: In a namespace of its own: the boot that it belongs to, as its number means nothing to the next.
    boot: str = ""

    @property
    def id(self) -> str:
        """The first digits of the digest."""
        return self.digest[:_SHOWN]


def record(ifname: str, policies: Sequence[LoadedPolicy], *, how: str, token: str = "") -> Entry:
    """Remember what was put on an interface.

    Raises:
        PenstockError: it cannot be written; what was remembered before is.
    """
    first = policies[0].identity
    is_built = policies[0].rule_set is None
    content = policies[0].to_bytes() if is_built else first.text.encode()
    entry = Entry(
        hashlib.sha256(content).hexdigest(),
        tuple(FilterAt(one.name, one.identity.hook) for one in policies),
        first.path,
        datetime.now(UTC).isoformat(timespec="seconds"),
        os.getuid(),
        how,
        login_uid(),
        os.environ.get("SUDO_USER"),
        is_built,
        token,
        boot=_boot(),
    )
    with _writing() as place:
        if not (place / "policies" / entry.digest).exists():
            write_atomically(place / "policies" / entry.digest, content)
        _write(place, ifname, (entry, *entries(ifname))[:MOST])
        _forget_unused(place)
    return entry


def settle(ifname: str, token: str, outcome: str) -> None:
    """Remember what became of a policy on probation.  Raises PenstockError: it cannot be written."""
    if any(one.token == token and not one.outcome for one in entries(ifname)):
        with _writing() as place:
            settled = [
                msgspec.structs.replace(one, outcome=outcome) if one.token == token else one
                for one in entries(ifname)
            ]
            _write(place, ifname, settled)


def entries(ifname: str) -> tuple[Entry, ...]:
    """What was put on an interface, newest first.  Raises PenstockError: it cannot be read."""
    try:
        content = read_kept(_file(state_directory() / "history", ifname))
        found = msgspec.json.decode(content, type=tuple[Entry, ...])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise PenstockError(f"the history of {ifname} cannot be read: {error}") from error
    return tuple(one for one in found if one.boot == _boot())


def last_on_probation(ifname: str | None = None) -> tuple[Entry, ...]:
    """What was put last on each interface, or on one, if that was on probation and nobody has confirmed it.

    Raises:
        PenstockError: it cannot be read.
    """
    names = [ifname] if ifname is not None else [one.name for one in interfaces()]
    last = [every[0] for name in names if (every := entries(name))]
    return tuple(one for one in last if one.token and one.outcome != CONFIRMED)


def chosen(ifname: str, which: str) -> Entry:
    """An entry: by so many steps back from what was put in place last and stayed, or by its id.

    What was put in place again over itself is one step.

    Raises:
        PenstockError: there is no such entry.
    """
    every = entries(ifname)
    stayed = [one for one in every if one.outcome != TAKEN_BACK]
    stayed = [next(same) for _, same in groupby(stayed, lambda one: (one.digest, one.filters))]
    if which.isascii() and which.isdigit() and len(which) <= len(str(MOST)):
        if int(which) < len(stayed):
            return stayed[int(which)]
    elif found := next((one for one in every if which and one.digest.startswith(which)), None):
        return found
    listed = ", ".join(dict.fromkeys(one.id for one in every))
    missing = "earlier policy than the one put there last" if which == "1" and stayed else f"entry {which}"
    raise PenstockError(
        f"the history of {ifname} has no {missing}",
        hint=f"there are: {listed}" if listed else "nothing was put there yet",
    )


def text_of(entry: Entry) -> bytes:
    """The policy's text, or built file, as it was.

    Raises:
        PenstockError: it is gone, or is not what was written.
    """
    try:
        content = read_kept(state_directory() / "history/policies" / entry.digest)
    except OSError as error:
        raise PenstockError(f"the policy {entry.id} cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != entry.digest:
        raise PenstockError(f"the policy {entry.id} was changed on disk: its digest is another one")
    return content


def policies_of(entry: Entry) -> tuple[LoadedPolicy, ...]:
    """The policies of an entry, compiled again from the text as it was.

    Raises:
        PenstockError: as `text_of` and `load_policy`.
    """
    from penstock.pipeline.policy import load_built, load_policy

    content = text_of(entry)
    if entry.is_built:
        _refuse_of_another(entry)
        return (load_built(content, entry.path),)
    return tuple(
        load_policy(content.decode(), one.hook, name=entry.path, filter=one.name) for one in entry.filters
    )


def _refuse_of_another(entry: Entry) -> None:
    """Root loads no program that somebody who may do less could have written: the kernel would let it do more."""
    if (
        owner := foreign_owner("history", "history/policies", f"history/policies/{entry.digest}")
    ) is not None:
        raise PenstockError(
            f"the built policy {entry.id} is kept where user {owner} can write, and programs of root may do more",
            hint=f"`penstock apply {entry.path}`, the file that it was; or roll back as that user",
        )


@contextmanager
def _writing() -> Iterator[Path]:
    """The directory, held against other writers.  Raises PenstockError for whatever fails in the block."""
    place = state_directory() / "history"
    try:
        make_place(place, 0o700)
        make_place(place / "policies", 0o700)
        fd = open_directory(place)
        try:
            hold_directory(fd, "the history")
            yield place
        finally:
            os.close(fd)
    except OSError as error:
        raise PenstockError(f"the history in {place} cannot be written: {error.strerror}") from error


def _write(place: Path, ifname: str, every: Sequence[Entry]) -> None:
    write_atomically(_file(place, ifname), msgspec.json.format(msgspec.json.encode(tuple(every))))


def _forget_unused(place: Path) -> None:
    """Remove what is known of namespaces that are gone, and the texts that no entry of any interface names."""
    remove_files(place, _of_gone_namespaces(place).__contains__)
    named = b"".join(read_kept(file) for file in place.glob("*.json"))
    remove_files(place / "policies", lambda name: name.encode() not in named)


def _of_gone_namespaces(place: Path) -> set[str]:
    """The files of namespaces of an earlier boot, and of this one all but those that were written last.

    Which of this boot's are gone nobody can tell: another namespace may have the number of one that is.
    """
    of_this_boot: list[tuple[int, str]] = []
    gone: set[str] = set()
    for file in place.glob("*.json"):
        try:
            boots = {one.boot for one in msgspec.json.decode(read_kept(file), type=tuple[Entry, ...])}
            written_ns = os.lstat(file).st_mtime_ns
        except (OSError, ValueError):
            continue
        if boots and "" not in boots and boot_id():
            if boot_id() in boots:
                of_this_boot.append((written_ns, file.name))
            else:
                gone.add(file.name)
    return gone | {name for _, name in sorted(of_this_boot)[:-MOST_NAMESPACES]}


def _file(place: Path, ifname: str) -> Path:
    return place / f"{encode(attach_point(ifname).ifname, here())}.json"


def _boot() -> str:
    return "" if here() is None else boot_id()
