"""Just enough rtnetlink: interfaces, their MTU, and the XDP programs on them.

In: an interface name or index of the thread's network namespace.  Out: frozen
values.  Netlink is asked, and not sysfs, because sysfs shows the namespace it
was mounted in, and because only netlink knows in which mode a program runs.

    interface("eth0").xdp  ->  (XdpProgram(mode="native", id=17),)

Message layouts: rtnetlink(7), netlink(7), <linux/if_link.h>.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.errors import KernelError
from penstock.kernel.capability import NET_ADMIN, kernel_error

if TYPE_CHECKING:
    from collections.abc import Iterator

NATIVE = "native"
GENERIC = "generic"
OFFLOADED = "offloaded"

# XDP_FLAGS_* of <linux/if_link.h>.
MODE_FLAGS = {GENERIC: 1 << 1, NATIVE: 1 << 2, OFFLOADED: 1 << 3}
_REPLACE = 1 << 4

_NETLINK_ROUTE, _NETLINK_GENERIC = 0, 16
_SOL_NETLINK = 270
_NETLINK_EXT_ACK = 11
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTM_NEWLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 18, 19
_IFLA_IFNAME, _IFLA_MTU, _IFLA_XDP, _IFLA_ALT_IFNAME = 3, 4, 43, 53
_XDP_FD, _XDP_FLAGS, _XDP_EXPECTED_FD = 1, 3, 8
_XDP_ATTACHED, _XDP_PROG_ID = 2, 4
_XDP_PROG_IDS = {5: NATIVE, 6: GENERIC, 7: OFFLOADED}
# XDP_ATTACHED_*: what a kernel before 4.19 reports in place of an id per mode.
_ATTACHED = {1: NATIVE, 2: GENERIC, 3: OFFLOADED}
_NESTED = 1 << 15
_TYPE_MASK = 0x3FFF
_EXT_ACK_TLVS = 0x200
_EXT_ACK_CAPPED = 0x100
_EXT_ACK_MESSAGE = 1

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE_SIZE = 1 << 17


@dataclass(frozen=True, slots=True)
class XdpProgram:
    """A program on an interface: the mode it runs in, and its id."""

    mode: str
    id: int


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface of this network namespace, with the XDP programs on it; `type` is one of ARPHRD_*."""

    index: int
    name: str
    mtu: int
    type: int
    xdp: tuple[XdpProgram, ...] = ()


def interfaces() -> list[Interface]:
    """Every interface of this network namespace, by index."""
    return sorted(_links(_LINK.pack(0, 0, 0, 0, 0), _DUMP), key=lambda found: found.index)


def interface(which: str | int) -> Interface:
    """The interface of that name, alternative name or index.

    Raises:
        KernelError: there is none; the hint names the nearest one.
    """
    try:
        return next(iter(_links(_request_for(which), 0)))
    except (OSError, ValueError, StopIteration) as error:
        raise _unknown(which) from error


def _request_for(which: str | int) -> bytes:
    if isinstance(which, int):
        return _LINK.pack(0, 0, which, 0, 0)
    try:
        return _LINK.pack(0, 0, socket.if_nametoindex(which), 0, 0)
    except OSError:
        # Alternative names (Linux 5.5) may be longer than the ioctl behind if_nametoindex(3) can say.
        name = which.encode("utf-8", "surrogateescape") + b"\0"
        return _LINK.pack(0, 0, 0, 0, 0) + _pack(_IFLA_ALT_IFNAME, name)


def set_xdp(index: int, fd: int, mode: str, *, expected_fd: int | None = None) -> None:
    """Put a program on an interface without a bpf_link; `fd` -1 takes the present one away.

    With `expected_fd` the kernel refuses unless that program is the one in place (Linux 5.7).

    Raises:
        KernelError: with the kernel's own sentence where it gives one.
    """
    flags = MODE_FLAGS[mode] | (_REPLACE if expected_fd is not None else 0)
    nested = _pack(_XDP_FD, struct.pack("=i", fd)) + _pack(_XDP_FLAGS, struct.pack("=I", flags))
    if expected_fd is not None:
        nested += _pack(_XDP_EXPECTED_FD, struct.pack("=i", expected_fd))
    payload = _LINK.pack(0, 0, index, 0, 0) + _pack(_IFLA_XDP | _NESTED, nested)
    try:
        _ = list(_talk(_RTM_SETLINK, _ACK, payload))
    except OSError as error:
        said = str(error.strerror)
        raise kernel_error(
            "set the XDP program of", f"interface {index}", error.errno or 0, needs=(NET_ADMIN,), meaning=said
        ) from error


def ask(kind: int, payload: bytes) -> list[tuple[int, bytes]]:
    """The messages that answer a request for a dump; none where the subject does not exist.

    Raises:
        KernelError: there is no such interface, or it may not be asked.
    """
    try:
        return list(_talk(kind, _DUMP, payload))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return []
        raise kernel_error("ask for", "traffic control", error.errno or 0, needs=(NET_ADMIN,)) from error


def ask_route(kind: int, payload: bytes, *, is_dump: bool = True) -> list[bytes]:
    """The bodies of what rtnetlink answers to one request, for one thing or for all (`is_dump`).

    Raises OSError with what the kernel answered.
    """
    return [body for _, body in _talk(kind, _DUMP if is_dump else 0, payload)]


def ask_generic(family: int, payload: bytes) -> list[bytes]:
    """What a family of generic netlink answers to one request; `payload` begins with its genlmsghdr.

    Raises OSError with what the kernel answered.
    """
    return [body for _, body in _talk(family, 0, payload, _NETLINK_GENERIC)]


def _links(payload: bytes, flags: int) -> Iterator[Interface]:
    for kind, body in _talk(_RTM_GETLINK, flags, payload):
        if kind == _RTM_NEWLINK:
            yield _interface(body)


def _interface(body: bytes) -> Interface:
    _, kind, index, _, _ = _LINK.unpack_from(body)
    found = dict(attributes(body[_LINK.size :]))
    name = found[_IFLA_IFNAME].rstrip(b"\0").decode("utf-8", "surrogateescape")
    return Interface(index, name, _u32(found[_IFLA_MTU]), kind, _programs(found.get(_IFLA_XDP, b"")))


def _programs(nested: bytes) -> tuple[XdpProgram, ...]:
    found = dict(attributes(nested))
    by_mode = [XdpProgram(mode, _u32(found[kind])) for kind, mode in _XDP_PROG_IDS.items() if kind in found]
    if not by_mode and _XDP_PROG_ID in found:
        mode = _ATTACHED.get(found[_XDP_ATTACHED][0], GENERIC)
        by_mode = [XdpProgram(mode, _u32(found[_XDP_PROG_ID]))]
    return tuple(program for program in by_mode if program.id)


def _talk(
    kind: int, flags: int, payload: bytes, protocol: int = _NETLINK_ROUTE
) -> Iterator[tuple[int, bytes]]:
    """Send one request and give each message of its answer; raises the OSError the kernel answers with."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as channel:
        channel.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        channel.sendto(
            _HEADER.pack(_HEADER.size + len(payload), kind, _REQUEST | flags, 1, 0) + payload, (0, 0)
        )
        many = bool(flags & (_DUMP | _ACK))
        while True:
            for answer, answer_flags, body in _messages(channel.recv(_RECEIVE_SIZE)):
                if answer == _NLMSG_DONE:
                    return
                if answer == _NLMSG_ERROR:
                    _raise_unless_ack(body, answer_flags)
                    return
                yield answer, body
                if not many:
                    return


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, _, _ = _HEADER.unpack_from(data, at)
        yield kind, flags, data[at + _HEADER.size : at + length]
        at += max(_align(length), _HEADER.size)


def _raise_unless_ack(body: bytes, flags: int) -> None:
    code = -struct.unpack_from("=i", body)[0]
    if code:
        raise OSError(code, _extended_message(body, flags) or os.strerror(code))


def _extended_message(body: bytes, flags: int) -> str:
    if not flags & _EXT_ACK_TLVS:
        return ""
    # The request is quoted in full after the code unless the kernel says that it was capped to its header.
    quoted = _HEADER.size if flags & _EXT_ACK_CAPPED else _HEADER.unpack_from(body, 4)[0]
    found = dict(attributes(body[4 + _align(quoted) :]))
    return found.get(_EXT_ACK_MESSAGE, b"").rstrip(b"\0").decode("utf-8", "replace")


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        yield kind & _TYPE_MASK, data[at + _ATTRIBUTE.size : at + length]
        at += max(_align(length), _ATTRIBUTE.size)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return _pack(kind, value)


def _pack(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return (_ATTRIBUTE.pack(length, kind) + value).ljust(_align(length), b"\0")


def _align(length: int) -> int:
    return (length + 3) & ~3


def _u32(value: bytes) -> int:
    return int(struct.unpack("=I", value)[0])


def _unknown(which: str | int) -> KernelError:
    from difflib import get_close_matches

    names = [name for _, name in socket.if_nameindex()]
    near = get_close_matches(which, names, 1) if isinstance(which, str) else []
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)}"
    meaning = "there is no such interface in this network namespace"
    return KernelError("find interface", str(which), errno.ENODEV, meaning=meaning, hint=hint)
