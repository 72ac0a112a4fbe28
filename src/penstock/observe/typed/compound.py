"""Shapes of several values: arrays, structs and unions."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from penstock.observe.typed.notation import Record, Sequence
from penstock.observe.typed.number import Bits, Named
from penstock.observe.typed.shape import Shape

if TYPE_CHECKING:
    from penstock.observe.typed.notation import Atom, Node, Plain
    from penstock.observe.typed.shape import Writing


@dataclass(frozen=True)
class List(Shape):
    """An array."""

    element: Shape
    count: int

    def decode(self, data: bytes, at: int) -> Plain:
        decode, size = self.element.decode, self.element.size
        return [decode(data, at + number * size) for number in range(self.count)]

    def _encode(self, node: Node, out: bytearray, at: int, faults: Writing) -> None:
        if not isinstance(node, Sequence):
            hint = f"[{', '.join('…' for _ in range(min(self.count, 3)))}]"
            faults.error("PS504", "an array belongs here", node.span, hint=hint)
            return
        if len(node.items) > self.count:
            beyond = node.items[self.count].span
            message = f"{len(node.items)} elements, and the array has {self.count}"
            faults.error("PS503", message, beyond)
        for number, item in enumerate(node.items[: self.count]):
            self.element.encode(item, out, at + number * self.element.size, faults)

    def combine(self, values: list[Plain]) -> Plain:
        lists = [value for value in values if isinstance(value, list)]
        return [self.element.combine(list(column)) for column in zip(*lists, strict=True)]


@dataclass(frozen=True)
class Padded(Shape):
    """A value with room behind it."""

    inner: Shape

    def decode(self, data: bytes, at: int) -> Plain:
        return self.inner.decode(data, at)

    def _encode(self, node: Node, out: bytearray, at: int, faults: Writing) -> None:
        self.inner.encode(node, out, at, faults)


@dataclass(frozen=True)
class Part:
    """A member: at byte `at`."""

    name: str
    at: int
    shape: Shape


@dataclass(frozen=True)
class Struct(Shape):
    """A struct or union.  All members are shown; those written that lie on the same bytes must agree."""

    parts: tuple[Part, ...]

    def decode(self, data: bytes, at: int) -> Plain:
        return {part.name: part.shape.decode(data, at + part.at) for part in self.parts}

    def _encode(self, node: Node, out: bytearray, at: int, faults: Writing) -> None:
        if not isinstance(node, Record):
            names = ", ".join(f"{part.name}: …" for part in self.parts[:4])
            faults.error("PS504", "a struct belongs here", node.span, hint=f"{{{names}}}")
            return
        given = self._given(node, faults)
        # A bit field changes bytes that it does not have alone, so it comes behind what has them alone.
        given.sort(key=lambda entry: _bits(entry[0].shape) is not None)
        held = bytearray(out[at : at + self.size])
        taken = bytearray(self.size)
        for part, value in given:
            self._place(part, value, held, taken, faults)
        out[at : at + self.size] = held

    def _given(self, node: Record, faults: Writing) -> list[tuple[Part, Node]]:
        found: dict[str, tuple[Part, Node]] = {}
        for name, value in node.entries:
            part = next((part for part in self.parts if part.name == name.text), None)
            if part is None:
                self._unknown(name, faults)
            elif name.text in found:
                faults.error("PS503", f"`{name.text}` is given twice", name.span)
            else:
                found[name.text] = part, value
        return list(found.values())

    def _unknown(self, name: Atom, faults: Writing) -> None:
        names = [part.name for part in self.parts]
        near = get_close_matches(name.text, names, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"the members are {', '.join(names[:16])}"
        faults.error("PS502", f"there is no member `{name.text}`", name.span, hint=hint)

    def _place(self, part: Part, value: Node, held: bytearray, taken: bytearray, faults: Writing) -> None:
        """Write one member into `held`; `taken` has the bits that others have written."""
        wrong, span = len(faults.found), slice(part.at, part.at + part.shape.size)
        piece = bytearray(held[span])
        part.shape.encode(value, piece, 0, faults)
        if len(faults.found) > wrong:
            return
        mask = _mask(part.shape)
        before, others = held[span], taken[span]
        if any(
            (old ^ new) & both & own for old, new, both, own in zip(before, piece, others, mask, strict=True)
        ):
            message = f"`{part.name}` says otherwise than what lies on the same bytes"
            hint = "name one of them: they are views of the same bytes"
            faults.error("PS503", message, value.span, hint=hint)
        held[span] = bytes(old & ~own | new & own for old, new, own in zip(before, piece, mask, strict=True))
        taken[span] = bytes(both | own for both, own in zip(others, mask, strict=True))

    def combine(self, values: list[Plain]) -> Plain:
        records = [value for value in values if isinstance(value, dict)]
        return {part.name: part.shape.combine([one[part.name] for one in records]) for part in self.parts}


def _mask(shape: Shape) -> bytes:
    """The bits that a member has of its bytes."""
    mask = bytearray(b"\xff" * shape.size)
    if (bits := _bits(shape)) is not None:
        mask = bytearray(shape.size)
        bits.fill(mask, 0)
    return bytes(mask)


def _bits(shape: Shape) -> Bits | None:
    """The bit field that a member is, if it is one."""
    number = shape.number if isinstance(shape, Named) else shape
    return number if isinstance(number, Bits) else None
