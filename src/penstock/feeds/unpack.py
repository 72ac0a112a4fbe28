"""Undo gzip and deflate, within a limit.

In: bytes that may be compressed, known by their first two.  Out: what is in them, at most
`limit` bytes.  Promised: memory stays near the limit whatever the input claims, since the
decompressor is never asked for more than is left of it.
"""

from __future__ import annotations

import zlib

from penstock.errors import FeedError

#: What a feed may be at most, unpacked.
MOST_BYTES = 32 << 20
_GZIP = b"\x1f\x8b"
#: A file of .gz that a server compresses once more; more layers than that are a bomb.
_MOST_LAYERS = 2
# What follows a member is copied out of the piece in which it ends: small pieces keep many members cheap.
_PIECE = 1 << 14
# zlib's manual, inflateInit2: 16 is added to the window's size for the gzip format.
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


def unpacked(data: bytes, limit: int = MOST_BYTES) -> bytes:
    """The bytes, without compression.

    Raises:
        FeedError: more than `limit` bytes come out, or the compressed data are damaged or cut off.
    """
    for _ in range(_MOST_LAYERS):
        if not data.startswith(_GZIP):
            break
        data = _gunzip(data, limit)
    if len(data) > limit:
        raise FeedError(f"larger than {limit >> 20} MiB")
    if data.startswith(_GZIP):
        raise FeedError(f"compressed more than {_MOST_LAYERS} times")
    return data


def _gunzip(data: bytes, limit: int) -> bytes:
    view, at, left = memoryview(data), 0, limit + 1
    parts: list[bytes] = []
    # RFC 1952, section 2.2: a file is a series of members.
    while data.startswith(_GZIP, at):
        member = zlib.decompressobj(_GZIP_WINDOW)
        while not member.eof:
            if at == len(data):
                raise FeedError("gzip data are cut off")
            part, at = _inflate_some(member, view, at, left)
            left -= len(part)
            if left <= 0:
                raise FeedError(f"larger than {limit >> 20} MiB when unpacked")
            parts.append(part)
    if data[at:].strip(b"\0"):
        raise FeedError("something else follows the gzip data")
    return b"".join(parts)


def _inflate_some(member: zlib._Decompress, view: memoryview, at: int, left: int) -> tuple[bytes, int]:
    """What a piece of the input gives, and where the input that is left begins."""
    piece = view[at : at + _PIECE]
    try:
        part = member.decompress(piece, left)
    except zlib.error as error:
        raise FeedError(f"damaged gzip data: {error}") from error
    return part, at + len(piece) - len(member.unused_data)


def inflated(data: bytes, limit: int = MOST_BYTES) -> bytes:
    """What `Content-Encoding: deflate` stands for: zlib's format, or (as some servers have it) bare deflate.

    Raises:
        FeedError: as `unpacked`.
    """
    for window in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
        member = zlib.decompressobj(window)
        try:
            content = member.decompress(data, limit + 1)
        except zlib.error:
            continue
        if len(content) > limit:
            raise FeedError(f"larger than {limit >> 20} MiB when unpacked")
        if not member.eof:
            raise FeedError("compressed data are cut off")
        return content
    raise FeedError("damaged deflate data")
