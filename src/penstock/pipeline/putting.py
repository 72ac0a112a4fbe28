"""Several filters put in place together: all of them, or none.

In: for each filter what is loaded, what is in its place now, and how it is to be
attached.  Out: `Applied` for each.

    put_together([Putting(root, point, policy, loaded, present, Wish()), …])

What the kernel may refuse comes first: new links are made, pins are staged; only
then running filters are replaced, which it refuses only if their interface goes
away meanwhile.  Whatever fails, what was there runs again.  A process that is
killed between two filters leaves each of them old or new.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Protocol

import msgspec

from penstock.errors import KernelError, PenstockError
from penstock.kernel import pin
from penstock.kernel.attached import CLSACT, programs_at
from penstock.kernel.blob import write_blob
from penstock.kernel.capability import PERFMON, missing
from penstock.kernel.clsact import Filter
from penstock.kernel.program import Program
from penstock.model.hook import Hook
from penstock.model.overlay import BANKS_MAP, SWITCH_MAP
from penstock.model.sets import SetSpec, control_map, set_map
from penstock.model.spec import COUNTERS_MAP, PROGRAM, REFUSALS_MAP
from penstock.pipeline import slot as slots
from penstock.pipeline.identity import Clsact, Identity, encode, kept_slots
from penstock.pipeline.limiters import tables_by_name
from penstock.pipeline.overlay import BANKS, SWITCH
from penstock.pipeline.placing import AUTO, Wish, mode_of, put_on
from penstock.pipeline.refusals import REFUSALS
from penstock.pipeline.set_store import CONTROL as SET_CONTROL
from penstock.pipeline.slot import BEFORE, CARRIED, COUNTERS, IDENTITY, LINK, PROGRAM_PIN, Holder, Slot
from penstock.pipeline.whereabouts import owns_clsact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from penstock.kernel.attach_point import AttachPoint
    from penstock.kernel.bpf_object import BpfObject
    from penstock.kernel.maps import Map
    from penstock.kernel.order import Order
    from penstock.kernel.syscall import Descriptor
    from penstock.pipeline.identity import Probation
    from penstock.pipeline.policy import LoadedPolicy


class Change(Protocol):
    """One filter's part in a change that is made together with others; each step is called once, in this order."""

    @property
    def is_fresh(self) -> bool:
        """Whether none of penstock's runs there yet."""
        ...

    def prepare(self, undo: ExitStack, held: ExitStack) -> None:
        """Do all that changes nothing of what is there."""
        ...

    def switch(self, undo: ExitStack) -> None:
        """Make the change."""
        ...

    def publish(self, undo: ExitStack | None = None, /) -> None:
        """Let the pins tell of it."""
        ...

    def applied(self) -> Applied:
        """What was done."""
        ...


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` did.  `kept` counters were carried over; `replaced` is the name of the policy before."""

    interface: str
    name: str
    mode: str
    program_id: int
    replaced: str | None = None
    kept: int = 0
    notices: tuple[str, ...] = ()
    hook: str = Hook.XDP.value


def put_together(puttings: Sequence[Change]) -> tuple[Applied, ...]:
    """Put all of them in place.  Hold the locks of their attach points.

    Raises:
        PenstockError: the kernel refuses one of them; what was there before is there.
    """
    fresh = [one for one in puttings if one.is_fresh]
    running = [one for one in puttings if not one.is_fresh]
    with ExitStack() as held:
        with ExitStack() as undo:
            for one in puttings:
                one.prepare(undo, held)
            for one in (*fresh, *running):
                one.switch(undo)
            for one in fresh:
                one.publish(undo)
        # The change is made; whoever comes next finishes what fails from here on.
        for one in running:
            one.publish()
    return tuple(one.applied() for one in puttings)


class Putting:
    """One filter on its way into place; `is_fresh` where none of penstock's runs."""

    def __init__(
        self,
        root: Path,
        point: AttachPoint,
        policy: LoadedPolicy,
        loaded: BpfObject,
        present: Slot | None,
        wish: Wish,
        probation: Probation | None = None,
    ) -> None:
        self._root, self._point, self._policy, self._wish = root, point, policy, wish
        self._loaded, self._program = loaded, loaded.programs[PROGRAM]
        # What is defunct has pins and counters, but its interface went away.
        self._before = present
        self._running = present if present is not None and not present.is_defunct else None
        self._probation = probation
        self._notices: list[str] = []

    @property
    def is_fresh(self) -> bool:
        return self._running is None

    def prepare(self, undo: ExitStack, held: ExitStack) -> None:
        """Attach where nothing runs, and stage the pins: all but the change of what is there."""
        if self._running is not None:
            self._holder: Holder = self._running.link
            self._old = held.enter_context(_program(self._running))
            mode = self._mode_kept(self._running)
        else:
            if self._before is not None:
                self._notices.append(f"{self._point.ifname} had been away: its filter is attached again")
            self._holder = undo.enter_context(put_on(self._program, self._point, self._wish, self._notices))
            held.enter_context(self._holder)
            mode = CLSACT if isinstance(self._holder, Filter) else mode_of(self._holder.info())
        self._identity = self._described(mode)
        self._carried = held.enter_context(slots.create_carried(len(self._identity.counters)))
        self._staged = self._stage(self._kept_for_later(held))
        undo.push(if_failed(pin.discard, self._staged))

    def switch(self, undo: ExitStack) -> None:
        """Make the change: each packet meets what was there or the new program."""
        if self._running is not None:
            self._holder.update(self._program)
            if self._old is not None:
                undo.push(if_failed(self._holder.update, self._old))
        elif isinstance(self._holder, Filter):
            self._holder.attach(self._program)

    def publish(self, undo: ExitStack | None = None, /) -> None:
        """Carry the counters over, and give the pins their name."""
        if self._before is not None:
            slots.carry(self._before, self._identity, self._carried)
            if self._remembered is not None:
                slots.remember(self._before, self._remembered)
        pin.publish(self._root, self._point.name, self._staged)
        if undo is not None:
            undo.push(if_failed(pin.remove, self._root, self._point.name))

    def applied(self) -> Applied:
        """What was done."""
        before = self._running
        return Applied(
            self._point.ifname,
            self._policy.name,
            self._identity.mode,
            self._program.id,
            before.identity.name if before else None,
            len(kept_slots(before.keys, self._identity.counters)) if before else 0,
            tuple(self._notices),
            self._point.hook.value,
        )

    def _mode_kept(self, running: Slot) -> str:
        """The mode that a replacement keeps.  Raises PenstockError: another mode, or another place, is wished."""
        mode = mode_of(running.info)
        hint = f"`penstock detach -i {self._point.ifname}` first, then apply again"
        if self._wish.mode not in (AUTO, mode):
            raise PenstockError(
                f"the filter on {self._point} runs in {mode} mode, and a replacement keeps the mode",
                hint=hint,
            )
        if self._wish.order is not None and not self._stands(running, self._wish.order):
            raise PenstockError(
                f"the filter on {self._point} does not stand {self._wish.order}, and a replacement keeps its place",
                hint=hint,
            )
        return mode

    def _stands(self, running: Slot, order: Order) -> bool:
        found = programs_at(self._point.ifindex, self._point.hook)
        own = next((one for one in found if one.program_id == running.info.program_id), None)
        # Those of the other mode run before or behind all of this one.
        beside = [one.program_id for one in found if own is not None and one.mode == own.mode]
        return own is not None and order.holds(own.program_id, beside, own.priority)

    def _described(self, mode: str) -> Identity:
        """The policy's identity, with where, how and when it was put in place."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return msgspec.structs.replace(
            self._policy.identity,
            directory=self._policy.identity.directory or working_directory(self._policy.identity.path),
            interface=self._point.ifname,
            ifindex=self._point.ifindex,
            mode=mode,
            applied_at=now,
            program=self._program.id,
            set_ids=tuple(
                self._loaded.maps[control_map(number)].info.id
                for number in range(len(self._policy.identity.sets))
            ),
            set_maps=tuple(map(self._set_maps, count(), self._policy.identity.sets)),
            clsact=self._clsact(),
            probation=self._probation,
            # A program that reads packets by helpers alone asks no overlay (bpf/include/penstock/overlay.bpf.h).
            offer=None if missing(PERFMON) else self._policy.identity.offer,
        )

    def _set_maps(self, number: int, spec: SetSpec) -> dict[str, int]:
        maps = self._loaded.maps
        tables = {name: set_map(number, name) for name in (*spec.tables, *spec.added_tables)}
        named = {SET_CONTROL: control_map(number), **tables}
        return {name: maps[one].info.id for name, one in named.items()}

    def _kept_for_later(self, held: ExitStack) -> dict[str, Descriptor]:
        """The pins of what a policy on probation replaces, or of what the one that it replaces had replaced."""
        self._remembered: Map | None = None
        if self._probation is None or self._running is None:
            return {}
        found = slots.open_pins(self._running.directory, held)
        if self._running.identity.probation is not None:
            return {name: one for name, one in found.items() if name.startswith(BEFORE)}
        self._remembered = held.enter_context(slots.create_carried(len(self._running.identity.counters)))
        old = self._old or held.enter_context(running_program(self._running))
        found |= {CARRIED: self._remembered, PROGRAM_PIN: old}
        return {f"{BEFORE}{name}": one for name, one in found.items() if name != LINK}

    def _clsact(self) -> Clsact | None:
        if not isinstance(self._holder, Filter):
            return None
        if self._running is None and owns_clsact(self._root, self._point):
            self._holder.owns_qdisc = True
        return Clsact(self._holder.name, self._holder.priority, self._holder.owns_qdisc)

    def _stage(self, more: dict[str, Descriptor]) -> Path:
        """Pin everything under a name that no reader looks at."""
        maps = self._loaded.maps
        with write_blob(encode(self._identity), "ps_identity") as blob:
            objects: dict[str, Descriptor] = {
                IDENTITY: blob,
                COUNTERS: maps[COUNTERS_MAP],
                CARRIED: self._carried,
            }
            # By its own pin, for a later command that has to put it back: by its id takes CAP_SYS_ADMIN.
            objects[PROGRAM_PIN] = self._program
            if not isinstance(self._holder, Filter):
                objects[LINK] = self._holder
            if BANKS_MAP in maps:
                objects |= {SWITCH: maps[SWITCH_MAP], BANKS: maps[BANKS_MAP]}
            if REFUSALS_MAP in maps:
                objects[REFUSALS] = maps[REFUSALS_MAP]
            objects |= tables_by_name(maps, self._identity.limiters)
            return pin.stage(self._root, self._point.name, objects | more)


def working_directory(path: str) -> str:
    """Where a path begins that is relative, for processes elsewhere; a directory that was removed is the root."""
    if not path or path.startswith("/"):
        return ""
    try:
        return os.getcwd()  # noqa: PTH109 - as text
    except OSError:
        return "/"


def running_program(slot: Slot) -> Program:
    """The program that a link or a filter runs, by its pin, or by its id where another one has been put there.

    Raises:
        KernelError: it may not be opened.
    """
    number, place = slot.info.program_id, slot.directory / PROGRAM_PIN
    if place.exists():
        pinned = Program.open(place)
        if pinned.id == number:
            return pinned
        pinned.close()
    return Program.by_id(number)


@contextmanager
def _program(slot: Slot) -> Iterator[Program | None]:
    """The program that is to be replaced, to be put back if need be; None where it may not be opened."""
    try:
        found = running_program(slot)
    except KernelError:
        yield None
        return
    with found:
        yield found


def if_failed(action: Callable[..., object], *arguments: object) -> Callable[..., None]:
    """For ExitStack.push: run the action only if the block has failed."""

    def after(kind: object, _error: object, _at: object) -> None:
        if kind is not None:
            action(*arguments)

    return after
