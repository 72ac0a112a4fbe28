"""Whose programs ask a set.

users_of(found)     ->  (User(42, "ps_filter", policy="edge", interface="eth0", hook="xdp"), User(57, "other"))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.kernel import pin
from penstock.kernel.attach_point import place_words
from penstock.kernel.capability import SYS_ADMIN, missing
from penstock.model.hook import Hook
from penstock.model.spec import PROGRAM
from penstock.pipeline.slot import read_identity

if TYPE_CHECKING:
    from penstock.pipeline.identity import Identity
    from penstock.pipeline.live_set import LiveSet


@dataclass(frozen=True, slots=True)
class User:
    """A program; `policy` and where it runs are empty for one that is not of a policy in place."""

    program: int
    name: str
    policy: str = ""
    interface: str = ""
    hook: str = ""

    def __str__(self) -> str:
        if not self.policy:
            return f"{self.name} (program {self.program})"
        return f"{self.policy} on {place_words(self.interface, Hook(self.hook))}"


def users_of(found: LiveSet) -> tuple[User, ...]:
    """The programs that use a set; without CAP_SYS_ADMIN those of penstock's policies.

    Raises:
        KernelError: they may not be read.
    """
    from penstock.kernel.map_listing import users

    policies = {user.program: user for user, _ in policies_with(found.spec.name)}
    if missing(SYS_ADMIN):
        return tuple(policies[number] for number in sorted(policies))
    known = users()
    asking = sorted({one for table in found.maps.values() for one in known.get(table.info.id, ())})
    return tuple(policies.get(number, User(number, name)) for number, name in asking)


def policies_with(name: str) -> list[tuple[User, Identity]]:
    """The programs of the policies in place that name a set.  Raises KernelError."""
    root = pin.pin_root()
    named = []
    for point in pin.attach_points(root):
        identity = read_identity(root / point)
        if any(spec.name == name for spec in identity.sets):
            where = identity.name, identity.interface, identity.hook
            named.append((User(identity.program, PROGRAM, *where), identity))
    return named
