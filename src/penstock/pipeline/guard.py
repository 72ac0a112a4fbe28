"""Would this program lock its host out?  The program itself is asked, before it is attached.

In: a loaded policy, and the packets that must go on passing (lifelines.py).
Out: a `Loss` for each one that would not, with the rule that decides it.

    losses(point, policy, loaded)    ->  (Loss(Lifeline("the SSH connection from …"), CounterKey("default"), …),)

The kernel runs the program on each packet by BPF_PROG_TEST_RUN.  What that counts
is taken back, so that a program that is attached begins at nothing; and it is told
that the packets are none: it leaves sets and buckets as they are, which may be those
of the program that runs.

A bucket that is full pays for one packet, and one packet alone is no connection.  So of a
policy with rates each packet comes a second time as one of so many in a minute
(`Lifeline.per_minute`): a rate that a full bucket and a minute cannot pay these from
is one that the packet is over.

Rules that add to sets may shut out tomorrow whom they let pass today.  So of such a
policy the kernel loads the program once more, what its rules add in maps of its own
and all else shared, and each packet comes twice: the second has to pass too.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from penstock.errors import KernelError, LockoutError
from penstock.kernel.netlink import interface
from penstock.kernel.program import skb_context, xdp_context
from penstock.model.hook import TRAITS, Hook
from penstock.model.packet import read_packet
from penstock.model.sets import maps_of, set_map
from penstock.model.spec import COUNTERS_MAP, OVER_VARIABLE, PROGRAM, REFUSALS_MAP, TRIAL_VARIABLE
from penstock.model.verdict import Verdict
from penstock.pipeline.attach import load
from penstock.pipeline.counters import clear, read_totals
from penstock.pipeline.lifelines import lifelines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from penstock.kernel.attach_point import AttachPoint
    from penstock.kernel.bpf_object import BpfObject
    from penstock.kernel.maps import Map
    from penstock.kernel.program import Program
    from penstock.pipeline.identity import CounterKey
    from penstock.pipeline.lifelines import Lifeline
    from penstock.pipeline.policy import LoadedPolicy

_DECIDING = frozenset(verdict.value for verdict in Verdict if verdict is not Verdict.PASS)
#: The trials in which rules add to sets, and in which samples of many are true: PS_TRIAL_… of
#: bpf/include/penstock/verdict.bpf.h.
_ADDS, _SAMPLES = 2, 4
#: More counters than this are read in one call, which takes numpy.
_FEW = 256


@dataclass(frozen=True, slots=True)
class Loss:
    """A packet that would not pass; `key` is the counter of what decides it.

    One `is_later` passes at first, and no more once rules have seen it and its like; one `is_steady`
    passes by itself, and does not as one of so many in a minute; one `is_by_chance` is lost so often that
    few connections last.
    """

    lifeline: Lifeline
    key: CounterKey
    path: str
    is_later: bool = False
    is_steady: bool = False
    is_by_chance: bool = False

    @property
    def decider(self) -> str:
        """What decides, and where it stands: ``ssh (edge.policy:7): drop``."""
        place = f" ({self.path}:{self.key.line})" if self.key.line else ""
        later = " (once rules have added such packets to sets)" if self.is_later else ""
        steady = f" (of {self.lifeline.per_minute} in a minute, which is not much)" if self.is_steady else ""
        chance = " (by chance, and often)" if self.is_by_chance else ""
        return f"{self.key.name}{place}: {self.key.text or self.key.action}{later}{steady}{chance}"

    @property
    def mending_line(self) -> str:
        """The rule that would let the packet through, and where it belongs."""
        where = f"before line {self.key.line}" if self.key.line else "before the default"
        if self.key.name.startswith("on "):
            where = f"and {self.key.name} continue"
        return f"pass if {self.lifeline.mend}   ({where})"


def refuse(point: AttachPoint, policy: LoadedPolicy, lost: Sequence[Loss]) -> LockoutError:
    """The error for a policy that would lock its host out."""
    missing = "a higher rate or what is missing" if any(one.is_steady for one in lost) else "what is missing"
    return LockoutError(
        _sentence(point, policy, lost),
        lost,
        hint=f"add {missing}, or put it in place all the same with --force",
    )


def overridden(point: AttachPoint, policy: LoadedPolicy, lost: Sequence[Loss]) -> str:
    """The notice for one that is put in place all the same."""
    return f"{_sentence(point, policy, lost)}; it was put in place because that was asked for"


def _sentence(point: AttachPoint, policy: LoadedPolicy, lost: Sequence[Loss]) -> str:
    what = ", ".join(dict.fromkeys(loss.lifeline.what for loss in lost))
    return f"{policy.name} on {point} would cut off {what}"


def losses(
    point: AttachPoint,
    policy: LoadedPolicy,
    loaded: BpfObject,
    environment: Mapping[str, str] = os.environ,
) -> tuple[Loss, ...]:
    """What of the host's lifelines the loaded program would not let pass.

    Raises:
        KernelError: the program cannot be asked.
    """
    wanted = lifelines(point, environment)
    if not wanted:
        return ()
    frames = {one: read_packet(one.packet) for one in wanted}
    with on_trial(loaded):
        lost = tuple(_lost(point, policy, loaded, frames))
    if not any(key.action.startswith("add ") for key in policy.counters):
        return lost
    gone = {loss.lifeline.what for loss in lost}
    frames = {one: frame for one, frame in frames.items() if one.what not in gone}
    return (*lost, *_later_losses(point, policy, loaded, frames))


def _lost(
    point: AttachPoint, policy: LoadedPolicy, loaded: BpfObject, frames: Mapping[Lifeline, bytes]
) -> Iterator[Loss]:
    """Which of the packets do not pass: by themselves, or as some of so many in a minute."""
    passes = TRAITS[point.hook].codes[Verdict.PASS]
    ask = _answering(loaded.programs[PROGRAM], point)
    gone: set[str] = set()
    for one, frame in frames.items():
        for trial in _trials(policy, one, frame) if one.what not in gone else ():
            _be_over(loaded, trial.starved, is_sampled=trial.is_sampled)
            if ask(frame) != passes:
                gone.add(one.what)
                key = _decider(ask, frame, loaded.maps[COUNTERS_MAP], policy.counters)
                steady = trial.starved != 0 and not trial.is_sampled
                yield Loss(one, key, policy.identity.path, is_steady=steady, is_by_chance=trial.is_sampled)
                break
    _be_over(loaded, 0)


@dataclass(frozen=True, slots=True)
class _Trial:
    """What a packet meets: rates that are used up, a bit for each, and samples of which it is one."""

    starved: int = 0
    is_sampled: bool = False


def _trials(policy: LoadedPolicy, one: Lifeline, frame: bytes) -> Iterator[_Trial]:
    """By itself; as one of so many in a minute, if that is another thing; as one that many samples take."""
    yield _Trial()
    starved = _starved(policy, one, frame)
    if starved:
        yield _Trial(starved)
    yield _Trial(starved, is_sampled=True)


def _starved(policy: LoadedPolicy, one: Lifeline, frame: bytes) -> int:
    """The limiters that cannot pay for so many of these in a minute, a bit for each."""
    return sum(
        1 << number
        for number, limiter in enumerate(policy.identity.limiters)
        if not limiter.pays(one.per_minute, len(frame))
    )


def _be_over(loaded: BpfObject, limiters: int, *, is_sampled: bool = False) -> None:
    """Let a trial's packets be over these rates, and among those that samples of many take."""
    if TRIAL_VARIABLE in loaded.variables:
        switch = loaded.variable(TRIAL_VARIABLE)
        others = int.from_bytes(switch, sys.byteorder) & ~_SAMPLES
        switch[:] = (others | _SAMPLES * is_sampled).to_bytes(len(switch), sys.byteorder)
    if OVER_VARIABLE in loaded.variables:
        place = loaded.variable(OVER_VARIABLE)
        place[:] = limiters.to_bytes(len(place), sys.byteorder)


def _later_losses(
    point: AttachPoint, policy: LoadedPolicy, loaded: BpfObject, frames: Mapping[Lifeline, bytes]
) -> Iterator[Loss]:
    """Which of the packets do not pass that have come before, of a policy whose rules add to sets."""
    sets = policy.identity.sets
    own = {set_map(number, table) for number, spec in enumerate(sets) for table in spec.added_tables}
    shared = {name: loaded.maps[name] for name in maps_of(sets) if name not in own}
    with load(policy, interface(point.ifindex), shared) as other, on_trial(other, adds=True):
        ask = _answering(other.programs[PROGRAM], point)
        for one, frame in frames.items():
            for starved in (0, _starved(policy, one, frame)):
                _be_over(other, starved)
                ask(frame)
        _be_over(other, 0)
        for loss in _lost(point, policy, other, frames):
            yield replace(loss, is_later=True)


@contextmanager
def on_trial(loaded: BpfObject, *, adds: bool = False) -> Iterator[None]:
    """Let the program change neither sets nor buckets, and count nothing in the end.  It must not be attached yet.

    With `adds` its rules do add to sets, in maps that must be its own.

    Raises:
        KernelError: what was counted cannot be taken back.
    """
    switch = loaded.variable(TRIAL_VARIABLE) if TRIAL_VARIABLE in loaded.variables else None
    if switch is not None:
        switch[:] = (_ADDS if adds else 1).to_bytes(len(switch), sys.byteorder)
    try:
        yield
    finally:
        _begin_at_nothing(loaded)
        if switch is not None:
            switch[:] = bytes(len(switch))


def _answering(program: Program, point: AttachPoint) -> Callable[[bytes], int]:
    """What the program answers to a frame that is at the attach point's interface."""
    if point.hook.is_tc:
        came_in = point.ifindex if point.hook is Hook.TC_INGRESS else 0
        return program.answering(skb_context(ifindex=point.ifindex, ingress_ifindex=came_in))

    def answer(frame: bytes) -> int:
        # An interface without any XDP program may have no receive queue that XDP knows: EINVAL.
        try:
            return program.test_run(frame, ctx=xdp_context(len(frame), point.ifindex)).retval
        except KernelError:
            return program.test_run(frame).retval

    return answer


def _decider(
    ask: Callable[[bytes], int], frame: bytes, counters: Map, keys: Sequence[CounterKey]
) -> CounterKey:
    """What decides a frame that does not pass: of all that counts it, the last that ends the search."""
    before = _packets(counters, len(keys))
    ask(frame)
    counted = [
        key for key, old, new in zip(keys, before, _packets(counters, len(keys)), strict=True) if new > old
    ]
    deciding = [key for key in counted if key.action.partition(" ")[0] in _DECIDING]
    return deciding[-1] if deciding else keys[0]


def _packets(counters: Map, slots: int) -> list[int]:
    if slots <= _FEW:
        return [total.packets for total in read_totals(counters, slots)]
    keys, values = counters.read_all()
    summed = values[:, :, 0].sum(axis=1)
    order = keys.view("=u4").reshape(-1).argsort()
    packets: list[int] = summed[order][:slots].tolist()
    return packets


def _begin_at_nothing(loaded: BpfObject) -> None:
    """Take back what was counted."""
    counters = loaded.maps[COUNTERS_MAP]
    for slot, packets in enumerate(_packets(counters, counters.info.max_entries)):
        if packets:
            clear(counters, slot)
    if REFUSALS_MAP in loaded.maps:
        refusals = loaded.maps[REFUSALS_MAP]
        refusals.update(bytes(refusals.info.key_size), bytes(len(refusals.lookup(bytes(4)) or b"")))
