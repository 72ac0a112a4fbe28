"""Read pcapng files (draft-ietf-opsawg-pcapng).

A file is a sequence of blocks, each a type, its total length, a body, and the
length again.  Sections (SHB) set the byte order and forget the interfaces of
the section before; interface blocks (IDB) say the link type and the unit of
time stamps; packets are in enhanced (EPB), simple (SPB) and the obsolete packet
blocks (OPB).  Every other block, and every option that is not about time, is
skipped: names and comments are data that nobody asked for.

As with classic files, damage ends the reading with a warning and the frames
before it stay good.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import chain
from math import gcd
from typing import NamedTuple

from penstock.errors import CaptureError
from penstock.observe.frame import CHUNK, MAX_CAPTURED, Capture, Frame, Interface, snap_limit

MAGIC = b"\x0a\x0d\x0d\x0a"

_SECTION, _INTERFACE, _OBSOLETE, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6
_END_OF_OPTIONS, _TIME_RESOLUTION, _TIME_OFFSET = 0, 9, 14
_SMALLEST_BLOCK = 12
_PACKET_BLOCK = 32
_LEAST_BODY = {_SECTION: 16, _INTERFACE: 8, _OBSOLETE: 20, _SIMPLE: 4, _ENHANCED: 20}
# libpcap's INITIAL_MAX_BLOCKSIZE: a block that claims more is damaged.
_LARGEST_BLOCK = 16 << 20
# Far above any real file; keeps one made of interface blocks alone from filling the memory.
_MOST_INTERFACES = 65_536


class _DamagedError(Exception):
    """A block contradicts the format; the message goes on "the file …"."""


class _Clock(NamedTuple):
    """Time stamps of an interface: `value * scale // divisor + offset_ns` nanoseconds."""

    scale: int
    divisor: int
    offset_ns: int


class _Section:
    """What the blocks of one section have said so far; its interfaces are numbered from its own 0."""

    def __init__(self, order: str, first_interface: int) -> None:
        self.order = order
        self.first_interface = first_interface
        self.interfaces: list[tuple[int, _Clock]] = []
        self.block = struct.Struct(f"{order}II").unpack_from
        self.word = struct.Struct(f"{order}I").unpack_from
        self.enhanced = struct.Struct(f"{order}IIIII").unpack_from
        # The obsolete block has a count of drops in one half of the same five words.
        self.obsolete = struct.Struct(f"{order}HxxIIII").unpack_from


def open_pcapng(capture: Capture) -> None:
    """Read up to the first packet, so that `capture` knows its first interfaces, and give it its frames.

    Raises:
        CaptureError: what follows the first four bytes is not the head of a section.
    """
    head = MAGIC + capture.read(24)
    order = _order_of(head[8:12])
    if len(head) < 28 or order is None:
        raise CaptureError(
            f"{capture.path} is not a capture file: it begins like pcapng, but with no section header",
            hint="a transfer in text mode damages captures; transfer it again in binary mode",
        )
    major, minor = struct.unpack_from(f"{order}HH", head, 12)
    if major != 1 or minor not in {0, 2}:
        raise CaptureError(f"{capture.path} is pcapng version {major}.{minor}; penstock reads 1.0 and 1.2")
    frames = _frames(capture, head)
    first = next(frames, None)
    capture.frames = frames if first is None else chain((first,), frames)


def _order_of(magic: bytes) -> str | None:
    return {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}.get(magic)


def _frames(capture: Capture, head: bytes) -> Iterator[Frame]:
    """The file's packets, until its end or the first damage."""
    count = 0
    try:
        for frame in _packets(capture, head):
            count += 1
            yield frame
    except _DamagedError as fault:
        capture.stop(str(fault), count)
    capture.close()


def _packets(capture: Capture, head: bytes) -> Iterator[Frame]:
    """The packets of every whole block; a chunk is looked through without another call for enhanced ones."""
    section = _Section("<", 0)
    buffer, at, missing = head, 0, 0
    while True:
        size = len(buffer)
        while size - at >= _SMALLEST_BLOCK:
            kind, length = section.block(buffer, at)
            if kind == _SECTION:
                section = _section(capture, buffer, at)
                _, length = section.block(buffer, at)
            if length < _SMALLEST_BLOCK or length % 4 or length > _LARGEST_BLOCK:
                raise _DamagedError(f"is damaged: a block claims a length of {length}")
            end = at + length
            if end > size:
                missing = end - size
                break
            if section.word(buffer, end - 4)[0] != length:
                raise _DamagedError("is damaged: a block's two lengths differ")
            if kind == _ENHANCED and length >= _PACKET_BLOCK:
                yield _packet(section, section.enhanced(buffer, at + 8), buffer, at + 28, end - 4)
            else:
                yield from _other_block(capture, section, kind, buffer[at + 8 : end - 4])
            at = end
        chunk = capture.read(max(CHUNK, missing))
        if not chunk:
            break
        buffer, at = buffer[at:] + chunk, 0
    if at < size:
        raise _DamagedError("is cut in the middle of a block")


def _section(capture: Capture, buffer: bytes, at: int) -> _Section:
    """The section whose header is at `at`: its type reads the same in both orders, its length does not."""
    order = _order_of(buffer[at + 8 : at + 12])
    if order is None:
        raise _DamagedError("is damaged: a section has no byte order")
    return _Section(order, len(capture.interfaces))


def _packet(section: _Section, header: tuple[int, ...], buffer: bytes, start: int, end: int) -> Frame:
    """The packet whose bytes begin at `start` and may go on to `end`."""
    interface, high, low, captured, wire = header
    if interface >= len(section.interfaces):
        raise _DamagedError(
            f"is damaged: a packet names interface {interface}, which its section does not have"
        )
    snap, (scale, divisor, offset_ns) = section.interfaces[interface]
    if captured > snap or captured > end - start:
        holds = f"its snap length {snap}" if captured > snap else "its block holds"
        raise _DamagedError(f"is damaged: a packet claims {captured} captured bytes, more than {holds}")
    stamp = (high << 32 | low) * scale // divisor + offset_ns
    data = buffer[start : start + captured]
    return tuple.__new__(Frame, (data, wire, stamp, section.first_interface + interface))


def _other_block(capture: Capture, section: _Section, kind: int, body: bytes) -> Iterator[Frame]:
    """The packet of a simple or obsolete block; what an interface block says is added to `capture`."""
    least = _LEAST_BODY.get(kind, 0)
    if len(body) < least:
        raise _DamagedError(f"is damaged: a block of type {kind} is too short for its header")
    if kind == _OBSOLETE:
        yield _packet(section, section.obsolete(body), body, 20, len(body))
    elif kind == _SIMPLE:
        yield _simple_packet(section, body)
    elif kind == _INTERFACE:
        _add_interface(capture, section, body)
    elif kind == _SECTION and struct.unpack_from(f"{section.order}H", body, 4)[0] != 1:
        raise _DamagedError("has a section of another version of pcapng than 1")


def _simple_packet(section: _Section, body: bytes) -> Frame:
    """A simple packet: the first interface's, without a time, cut only by the snap length."""
    (wire,) = section.word(body)
    captured = min(wire, section.interfaces[0][0]) if section.interfaces else wire
    return _packet(section, (0, 0, 0, captured, wire), body, 4, len(body))._replace(timestamp_ns=0)


def _add_interface(capture: Capture, section: _Section, body: bytes) -> None:
    if len(capture.interfaces) == _MOST_INTERFACES:
        raise _DamagedError(f"has more than {_MOST_INTERFACES} interfaces")
    link_type, snap = struct.unpack_from(f"{section.order}HxxI", body)
    snap_length = min(snap_limit(snap), MAX_CAPTURED)
    options = dict(_options(section.order, body[8:]))
    section.interfaces.append((snap_length, _clock(options, section.order)))
    capture.interfaces.append(Interface(link_type, snap_length))


def _options(order: str, body: bytes) -> Iterator[tuple[int, bytes]]:
    """The options of a block, up to their end mark; one that is cut ends them too."""
    at = 0
    while at + 4 <= len(body):
        code, length = struct.unpack_from(f"{order}HH", body, at)
        if code == _END_OF_OPTIONS or at + 4 + length > len(body):
            return
        yield code, body[at + 4 : at + 4 + length]
        at += 4 + (length + 3 & ~3)


def _clock(options: dict[int, bytes], order: str) -> _Clock:
    """How an interface's options say that its times are to be read; microseconds when they do not."""
    resolution = options.get(_TIME_RESOLUTION, b"")
    offset = options.get(_TIME_OFFSET, b"")
    seconds = struct.unpack(f"{order}q", offset)[0] if len(offset) == 8 else 0
    exponent = resolution[0] if len(resolution) == 1 else 6
    # The high bit says that the rest is a power of 2 instead of 10.
    per_second = 1 << (exponent & 0x7F) if exponent & 0x80 else 10**exponent
    common = gcd(1_000_000_000, per_second)
    return _Clock(1_000_000_000 // common, per_second // common, seconds * 1_000_000_000)
