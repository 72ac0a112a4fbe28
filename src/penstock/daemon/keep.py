"""Look, decide, act: one round of keeping the kernel as the settings say.

    keeper = Keeper(directory, journal, memory)
    keeper.round()                  what has changed is put right; returns when to look again at the latest
    keeper.round(is_asked=True)     the same after a reload: what is there by hand, or was released, goes

A round may block for seconds (it compiles), so it runs in a thread of its own.
It may be killed anywhere: each change is one of `pipeline.apply`'s, which is whole
or not made, and what is remembered of it is written behind it.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import assert_never

import msgspec

from penstock.daemon import closed, state
from penstock.daemon.desired import Desired
from penstock.daemon.journal import Journal
from penstock.daemon.look import Look, look
from penstock.daemon.patience import Patience
from penstock.daemon.policies import Place, PolicyFile, Wanted, absent, sentence, where
from penstock.daemon.reconcile import Keep, Kept, Leave, Put, Step, TakeOff, decide
from penstock.daemon.settings import PolicySettings, Settings
from penstock.errors import KernelError, PenstockError
from penstock.kernel.attach_point import attach_point
from penstock.kernel.netlink import interfaces
from penstock.model.hook import Hook
from penstock.model.state_directory import state_directory
from penstock.pipeline import history, probation
from penstock.pipeline.apply import apply_all, detach
from penstock.pipeline.placing import AUTO, MODES
from penstock.pipeline.policy import LoadedPolicy, load_built, load_policy
from penstock.pipeline.putting import Applied
from penstock.pipeline.running import Running, Watch


class Keeper:
    """What keeps policies in place.  One thread at a time may call `round`."""

    def __init__(self, directory: Path, journal: Journal, memory: state.Memory) -> None:
        self.looks: tuple[Look, ...] = ()
        self.memory, self.counts = memory, state.Counts()
        self._journal = journal
        self._desired = Desired(directory, journal, self._count_load_error)
        self._kept = {_place(name): kept for name, kept in memory.kept.items()}
        self._loaded: dict[tuple[str, str], LoadedPolicy] = {}
        self._released = {_place(name) for name in memory.released}
        self._seen: set[Place] = set()
        self._left: dict[Place, str] = {}
        self._patience = Patience()
        self._watch = Watch()
        self._saved = b""
        self._prepared: object = (frozenset(), ())

    @property
    def settings(self) -> Settings | None:
        """The settings in force; None before any could be read."""
        return self._desired.settings

    # ── one round ────────────────────────────────────────────────────────────

    def round(self, *, is_asked: bool = False) -> float | None:
        """Do what is to be done; seconds after which to look again, None for as usual."""
        self._end_probations()
        pause = self._desired.read(is_asked=is_asked)
        if self._desired.is_new:
            self._begin_anew(is_asked=is_asked)
        if self.settings is None:
            return pause
        indices = {one.name: one.index for one in interfaces()}
        try:
            running = self._watch.running()
        except PenstockError as error:
            self._journal.alarm("pins", error.message)
            return pause
        self._journal.settle("pins", "the pins can be read again")
        wanted, beaten = where(self._desired.files.values(), sorted(indices))
        self._tell_beaten(beaten)
        steps = decide(wanted, running, self._kept, self._released, indices, self._desired.faulty)
        looks = [one for step in _ordered(steps) for one in self._carry_out(step, indices)]
        looks += self._close_what_is_open(wanted, running, indices)
        missing = absent(self._desired.files.values(), sorted(indices))
        looks += [look(place, one, "waiting", f"for interface {place.interface}") for place, one in missing]
        self._tell_strays(running)
        self.looks = tuple(looks)
        self._journal.settle_all_but(
            "place ", {f"place {Place(one.interface, Hook(one.hook))}" for one in looks}
        )
        self._prepare_closing(self.settings, wanted)
        self.remember()
        return self._soonest(pause)

    def _begin_anew(self, *, is_asked: bool) -> None:
        """Something else is wanted: what has failed is tried again, and after a reload nothing by hand is spared."""
        self._patience.forget()
        if is_asked:
            self._released.clear()
            # What is there by hand is told from what was put by the mark: none is like it.
            self._kept = {
                place: Kept(kept.file, "", kept.program, kept.ifindex) for place, kept in self._kept.items()
            }

    def keeps(self, interface: str) -> bool:
        """Whether any policy is for that interface."""
        return any(one.interface == interface for one in self.looks)

    def release(self, interface: str, hook: str | None) -> None:
        """Somebody takes a filter off by a command: nobody puts it back before the next reload."""
        self._released |= {Place(interface, one) for one in Hook if hook in (None, one.value)}
        self.remember()

    def remember(self) -> None:
        """Write down what is in place; an alarm where that cannot be."""
        self.memory.kept = {_name(place): kept for place, kept in self._kept.items()}
        self.memory.released = sorted(map(_name, self._released))
        if self.counts != state.Counts():
            counted, self.counts = self.counts, state.Counts()
            try:
                state.count(counted)
            except PenstockError:
                self.counts += counted
        if (content := msgspec.json.encode(self.memory)) == self._saved and state.is_there():
            return
        try:
            state.save(self.memory)
        except PenstockError as error:
            self._journal.alarm("state", error.message)
        else:
            self._saved = content
            self._journal.settle("state", "what the daemon remembers can be written again")

    # ── steps ────────────────────────────────────────────────────────────────

    def _carry_out(self, steps: list[Step], indices: Mapping[str, int]) -> list[Look]:
        """One step, or those of one file at several hooks of an interface, which are put together."""
        match steps[0]:
            case Keep() as step:
                return [self._keep(step)]
            case Leave() as step:
                return [self._leave(step)]
            case TakeOff() as step:
                self._take_off(step)
                return []
            case Put():
                return self._put([step for step in steps if isinstance(step, Put)], indices)
            case _ as never:
                assert_never(never)

    def _keep(self, step: Keep) -> Look:
        program = step.running.program
        if step.is_new or step.place not in self._seen:
            self._journal.note(
                f"{step.place}: {step.wanted.filter} runs already, program {program}; taken over as it is"
            )
        self._seen.add(step.place)
        self._left.pop(step.place, None)
        file = step.wanted.file
        self._kept[step.place] = Kept(file.name, file.mark, program, step.running.ifindex)
        self._journal.settle(_key(step.place), f"{step.place}: {step.wanted.filter} is in place")
        return look(step.place, step.wanted, "in place", program=program)

    def _leave(self, step: Leave) -> Look:
        """Somebody wants it so, which is no alarm; told once."""
        told = f"{step.place}: {step.wanted.file.name} is left out: {step.why}"
        if self._left.get(step.place) != told:
            self._journal.warn(told)
        self._left[step.place] = told
        return look(step.place, step.wanted, "left", step.why)

    def _take_off(self, step: TakeOff) -> None:
        place = step.place
        try:
            detach(place.interface, place.hook.value)
        except PenstockError as error:
            self._journal.alarm(_key(place), f"{place}: no policy wants what runs there: {error.message}")
            return
        del self._kept[place]
        self._journal.settle(_key(place))
        self._journal.note(f"{place}: taken off, no policy is for it any more")

    def _put(self, steps: list[Put], indices: Mapping[str, int]) -> list[Look]:
        """Put the filters of a file on an interface, in one step where there are several."""
        interface, file = steps[0].place.interface, steps[0].wanted.file
        name, now = f"{interface} {file.name}", time.monotonic()
        if not self._patience.may(name, now):
            why = self._patience.why(name)
            return [look(one.place, one.wanted, "waiting", why or one.why) for one in steps]
        foreign = [one for one in steps if one.is_foreign]
        # Once, at however many hooks: they are put back together.
        pause = self._patience.wait(name, now) if foreign else 0.0
        for one in foreign:
            self._journal.warn(
                f"{one.place}: {one.why}; it is put back, and next time not within {pause:g} s"
            )
        try:
            policies = [self._load(file, one.wanted.filter, one.place.hook) for one in steps]
            done = _put_in_place(interface, policies, file.settings, [one.place.hook for one in steps])
        except PenstockError as error:
            return self._failed(name, steps, error, indices, pause)
        if not foreign:
            self._patience.forget(name)
        for step, applied in zip(steps, done, strict=True):
            self._seen.add(step.place)
            self._kept[step.place] = Kept(file.name, file.mark, applied.program_id, indices[interface])
            self._journal.settle(_key(step.place))
            self._journal.note(
                f"{step.place}: {applied.name} from {file.path} put in place, program {applied.program_id}, "
                f"{applied.mode} mode ({step.why})"
            )
            for notice in applied.notices:
                self._journal.warn(f"{step.place}: {notice}")
        with suppress(PenstockError):
            history.record(interface, policies, how="daemon")
        return [
            look(step.place, step.wanted, "in place", program=applied.program_id)
            for step, applied in zip(steps, done, strict=True)
        ]

    def _failed(
        self, name: str, steps: list[Put], error: PenstockError, indices: Mapping[str, int], pause: float
    ) -> list[Look]:
        """It cannot be put in place: what runs there runs on, and where nothing does the settings decide."""
        pause = pause or self._patience.wait(name, time.monotonic())
        self._patience.explain(name, f"the last try failed: {sentence(error)}")
        if _is_busy(error):
            return [look(one.place, one.wanted, "waiting", error.message) for one in steps]
        looks = []
        for step in steps:
            told = f"{step.place}: {step.wanted.file.name} cannot be put in place: {sentence(error)}"
            looks.append(self._open_or_closed(step.place, step.wanted.file, told, step.running, indices))
        self._journal.note(f"{name}: it is tried again in {pause:g} s, or when something changes")
        return looks

    def _load(self, file: PolicyFile, filter_name: str, hook: Hook) -> LoadedPolicy:
        """The compiled filter; what was compiled once is kept while the file is as it is."""
        known = self._loaded.get((file.mark, filter_name))
        if known is not None:
            return known
        marks = {one.mark for one in self._desired.files.values()}
        self._loaded = {key: one for key, one in self._loaded.items() if key[0] in marks}
        path = str(file.path)
        made = (
            load_built(file.content, path)
            if file.is_built
            else load_policy(file.text, hook.value, name=path, filter=filter_name)
        )
        self._loaded[file.mark, filter_name] = made
        return made

    # ── failing ──────────────────────────────────────────────────────────────

    def _close_what_is_open(
        self, wanted: Mapping[Place, Wanted], running: Iterable[Running], indices: Mapping[str, int]
    ) -> list[Look]:
        """For files with an error, of which no version without is known: where nothing runs the settings decide."""
        there = {Place(one.interface, one.hook): one for one in running if not one.is_gone}
        looks = []
        for file in self._desired.files.values():
            if file.fault is None:
                continue
            hooks = {place.hook for place, kept in self._kept.items() if kept.file == file.name} or {Hook.XDP}
            places = [
                Place(name, hook) for name in indices if file.goes_to(name) for hook in Hook if hook in hooks
            ]
            for place in (place for place in places if place not in wanted):
                present = there.get(place)
                told = f"{place}: {file.name} has an error: {file.fault}"
                looks.append(self._open_or_closed(place, file, told, present, indices))
        return looks

    def _open_or_closed(
        self, place: Place, file: PolicyFile, told: str, present: Running | None, indices: Mapping[str, int]
    ) -> Look:
        assert self.settings is not None
        decision = file.settings.on_load_error or self.settings.failure.load
        wanted = Wanted(file, file.path.stem)
        if present is not None and present.identity is not None and present.identity.path == closed.PATH:
            return look(place, wanted, "closed", told, program=present.program)
        if present is not None:
            self._count_load_error(_key(place), f"{told}; what runs there runs on")
            return look(place, wanted, "old", told)
        if decision == "open":
            self._count_load_error(_key(place), f"{told}; nothing filters there")
            return look(place, wanted, "open", told)
        try:
            point = attach_point(place.interface, place.hook)
            policy = closed.closed_policy(point, self.settings.failure.reachable, state_directory())
            (done,) = apply_all(place.interface, [policy], force=True)
        except PenstockError as error:
            self._count_load_error(_key(place), f"{told}; it cannot be closed either: {sentence(error)}")
            return look(place, wanted, "open", told)
        self._kept[place] = Kept(file.name, "", done.program_id, indices[place.interface])
        self._count_load_error(_key(place), f"{told}; it is closed to all but this host's lifelines")
        return look(place, wanted, "closed", told, program=done.program_id)

    def _prepare_closing(self, settings: Settings, wanted: Mapping[Place, Wanted]) -> None:
        """Have what closes a place compiled while the compiler works."""
        hooks = {
            place.hook
            for place, one in wanted.items()
            if (one.file.settings.on_load_error or settings.failure.load) == "closed"
        }
        needed = (frozenset(hooks), settings.failure.reachable)
        if needed == self._prepared:
            return
        self._prepared = needed
        try:
            for hook in hooks:
                closed.prepare(hook, settings.failure.reachable, state_directory())
        except PenstockError as error:
            self._journal.alarm("closing", f"what closes an interface cannot be prepared: {sentence(error)}")
        else:
            self._journal.settle("closing")

    def _count_load_error(self, key: str, told: str) -> None:
        if not any(one.key == key and one.message == told for one in self._journal.alarms):
            self.counts.load += 1
        self._journal.alarm(key, told)

    # ── the rest ─────────────────────────────────────────────────────────────

    def _end_probations(self) -> None:
        try:
            ended = probation.end_overdue()
            probation.remember(ended)
        except PenstockError as error:
            self._journal.alarm("probation", f"a policy on probation cannot be taken back: {error.message}")
            return
        self._journal.settle("probation")
        for one in ended:
            back = f"{one.restored} is there again" if one.restored else "nothing is there, as before"
            self._journal.warn(f"{one.interface}: nobody has confirmed {one.name}: {back}")

    def _tell_beaten(self, beaten: tuple[str, ...]) -> None:
        if beaten:
            self._journal.alarm("places", "; ".join(beaten))
        else:
            self._journal.settle("places")

    def _tell_strays(self, running: Iterable[Running]) -> None:
        """A filter whose interface has another name by now runs on there until something takes its place."""
        known = {kept.program: place for place, kept in self._kept.items()}
        for one in running:
            place = known.get(one.program)
            if place is not None and one.interface != place.interface:
                self._journal.warn(
                    f"{place.interface} is called {one.interface} now; its filter runs on there"
                )
                del self._kept[place]

    def _soonest(self, pause: float | None) -> float | None:
        left = self._patience.next_s(time.monotonic())
        return min((one for one in (pause, left) if one is not None), default=None)


def _is_busy(error: PenstockError) -> bool:
    """Whether another process holds what is to be changed, for a moment."""
    return isinstance(error, KernelError) and error.errno == errno.EBUSY and error.operation == "change"


def _ordered(steps: Iterable[Step]) -> list[list[Step]]:
    """Steps that are carried out together: `Put`s of one file on one interface."""

    def key(step: Step) -> tuple[int, str, str, str]:
        if isinstance(step, Put):
            return 1, step.place.interface, step.wanted.file.name, ""
        return 0, step.place.interface, step.place.hook.value, ""

    return [list(group) for _, group in groupby(sorted(steps, key=key), key)]


def _put_in_place(
    interface: str, policies: list[LoadedPolicy], settings: PolicySettings, hooks: list[Hook]
) -> tuple[Applied, ...]:
    """Apply with what the settings wish, as far as these hooks know it."""
    return apply_all(
        interface,
        policies,
        settings.mode if any(settings.mode in MODES[hook] for hook in hooks) else AUTO,
        order=settings.order if any(hook.is_tc for hook in hooks) else None,
        replace=settings.replace and Hook.XDP in hooks,
        force=settings.force,
    )


def _key(place: Place) -> str:
    return f"place {place}"


def _name(place: Place) -> str:
    return f"{place.interface} {place.hook.value}"


def _place(name: str) -> Place:
    interface, _, hook = name.partition(" ")
    return Place(interface, Hook(hook))
