"""Open a capture file of either format.

>>> with read_capture("dump.pcap") as capture:                          # doctest: +SKIP
...     longest = max(frame.wire_length for frame in capture.frames)

What is not a capture is refused at once, with a sentence that says what it is;
a capture that is damaged gives the frames before the damage and a warning.
Memory stays at a few chunks of the file, however long it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from penstock.errors import CaptureError
from penstock.observe.frame import ETHERNET, Capture, Frame
from penstock.observe.pcap import byte_order, open_classic
from penstock.observe.pcapng import MAGIC, open_pcapng

__all__ = ["Capture", "Frame", "ethernet_frames", "read_capture"]

_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zX": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"\x04\x22\x4d\x18": ("lz4", "unlz4"),
}
_OTHER_FORMATS = {
    b"snoo": "a snoop capture of Solaris",
    b"\xd4\xc3\x0d\x0a": "a pcap file damaged by a transfer as text",
}


def read_capture(path: str | os.PathLike[str]) -> Capture:
    """The capture in a file or a pipe, its header checked and its frames still to be read.

    Raises:
        CaptureError: the file cannot be read or is no capture.
    """
    name = os.fspath(path)
    capture = Capture(name, _open(name))
    try:
        _read_header(capture)
    except CaptureError:
        capture.close()
        raise
    return capture


def ethernet_frames(path: str | os.PathLike[str], warnings: list[str] | None = None) -> Iterator[Frame]:
    """The frames of a capture of Ethernet; the file's warnings are added to `warnings` at the end.

    Raises:
        CaptureError: as `read_capture`; also when an interface is not Ethernet, which in a
            pcapng file may only be seen after its first frames.
    """
    capture = read_capture(path)
    try:
        _refuse_other_links(capture)
    except CaptureError:
        capture.close()
        raise
    return _ethernet_only(capture, warnings)


def _ethernet_only(capture: Capture, warnings: list[str] | None) -> Iterator[Frame]:
    with capture:
        known = len(capture.interfaces)
        for frame in capture.frames:
            if len(capture.interfaces) != known:
                _refuse_other_links(capture)
                known = len(capture.interfaces)
            yield frame
    if warnings is not None:
        warnings.extend(capture.warnings)


def _refuse_other_links(capture: Capture) -> None:
    other = next((one.link_type for one in capture.interfaces if one.link_type != ETHERNET), None)
    if other is not None:
        raise CaptureError(
            f"{capture.path} has packets of link type {other}; penstock filters Ethernet frames, link type 1",
            hint="capture on one Ethernet interface instead of `any`",
        )


def _open(path: str) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as fault:
        raise CaptureError(f"{path}: {fault.strerror or fault}") from fault
    except ValueError as fault:
        raise CaptureError(f"{path!r} is not a path: {fault}") from fault


def _read_header(capture: Capture) -> None:
    magic = capture.read(4)
    if not magic:
        raise CaptureError(f"{capture.path} is empty")
    for mark, (name, command) in _COMPRESSED.items():
        if magic.startswith(mark):
            raise CaptureError(f"{capture.path} is {name}-compressed: {command} it first")
    if magic == MAGIC:
        open_pcapng(capture)
        return
    order = byte_order(magic) if len(magic) == 4 else None
    if order is None:
        what = f": it is {_OTHER_FORMATS[magic]}" if magic in _OTHER_FORMATS else ""
        raise CaptureError(f"{capture.path} is not a pcap or pcapng file{what}")
    open_classic(capture, magic, order)
