"""Who is at the other end of a unix socket, and whether they may come in.

    peer_of(connection)              ->  Peer(pid=4711, uid=1000, groups=frozenset({1000, 27}))
    Access(groups=frozenset({27})).admits(peer)     ->  True

The kernel says who connected (SO_PEERCRED, SO_PEERGROUPS: unix(7), socket(7)),
as they were at that moment; nothing that the peer sends is believed.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from typing import Protocol

from penstock.model.login import login_uid

# <asm-generic/socket.h>; Python has no name for it.
_SO_PEERGROUPS = 59
_CREDENTIALS = struct.Struct("=iII")
_FEW_GROUPS, _ALL_GROUPS = 64 * 4, 65536 * 4  # NGROUPS_MAX


class _Asked(Protocol):
    """A socket, or asyncio's view of one."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected: its id, its user, all of its groups, and who had logged in to start it."""

    pid: int
    uid: int
    groups: frozenset[int]
    login_uid: int | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """Who may come in: these users, members of these groups, or everybody.  Root and our own user always may."""

    users: frozenset[int] = frozenset()
    groups: frozenset[int] = frozenset()
    everybody: bool = False

    def admits(self, peer: Peer) -> bool:
        """Whether this peer may."""
        own = peer.uid in (0, os.geteuid())
        return self.everybody or own or peer.uid in self.users or bool(peer.groups & self.groups)


def peer_of(connection: _Asked) -> Peer:
    """Who is at the other end of a connected unix socket.  Raises OSError: it is gone, or is no unix socket."""
    pid, uid, gid = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return Peer(pid, uid, frozenset({gid, *_groups(connection)}), login_uid(pid))


def _groups(connection: _Asked) -> tuple[int, ...]:
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _FEW_GROUPS)
    except OSError as error:
        if error.errno == errno.ERANGE:
            data = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _ALL_GROUPS)
        elif error.errno == errno.ENOPROTOOPT:
            return ()  # before Linux 4.13: the peer's own group has to do
        else:
            raise
    return tuple(memoryview(data).cast("I"))
