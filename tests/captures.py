"""pcapng files for tests, put together block by block in either byte order."""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PcapngBlocks:
    """Makes blocks in one byte order: `<` or `>`."""

    order: str = "<"

    def block(self, kind: int, body: bytes) -> bytes:
        padded = body + bytes(-len(body) % 4)
        length = struct.pack(f"{self.order}I", len(padded) + 12)
        return struct.pack(f"{self.order}I", kind) + length + padded + length

    def section(self, major: int = 1) -> bytes:
        return self.block(0x0A0D0D0A, struct.pack(f"{self.order}IHHq", 0x1A2B3C4D, major, 0, -1))

    def option(self, code: int, value: bytes) -> bytes:
        return struct.pack(f"{self.order}HH", code, len(value)) + value + bytes(-len(value) % 4)

    def interface(self, link: int = 1, snap: int = 0, options: bytes = b"") -> bytes:
        return self.block(1, struct.pack(f"{self.order}HHI", link, 0, snap) + options)

    def enhanced(self, data: bytes, stamp: int = 0, interface: int = 0, captured: int | None = None) -> bytes:
        claimed = len(data) if captured is None else captured
        head = struct.pack(
            f"{self.order}IIIII", interface, stamp >> 32, stamp & 0xFFFFFFFF, claimed, len(data)
        )
        # The comment is data of the writer's choosing, and none of the reader's business.
        comment = self.option(1, b"\x1b[31m comment \x00\xff") + self.option(0, b"")
        return self.block(6, head + data + bytes(-len(data) % 4) + comment)

    def obsolete(self, data: bytes, stamp: int = 0, interface: int = 0) -> bytes:
        head = struct.pack(
            f"{self.order}HHIIII", interface, 7, stamp >> 32, stamp & 0xFFFFFFFF, len(data), len(data) + 1
        )
        return self.block(2, head + data)

    def simple(self, data: bytes, wire_length: int | None = None) -> bytes:
        length = len(data) if wire_length is None else wire_length
        return self.block(3, struct.pack(f"{self.order}I", length) + data)
