"""The network interfaces that a program names, as it and whoever loads it agree on them.

A program knows devices by their numbers in `ObjectSpec.devices`.  Their indexes
are known only where it is loaded: they go into the constant `ps_devices` before
the verifier sees it, and into the map `ps_devmap` where packets are redirected
at XDP.

    indexes((7, 9))    ->  the bytes of ps_devices
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

DEVICES_VARIABLE = "ps_devices"
DEVMAP = "ps_devmap"
#: A mirrored packet's devices are bits of one number.
MAX_DEVICES = 32


def indexes(found: Sequence[int]) -> bytes:
    """The value of `ps_devices`."""
    return struct.pack(f"={len(found)}I", *found)
