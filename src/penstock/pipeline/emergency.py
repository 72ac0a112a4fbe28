"""Rules for the emergency: put before a running policy, for a time.

    drop("eth0", "udp dst port 53 and len > 512", 7200)      ->  "drop#1", in force for two hours

A large policy takes the rule into its overlay (overlaid.py); another one is
compiled again with the rule before its own and takes the place of the running
one in one step.  The rule carries its end on the boot clock and the
data path reads that clock, so it lapses in time even if every process of
penstock has died; `expire` then removes what is left of it.  Where there was no
policy, a filter that passes everything else is put in place and taken off again.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from penstock.errors import KernelError, PenstockError
from penstock.kernel import pin
from penstock.kernel.attach_point import AttachPoint, attach_point
from penstock.model.boot_clock import boot_clock_ns
from penstock.model.hook import Hook
from penstock.pipeline import whereabouts
from penstock.pipeline.apply import find_open, locked, nothing_there, put, take_off
from penstock.pipeline.asked_sets import asked_sets
from penstock.pipeline.identity import Emergency
from penstock.pipeline.overlaid import Wanted, put_rules
from penstock.pipeline.placing import AUTO, Wish
from penstock.pipeline.policy import check_expression, compiled_again, live, load_policy
from penstock.pipeline.putting import Applied
from penstock.pipeline.slot import Slot, open_slot

#: The filter that holds emergency rules where there is no policy.
EMPTY_POLICY = "filter emergency at {hook} {{\n    default pass\n}}\n"
_NOBODY = "<emergency>"
_PATIENCE_S, _BUSY_S = 10.0, 0.1

Action = Literal["drop", "audit"]
Change = Callable[[tuple[Emergency, ...]], tuple[Emergency, ...]]


class NoSuchRuleError(PenstockError):
    """No emergency rule of that name, or none at all, is in force."""


@dataclass(frozen=True, slots=True)
class Started:
    """An emergency rule in force: its name counts it in `status`; it lapses at `until_ns` of the boot clock."""

    rule: Emergency
    applied: Applied


def start(
    ifname: str,
    expression: str,
    seconds: float,
    action: Action = "drop",
    mode: str = AUTO,
    *,
    hook: str = Hook.XDP.value,
) -> Started:
    """Drop (or count, for `audit`) what an expression matches, before any rule of the policy in place at the hook.

    Raises:
        PolicyError: the text is no expression, or asks a set that is not there.
        KernelError: as `apply`.
    """
    sets = asked_sets(expression)
    check_expression(expression, sets=sets)
    added: list[Emergency] = []

    def with_new(rules: tuple[Emergency, ...]) -> tuple[Emergency, ...]:
        until = boot_clock_ns() + round(seconds * 1e9)
        added.append(Emergency(_free_name(rules, action), action, expression, until, sets))
        return (*rules, *added)

    applied = _change(ifname, Hook(hook), with_new, mode, may_be_first=True)
    if applied is None:
        raise KernelError("add a rule to", ifname, errno.ENOENT)
    return Started(added[0], applied)


def cancel(ifname: str, name: str | None = None, *, hook: str | None = None) -> tuple[Emergency, ...]:
    """Take an emergency rule back, or all of them, at a hook (XDP, or the only one in use); those that were taken.

    Raises:
        NoSuchRuleError: there is none (of that name).
        KernelError: as `apply`.
    """
    taken: list[Emergency] = []

    def without(rules: tuple[Emergency, ...]) -> tuple[Emergency, ...]:
        taken.extend(rule for rule in rules if name in (None, rule.name))
        if not taken:
            named = f"is named {name}" if name else "is in force"
            listed = ", ".join(rule.name for rule in rules)
            raise NoSuchRuleError(
                f"no emergency rule on {ifname} {named}", hint=f"there are: {listed}" if rules else None
            )
        return tuple(rule for rule in rules if rule not in taken)

    _change(ifname, whereabouts.chosen_hook(pin.pin_root(), ifname, hook), without, AUTO)
    return tuple(taken)


def end(ifname: str, name: str, *, hook: str = Hook.XDP.value) -> None:
    """Take a rule back that may have lapsed, or been removed, already; waits while another process is at work.

    Raises:
        KernelError: as `apply`.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            _cancel_or_expire(ifname, name, hook)
        except KernelError as error:
            if error.errno == errno.ENOENT:  # There is no filter.
                return
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_S)
        else:
            return


def _cancel_or_expire(ifname: str, name: str, hook: str) -> None:
    try:
        cancel(ifname, name, hook=hook)
    except NoSuchRuleError:
        # One that has lapsed is not in force, and yet in the filter.
        expire(ifname, hook=hook)


def expire(ifname: str, *, hook: str = Hook.XDP.value) -> int | None:
    """Remove the rules whose time is over; the boot clock at which the next one ends, None when none is left.

    Raises:
        KernelError: as `apply`; errno EBUSY or ENOENT while another process is changing the interface.
    """
    rules = _rules_on(ifname, Hook(hook))
    if live(rules) != rules:
        _change(ifname, Hook(hook), lambda left: left, AUTO)
    return min((rule.until_ns for rule in live(rules)), default=None)


def _rules_on(ifname: str, hook: Hook) -> tuple[Emergency, ...]:
    """The emergency rules of an interface, read without its lock: whoever looks on should not make others wait."""
    root, point = pin.pin_root(), attach_point(ifname, hook)
    name = whereabouts.find(root, point)
    if name is None:
        return ()
    with open_slot(root / name) as present:
        return present.emergencies


def _change(
    ifname: str, hook: Hook, change: Change, mode: str, *, may_be_first: bool = False
) -> Applied | None:
    """Run `change` over the rules in force and put the outcome in place; None when the filter was taken off."""
    root, point = pin.pin_root(), attach_point(ifname, hook)
    pin.prepare_root(root)
    with locked(point, root), ExitStack() as opened:
        present = find_open(root, point, opened)
        if present is None and not may_be_first:
            raise nothing_there(root, point)
        rules = change(live(present.emergencies if present else ()))
        if present is None or not present.identity.has_policy:
            return _without_policy(root, point, rules, present, mode)
        if present.is_defunct:
            return put(
                root, point, compiled_again(present.identity, rules, present.added), present, Wish(mode)
            )
        return put_rules(root, point, present, Wanted(present.added, rules), mode).applied


def _without_policy(
    root: Path, point: AttachPoint, rules: tuple[Emergency, ...], present: Slot | None, mode: str
) -> Applied | None:
    """Put rules in place where there is nothing else, or take the filter off that existed for them."""
    if present is not None and not rules:
        take_off(root, point, present)
        return None
    text = EMPTY_POLICY.format(hook=point.hook.value)
    policy = load_policy(text, name=_NOBODY, emergencies=rules, has_policy=False)
    return put(root, point, policy, present, Wish(mode))


def _free_name(rules: tuple[Emergency, ...], action: Action) -> str:
    """`drop#1`, `try#2`: `#` begins a comment in a policy, so no label looks like it."""
    word = "try" if action == "audit" else "drop"
    taken = {rule.name for rule in rules}
    return next(name for number in range(1, len(taken) + 2) if (name := f"{word}#{number}") not in taken)
