"""Rules added to a policy while it runs, and taken away again.

    add_rule("eth0", "drop if src host 192.0.2.1", label="bad")   ->  Change(name="bad", how="overlay", …)
    added_rules("eth0")                                           ->  (AddedRule(name="bad", packets=3, …),)
    remove_rule("eth0", "bad")

An added rule means what it would mean at its place in the policy's text.  It is
in force as long as the policy: `apply` of a file replaces both.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.errors import KernelError, PenstockError
from penstock.kernel import pin
from penstock.kernel.attach_point import AttachPoint, attach_point
from penstock.pipeline import whereabouts
from penstock.pipeline.added import asks_names, constants_of, placed, read_added
from penstock.pipeline.apply import find_open, locked, nothing_there
from penstock.pipeline.collector import paused
from penstock.pipeline.counters import Counter, read_total
from penstock.pipeline.identity import Added, Emergency
from penstock.pipeline.overlaid import Done, How, Wanted, own_names, put_rules
from penstock.pipeline.policy import live
from penstock.pipeline.slot import Slot, open_slot, read_carried

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from penstock.compiler.lang.diagnostic import Diagnostic


@dataclass(frozen=True, slots=True)
class Change:
    """What was done to an added rule, how, and how long it took until every packet met it.

    `why` tells why the policy was compiled again, where it was.
    """

    interface: str
    name: str
    text: str
    before: str | None
    how: How
    why: str | None
    seconds: float
    notices: tuple[str, ...] = ()
    warnings: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True, slots=True)
class AddedRule:
    """An added rule in force; `before` is the policy's rule that it stands before, None for the default."""

    name: str
    text: str
    before: str | None
    how: How
    packets: int
    bytes: int


def add_rule(
    ifname: str,
    text: str,
    *,
    before: str | None = None,
    first: bool = False,
    label: str | None = None,
    rebuild: bool = False,
    hook: str | None = None,
) -> Change:
    """Add a rule to the policy on an interface: before a rule, before all, or (else) behind all, before the default.

    With `rebuild` the policy is compiled again with it, and with those added before.  Without
    `hook` the policy is that at XDP, or the only one of the interface.

    Raises:
        PolicyError: the text is no rule.
        PenstockError: there is no rule `before`, or the name is taken.
        KernelError: there is no filter, or as `apply`.
    """
    if first and before is not None:
        raise PenstockError("a rule is either the first one, or before another one")
    start = time.monotonic()
    whole = f"{label}: {text}" if label else text

    def change(present: Slot) -> tuple[Added, tuple[Added, ...], tuple[Diagnostic, ...]]:
        identity = present.identity
        read = read_added(
            whole, constants_of(identity.text) if asks_names(text) else "", identity.name, identity.hook
        )
        if label and (not read.rule.labelled or read.rule.name != label):
            raise PenstockError(f"`{label}` is no label", hint="letters, digits, `-` and `_`")
        taken = {key.name for key in present.keys}
        if read.rule.labelled and read.rule.name in taken:
            raise PenstockError(f"there is a rule {read.rule.name} already", hint="choose another label")
        name = read.rule.name if read.rule.labelled else _free_name(taken)
        new = Added(name, read.text, None, read.rule.labelled)
        order = placed(present.added, new, own_names(identity), before, first=first)
        return next(one for one in order if one.name == name), order, read.warnings

    return _changed(ifname, hook, change, "asked for" if rebuild else None, start)


def remove_rule(ifname: str, name: str, *, rebuild: bool = False, hook: str | None = None) -> Change:
    """Take an added rule away again.

    Raises:
        PenstockError: no added rule has this name.
        KernelError: there is no filter, or as `apply`.
    """
    start = time.monotonic()

    def change(present: Slot) -> tuple[Added, tuple[Added, ...], tuple[Diagnostic, ...]]:
        for one in present.added:
            if one.name == name:
                return one, tuple(other for other in present.added if other != one), ()
        listed = ", ".join(one.name for one in present.added)
        if name in own_names(present.identity):
            hint = "rules of the policy's text are changed there, and by `penstock apply`"
        else:
            hint = f"there are: {listed}" if listed else "no rule was added"
        raise PenstockError(f"no added rule on {ifname} is named {name}", hint=hint)

    return _changed(ifname, hook, change, "asked for" if rebuild else None, start)


def added_rules(ifname: str, *, hook: str | None = None) -> tuple[AddedRule, ...]:
    """The added rules on an interface, in the order in which they are tried, with what they have counted.

    Raises:
        KernelError: there is no filter, or its pins cannot be read.
    """
    root = pin.pin_root()
    point = attach_point(ifname, whereabouts.chosen_hook(root, ifname, hook))
    whereabouts.settle_what_is_free(root)
    name = whereabouts.find(root, point)
    if name is None:
        raise nothing_there(root, point)
    with open_slot(root / name) as present:
        counted = _counted(present)
        held = {one.key.name for one in present.held}
        places = {own: at for at, own in enumerate(own_names(present.identity))}
        in_order = sorted(present.added, key=lambda one: places.get(one.before or "", len(places)))
        return tuple(
            AddedRule(
                one.name,
                one.text,
                one.before,
                "overlay" if one.name in held else "compiled",
                counted[one.name].packets,
                counted[one.name].bytes,
            )
            for one in in_order
        )


def _counted(present: Slot) -> dict[str, Counter]:
    """The counters of the added rules alone: a large policy has thousands of others."""
    keys = present.identity.counters
    names = {one.name for one in present.added}
    carried = read_carried(present.carried)
    found = {
        key.name: read_total(present.counters, slot) + carried[slot]
        for slot, key in enumerate(keys)
        if key.name in names
    }
    return found | {
        one.key.name: read_total(present.counters, len(keys) + one.number) for one in present.held
    }


@paused()
def _changed(
    ifname: str,
    hook: str | None,
    change: Callable[[Slot], tuple[Added, tuple[Added, ...], tuple[Diagnostic, ...]]],
    rebuild: str | None,
    start: float,
) -> Change:
    """Run `change` over the filter on an interface and put the outcome in place."""
    root = pin.pin_root()
    point = attach_point(ifname, whereabouts.chosen_hook(root, ifname, hook))
    with locked(point, root), ExitStack() as opened:
        present = _policy_on(root, point, opened)
        rule, order, warnings = change(present)
        done: Done = put_rules(root, point, present, Wanted(order, _in_force(present)), rebuild=rebuild)
    seconds = time.monotonic() - start
    notices = done.applied.notices
    return Change(ifname, rule.name, rule.text, rule.before, done.how, done.why, seconds, notices, warnings)


def _policy_on(root: Path, point: AttachPoint, opened: ExitStack) -> Slot:
    present = find_open(root, point, opened)
    if present is None:
        raise nothing_there(root, point)
    if present.is_defunct:
        raise KernelError(
            "change", point.ifname, 0, meaning="it is back without its filter", hint="apply again"
        )
    if not present.identity.has_policy:
        raise PenstockError(
            f"{point.ifname} has no policy, only emergency rules",
            hint="`penstock apply` puts a policy in place, `penstock drop` drops for a time",
        )
    return present


def _in_force(present: Slot) -> tuple[Emergency, ...]:
    """The emergency rules: those that have lapsed stay where they are compiled in, until something else is compiled."""
    compiled = present.identity.emergencies
    return (*compiled, *(rule for rule in live(present.emergencies) if rule not in compiled))


def _free_name(taken: set[str]) -> str:
    """`rule#1`: `#` begins a comment in a policy, so no label looks like it."""
    return next(name for number in range(1, len(taken) + 2) if (name := f"rule#{number}") not in taken)
