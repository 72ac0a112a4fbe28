"""A value that is the id of something else in the kernel, and may be written by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from penstock.observe.typed.number import Pointer
from penstock.observe.typed.shape import text_of

if TYPE_CHECKING:
    from penstock.observe.typed.notation import Node, Plain
    from penstock.observe.typed.shape import Writing


@dataclass(frozen=True)
class Reference(Pointer):
    """An id; `resolve` gives the id of a name, and raises what is to be raised if there is none."""

    resolve: Callable[[str], int] = field(compare=False)

    def decode(self, data: bytes, at: int) -> Plain:
        return int.from_bytes(data[at : at + self.size], self.order)

    def _encode(self, node: Node, out: bytearray, at: int, faults: Writing) -> None:
        text = text_of(node, "an id or a name", faults)
        if text is None or text.isdigit():
            super()._encode(node, out, at, faults)
        else:
            out[at : at + self.size] = self.resolve(text).to_bytes(self.size, self.order)
