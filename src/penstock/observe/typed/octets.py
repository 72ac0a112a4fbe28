"""Shapes of bytes that are no number: addresses, networks, text, and what has no known type."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from penstock.observe.typed.notation import Sequence, Word
from penstock.observe.typed.number import Number, Pointer
from penstock.observe.typed.shape import HEX, Order, Shape, Writing, address_bytes, address_text, text_of

if TYPE_CHECKING:
    from penstock.observe.typed.notation import Node, Plain


@dataclass(frozen=True)
class Address(Shape):
    """An IPv4 (4 bytes), IPv6 (16) or Ethernet (6) address, as on the wire."""

    def decode(self, data: bytes, at: int) -> Plain:
        return Word(address_text(data[at : at + self.size]))

    def _encode(self, node: Node, out: bytearray, at: int, faults: Writing) -> None:
        if (text := text_of(node, "an address", faults)) is None:
            return
        found = address_bytes(text, self.size)
        if found is None and text.isascii() and text.isdigit() and int(text) < 1 << self.size * 8:
            found = int(text).to_bytes(self.size, "big")
        if found is None:
            wanted = {4: "an IPv4 address, 10.0.0.1", 16: "an IPv6 address, 2001:db8::1"}
            hint = wanted.get(self.size, "an Ethernet address, 02:00:00:00:00:01")
            faults.error("PS504", f"`{text}` is no address that fits here", node.span, hint=hint)
        else:
            out[at : at + self.size] = found


@dataclass(frozen=True)
class Prefix(Shape):
    """The key of an LPM trie: its length in bits as a native number, then an address."""

    length: Number

    def decode(self, data: bytes, at: int) -> Plain:
        bits = self.length.decode(data, at)
        return Word(f"{address_text(data[at + 4 : at + self.size])}/{bits}")

    def _encode(self, node: Node, out: bytearray, at: int, faults: Writing) -> None:
        if (text := text_of(node, "a network", faults)) is None:
            return
        kind = IPv4Network if self.size == 8 else IPv6Network
        hint = f"{'10.0.0.0/8' if self.size == 8 else '2001:db8::/32'}, or an address alone"
        try:
            network = kind(text, strict=False)
        except ValueError:
            faults.error("PS504", f"`{text}` is no network that fits here", node.span, hint=hint)
            return
        out[at : at + 4] = network.prefixlen.to_bytes(4, self.length.order)
        out[at + 4 : at + self.size] = network.network_address.packed


@dataclass(frozen=True)
class Text(Shape):
    """An array of char: text up to the first zero, or bytes where it is none."""

    def decode(self, data: bytes, at: int) -> Plain:
        raw = data[at : at + self.size]
        held = raw.rstrip(b"\0")
        try:
            text = held.decode()
        except UnicodeDecodeError:
            return Word(HEX + raw.hex())
        return Word(HEX + raw.hex()) if "\0" in text else text

    def _encode(self, node: Node, out: bytearray, at: int, faults: Writing) -> None:
        if (text := text_of(node, "text", faults)) is None:
            return
        raw = text.encode("utf-8", "surrogatepass")
        if len(raw) > self.size:
            faults.error("PS503", f"this has {len(raw)} bytes, and there is room for {self.size}", node.span)
        else:
            out[at : at + self.size] = raw.ljust(self.size, b"\0")


@dataclass(frozen=True)
class Bytes(Shape):
    """Bytes without a meaning that is known; a list of numbers is taken too, and a number of their size."""

    order: Order = "little"

    def decode(self, data: bytes, at: int) -> Plain:
        return Word(HEX + data[at : at + self.size].hex())

    def _encode(self, node: Node, out: bytearray, at: int, faults: Writing) -> None:
        if isinstance(node, Sequence) and len(node.items) == self.size:
            for number, item in enumerate(node.items):
                Pointer(1, self.order).encode(item, out, at + number, faults)
            return
        if (text := text_of(node, "bytes", faults)) is None:
            return
        if (found := address_bytes(text, self.size)) is not None:
            out[at : at + self.size] = found
        elif self.size in {1, 2, 4, 8}:
            Pointer(self.size, self.order).encode(node, out, at, faults)
        else:
            example = "00" * min(self.size, 4)
            message = f"the type of these {self.size} bytes is not known"
            faults.error("PS504", message, node.span, hint=f"write them as hex:{example}…")
