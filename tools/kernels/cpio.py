"""A cpio archive as the kernel unpacks it: the "newc" form of initramfs-buffer-format.rst.

    archive = Archive()
    archive.file("/init", b"#!/bin/sh\n", mode=0o755)
    archive.bytes()

Directories above a file are made with it.  Times and owners are 0: the same files make the same archive.
"""

from __future__ import annotations

import os
import stat
from pathlib import PurePosixPath

_TRAILER = "TRAILER!!!"


class Archive:
    """Entries in the order in which they were added."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._names: set[str] = set()

    def __contains__(self, path: str) -> bool:
        return path.strip("/") in self._names

    def directory(self, path: str) -> None:
        """A directory, and those above it."""
        for above in reversed(PurePosixPath(path.strip("/")).parents):
            self._once(str(above))
        self._once(path.strip("/"))

    def file(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """A regular file."""
        self._parents(path)
        self._add(path.strip("/"), stat.S_IFREG | mode, content)

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._parents(path)
        self._add(path.strip("/"), stat.S_IFLNK | 0o777, os.fsencode(target))

    def node(self, path: str, major: int, minor: int) -> None:
        """A character device."""
        self._parents(path)
        self._add(path.strip("/"), stat.S_IFCHR | 0o600, b"", (major, minor))

    def bytes(self) -> bytes:
        """The whole archive."""
        return b"".join((*self._parts, _entry(0, _TRAILER, 0, b"", (0, 0))))

    def _parents(self, path: str) -> None:
        self.directory(str(PurePosixPath(path).parent))

    def _once(self, name: str) -> None:
        if name not in self._names and name not in (".", ""):
            self._add(name, stat.S_IFDIR | 0o755, b"")

    def _add(self, name: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> None:
        self._names.add(name)
        self._parts.append(_entry(len(self._parts) + 1, name, mode, content, device))


def _entry(inode: int, name: str, mode: int, content: bytes, device: tuple[int, int]) -> bytes:
    encoded = os.fsencode(name) + b"\0"
    numbers = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + encoded
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
