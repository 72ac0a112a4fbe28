"""Read and write classic pcap files.

A file is a header of 24 bytes, then for each packet a header of 16 bytes and
the bytes that were captured.  The header's first four bytes, 0xa1b2c3d4 or
0xa1b23c4d in the writer's byte order, say which byte order that was and
whether times are in micro- or nanoseconds.

Damage never raises once the header was good: a file that is cut, or whose
lengths make no sense, gives the frames before the damage and one warning.
A packet longer than the file's own snap length is cut to it, as libpcap does.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from penstock.errors import CaptureError
from penstock.observe.frame import CHUNK, ETHERNET, MAX_CAPTURED, Capture, Frame, Interface, snap_limit

MICROSECONDS = 0xA1B2C3D4
NANOSECONDS = 0xA1B23C4D
# Alexey Kuznetzov's patched libpcap of the 1990s: longer packet headers, in several variants.
MODIFIED = 0xA1B2CD34

ByteOrder = Literal["<", ">"]

_HEADER_SIZE = 24
_RECORD_SIZE = 16


@dataclass(frozen=True, slots=True)
class _Form:
    """How this file's records are to be read."""

    record: struct.Struct
    tick_ns: int
    snap: int
    minor: int

    @property
    def may_swap(self) -> bool:
        """Version 2.3 exchanged the two lengths of a record, and some 2.3 files did not follow."""
        return self.minor <= 3


def byte_order(magic: bytes) -> ByteOrder | None:
    """The byte order of a file that begins with `magic`; None when it is not classic pcap."""
    known = (MICROSECONDS, NANOSECONDS, MODIFIED)
    orders: tuple[ByteOrder, ...] = ("<", ">")
    return next((order for order in orders if struct.unpack(f"{order}I", magic)[0] in known), None)


def open_classic(capture: Capture, magic: bytes, order: ByteOrder) -> None:
    """Read the header that follows `magic` and give `capture` its interface and its frames.

    Raises:
        CaptureError: the header is cut, or says that the file is of a kind that penstock does not read.
    """
    rest = capture.read(_HEADER_SIZE - len(magic))
    if len(rest) < _HEADER_SIZE - len(magic):
        size = len(magic) + len(rest)
        raise CaptureError(f"{capture.path} is cut within its file header: {size} of {_HEADER_SIZE} bytes")
    fields = struct.unpack(f"{order}IHHiIII", magic + rest)
    kind, major, minor, snap, link = fields[0], fields[1], fields[2], fields[5], fields[6]
    if kind == MODIFIED:
        raise CaptureError(
            f"{capture.path} is in the modified pcap format of an old patched libpcap",
            hint=f"convert it: editcap -F pcap {capture.path} new.pcap",
        )
    if major != 2 or minor > 4:
        raise CaptureError(f"{capture.path} is pcap version {major}.{minor}; penstock reads 2.0 to 2.4")
    # The six high bits say whether frames end with their checksum (draft-ietf-opsawg-pcap).
    capture.interfaces.append(Interface(link & 0x03FFFFFF, snap_limit(snap)))
    tick = 1 if kind == NANOSECONDS else 1000
    form = _Form(struct.Struct(f"{order}IIII"), tick, capture.interfaces[0].snap_length, minor)
    capture.frames = _frames(capture, form)


def _frames(capture: Capture, form: _Form) -> Iterator[Frame]:
    """The file's packets.  The inner loop stays within one chunk, and does nothing but unpack and slice."""
    unpack, tick, may_swap = form.record.unpack_from, form.tick_ns, form.may_swap
    usual = min(form.snap, MAX_CAPTURED)
    make = tuple.__new__
    rest, count, cut = b"", 0, 0
    while chunk := capture.read(CHUNK):
        buffer = rest + chunk
        at, size = 0, len(buffer)
        while (start := at + _RECORD_SIZE) <= size:
            seconds, ticks, captured, wire = unpack(buffer, at)
            if may_swap and (form.minor < 3 or captured > wire):
                captured, wire = wire, captured
            if captured > MAX_CAPTURED:
                capture.stop(f"is damaged: a packet claims {captured} captured bytes", count)
                _note_cut(capture, cut, form.snap)
                capture.close()
                return
            if (end := start + captured) > size:
                break
            if captured > usual:
                cut += 1
                captured = usual
            count += 1
            stamp = seconds * 1_000_000_000 + ticks * tick
            yield make(Frame, (buffer[start : start + captured], wire, stamp, 0))
            at = end
        rest = buffer[at:]
    if rest:
        capture.stop("is cut in the middle of a packet", count)
    _note_cut(capture, cut, form.snap)
    capture.close()


def _note_cut(capture: Capture, cut: int, snap: int) -> None:
    if cut:
        longer = "1 packet" if cut == 1 else f"{cut} packets"
        capture.warnings.append(f"{capture.path}: {longer} longer than its snap length, cut to {snap} bytes")


def pcap_chunks(
    frames: Iterable[Frame],
    *,
    link_type: int = ETHERNET,
    snap_length: int = MAX_CAPTURED,
    nanoseconds: bool = False,
    order: ByteOrder = "<",
) -> Iterator[bytes]:
    """A classic pcap file of `frames`, piece by piece; frames longer than `snap_length` are cut."""
    magic, tick = (NANOSECONDS, 1) if nanoseconds else (MICROSECONDS, 1000)
    yield struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, snap_length, link_type)
    record = struct.Struct(f"{order}IIII")
    for frame in frames:
        seconds, rest = divmod(frame.timestamp_ns, 1_000_000_000)
        data = frame.data[:snap_length]
        yield record.pack(seconds & 0xFFFFFFFF, rest // tick, len(data), frame.wire_length) + data


def write_pcap(
    path: str | Path,
    frames: Iterable[Frame],
    *,
    link_type: int = ETHERNET,
    snap_length: int = MAX_CAPTURED,
    nanoseconds: bool = False,
) -> None:
    """Write `frames` to a classic pcap file, replacing what was there.

    Raises:
        CaptureError: the system could not write it.
    """
    chunks = pcap_chunks(frames, link_type=link_type, snap_length=snap_length, nanoseconds=nanoseconds)
    try:
        with Path(path).open("wb") as stream:
            stream.writelines(chunks)
    except OSError as fault:
        raise CaptureError(f"{path}: cannot write it: {fault.strerror or fault}") from fault


def frames_of(packets: Iterable[bytes], *, start_ns: int = 0, gap_ns: int = 1_000_000) -> Iterator[Frame]:
    """`packets` as whole frames, `gap_ns` apart."""
    for number, packet in enumerate(packets):
        yield Frame(packet, len(packet), start_ns + number * gap_ns, 0)
