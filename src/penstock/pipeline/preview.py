"""What an `apply` would change, before it does.

In: an attach point and a compiled policy.  Out: `Preview`: which rules come, go,
move or read otherwise, and which counters go on.  The kernel loads the program
and says whether it takes it, the guard asks it; nothing is attached.

    preview("eth0", policy).changes     ->  (RuleChange("added", "ssh", "drop if tcp dst port 22", None),)

A rule is the same if its text is; a label with another text is changed.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Literal

from penstock.kernel import pin
from penstock.kernel.attach_point import AttachPoint, attach_point
from penstock.kernel.netlink import interface
from penstock.model.hook import Hook
from penstock.model.spec import PROGRAM
from penstock.model.verdict import Condition
from penstock.pipeline import guard, whereabouts
from penstock.pipeline.attach import load
from penstock.pipeline.devices import with_devices
from penstock.pipeline.identity import kept_slots
from penstock.pipeline.set_look import as_they_are
from penstock.pipeline.set_remaking import Applying, foreseen, remade
from penstock.pipeline.slot import Slot, open_slot
from penstock.pipeline.subscriptions import owner_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.pipeline.guard import Loss
    from penstock.pipeline.identity import CounterKey
    from penstock.pipeline.policy import LoadedPolicy

What = Literal["added", "removed", "moved", "changed"]
_FIXED = 1 + len(Condition)  # the default and the conditions are no rules


@dataclass(frozen=True, slots=True)
class RuleChange:
    """One rule that would be different; `before` is the text that a changed one has now."""

    what: What
    rule: str
    text: str
    before: str | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """`replaces` is the policy in place, None for none; `lost` counters have counted something and do not go on."""

    replaces: str | None
    verified_instructions: int
    changes: tuple[RuleChange, ...]
    kept: int
    lost: tuple[str, ...]
    losses: tuple[Loss, ...]
    #: What would be said of sets that are made anew.
    notices: tuple[str, ...] = ()


def preview(
    ifname: str,
    policy: LoadedPolicy,
    *,
    programs: frozenset[int] = frozenset(),
    is_on_probation: bool = False,
) -> Preview:
    """What putting a policy on an interface would change, where these programs make room for it and others.

    Raises:
        PenstockError: it would be refused for a set that is there.
        KernelError: there is no such interface, or the kernel refuses the program.
    """
    point = attach_point(ifname, Hook(policy.identity.hook))
    policy = with_devices(policy)
    with ExitStack() as opened:
        present, sets = _present(point, opened), policy.identity.sets
        applying = Applying(programs, owner_of(policy.identity.place), is_on_probation)
        told = tuple(foreseen(sets, applying))
        made = opened.enter_context(remade(sets, applying, is_dry=True))
        maps = opened.enter_context(as_they_are(sets, made.places))
        loaded = opened.enter_context(load(policy, interface(ifname), maps))
        effort = loaded.programs[PROGRAM].info.verified_insns
        lost = guard.losses(point, policy, loaded)
        if present is None:
            return Preview(None, effort, rule_changes((), policy.rule_keys), 0, (), lost, told)
        pairs = kept_slots(present.keys, policy.counters)
        going = set(range(len(present.keys))) - {old for old, _ in pairs}
        totals = present.totals()
        forgotten = tuple(present.keys[slot].name for slot in sorted(going) if totals[slot].packets)
        before = [key for key in present.keys_in_order()[_FIXED:] if key.until_ns is None]
        changes = rule_changes(before, policy.rule_keys)
        return Preview(present.identity.name, effort, changes, len(pairs), forgotten, lost, told)


def replaced(ifname: str, hooks: Sequence[Hook]) -> frozenset[int]:
    """The programs that make room for policies at these hooks.  Raises KernelError: there is no such interface."""
    with ExitStack() as opened:
        found = [_present(attach_point(ifname, hook), opened) for hook in hooks]
        return frozenset(one.identity.program for one in found if one is not None)


def _present(point: AttachPoint, opened: ExitStack) -> Slot | None:
    root = pin.pin_root()
    name = whereabouts.find(root, point)
    return opened.enter_context(open_slot(root / name)) if name is not None else None


def rule_changes(old: Sequence[CounterKey], new: Sequence[CounterKey]) -> tuple[RuleChange, ...]:
    """The rules that differ: those that come, move or change in the new order, then those that go."""
    matcher = SequenceMatcher(None, [key.text for key in old], [key.text for key in new], autojunk=False)
    blocks = [tag for tag in matcher.get_opcodes() if tag[0] != "equal"]
    gone = [key for _, start, end, _, _ in blocks for key in old[start:end]]
    found = []
    for _, _, _, start, end in blocks:
        for key in new[start:end]:
            same = next((one for one in gone if one.text == key.text), None)
            same_label = next((one for one in gone if one.name == key.name and not one.meaning), None)
            other = same or (same_label if not key.meaning else None)
            if other is not None:
                gone.remove(other)
            what: What = "moved" if same else "changed" if other else "added"
            found.append(
                RuleChange(what, key.name, key.text, other.text if what == "changed" and other else None)
            )
    return (*found, *(RuleChange("removed", key.name, key.text) for key in gone))
