"""What the kernel knows of a packet besides its bytes.

Metadata(mark=7).mark    ->  7

The default is what a packet has in BPF_PROG_TEST_RUN: it is at the loopback
device, of which nobody asked the name.
"""

from __future__ import annotations

from dataclasses import dataclass

LOOPBACK_INDEX = 1


@dataclass(frozen=True, slots=True)
class Metadata:
    """`ifindex` and `ifname` are the interface that the packet is at; `outbound` is what a socket sees of its way.

    A packet that stands for many frames has `segment_size` bytes behind the
    headers of each but the last; 0 for a packet that is one frame.
    """

    mark: int = 0
    ifindex: int = LOOPBACK_INDEX
    ifname: str | None = None
    outbound: bool = False
    segment_size: int = 0


NOTHING_KNOWN = Metadata()
