"""Where hand-written programs are kept, so that they outlive the command that loaded them.

    /sys/fs/bpf/penstock-programs/42/       a directory for each, named after the program's id
        program     the program
        link        its bpf_link, where it is attached
        identity    who it is: name, section, hook, interface, the file it came from
        map_NAME    its maps: a map of programs forgets them when no process holds or pins it

They lie beside the pins of policies, not among them: an interface has one
policy, and may have any number of these.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from penstock.errors import KernelError
from penstock.kernel import netns, pin
from penstock.kernel.blob import read_blob, write_blob
from penstock.kernel.capability import kernel_errors
from penstock.kernel.clsact import Filter
from penstock.kernel.link import Link
from penstock.kernel.netlink import interfaces
from penstock.model.hook import Hook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.kernel.syscall import Descriptor

SCHEMA = "penstock.program.identity/1"
LINK, PROGRAM, IDENTITY = "link", "program", "identity"
_SUFFIX = "-programs"


class ProgramIdentity(msgspec.Struct, frozen=True):
    """A program that penstock loaded for its user; `interface` is empty where it is attached to none.

    `netns` is the inode of the network namespace, None for the initial one;
    `beside` are the ids of the programs that it may call.  The last three find a
    filter on clsact again, which has no link.
    """

    program: int
    name: str
    section: str
    path: str
    loaded_at: str
    hook: str = ""
    interface: str = ""
    netns: int | None = None
    beside: tuple[int, ...] = ()
    ifindex: int = 0
    mode: str = ""
    filter_name: str = ""
    priority: int = 0
    owns_qdisc: bool = False
    schema: str = SCHEMA


def programs_root() -> Path:
    """The directory of all these pins, beside that of the policies."""
    root = pin.pin_root()
    return root.with_name(root.name + _SUFFIX)


def keep(identity: ProgramIdentity, objects: Mapping[str, Descriptor]) -> None:
    """Pin a program and what belongs to it, in one step.  Raises KernelError; then nothing is pinned."""
    root = programs_root()
    with write_blob(msgspec.json.encode(identity), "ps_identity") as blob:
        staged = pin.stage(root, str(identity.program), {IDENTITY: blob, **objects})
        try:
            pin.publish(root, str(identity.program), staged)
        except BaseException:
            pin.discard(staged)
            raise


def kept() -> Iterator[ProgramIdentity]:
    """Every program that is kept, by id; what cannot be read is left out.  Raises KernelError."""
    root = programs_root()
    with kernel_errors("list", str(root)):
        try:
            numbers = sorted(int(path.name) for path in root.iterdir() if path.name.isdecimal())
        except FileNotFoundError:
            pin.require_visible(root)
            return
    for number in numbers:
        with suppress(KernelError, msgspec.MsgspecError):
            yield read_identity(number)


def read_identity(number: int) -> ProgramIdentity:
    """What is known of a kept program.  Raises KernelError: it is not kept."""
    text = read_blob(programs_root() / str(number) / IDENTITY)
    return msgspec.json.decode(text, type=ProgramIdentity)


def runs(identity: ProgramIdentity) -> bool:
    """Whether the program's link still holds it on an interface: that may be gone, or hold another program."""
    path = programs_root() / str(identity.program) / LINK
    if not path.exists():
        return False
    with Link.open(path) as link:
        info = link.info()
    return bool(info.ifindex) and info.program_id == identity.program


def with_filter(identity: ProgramIdentity, held: Filter) -> ProgramIdentity:
    """The identity of a program that a filter on clsact is going to hold."""
    return msgspec.structs.replace(
        identity, filter_name=held.name, priority=held.priority, owns_qdisc=held.owns_qdisc
    )


def forget(identity: ProgramIdentity) -> None:
    """Take a program's pins away, and the program off its interface.

    Raises:
        KernelError: it is kept no more, or a capability is missing.
    """
    root, number = programs_root(), str(identity.program)
    path = root / number / LINK
    # By name: a removed pin's reference is dropped only after a grace period.
    link = Link.open(path) if path.exists() else None
    if identity.filter_name:
        _take_off_filter(identity)
    if not pin.remove(root, number):
        raise KernelError("detach", f"program {number}", errno.ENOENT, meaning="it is kept no more")
    if link is not None:
        with link:
            _detach(link)


def _take_off_filter(identity: ProgramIdentity) -> None:
    """Remove a filter on clsact; nothing where its interface is gone.

    Raises:
        KernelError: its interface is in another network namespace than this thread.
    """
    here = None if netns.is_initial() else netns.inode()
    if here != identity.netns:
        raise KernelError(
            "detach from",
            identity.interface,
            errno.ENODEV,
            meaning="its interface is in another network namespace",
            hint="`penstock --netns NAME program detach …`",
        )
    if all(one.index != identity.ifindex for one in interfaces()):
        return
    place = Filter(
        identity.ifindex,
        Hook(identity.hook),
        identity.filter_name,
        identity.priority,
        owns_qdisc=identity.owns_qdisc,
    )
    with place:
        place.detach()


def _detach(link: Link) -> None:
    try:
        link.detach()
    except KernelError as error:
        # The interface is gone, and the program with it.
        if error.errno != errno.ENOLINK:
            raise
