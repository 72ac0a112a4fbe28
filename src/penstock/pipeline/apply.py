"""Put a policy in place so that it outlives the command, replace it, take it away.

    apply("eth0", load_policy(text))    ->  Applied(interface="eth0", mode="native", kept=9, …)
    apply_all("eth0", policies)         ->  one Applied for each: all of them in place, or none
    detach("eth0")                      ->  the counters they had

The order of an `apply`, and why a `kill -9` between any two steps is harmless:

    1  compile, load, verify       nothing is changed yet; a fault here leaves the old filter running
    2  stage the pins              under a name that no reader looks at
    3  update the link             the change itself: each packet meets the old program or the new one
    4  carry the counters over     the old program has run to its end, so its counters are exact
    5  publish the pins            the directories are exchanged

What a process that died after 3 left undone, the next command finishes (`slot.settle`).
"""

from __future__ import annotations

import dataclasses
import errno
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from penstock.errors import KernelError, PenstockError, PrivilegeError
from penstock.kernel import pin
from penstock.kernel.attach_point import AttachPoint, attach_point, decode, place_words
from penstock.kernel.attached import programs_at
from penstock.kernel.lock import lock
from penstock.kernel.netlink import interface
from penstock.kernel.order import read_order
from penstock.model.hook import Hook
from penstock.pipeline import bonds, guard, whereabouts
from penstock.pipeline import slot as slots
from penstock.pipeline.attach import load
from penstock.pipeline.counters import Counter
from penstock.pipeline.devices import with_devices
from penstock.pipeline.feed_clauses import settle_feeds
from penstock.pipeline.limiters import kept_tables, seeded
from penstock.pipeline.placing import AUTO, Wish, wishes
from penstock.pipeline.policy import LoadedPolicy, add_emergencies, live, load_policy
from penstock.pipeline.putting import Applied, Putting, put_together
from penstock.pipeline.set_remaking import Applying, remade
from penstock.pipeline.set_store import shared
from penstock.pipeline.slot import Slot, open_slot
from penstock.pipeline.subscriptions import owner_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from penstock.kernel.bpf_object import BpfObject
    from penstock.pipeline.identity import Probation


@dataclass(frozen=True, slots=True)
class Detached:
    """What `detach` took away, and what it had counted."""

    interface: str
    name: str
    counters: dict[str, Counter]
    hook: str = Hook.XDP.value


def apply(
    ifname: str,
    policy: LoadedPolicy | str,
    mode: str = AUTO,
    *,
    replace: bool = False,
    order: str | None = None,
    force: bool = False,
) -> Applied:
    """Put a policy on an interface, at its filter's hook; it stays until `detach`, another `apply` or a reboot.

    A penstock policy that is there is replaced in one step, and keeps its place.
    Another XDP program is left alone unless `replace` is true; at TC programs run one
    after the other, `order` is `first`, `last`, `before:ID`, `after:ID` or, for `mode`
    clsact, a priority.  With `force` a policy that locks its host out is put in place too.

    Raises:
        PolicyError: the text is no policy.
        LockoutError: the policy would drop what this host cannot do without (guard.py).
        KernelError: no such interface, another program is there, another process is
            changing it (busy), no BPF file system, a capability is missing, or the
            kernel refuses the program.  What ran before runs on.
    """
    wanted = policy if isinstance(policy, LoadedPolicy) else load_policy(policy)
    (done,) = apply_all(ifname, (wanted,), mode, replace=replace, order=order, force=force)
    return done


def apply_all(
    ifname: str,
    policies: Sequence[LoadedPolicy],
    mode: str = AUTO,
    *,
    replace: bool = False,
    order: str | None = None,
    force: bool = False,
    probation: Probation | None = None,
) -> tuple[Applied, ...]:
    """Put policies of different hooks on an interface: all of them, or, where one is refused, none.

    `mode`, `replace` and `order` go to the hooks that know them.  On `probation` they are taken back at
    its time by `probation.end_overdue`, unless `probation.confirm` comes first.

    Raises:
        PenstockError: as `apply`; or two of them are at one hook.
    """
    hooks = [Hook(policy.identity.hook) for policy in policies]
    if len(set(hooks)) < len(hooks):
        raise PenstockError("two filters cannot be at one hook of an interface")
    each = wishes(hooks, Wish(mode, read_order(order) if order else None, replace))
    points, root = [attach_point(ifname, hook) for hook in hooks], pin.pin_root()
    pin.prepare_root(root)
    with ExitStack() as opened:
        for point in sorted(points, key=lambda point: point.name):
            opened.enter_context(locked(point, root))
        present = [find_open(root, point, opened) for point in points]
        named = [_together(policy, hooks) for policy in policies]
        with_rules = [_with_emergencies(*pair) for pair in zip(named, present, strict=True)]
        replaced = [slot.identity for slot in present if slot]
        programs, owner = frozenset(one.program for one in replaced), owner_of(policies[0].identity.place)
        applying = Applying(programs, owner, probation is not None)
        check = _permitted if force else _checked
        done = _put(root, points, with_rules, present, each, check, probation, applying)
        fed = settle_feeds(policies, replaced)
    lost = [_lost(*pair) for pair in zip(present, policies, strict=True)]
    first, *others = map(_with_notices, done, lost)
    return (_with_notices(first, *fed), *others)


def _together(policy: LoadedPolicy, hooks: Sequence[Hook]) -> LoadedPolicy:
    """The policy that knows at which hooks the others of the change are."""
    named = msgspec.structs.replace(policy.identity, together=tuple(hook.value for hook in hooks))
    return dataclasses.replace(policy, identity=named)


def _with_notices(done: Applied, *notices: str | None) -> Applied:
    return dataclasses.replace(done, notices=(*done.notices, *filter(None, notices)))


def put(
    root: Path, point: AttachPoint, policy: LoadedPolicy, present: Slot | None, wish: Wish | None = None
) -> Applied:
    """Attach a policy, or replace the one that is there, which stays on probation if it was.

    Hold the lock; raises as `apply`.
    """
    probation = present.identity.probation if present else None
    each = wishes([point.hook], wish or Wish())
    (done,) = _put(root, [point], [policy], [present], each, probation=probation)
    return done


def _put(
    root: Path,
    points: Sequence[AttachPoint],
    policies: Sequence[LoadedPolicy],
    present: Sequence[Slot | None],
    wish: Sequence[Wish],
    check: Callable[[AttachPoint, LoadedPolicy, BpfObject], str | None] | None = None,
    probation: Probation | None = None,
    applying: Applying | None = None,
) -> tuple[Applied, ...]:
    """Load all, and only then change anything; what `check` says of what was loaded becomes a notice.

    Sets that are defined otherwise than before are made anew where `applying` says for whom.
    """
    policies = [
        seeded(with_devices(policy), slot.identity if slot else None)
        for policy, slot in zip(policies, present, strict=True)
    ]
    with ExitStack() as opened:
        specs = [spec for policy in policies for spec in policy.identity.sets]
        made = opened.enter_context(remade(specs, applying))
        before = [None if applying else slot for slot in present]
        sets = [
            opened.enter_context(shared(policy.identity.sets, made.places, tuple(bonds.kept(running))))
            for policy, running in zip(policies, before, strict=True)
        ]
        tables = [
            opened.enter_context(kept_tables(slot, policy.identity))
            for slot, policy in zip(present, policies, strict=True)
        ]
        loaded = [
            opened.enter_context(load(policy, interface(point.ifindex), {**maps, **kept}))
            for policy, point, maps, kept in zip(policies, points, sets, tables, strict=True)
        ]
        told = [check(*each) if check else None for each in zip(points, policies, loaded, strict=True)]
        puttings = [
            Putting(root, *each, probation)
            for each in zip(points, policies, loaded, present, wish, strict=True)
        ]
        first, *others = map(_with_notices, put_together(puttings), told)
        return (_with_notices(first, *made.notices), *others)


def _checked(point: AttachPoint, policy: LoadedPolicy, loaded: BpfObject) -> None:
    """Refuse a policy that would lock its host out.  Raises LockoutError."""
    lost = guard.losses(point, policy, loaded)
    if lost:
        raise guard.refuse(point, policy, lost)


def _permitted(point: AttachPoint, policy: LoadedPolicy, loaded: BpfObject) -> str | None:
    """A notice of what a policy cuts off."""
    lost = guard.losses(point, policy, loaded)
    return guard.overridden(point, policy, lost) if lost else None


def _with_emergencies(policy: LoadedPolicy, present: Slot | None) -> LoadedPolicy:
    """The policy, with the emergency rules in force on the interface before its own."""
    rules = live(present.emergencies) if present else ()
    return add_emergencies(policy, rules) if rules else policy


def _lost(present: Slot | None, policy: LoadedPolicy) -> str | None:
    """A sentence about added rules that the policy in their place does not have."""
    if present is None:
        return None
    names = {key.name for key in policy.counters}
    texts = {
        key.text.partition(": ")[2] if key.text.startswith(f"{key.name}:") else key.text
        for key in policy.counters
    }
    lost = [rule for rule in present.added if rule.name not in names and rule.text not in texts]
    listed = "; ".join(f"{rule.name}: {rule.text}" for rule in lost)
    return f"these added rules are not in {policy.name}, and are gone: {listed}" if lost else None


@contextmanager
def locked(point: AttachPoint, root: Path) -> Iterator[None]:
    """Hold the lock of an attach point, with nothing half done left under its name."""
    with lock(point.name):
        slots.settle(root, point.name)
        whereabouts.settle_what_is_free(root)
        yield


def find_open(root: Path, point: AttachPoint, opened: ExitStack) -> Slot | None:
    """The opened pins of an attach point, named after it, or None.  Hold its lock.

    Raises:
        KernelError: one of the pins is missing or not what it should be.
    """
    name = whereabouts.find(root, point)
    if name is None:
        whereabouts.make_room(root, point)
        return None
    directory = root / whereabouts.follow(root, name, point)
    try:
        return opened.enter_context(open_slot(directory))
    except KernelError as error:
        error.hint = error.hint or f"`penstock detach -i {point.ifname}` takes away what is left there"
        raise


def detach(ifname: str, hook: str | None = None) -> tuple[Detached, ...]:
    """Take penstock's filters off an interface, which may have gone away itself: all, or the one at a hook.

    Raises:
        KernelError: there is no filter of penstock's, another process is changing it,
            or a capability is missing.
    """
    root = pin.pin_root()
    points = [
        _point_or_gone(root, ifname, one) for one in ([Hook(hook)] if hook else _hooks_used(root, ifname))
    ]
    with ExitStack() as opened:
        for point in points:
            opened.enter_context(locked(point, root))
        return tuple(_detach(root, point) for point in points)


def _hooks_used(root: Path, ifname: str) -> list[Hook]:
    """The hooks of an interface that have a filter of penstock's, or XDP if none has."""
    used = [hook for hook in whereabouts.HOOKS if whereabouts.is_used(root, ifname, hook)]
    return used or [Hook.XDP]


def _detach(root: Path, point: AttachPoint) -> Detached:
    with ExitStack() as opened:
        try:
            present = find_open(root, point, opened)
        except KernelError as error:
            if isinstance(error, PrivilegeError) or error.errno == errno.EBUSY:
                raise
            _take_off_damaged(root, point)
            return Detached(point.ifname, "what was left of a filter", {}, point.hook.value)
        if present is None:
            raise nothing_there(root, point)
        found = Detached(point.ifname, present.identity.name, present.counter_values(), point.hook.value)
        take_off(root, point, present)
    return found


def take_off(root: Path, point: AttachPoint, present: Slot) -> None:
    """Remove the pins and the filter with them.  Hold the lock."""
    # The kernel drops a removed pin's reference after a grace period, and of a filter
    # on clsact a pin holds nothing: so what holds the program is detached by name.
    pin.remove(root, point.name, None if present.is_defunct else present.link.detach)


def _take_off_damaged(root: Path, point: AttachPoint) -> None:
    """Remove pins that cannot be read, and the filter if what holds it is among them."""
    with ExitStack() as opened:
        link = slots.open_holder(root / point.name)
        if link is not None:
            opened.enter_context(link)
        is_held = link is not None and link.info().ifindex
        pin.remove(root, point.name, link.detach if link is not None and is_held else None)


def _point_or_gone(root: Path, ifname: str, hook: Hook) -> AttachPoint:
    """The attach point of an interface, or of the pins that an interface of that name has left.  Raises KernelError."""
    try:
        return attach_point(ifname, hook)
    except KernelError:
        name = whereabouts.true_name(ifname, hook)
        if name not in whereabouts.names_here(root):
            raise
        return AttachPoint(ifname, 0, decode(name).netns, hook)


def nothing_there(root: Path, point: AttachPoint) -> KernelError:
    """The error for an attach point without a filter of penstock's; it says where there is one."""
    names = [place_words(decode(name).ifname, decode(name).hook) for name in whereabouts.names_here(root)]
    there = "; ".join(map(str, programs_at(point.ifindex, point.hook))) if point.ifindex else ""
    meaning = "penstock has put no filter there" + (f" (it carries {there})" if there else "")
    hint = f"there is one on: {', '.join(names)}" if names else None
    return KernelError("find the policy on", str(point), errno.ENOENT, meaning=meaning, hint=hint)
