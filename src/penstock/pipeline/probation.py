"""Policies on probation: what was there before comes back at its time, unless somebody confirms the new one.

    probation = begin(60)
    apply_all("eth0", policies, probation=probation)
    confirm("eth0")                  ->  the policies stay; or
    undo("eth0")                     ->  what was there is there again, at once
    end_overdue()                    ->  the same for whatever nobody has confirmed in time

A slot on probation keeps the pins of what it has replaced, program and counters
and all, under names that begin with `before-`.  Taking it back compiles nothing
and needs no file: the old program takes the place of the new one in one step, at
all hooks together, and counters go on where the rule is the same.  The end is on
the boot clock, in the pinned identity, so that any process can keep it.
"""

from __future__ import annotations

import errno
import secrets
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from penstock.errors import KernelError, PenstockError
from penstock.kernel import pin
from penstock.kernel.attach_point import AttachPoint, attach_point, here
from penstock.kernel.blob import write_blob
from penstock.kernel.lock import is_free
from penstock.kernel.maps import Map
from penstock.kernel.program import Program
from penstock.model.boot_clock import boot_clock_ns
from penstock.model.hook import Hook
from penstock.pipeline import history, whereabouts
from penstock.pipeline import slot as slots
from penstock.pipeline.apply import find_open, locked, take_off
from penstock.pipeline.counters import clear
from penstock.pipeline.feed_clauses import take_back_feeds
from penstock.pipeline.identity import Emergency, Identity, Probation, encode, kept_slots
from penstock.pipeline.overlaid import Wanted, put_rules
from penstock.pipeline.policy import live
from penstock.pipeline.putting import Applied, if_failed, put_together, running_program
from penstock.pipeline.slot import BEFORE, CARRIED, COUNTERS, IDENTITY, LINK, PROGRAM_PIN, Slot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from penstock.kernel.syscall import Descriptor

_PATIENCE_S, _BUSY_S = 30.0, 0.05


@dataclass(frozen=True, slots=True)
class Ended:
    """A policy that is no longer on probation: `restored` is what runs in its place, None where nothing did."""

    interface: str
    hook: str
    name: str
    is_confirmed: bool
    token: str
    restored: str | None = None
    notices: tuple[str, ...] = ()


def remember(done: Iterable[Ended]) -> None:
    """Write into the history how probations have ended.  Raises PenstockError: it cannot be written."""
    for ended in done:
        history.settle(
            ended.interface, ended.token, history.CONFIRMED if ended.is_confirmed else history.TAKEN_BACK
        )


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Pins on probation, found without a lock."""

    point: AttachPoint
    identity: Identity
    probation: Probation


def begin(seconds: float) -> Probation:
    """A probation that ends in so many seconds."""
    return Probation(secrets.token_hex(8), boot_clock_ns() + round(seconds * 1e9))


def confirm(ifname: str | None = None) -> tuple[Ended, ...]:
    """Let the policies on probation stay: all, or those of an interface; none is no error.

    Raises:
        KernelError: another process is changing one of them.
    """
    root = pin.pin_root()
    done = []
    for candidate in _candidates(root, ifname):
        with locked(candidate.point, root), ExitStack() as opened:
            present = find_open(root, candidate.point, opened)
            if present is not None and present.identity.probation == candidate.probation:
                _confirm(present, candidate.probation)
                done.append(_ended(candidate, is_confirmed=True))
    return tuple(done)


def _confirm(present: Slot, probation: Probation) -> None:
    settled = msgspec.structs.replace(present.identity, probation=None, confirmed=probation.token)
    with write_blob(encode(settled), "ps_identity") as blob:
        pin.exchange_pin(present.directory, IDENTITY, blob, without=BEFORE)


def undo(ifname: str | None = None) -> tuple[Ended, ...]:
    """Put back what was there before the policies on probation: all, or those of an interface; none is no error.

    Raises:
        PenstockError: it cannot be put back; the policies on probation are in place.
    """
    root = pin.pin_root()
    tokens = dict.fromkeys(one.probation.token for one in _candidates(root, ifname))
    return tuple(ended for token in tokens for ended in _undo(root, token))


def end_overdue() -> tuple[Ended, ...]:
    """Undo every probation of this network namespace whose time is over, unless another process is at it.

    Raises:
        PenstockError: as `undo`.
    """
    root, now = pin.pin_root(), boot_clock_ns()
    tokens = dict.fromkeys(one.probation.token for one in _candidates(root) if one.probation.until_ns <= now)
    done: list[Ended] = []
    for token in tokens:
        try:
            done += _undo(root, token)
        except KernelError as error:
            if error.errno != errno.EBUSY:
                raise
    return tuple(done)


def end(token: str) -> tuple[Ended, ...]:
    """Undo one probation; waits while other processes are changing its interfaces.

    Raises:
        PenstockError: as `undo`.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return _undo(pin.pin_root(), token)
        except KernelError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        time.sleep(_BUSY_S)


def outcome(token: str) -> bool | None:
    """Whether a policy has passed its probation; None while it is on it."""
    root = pin.pin_root()
    found = [_identity(root / name) for name in whereabouts.names_here(root)]
    if any(one is not None and one.probation and one.probation.token == token for one in found):
        return None
    return any(one is not None and one.confirmed == token for one in found)


def is_known(token: str) -> bool:
    """Whether a policy of any network namespace is on this probation.

    Raises:
        KernelError: pins cannot be read.
    """
    root = pin.pin_root()
    found = [slots.read_identity(root / name).probation for name in pin.attach_points(root)]
    return any(one is not None and one.token == token for one in found)


def _candidates(root: Path, ifname: str | None = None) -> list[_Candidate]:
    """The pins on probation of this network namespace, or of one of its interfaces."""
    places, found = whereabouts.Places(), []
    wanted = attach_point(ifname).ifname if ifname is not None else None
    for name in whereabouts.names_here(root):
        identity = _identity(root / name)
        if identity is None or identity.probation is None:
            continue
        point = _point(places, root / name, identity)
        if wanted in (None, point.ifname):
            found.append(_Candidate(point, identity, identity.probation))
    return found


def _point(places: whereabouts.Places, directory: Path, identity: Identity) -> AttachPoint:
    """Where the filter of a directory is now; where it was, if its interface is gone."""
    hook = Hook(identity.hook)
    link = slots.open_holder(directory)
    if link is not None:
        with link:
            place = places.of(link.info())
        if place is not None:
            return AttachPoint(place.name, place.index, here(), hook)
    return AttachPoint(identity.interface, 0, here(), hook)


def _identity(directory: Path) -> Identity | None:
    """None for pins that are gone by now, or cannot be read."""
    try:
        return slots.read_identity(directory)
    except KernelError:
        return None


def _undo(root: Path, token: str) -> tuple[Ended, ...]:
    """Put back what was there before the policies of one probation, all of them together."""
    found = [one for one in _candidates(root) if one.probation.token == token]
    if _is_confirmed(root, token):
        # Whoever confirmed it was killed between two hooks.
        return tuple(ended for one in found for ended in confirm(one.point.ifname))
    with ExitStack() as opened:
        for one in sorted(found, key=lambda one: one.point.name):
            opened.enter_context(locked(one.point, root))
        pairs = [(one, find_open(root, one.point, opened)) for one in found]
        # Meanwhile somebody may have confirmed, replaced or detached it.
        present = [(one, slot) for one, slot in pairs if slot and slot.identity.probation == one.probation]
        # Asked before anything changes: going back gives a directory's name to another one.
        going_back = [(one, slot) for one, slot in present if _has_before(slot)]
        leaving = [pair for pair in present if pair not in going_back]
        changes = [_Return(root, one.point, slot) for one, slot in going_back]
        put_together(changes)
        for one, slot in leaving:
            take_off(root, one.point, slot)
        said = take_back_feeds([one.identity for one, _ in present], [change.identity for change in changes])
        ended = [replace(_ended(one), notices=said) for one, _ in leaving]
        for (one, slot), change in zip(going_back, changes, strict=True):
            notices = _put_emergencies(root, one.point, live(slot.emergencies), opened)
            ended.append(replace(_ended(one), restored=change.identity.name, notices=(*said, *notices)))
    return tuple(ended)


def _ended(candidate: _Candidate, *, is_confirmed: bool = False) -> Ended:
    identity = candidate.identity
    token = candidate.probation.token
    return Ended(candidate.point.ifname, identity.hook, identity.name, is_confirmed, token)


def _has_before(slot: Slot) -> bool:
    return not slot.is_defunct and (slot.directory / f"{BEFORE}{IDENTITY}").exists()


def _is_confirmed(root: Path, token: str) -> bool:
    found = (_identity(root / name) for name in whereabouts.names_here(root))
    return any(one is not None and one.confirmed == token for one in found)


def _put_emergencies(
    root: Path, point: AttachPoint, rules: tuple[Emergency, ...], opened: ExitStack
) -> tuple[str, ...]:
    """Emergency rules that came during the probation go on after it; a sentence where they cannot."""
    present = find_open(root, point, opened)
    if present is None or all(rule in present.emergencies for rule in rules):
        return ()
    known = {rule.name for rule in present.emergencies}
    wanted = (*live(present.emergencies), *(rule for rule in rules if rule.name not in known))
    try:
        put_rules(root, point, present, Wanted(present.added, wanted))
    except PenstockError as error:
        return (f"emergency rules could not be put before {present.identity.name} again: {error.message}",)
    return ()


class _Return:
    """One filter's part in going back: `putting.Change` for a program that is there already."""

    is_fresh = False

    def __init__(self, root: Path, point: AttachPoint, present: Slot) -> None:
        self._root, self._point, self._present = root, point, present
        self.identity = slots.read_identity(present.directory, BEFORE)

    def prepare(self, undo: ExitStack, held: ExitStack) -> None:
        """Open what was replaced, let its counters begin at what was written down of them, and stage its pins."""
        directory = self._present.directory
        found = slots.open_pins(directory, held)
        pins = {name.removeprefix(BEFORE): one for name, one in found.items() if name.startswith(BEFORE)}
        self._program = held.enter_context(Program.open(directory / f"{BEFORE}{PROGRAM_PIN}"))
        self._newer = held.enter_context(running_program(self._present))
        count = len(self.identity.counters)
        self._carried = held.enter_context(slots.create_carried(count))
        with Map.open(directory / slots.BEFORE_CARRIED) as totals:
            slots.write_carried(self._carried, slots.read_carried(totals))
        with Map.open(directory / f"{BEFORE}{COUNTERS}") as counters:
            for number in range(count):
                clear(counters, number)
        self._staged = pin.stage(self._root, self._point.name, self._named(pins, found))
        undo.push(if_failed(pin.discard, self._staged))

    def _named(self, pins: dict[str, Descriptor], found: dict[str, Descriptor]) -> dict[str, Descriptor]:
        pins[CARRIED] = self._carried
        if LINK in found:
            pins[LINK] = found[LINK]
        return pins

    def switch(self, undo: ExitStack) -> None:
        """Let the old program take the place of the new one."""
        self._present.link.update(self._program)
        undo.push(if_failed(self._present.link.update, self._newer))

    def publish(self, _undo: ExitStack | None = None, /) -> None:
        """Carry what was counted meanwhile, and give the old pins their name."""
        slots.carry(self._present, self.identity, self._carried)
        pin.publish(self._root, self._point.name, self._staged)

    def applied(self) -> Applied:
        """What was done."""
        kept = len(kept_slots(self._present.keys, self.identity.counters))
        name = self._present.identity.name
        return Applied(
            self._point.ifname, self.identity.name, self.identity.mode, self._program.id, name, kept
        )


def left_s(identity: Identity) -> float | None:
    """The seconds that a policy on probation has left, at least 0; None for one that is on none."""
    if identity.probation is None:
        return None
    return max(0.0, (identity.probation.until_ns - boot_clock_ns()) / 1e9)


def waiting(token: str, until_ns: int, ifname: str) -> Iterator[float]:
    """Seconds to sleep, one after the other, until a probation has ended one way or the other, feeds and all."""
    deadline = until_ns + round(_PATIENCE_S * 1e9)
    while (outcome(token) is None or _is_changing(ifname)) and boot_clock_ns() < deadline:
        yield 0.2


def _is_changing(ifname: str) -> bool:
    """Whether somebody is changing what filters on an interface."""
    with suppress(KernelError):
        return not all(is_free(attach_point(ifname, hook).name) for hook in whereabouts.HOOKS)
    return False
