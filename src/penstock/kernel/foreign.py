"""Take the place of programs that are not ours, and put them back if that fails.

    with taken_place(ifindex) as programs:      # what was there is off
        …                                       # attach; if this raises, it is on again

A program put there by netlink is removed by netlink, and only while it is the
one that was seen; it is put back in the same way.  One behind a bpf_link is
removed by detaching the link.  The kernel attaches a link once in its life, so
such a program comes back by netlink: it decides about packets as before, and
its owner's link stays empty.
"""

from __future__ import annotations

import errno
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from penstock.errors import KernelError
from penstock.kernel import netlink
from penstock.kernel.link import OCCUPIED, AttachedProgram, Link, attached, links_of
from penstock.kernel.program import Program

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOTHING = -1  # As the file descriptor of the program to be replaced: there must be none.


@contextmanager
def taken_place(ifindex: int) -> Iterator[tuple[AttachedProgram, ...]]:
    """Take every XDP program off an interface for the block, and for good if the block succeeds.

    Gives what was there.

    Raises:
        KernelError: one could not be removed; what was there is there.
    """
    found = attached(ifindex)
    with ExitStack() as held:
        kept = [(present, held.enter_context(Program.by_id(present.program_id))) for present in found]
        with ExitStack() as undo:
            for present, program in kept:
                _take_off(ifindex, present, program)
                undo.callback(netlink.set_xdp, ifindex, program.fd, present.mode, expected_fd=_NOTHING)
            yield found
            undo.pop_all()


def _take_off(ifindex: int, present: AttachedProgram, program: Program) -> None:
    try:
        netlink.set_xdp(ifindex, -1, present.mode, expected_fd=program.fd)
    except KernelError as error:
        if error.errno not in OCCUPIED:
            raise
        _detach_link(ifindex, present)


def _detach_link(ifindex: int, present: AttachedProgram) -> None:
    owners = links_of(ifindex).get(present.program_id, [])
    # Interface indices repeat across network namespaces and a link does not tell
    # its own: two candidates mean that one of them belongs to somebody else.
    if len(owners) != 1:
        listed = ", ".join(map(str, owners)) or "none that can be seen"
        meaning = f"its link cannot be told for certain: {listed}"
        raise KernelError("detach", str(present), errno.EBUSY, meaning=meaning)
    with Link.by_id(owners[0]) as link:
        link.detach()
