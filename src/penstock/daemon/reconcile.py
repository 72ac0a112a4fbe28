"""What is to be done so that what runs is what is wanted: a pure function.

    decide(wanted, running, memory, released)     ->  [Put(place, wanted, "nothing was there"), Keep(place, …)]

`memory` is what this daemon, or the one before it, has put where.  With it the
reasons can be told apart: an interface that has come back, a filter that somebody
has taken off, a policy that somebody has put there by hand.  A policy by hand
stays until the file changes or a reload is asked for: whoever types `penstock
apply` on a machine in trouble must not be overruled two seconds later.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from penstock.daemon.policies import Place, Wanted
from penstock.pipeline.bonds import words
from penstock.pipeline.running import Running
from penstock.version import VERSION


class Kept(msgspec.Struct, frozen=True):
    """What was put, or found as wanted, at a place: the file with its settings, the program, the interface."""

    file: str
    mark: str
    program: int
    ifindex: int


@dataclass(frozen=True, slots=True)
class Keep:
    """It is as wanted; `is_new` where this was not known yet."""

    place: Place
    wanted: Wanted
    running: Running
    is_new: bool


@dataclass(frozen=True, slots=True)
class Put:
    """Put it in place, because of `why`; `is_foreign` where somebody else has undone what was there."""

    place: Place
    wanted: Wanted
    why: str
    is_foreign: bool = False
    running: Running | None = None
    """What filters there now."""


@dataclass(frozen=True, slots=True)
class Leave:
    """It is not as wanted, and stays so; `why` is for people."""

    place: Place
    wanted: Wanted
    why: str


@dataclass(frozen=True, slots=True)
class TakeOff:
    """The daemon has put it there, and nobody wants it any more."""

    place: Place
    running: Running


Step = Keep | Put | Leave | TakeOff


def decide(
    wanted: Mapping[Place, Wanted],
    running: Sequence[Running],
    memory: Mapping[Place, Kept],
    released: Collection[Place] = (),
    indices: Mapping[str, int] | None = None,
    spared: Collection[str] = (),
) -> list[Step]:
    """A step for each place that is wanted or was.

    `indices` are those of the interfaces by their names; what came from the files that are `spared`,
    because they have an error now, is not taken off.
    """
    # What is on no interface any more comes first, so that what runs under the same name counts.
    there = {Place(one.interface, one.hook): one for one in sorted(running, key=lambda one: not one.is_gone)}
    steps: list[Step] = [
        _wanted_at(
            place,
            one,
            there.get(place),
            memory.get(place),
            place in released,
            (indices or {}).get(place.interface),
        )
        for place, one in wanted.items()
    ]
    for place, kept in memory.items():
        present = there.get(place)
        if place in wanted or kept.file in spared:
            continue
        if present is None or present.program != kept.program:
            continue
        if present.identity is not None and present.identity.probation is None:
            steps.append(TakeOff(place, present))
    return steps


def _wanted_at(
    place: Place,
    wanted: Wanted,
    running: Running | None,
    kept: Kept | None,
    is_released: bool,
    ifindex: int | None,
) -> Step:
    if running is not None and running.fault is not None:
        return Leave(place, wanted, f"its pins cannot be read: {running.fault}")
    if running is None or running.is_gone or running.identity is None:
        if is_released:
            return Leave(place, wanted, "it was taken off by a command; a reload puts it back")
        is_foreign = kept is not None and kept.ifindex == ifindex and kept.mark == wanted.file.mark
        why = "somebody has taken it off" if is_foreign else "nothing was there"
        return Put(place, wanted, why, is_foreign)
    identity = running.identity
    if identity.probation is not None:
        return Leave(place, wanted, f"{identity.name} is on probation there")
    if not running.is_current:
        return Put(place, wanted, "somebody has put another program on its link", True, running)
    if is_same(running, wanted):
        if identity.version != VERSION:
            return Put(
                place, wanted, f"it was compiled by penstock {identity.version or 'of old'}", running=running
            )
        if running.unbound:
            return Put(place, wanted, words(running.unbound), running=running)
        return Keep(place, wanted, running, kept is None or kept.mark != wanted.file.mark)
    if (
        kept is not None
        and kept.mark == wanted.file.mark
        and kept.ifindex == running.ifindex
        and identity.has_policy
    ):
        return Leave(place, wanted, f"{identity.name} was put in place by hand; a reload takes it back")
    return Put(place, wanted, f"{identity.name} was there", running=running)


def is_same(running: Running, wanted: Wanted) -> bool:
    """Whether what runs was made of the text that is wanted."""
    identity = running.identity
    return (
        identity is not None
        and identity.has_policy
        and (identity.text, identity.name) == (wanted.file.text, wanted.filter)
    )
