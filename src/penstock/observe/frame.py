"""What every capture format gives: frames, the interfaces they came from, and what was odd about the file.

A reader is a generator of frames.  It fills a `Capture`'s `interfaces` and
`warnings` while it runs, so both are complete once its frames are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from penstock.errors import CaptureError
from penstock.model.closing import Closing

# LINKTYPE_ETHERNET of https://www.tcpdump.org/linktypes.html
ETHERNET = 1

# libpcap's MAXIMUM_SNAPLEN: a record that claims more is damaged.
MAX_CAPTURED = 262_144

# Bytes that a reader asks the file for at once.
CHUNK = 1 << 20


class Frame(NamedTuple):
    """One captured packet; a tuple, because a capture has millions and tuples are quick to make.

    `wire_length` is the packet's length before the capture cut it; `interface`
    an index into the capture's `interfaces`, counted over all its sections.
    """

    data: bytes
    wire_length: int
    timestamp_ns: int
    interface: int


@dataclass(frozen=True, slots=True)
class Interface:
    """Where frames were captured: their link type and the most bytes that were kept of each."""

    link_type: int
    snap_length: int


class Capture(Closing):
    """An open capture file; its frames can be read once.

    >>> with read_capture(path) as capture:                             # doctest: +SKIP
    ...     sizes = [frame.wire_length for frame in capture.frames]
    >>> capture.warnings                                                # doctest: +SKIP
    ['dump.pcap is cut in the middle of a packet; the 41 before it were read']

    `frames` is an iterator, `warnings` sentences about what was skipped or lost.
    Reading to the end closes the file, as does leaving the `with` block.
    """

    def __init__(self, path: str, stream: BinaryIO) -> None:
        self.path = path
        self.frames: Iterator[Frame] = iter(())
        self.interfaces: list[Interface] = []
        self.warnings: list[str] = []
        self._stream = stream

    @property
    def link_type(self) -> int | None:
        """The first interface's link type; None when the file describes no interface."""
        return self.interfaces[0].link_type if self.interfaces else None

    def read(self, count: int) -> bytes:
        """The file's next `count` bytes, fewer only at its end.

        Raises:
            CaptureError: the system could not read them, or the capture was closed.
        """
        if self._stream.closed:
            raise CaptureError(f"{self.path} was closed before all its frames were read")
        try:
            return self._stream.read(count)
        except OSError as fault:
            raise CaptureError(f"{self.path}: {fault.strerror or fault}") from fault

    def stop(self, what: str, count: int) -> None:
        """Note that reading ends early because the file `what`, after `count` packets."""
        before = f"the {count} packets before it were read" if count != 1 else "the packet before it was read"
        self.warnings.append(f"{self.path} {what}; {before if count else 'no packet came before it'}")

    def close(self) -> None:
        """Close the file; `frames` gives no more."""
        self.frames = iter(())
        self._stream.close()


def snap_limit(snap_length: int) -> int:
    """A header's snap length as libpcap reads it: 0, and what no signed int holds, mean "no limit"."""
    return MAX_CAPTURED if snap_length == 0 or snap_length > 0x7FFFFFFF else snap_length
