"""Turn an argument of a layer, as somebody wrote it, into a number or bytes.

A converter takes an int, a string or bytes and gives what the header's builder
wants, or raises `MisfitError` with a sentence that the writer of the packet can act on:

>>> unsigned(8)(64), address4("192.0.2.1").hex()
(64, 'c0000201')
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from ipaddress import AddressValueError, IPv4Address, IPv6Address

Value = int | str | bytes
Converter = Callable[[Value], int | bytes]

# libpcap's MAXIMUM_SNAPLEN: no capture file holds a longer packet, so none is built.
MAX_FRAME = 262_144

_MAC = re.compile(r"[0-9A-Fa-f]{1,2}([:-])(?:[0-9A-Fa-f]{1,2}\1){4}[0-9A-Fa-f]{1,2}")
_HEX_FILLER = re.compile(r"[\s:]+")


class MisfitError(ValueError):
    """A value that its header cannot hold; `hint` says what would do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name that `word` was probably meant to be, whatever its case, or None."""
    if len(word) > 40:
        return None
    by_case = {name.lower(): name for name in names}
    close = get_close_matches(word.lower(), by_case, n=1)
    return by_case[close[0]] if close else None


def name_hint(word: str, names: Iterable[str]) -> str:
    """ "did you mean" the nearest name, or else the list of all that there are."""
    known = list(names)
    close = nearest(word, known)
    return f"did you mean `{close}`?" if close else "there are: " + ", ".join(sorted(known, key=str.lower))


def shown(value: Value) -> str:
    """A value as a sentence quotes it, cut when it is long."""
    text = value.hex() if isinstance(value, bytes) else str(value)
    return f"`{text[:40]}…`" if len(text) > 40 else f"`{text}`"


def unsigned(bits: int, words: Mapping[str, int] | None = None) -> Converter:
    """A converter to an unsigned field of `bits` bits, which may have names for some values."""

    def convert(value: Value) -> int:
        if isinstance(value, str) and words:
            if value not in words:
                raise MisfitError(f"{shown(value)} is not a value it has", name_hint(value, words))
            return words[value]
        if not isinstance(value, int):
            raise MisfitError(f"{shown(value)} is not a number")
        return in_field(value, bits)

    return convert


def in_field(value: int, bits: int) -> int:
    """`value`, when an unsigned field of `bits` bits can hold it."""
    if not 0 <= value < 1 << bits:
        raise MisfitError(f"it is {bits} bit{'s' * (bits > 1)} wide: 0 to {(1 << bits) - 1}")
    return value


def letters(flags: str, bits: int) -> Converter:
    """A converter from letters to bits: the letter at index n of `flags` is bit n."""

    def convert(value: Value) -> int:
        if isinstance(value, int):
            return in_field(value, bits)
        if isinstance(value, bytes) or not set(value) <= set(flags):
            raise MisfitError(
                f"{shown(value)} is not made of the flags {flags}", "write those letters, or a number"
            )
        return sum(1 << flags.index(letter) for letter in set(value))

    return convert


def words_of_bits(names: Mapping[str, int], bits: int) -> Converter:
    """A converter from names joined by `+` or `|` to bits."""

    def convert(value: Value) -> int:
        if isinstance(value, int):
            return in_field(value, bits)
        if isinstance(value, bytes):
            raise MisfitError(f"{shown(value)} is not a list of flags")
        found = 0
        for word in re.split(r"[+|]", value) if value else ():
            if word not in names:
                raise MisfitError(f"{shown(word)} is not a flag", name_hint(word, names))
            found |= names[word]
        return found

    return convert


def mac(value: Value) -> bytes:
    """The six bytes of an Ethernet address."""
    if isinstance(value, bytes) and len(value) == 6:
        return value
    if isinstance(value, str) and _MAC.fullmatch(value):
        return bytes(int(part, 16) for part in re.split("[:-]", value))
    raise MisfitError(f"{shown(value)} is not an Ethernet address", 'write it as "02:00:00:00:00:01"')


def address4(value: Value) -> bytes:
    """The four bytes of an IPv4 address."""
    try:
        return IPv4Address(value).packed
    except AddressValueError:
        hint = 'write it as "192.0.2.1"; for IPv6 use the layer IPv6'
        raise MisfitError(f"{shown(value)} is not an IPv4 address", hint) from None


def address6(value: Value) -> bytes:
    """The sixteen bytes of an IPv6 address."""
    try:
        address = IPv6Address(value)
    except AddressValueError:
        hint = 'write it as "2001:db8::1"; for IPv4 use the layer IPv4'
        raise MisfitError(f"{shown(value)} is not an IPv6 address", hint) from None
    if address.scope_id is not None:
        raise MisfitError(f"{shown(value)} has a zone, which no packet carries", "leave out the %")
    return address.packed


def text(value: Value) -> bytes:
    """The bytes of a payload: text as UTF-8."""
    match value:
        case bytes():
            return value
        case str():
            return value.encode("utf-8", "surrogatepass")
        case int():
            raise MisfitError("a bare number is not a payload", f"Raw(len={value}) is that many zero bytes")


def hex_octets(value: Value) -> bytes:
    """Bytes written in hexadecimal, with spaces and colons where the writer likes them."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, int):
        raise MisfitError("hexadecimal that looks like a number needs quotes", f'write it as "{value}"')
    try:
        return bytes.fromhex(_HEX_FILLER.sub("", value))
    except ValueError:
        raise MisfitError(f"{shown(value)} is not a whole number of bytes in hexadecimal") from None


def counted(fill: Callable[[int], bytes], limit: int) -> Converter:
    """A converter to at most `limit` bytes, in hexadecimal or as a number that `fill` makes."""

    def convert(value: Value) -> bytes:
        too_long = MisfitError(f"it holds at most {limit} bytes")
        if isinstance(value, int):
            if not 0 <= value <= limit:
                raise too_long
            return fill(value)
        octets = hex_octets(value)
        if len(octets) > limit:
            raise too_long
        return octets

    return convert


def length(value: Value) -> int:
    """A number of bytes that a frame can have."""
    if isinstance(value, int) and 0 <= value <= MAX_FRAME:
        return value
    raise MisfitError(f"{shown(value)} is not a length from 0 to {MAX_FRAME}")
