"""A program that drops everything but what the host cannot do without: where a policy fails and the settings say so.

    closed_policy(point, ("tcp port 22",), store)    ->  LoadedPolicy: default drop, and a `pass` for each lifeline

It is compiled for the host as it is now.  Where the compiler itself is what
fails, the last one that was compiled for that hook is taken, with what every
host needs; `prepare` makes it while all is well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import PenstockError, ToolchainError
from penstock.model.hook import Hook
from penstock.model.state_directory import foreign_owner, make_place, read_kept, write_atomically
from penstock.pipeline.lifelines import lifelines
from penstock.pipeline.policy import load_built, load_policy

if TYPE_CHECKING:
    from penstock.kernel.attach_point import AttachPoint
    from penstock.pipeline.policy import LoadedPolicy

NAME, PATH = "closed", "<closed>"
#: Address resolution, leases, and answers of resolvers, whoever they are.
_EVERY_HOST = (
    "arp",
    "icmp6[icmp6type] >= 133 and icmp6[icmp6type] <= 137",
    "udp port 67 or udp port 68",
    "udp port 546 or udp port 547",
    "udp src port 53",
)


def closed_text(hook: Hook, passing: Sequence[str]) -> str:
    """The policy that passes what these expressions match, and nothing else."""
    rules = "".join(f"    pass if {one}\n" for one in dict.fromkeys(passing))
    return f"filter {NAME} at {hook.value} {{\n    default drop\n{rules}}}\n"


def closed_policy(point: AttachPoint, reachable: Sequence[str], store: Path) -> LoadedPolicy:
    """What to put at an attach point.

    Raises:
        PenstockError: `reachable` is no expression, or there is no compiler and nothing was prepared.
    """
    needed = [one.mend for one in lifelines(point)]
    try:
        return load_policy(closed_text(point.hook, [*reachable, *needed]), name=PATH)
    except ToolchainError:
        return _prepared(point.hook, store)


def prepare(hook: Hook, reachable: Sequence[str], store: Path) -> None:
    """Have a compiled one for the day on which nothing can be compiled; does nothing where there is one.

    Raises:
        PenstockError: it cannot be compiled or written.
    """
    place, text = _file(hook, store), closed_text(hook, [*reachable, *_EVERY_HOST])
    try:
        if _prepared(hook, store).identity.text == text:
            return
    except PenstockError:
        pass
    made = load_policy(text, name=PATH)
    try:
        make_place(place.parent, 0o700)
        write_atomically(place, made.to_bytes())
    except OSError as error:
        raise PenstockError(f"{place} cannot be written: {error.strerror}") from error


def _prepared(hook: Hook, store: Path) -> LoadedPolicy:
    place = _file(hook, store)
    if (owner := foreign_owner("closed", f"closed/{place.name}")) is not None:
        # Root's programs may do more: what another could have written is compiled anew, or not used.
        raise PenstockError(f"no closed filter of root's own was prepared: user {owner} can write {place}")
    try:
        found = load_built(read_kept(place), str(place))
    except OSError as error:
        raise PenstockError(f"no closed filter was prepared: {place}: {error.strerror}") from error
    return replace(found, dear=())


def _file(hook: Hook, store: Path) -> Path:
    return store / "closed" / f"{hook.value.replace(' ', '-')}.pso"
