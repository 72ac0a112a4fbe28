"""Put a policy in place so that it outlives the command, replace it, take it away.

    apply("eth0", load_policy(text))    ->  Applied(interface="eth0", mode="native", kept=9, …)
    detach("eth0")                      ->  the counters it had

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
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from penstock.errors import KernelError, PenstockError, PrivilegeError
from penstock.kernel import pin
from penstock.kernel.attach_point import AttachPoint, attach_point, decode
from penstock.kernel.blob import write_blob
from penstock.kernel.link import Link, attached
from penstock.kernel.lock import lock
from penstock.model.overlay import BANKS_MAP, SWITCH_MAP
from penstock.model.spec import COUNTERS_MAP, PROGRAM
from penstock.pipeline import slot as slots
from penstock.pipeline import whereabouts
from penstock.pipeline.attach import AUTO, load, mode_of, put_on
from penstock.pipeline.counters import Counter
from penstock.pipeline.identity import Identity, encode, kept_slots
from penstock.pipeline.overlay import BANKS, SWITCH
from penstock.pipeline.policy import LoadedPolicy, add_emergencies, live, load_policy
from penstock.pipeline.slot import CARRIED, COUNTERS, IDENTITY, LINK, Slot, open_slot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.kernel.bpf_object import BpfObject
    from penstock.kernel.program import Program
    from penstock.kernel.syscall import Descriptor


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` did.  `kept` counters were carried over; `replaced` is the name of the policy before."""

    interface: str
    name: str
    mode: str
    program_id: int
    replaced: str | None = None
    kept: int = 0
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Detached:
    """What `detach` took away, and what it had counted."""

    interface: str
    name: str
    counters: dict[str, Counter]


def apply(ifname: str, policy: LoadedPolicy | str, mode: str = AUTO, *, replace: bool = False) -> Applied:
    """Put a policy on an interface; it stays until `detach`, another `apply` or a reboot.

    A penstock policy that is there is replaced in one step.  Another program is
    left alone unless `replace` is true.

    Raises:
        PolicyError: the text is no policy.
        KernelError: no such interface, another program is there, another process is
            changing it (busy), no BPF file system, a capability is missing, or the
            kernel refuses the program.  What ran before runs on.
    """
    wanted = policy if isinstance(policy, LoadedPolicy) else load_policy(policy)
    point, root = attach_point(ifname), pin.pin_root()
    pin.prepare_root(root)
    with locked(point, root), ExitStack() as opened:
        present = find_open(root, point, opened)
        done = put(root, point, _with_emergencies(wanted, present), present, mode, replace=replace)
    lost = _lost(present, wanted)
    return dataclasses.replace(done, notices=(*done.notices, lost)) if lost else done


def put(
    root: Path,
    point: AttachPoint,
    policy: LoadedPolicy,
    present: Slot | None,
    mode: str,
    *,
    replace: bool = False,
) -> Applied:
    """Attach a policy, or replace the one that is there.  Hold the lock; raises as `apply`."""
    with load(policy) as loaded:
        if present is None or present.is_defunct:
            return _first(root, point, policy, loaded, mode, replace=replace, gone=present)
        return _replace(root, point, policy, loaded, mode, present)


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
    """The opened pins of an interface, named after it, or None.  Hold its lock.

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


def _first(
    root: Path,
    point: AttachPoint,
    policy: LoadedPolicy,
    loaded: BpfObject,
    mode: str,
    *,
    replace: bool,
    gone: Slot | None,
) -> Applied:
    """Attach where no filter of penstock's runs; `gone` is one whose interface went away, and whose counters stay."""
    notices = [] if gone is None else [f"{point.ifname} had been away: its filter is attached again"]
    with put_on(loaded.programs[PROGRAM], point.ifindex, mode, notices, replace=replace) as link:
        program_id = loaded.programs[PROGRAM].id
        identity = _identity(policy, point, mode_of(point.ifindex, program_id), program_id)
        _pin(root, point, identity, loaded, link, gone)
    link.close()
    return Applied(point.ifname, policy.name, identity.mode, program_id, notices=tuple(notices))


def _replace(
    root: Path, point: AttachPoint, policy: LoadedPolicy, loaded: BpfObject, mode: str, present: Slot
) -> Applied:
    running = mode_of(point.ifindex, present.info.program_id)
    if mode not in (AUTO, running):
        raise PenstockError(
            f"the filter on {point.ifname} runs in {running} mode, and a replacement keeps the mode",
            hint=f"`penstock detach -i {point.ifname}` first, then apply again",
        )
    program = loaded.programs[PROGRAM]
    identity = _identity(policy, point, running, program.id)

    _pin(root, point, identity, loaded, present.link, present, switch_to=program)
    kept = len(kept_slots(present.keys, identity.counters))
    return Applied(point.ifname, policy.name, running, program.id, present.identity.name, kept)


def _identity(policy: LoadedPolicy, point: AttachPoint, mode: str, program_id: int) -> Identity:
    """The policy's identity, with where and when it was put in place."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return msgspec.structs.replace(
        policy.identity,
        interface=point.ifname,
        ifindex=point.ifindex,
        mode=mode,
        applied_at=now,
        program=program_id,
    )


def _pin(
    root: Path,
    point: AttachPoint,
    identity: Identity,
    loaded: BpfObject,
    link: Link,
    before: Slot | None,
    switch_to: Program | None = None,
) -> None:
    """Stage, switch, carry over, publish: steps 2 to 5."""
    with (
        write_blob(encode(identity), "ps_identity") as blob,
        slots.create_carried(len(identity.counters)) as carried,
    ):
        objects: dict[str, Descriptor] = {
            IDENTITY: blob,
            COUNTERS: loaded.maps[COUNTERS_MAP],
            CARRIED: carried,
            LINK: link,
        }
        if BANKS_MAP in loaded.maps:
            objects |= {SWITCH: loaded.maps[SWITCH_MAP], BANKS: loaded.maps[BANKS_MAP]}
        with ExitStack() as undo:
            staged = pin.stage(root, point.name, objects)
            undo.callback(pin.discard, staged)
            if switch_to is not None:
                link.update(switch_to)
                undo.pop_all()  # The change is made; whoever comes next finishes what fails from here on.
            if before is not None:
                slots.carry(before, identity, carried)
            pin.publish(root, point.name, staged)
            undo.pop_all()


def detach(ifname: str) -> Detached:
    """Take penstock's filter off an interface, which may have gone away itself.

    Raises:
        KernelError: there is no filter of penstock's, another process is changing it,
            or a capability is missing.
    """
    root = pin.pin_root()
    point = _point_or_gone(root, ifname)
    with locked(point, root), ExitStack() as opened:
        try:
            present = find_open(root, point, opened)
        except KernelError as error:
            if isinstance(error, PrivilegeError) or error.errno == errno.EBUSY:
                raise
            _take_off_damaged(root, point)
            return Detached(ifname, "what was left of a filter", {})
        if present is None:
            raise nothing_there(root, point)
        found = Detached(ifname, present.identity.name, present.counter_values())
        take_off(root, point, present)
    return found


def take_off(root: Path, point: AttachPoint, present: Slot) -> None:
    """Remove the pins and the filter with them.  Hold the lock."""
    pin.remove(root, point.name)
    # The kernel drops a removed pin's reference after a grace period; the link
    # is detached by name so that no packet is filtered once this returns.
    if not present.is_defunct:
        present.link.detach()


def _take_off_damaged(root: Path, point: AttachPoint) -> None:
    """Remove pins that cannot be read, and the filter if its link is among them."""
    path = root / point.name / LINK
    with ExitStack() as opened:
        link = opened.enter_context(Link.open(path)) if path.exists() else None
        pin.remove(root, point.name)
        if link is not None and link.info().ifindex:
            link.detach()


def _point_or_gone(root: Path, ifname: str) -> AttachPoint:
    """The attach point of an interface, or of the pins that an interface of that name has left.  Raises KernelError."""
    try:
        return attach_point(ifname)
    except KernelError:
        name = whereabouts.true_name(ifname)
        if name not in whereabouts.names_here(root):
            raise
        return AttachPoint(ifname, 0, decode(name)[1])


def nothing_there(root: Path, point: AttachPoint) -> KernelError:
    """The error for an interface without a filter of penstock's; it says where there is one."""
    names = [decode(name)[0] for name in whereabouts.names_here(root)]
    there = "; ".join(map(str, attached(point.ifindex))) if point.ifindex else ""
    meaning = "penstock has put no filter there" + (f" (it carries {there})" if there else "")
    hint = f"there is one on: {', '.join(names)}" if names else None
    return KernelError("find the policy on", point.ifname, errno.ENOENT, meaning=meaning, hint=hint)
