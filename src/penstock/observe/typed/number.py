"""Shapes of one number: integers, bit fields, floating point, and numbers that have names."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING

from penstock.observe.typed.notation import Word
from penstock.observe.typed.shape import Order, Shape, address_bytes, text_of

if TYPE_CHECKING:
    from penstock.observe.typed.notation import Node, Plain
    from penstock.observe.typed.shape import Writing

_REAL = {2: "e", 4: "f", 8: "d"}


@dataclass(frozen=True)
class Number(Shape):
    """An integer."""

    order: Order = "little"
    is_signed: bool = False

    def decode(self, data: bytes, at: int) -> int:
        return int.from_bytes(data[at : at + self.size], self.order, signed=self.is_signed)

    def _encode(self, node: Node, out: bytearray, at: int, faults: Writing) -> None:
        text = text_of(node, "a number", faults)
        if text is None:
            return
        if self.size == 4 and text.count(".") == 3 and (found := address_bytes(text, 4)) is not None:
            out[at : at + 4] = found
            return
        value = _integer(node, text, *self.bounds, faults)
        if value is not None:
            self.store(value if faults.adds else 0, out, at)

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the greatest number."""
        return bounds(self.size * 8, is_signed=self.is_signed)

    def store(self, value: int, out: bytearray, at: int) -> None:
        """Write a number within its bounds."""
        out[at : at + self.size] = value.to_bytes(self.size, self.order, signed=self.is_signed)

    def combine(self, values: list[Plain]) -> Plain:
        return sum(value for value in values if isinstance(value, int))


@dataclass(frozen=True)
class Bits(Shape):
    """A bit field: `width` bits from bit `shift` on, counted as the byte order has it; `size` covers them."""

    order: Order
    shift: int
    width: int
    is_signed: bool

    def decode(self, data: bytes, at: int) -> int:
        word = int.from_bytes(data[at : at + self.size], self.order)
        value = word >> self._from_right & ((1 << self.width) - 1)
        return value - (1 << self.width) if self.is_signed and value >> (self.width - 1) else value

    @property
    def _from_right(self) -> int:
        return self.shift if self.order == "little" else self.size * 8 - self.shift - self.width

    def _encode(self, node: Node, out: bytearray, at: int, faults: Writing) -> None:
        text = text_of(node, "a number", faults)
        value = None if text is None else _integer(node, text, *self.bounds, faults)
        if value is not None:
            self.store(value if faults.adds else 0, out, at)

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the greatest number."""
        return bounds(self.width, is_signed=self.is_signed)

    def store(self, value: int, out: bytearray, at: int) -> None:
        """Write a number within its bounds; the bits around it stay."""
        mask = (1 << self.width) - 1
        word = int.from_bytes(out[at : at + self.size], self.order) & ~(mask << self._from_right)
        word |= (value & mask) << self._from_right
        out[at : at + self.size] = word.to_bytes(self.size, self.order)

    def fill(self, out: bytearray, at: int) -> None:
        """Set all of its bits."""
        self.store(-1, out, at)

    def combine(self, values: list[Plain]) -> Plain:
        return sum(value for value in values if isinstance(value, int))


@dataclass(frozen=True)
class Real(Shape):
    """A floating-point number."""

    order: Order

    @property
    def _form(self) -> str:
        return ("<" if self.order == "little" else ">") + _REAL[self.size]

    def decode(self, data: bytes, at: int) -> float:
        return float(struct.unpack_from(self._form, data, at)[0])

    def _encode(self, node: Node, out: bytearray, at: int, faults: Writing) -> None:
        if (text := text_of(node, "a number", faults)) is not None:
            try:
                struct.pack_into(self._form, out, at, float(text) if faults.adds else 0.0)
            except (ValueError, OverflowError):
                faults.error("PS504", f"`{text}` is no number of this size", node.span)

    def combine(self, values: list[Plain]) -> Plain:
        return sum(value for value in values if isinstance(value, float))


@dataclass(frozen=True)
class Named(Shape):
    """A number of which some values have names: an enumeration, a truth value, an interface."""

    number: Number | Bits
    names: dict[int, str]
    #: Further names of the same numbers, which are only read.
    aliases: dict[str, int] = field(default_factory=dict)

    def decode(self, data: bytes, at: int) -> Plain:
        value = self.number.decode(data, at)
        name = self.names.get(value)
        if name in {"true", "false"}:
            return name == "true"
        return value if name is None else Word(name)

    def _encode(self, node: Node, out: bytearray, at: int, faults: Writing) -> None:
        text = text_of(node, "a constant's name", faults)
        if text is None:
            return
        value = next((value for value, name in self.names.items() if name == text), self.aliases.get(text))
        if value is None and (text[:1].isdigit() or text[:1] == "-"):
            value = _integer(node, text, *self.number.bounds, faults)
            if value is None:
                return
        if value is None:
            near = get_close_matches(text, self.names.values(), n=1)
            listed = ", ".join(list(self.names.values())[:12])
            hint = f"did you mean `{near[0]}`?" if near else f"a number, or one of {listed}"
            faults.error("PS502", f"there is no constant `{text}` here", node.span, hint=hint)
        else:
            self.number.store(value, out, at)


@dataclass(frozen=True)
class Pointer(Shape):
    """An address in memory, or a number that is not added up."""

    order: Order

    def decode(self, data: bytes, at: int) -> Plain:
        return Word(hex(int.from_bytes(data[at : at + self.size], self.order)))

    def _encode(self, node: Node, out: bytearray, at: int, faults: Writing) -> None:
        if (text := text_of(node, "a number", faults)) is not None:
            value = _integer(node, text, 0, (1 << self.size * 8) - 1, faults)
            out[at : at + self.size] = (value or 0).to_bytes(self.size, self.order)


def bounds(bits: int, *, is_signed: bool) -> tuple[int, int]:
    """The least and the greatest number of so many bits."""
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if is_signed else (0, (1 << bits) - 1)


def _integer(node: Node, text: str, low: int, high: int, faults: Writing) -> int | None:
    try:
        value = int(text, 0) if len(text) <= 64 else None
    except ValueError:
        value = int(text) if text.isascii() and text.isdigit() else None
    if value is None:
        faults.error("PS504", f"`{text[:40]}` is no number", node.span, hint="42, -1, 0x2a")
    elif not low <= value <= high:
        faults.error("PS503", f"{value} does not fit: from {low} to {high}", node.span)
    else:
        return value
    return None
