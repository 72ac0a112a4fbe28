"""What a round has found at one place, for `status`."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.daemon.policies import Place, Wanted


@dataclass(frozen=True, slots=True)
class Look:
    """What is at one place, for `status`."""

    interface: str
    hook: str
    file: str
    policy: str
    state: str
    why: str = ""
    program: int | None = None


def look(place: Place, wanted: Wanted, word: str, why: str = "", program: int | None = None) -> Look:
    """What is told of a place; `word` is its state."""
    return Look(place.interface, place.hook.value, wanted.file.name, wanted.filter, word, why, program)
