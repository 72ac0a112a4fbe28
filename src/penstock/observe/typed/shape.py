"""How the bytes of a key or value are read and written, once its type is known.

In: bytes and where a value lies in them; or a node of `notation`.  Out: plain
values (numbers, lists, dicts, `Word`s); or bytes.  A shape is made once for a
map (`observe/typed/of_btf.py`) and used for each of its entries.

    Number(2, order="big").decode(b"\\x00\\x35", 0)     ->  53
    Address(4).decode(b"\\x0a\\x00\\x00\\x01", 0)       ->  Word("10.0.0.1")

What `decode` gives, rendered as text, `encode` takes and makes the same bytes of
(paddings are zero).  `hex:…` of the right length stands for the bytes themselves
at every place, and what a struct or array does not name stays as it was.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Literal

from penstock.compiler.lang.faults import Faults
from penstock.observe.typed.notation import Atom, Record

if TYPE_CHECKING:
    from penstock.compiler.lang.source import Source
    from penstock.observe.typed.notation import Node, Plain

Order = Literal["little", "big"]
HEX = "hex:"


class Writing(Faults):
    """The faults of a value that is being written; `adds` is False for CPUs whose share of a sum is zero."""

    def __init__(self, source: Source, *, adds: bool = True) -> None:
        super().__init__(source)
        self.adds = adds


@dataclass(frozen=True)
class Shape(ABC):
    """`size` bytes with a meaning."""

    size: int

    @abstractmethod
    def decode(self, data: bytes, at: int) -> Plain:
        """The value that lies at `at`."""

    def encode(self, node: Node, out: bytearray, at: int, faults: Writing) -> None:
        """Write what a node says at `at`; what does not fit is noted in `faults`."""
        if isinstance(node, Atom) and self._is_hex(node):
            _put_hex(node, out, at, self.size, faults)
        else:
            self._encode(node, out, at, faults)

    def _is_hex(self, node: Atom) -> bool:
        # In JSON the word is a string. As text of its own it would be too long for the bytes that it stands for.
        is_whole = len(node.text) == len(HEX) + 2 * self.size
        return node.text.startswith(HEX) and (is_whole or not node.is_quoted)

    @abstractmethod
    def _encode(self, node: Node, out: bytearray, at: int, faults: Writing) -> None: ...

    def combine(self, values: list[Plain]) -> Plain:
        """One value for those of all CPUs: their sum, or the one that all have, or all of them."""
        first = values[0]
        return first if all(value == first for value in values) else values


def text_of(node: Node, wanted: str, faults: Writing) -> str | None:
    if isinstance(node, Atom):
        return node.text
    given = "a struct" if isinstance(node, Record) else "an array"
    faults.error("PS504", f"{wanted} belongs here, not {given}", node.span)
    return None


def address_text(raw: bytes) -> str:
    """An address of 4, 6 or 16 bytes as it is usually written."""
    match len(raw):
        case 4:
            return ".".join(map(str, raw))
        case 16:
            return str(IPv6Address(raw))
        case _:
            return raw.hex(":")


def address_bytes(text: str, size: int) -> bytes | None:
    try:
        if size == 4:
            return IPv4Address(text).packed if "." in text else None
        if size == 16:
            return IPv6Address(text).packed if ":" in text else None
        if size == 6 and text.count(":") == 5:
            return bytes(int(part, 16) for part in text.split(":"))
    except ValueError:
        return None
    return None


def _put_hex(node: Atom, out: bytearray, at: int, size: int, faults: Writing) -> None:
    digits = node.text[len(HEX) :].replace(":", "")
    try:
        raw = bytes.fromhex(digits)
    except ValueError:
        faults.error("PS504", "after `hex:` come pairs of hex digits", node.span)
        return
    if len(raw) != size:
        faults.error("PS503", f"bytes that belong here: {size}, bytes given: {len(raw)}", node.span)
    else:
        out[at : at + size] = raw
