"""One entry of a feed as text: an address, a prefix or a range.

    prefixes_of("203.0.113.9/24")            ->  203.0.113.0/24, with host bits cleared
    prefixes_of("::ffff:203.0.113.9")        ->  203.0.113.9, as it was mapped
    prefixes_of("198.51.100.0-198.51.100.5") ->  198.51.100.0/30, 198.51.100.4/31
    prefixes_of("010.0.0.1")                 ->  a sentence: leading zeros are octal to some

The quick way through plain IPv4 lines is in `lines`; this is the exact one, and
the one that says why an entry is refused.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from penstock.model.address_range import Piece, pieces_of


@dataclass(frozen=True, slots=True)
class Entry:
    """The prefixes that an entry means, all of one family."""

    is_v6: bool
    pieces: tuple[Piece, ...]
    is_normalised: bool = False
    is_mapped: bool = False


def prefixes_of(text: str) -> Entry | str:
    """The prefixes of an entry, or a sentence about what is wrong with it."""
    if "-" in text:
        return _range(text)
    address_text, slash, length_text = text.partition("/")
    address = address_of(address_text)
    if isinstance(address, str):
        return address
    is_v6, value = address
    bits = 128 if is_v6 else 32
    length = _length(length_text, bits) if slash else bits
    if isinstance(length, str):
        return length
    if is_v6 and value >> 32 == 0xFFFF and length >= 96:
        return _normalised(value & 0xFFFFFFFF, length - 96, is_v6=False, is_mapped=True)
    return _normalised(value, length, is_v6=is_v6)


def _normalised(value: int, length: int, *, is_v6: bool, is_mapped: bool = False) -> Entry:
    host = (1 << ((128 if is_v6 else 32) - length)) - 1
    return Entry(is_v6, ((value & ~host, length),), bool(value & host), is_mapped)


def address_of(text: str) -> tuple[bool, int] | str:
    """Whether an address is IPv6, and its value; or a sentence about what is wrong with it."""
    if not text:
        return "there is no address"
    is_v6 = ":" in text
    try:
        # An embedded NUL is a ValueError, bytes beyond ASCII an encoding error: both are no address.
        packed = socket.inet_pton(socket.AF_INET6 if is_v6 else socket.AF_INET, text)
    except (OSError, ValueError):
        return _objection(text, is_v6=is_v6)
    return is_v6, int.from_bytes(packed, "big")


def _objection(text: str, *, is_v6: bool) -> str:
    if is_v6:
        return "an address with a zone" if "%" in text else "not an IPv6 address"
    parts = text.split(".")
    if not all(part.isascii() and part.isdigit() for part in parts):
        return "not an address"
    if len(parts) != 4:
        return f"an IPv4 address has four numbers, not {len(parts)}"
    if any(len(part) > 1 and part[0] == "0" for part in parts):
        return "leading zeros: octal to some programs, decimal to others"
    return "a number of an IPv4 address is above 255"


def _length(text: str, bits: int) -> int | str:
    if not (text.isascii() and text.isdigit()) or len(text) > 3:
        return f"`/{text[:20]}` is no prefix length"
    if len(text) > 1 and text[0] == "0":
        return "the prefix length has a leading zero"
    length = int(text)
    return length if length <= bits else f"the prefix length is above {bits}"


def _range(text: str) -> Entry | str:
    first_text, _, last_text = text.partition("-")
    first, last = address_of(first_text.strip()), address_of(last_text.strip())
    if isinstance(first, str):
        return first
    if isinstance(last, str):
        return last
    (is_v6, low), (is_v6_too, high) = first, last
    if is_v6 != is_v6_too:
        return "a range from one family to the other"
    if low > high:
        return "a range that ends before it begins"
    is_mapped = is_v6 and low >> 32 == high >> 32 == 0xFFFF
    if is_mapped:
        low, high, is_v6 = low & 0xFFFFFFFF, high & 0xFFFFFFFF, False
    return Entry(is_v6, tuple(pieces_of(low, high, 128 if is_v6 else 32)), is_mapped=is_mapped)
