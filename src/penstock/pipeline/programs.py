"""Load a hand-written program, attach it so that it outlives the command, take it away.

    found = open_program("filter.c")
    load_program(found, choose(found), Hook.XDP, interface="eth0")   ->  Loaded(program_id=42, mode="native", …)
    detach_program(42)

Nothing is changed before the kernel has verified the program; when attaching or
pinning fails, the program is gone again and what was there before is there.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from penstock.errors import KernelError, PenstockError
from penstock.kernel import netns, pin, syscall
from penstock.kernel.attach_point import AttachPoint, attach_point
from penstock.kernel.attached import CLSACT
from penstock.kernel.capability import kernel_errors
from penstock.kernel.link import Link
from penstock.kernel.lock import lock
from penstock.kernel.program import Program
from penstock.model.hook import Hook
from penstock.pipeline import program_slot
from penstock.pipeline.placing import AUTO, Wish, mode_of, put_on, wishes
from penstock.pipeline.program_listing import listed
from penstock.pipeline.program_object import check_hook, hooks_of, load
from penstock.pipeline.program_slot import LINK, PROGRAM, ProgramIdentity
from penstock.pipeline.whereabouts import owns_clsact

if TYPE_CHECKING:
    from penstock.kernel.bpf_object import BpfObject
    from penstock.kernel.clsact import Filter
    from penstock.kernel.object_programs import ProgramSpec
    from penstock.kernel.syscall import Descriptor
    from penstock.pipeline.program_listing import listed
from penstock.pipeline.program_object import ProgramObject


@dataclass(frozen=True, slots=True)
class Loaded:
    """What `load_program` did; `pins` are the paths that the user asked for."""

    identity: ProgramIdentity
    pins: tuple[str, ...]
    notices: tuple[str, ...]


def load_program(
    found: ProgramObject,
    program: ProgramSpec,
    hook: Hook | None,
    *,
    interface: str | None = None,
    wanted: Wish | None = None,
    values: Mapping[str, str] | None = None,
    pin_at: str | None = None,
) -> Loaded:
    """Load a program and, with an interface, attach it there.

    `pin_at` is a directory in bpffs that gets the program and its maps under
    their names, for others to use; penstock keeps its own pins besides.

    Raises:
        PenstockError: it cannot run at that hook, or a variable is not there.
        KernelError: the kernel refuses it, another program is there (`wanted.replace`
            takes over), or there is no BPF file system.
    """
    if hook is not None:
        check_hook(program, hook)
    place = _place(interface, hook, wanted or Wish(), program)
    pin.prepare_root(program_slot.programs_root())
    with load(found, program, hook, values or {}) as loaded, ExitStack() as undo:
        pins = undo.enter_context(_pinned_for_others(loaded, Path(pin_at))) if pin_at else ()
        own, objects = loaded.programs[program.name], _kept(loaded, program.name)
        identity = _identity(found, program, loaded, hook)
        if place is None or hook is None:
            program_slot.keep(identity, objects)
            return Loaded(identity, pins, ())
        notices: list[str] = []
        identity = _attach(own, objects, identity, place, wanted or Wish(), notices)
    return Loaded(identity, pins, tuple(notices))


def _attach(
    own: Program,
    objects: dict[str, Descriptor],
    identity: ProgramIdentity,
    place: AttachPoint,
    wanted: Wish,
    notices: list[str],
) -> ProgramIdentity:
    """Attach a program and pin what belongs to it; on failure neither is done."""
    where = structs.replace(identity, interface=place.ifname, ifindex=place.ifindex, netns=place.netns)
    with lock(place.name):
        _check_no_policy(place)
        before = _replaceable(place, wanted) if wanted.replace else None
        if before is not None:
            notices.append(f"took the place of program {before.program} ({before.name}) in one step")
            return _take_over(own, objects, where, before)
        with put_on(own, place, wanted, notices) as held:
            if isinstance(held, Link):
                where = structs.replace(where, mode=mode_of(held.info()))
                program_slot.keep(where, {**objects, LINK: held})
            else:
                # The last of penstock's to go takes the qdisc with it, whichever made it.
                held.owns_qdisc |= _owns_clsact(place)
                where = program_slot.with_filter(structs.replace(where, mode=CLSACT), held)
                _keep_and_attach(own, objects, where, held)
        held.close()
    return where


def _owns_clsact(place: AttachPoint) -> bool:
    directions = (replace(place, hook=hook) for hook in Hook if hook.is_tc)
    return any(owns_clsact(pin.pin_root(), one) for one in directions)


def _keep_and_attach(
    own: Program, objects: dict[str, Descriptor], where: ProgramIdentity, held: Filter
) -> None:
    """A filter holds nothing before it is attached: what finds it again is pinned first."""
    program_slot.keep(where, objects)
    try:
        held.attach(own)
    except BaseException:
        pin.remove(program_slot.programs_root(), str(own.id))
        raise


def _check_no_policy(place: AttachPoint) -> None:
    """Make sure that no policy of penstock's has the one place at XDP.  Raises PenstockError."""
    if place.hook is Hook.XDP and (pin.pin_root() / place.name).exists():
        raise PenstockError(
            f"a policy of penstock's runs on {place.ifname} at xdp, and is not taken off unasked",
            hint=f"`penstock detach -i {place.ifname} --hook xdp` first",
        )


def _replaceable(place: AttachPoint, wanted: Wish) -> ProgramIdentity | None:
    """The program of the user's that runs at XDP there, whose link can be given another; None for anybody else's.

    Raises:
        PenstockError: a mode is wanted that the link does not have.
    """
    kept = programs_on(place.ifname, Hook.XDP)
    before = next((one for one in kept if program_slot.runs(one)), None)
    if before is not None and wanted.mode not in (AUTO, before.mode):
        raise PenstockError(
            f"the program on {place.ifname} runs in {before.mode} mode, and a replacement keeps the mode",
            hint=f"`penstock program detach {before.program}` first",
        )
    return before


def _take_over(
    own: Program, objects: dict[str, Descriptor], where: ProgramIdentity, before: ProgramIdentity
) -> ProgramIdentity:
    """Give the link of another program to this one, in one step for every packet."""
    root = program_slot.programs_root()
    after = structs.replace(where, mode=before.mode)
    folder = root / str(before.program)
    with Link.open(folder / LINK) as link, Program.open(folder / PROGRAM) as old:
        link.update(own, old)
        try:
            program_slot.keep(after, {**objects, LINK: link})
        except BaseException:
            link.update(old)
            raise
    pin.remove(root, str(before.program))
    return after


def _place(
    interface: str | None, hook: Hook | None, wanted: Wish, program: ProgramSpec
) -> AttachPoint | None:
    if interface is None:
        return None
    if hook is None or hook is Hook.SOCKET:
        raise _no_interface(hook, program)
    wishes([hook], wanted)
    return attach_point(interface, hook)


def detach_program(number: int) -> ProgramIdentity:
    """Take away a program that penstock loaded; gives what it was.

    Raises:
        KernelError: penstock loaded no such program; one that somebody else has put there is left alone.
    """
    try:
        identity = program_slot.read_identity(number)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        raise _not_ours(number) from error
    program_slot.forget(identity)
    return identity


def programs_on(interface: str, hook: Hook | None = None) -> list[ProgramIdentity]:
    """Those that penstock has loaded onto an interface of this network namespace."""
    here = None if netns.is_initial() else netns.inode()
    return [
        one
        for one in program_slot.kept()
        if one.interface == interface and one.netns == here and hook in (None, _hook(one))
    ]


def _hook(identity: ProgramIdentity) -> Hook | None:
    return Hook(identity.hook) if identity.hook else None


def _kept(loaded: BpfObject, name: str) -> dict[str, Descriptor]:
    """What is pinned of an object: the program, those that it may call, and its maps without the data sections."""
    objects: dict[str, Descriptor] = {PROGRAM: loaded.programs[name]}
    objects |= {f"program_{other}": one for other, one in loaded.programs.items() if other != name}
    objects |= {f"map_{key}": one for key, one in loaded.maps.items() if "." not in key}
    return objects


@contextmanager
def _pinned_for_others(loaded: BpfObject, folder: Path) -> Iterator[tuple[str, ...]]:
    """Programs and maps pinned under their names, for good if the block succeeds.  Raises KernelError."""
    objects: dict[str, Descriptor] = {**loaded.programs}
    objects |= {name: one for name, one in loaded.maps.items() if "." not in name}
    pin.require_bpffs(folder)
    with ExitStack() as undo:
        with kernel_errors("pin in", str(folder)):
            if not folder.exists():
                folder.mkdir(parents=True, mode=0o700)
                undo.callback(folder.rmdir)
            for name, one in objects.items():
                if (folder / name).exists():
                    hint = "`rm` takes a name away; or give --pin another folder"
                    raise KernelError("pin", str(folder / name), errno.EEXIST, hint=hint)
                syscall.pin(one.fd, folder / name)
                undo.callback((folder / name).unlink)
        yield tuple(str(folder / name) for name in objects)
        undo.pop_all()


def _identity(
    found: ProgramObject, program: ProgramSpec, loaded: BpfObject, hook: Hook | None
) -> ProgramIdentity:
    own = loaded.programs[program.name].id
    return ProgramIdentity(
        program=own,
        name=program.name,
        section=program.section,
        path=found.path,
        loaded_at=datetime.now(UTC).isoformat(timespec="seconds"),
        hook=hook.value if hook else "",
        beside=tuple(one.id for one in loaded.programs.values() if one.id != own),
    )


def _no_interface(hook: Hook | None, program: ProgramSpec) -> PenstockError:
    if hook is Hook.SOCKET:
        return PenstockError(
            "a socket filter is attached to a socket, not to an interface",
            hint="load it with --pin PATH; a program attaches it by SO_ATTACH_BPF (docs/programs.md)",
        )
    words = [f"--hook {one.value.replace(' ', '-')}" for one in hooks_of(program) if one is not Hook.SOCKET]
    message = f"{program.name} (section {program.section}) does not say where on the interface it is to run"
    return PenstockError(message, hint=" or ".join(words) or None)


def _not_ours(number: int) -> KernelError:
    """The error for somebody else's program.  Raises KernelError: there is no program with this id."""
    found = listed(number)
    if found.owner:
        meaning, hint = f"it belongs to {found.owner}", "`penstock detach` takes a policy off its interface"
        return KernelError("detach", f"program {number}", errno.EBUSY, meaning=meaning, hint=hint)
    ours = ", ".join(f"{one.program} ({one.name})" for one in program_slot.kept())
    return KernelError(
        "detach",
        f"program {number}",
        errno.ENOENT,
        meaning="penstock did not load it, and takes away no program of somebody else's",
        hint=f"those that it did: {ours}" if ours else "`penstock program list` shows who did",
    )
