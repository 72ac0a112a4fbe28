"""Hear of it when an interface comes, goes or gets another name.

    with heard() as channel:         # a netlink socket that is readable when something has happened
        drain(channel)

What has happened is not read from the messages: whoever wakes up looks at all
interfaces, so that a message which was lost for want of room loses nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

_RTMGRP_LINK = 1  # <linux/rtnetlink.h>
_SIZE = 1 << 16


@contextmanager
def heard() -> Iterator[socket.socket]:
    """A socket that hears of the interfaces of this thread's network namespace."""
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
    ) as channel:
        channel.bind((0, _RTMGRP_LINK))
        yield channel


def drain(channel: socket.socket) -> None:
    """Forget what has been heard."""
    while True:
        try:
            channel.recv(_SIZE)
        except BlockingIOError:
            return
        except OSError:
            # ENOBUFS: there was more than room for it, which is as good a reason to look.
            continue
