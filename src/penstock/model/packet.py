"""Packets as people write them, and as bytes.

A packet is its layers from the outside in, joined by `/`.  A layer is a name
and, in parentheses, arguments; whatever is not given (lengths, checksums, the
numbers of the next protocol) is computed, so that the packet is a valid one
unless somebody asked for it not to be:

>>> frame = build_packet(parse_packet('IPv4(dst="192.0.2.53")/UDP(dport=53)/Raw("hello")'))
>>> len(frame), frame[23], frame[36:38].hex()
(47, 17, '0035')

A packet that does not begin with Ether gets one; LLC before SNAP, PPP
after PPPoES and Ether after VXLAN are put in as well.  `PadTo(n)` and
`Truncate(n)` at the end make the whole frame n bytes long, Ethernet header
included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstock.errors import PacketNotationError
from penstock.model.layers.arguments import MAX_FRAME, MisfitError
from penstock.model.layers.layer import Given, Layer, Place
from penstock.model.layers.table import FRAME_LAYER_NAMES, LAYERS
from penstock.model.notation import (
    LayerSpec,
    check_order,
    convert_argument,
    format_packet,
    is_hex,
    named_layer,
    parse_hex,
    parse_packet,
    parse_packet_at,
)

__all__ = [
    "LayerSpec",
    "build_packet",
    "format_packet",
    "parse_hex",
    "parse_packet",
    "parse_packet_at",
    "read_packet",
]


def build_packet(layers: Sequence[LayerSpec]) -> bytes:
    """The bytes of an Ethernet frame that has these layers, checksum of the wire (FCS) excluded.

    Raises:
        PacketNotationError: a layer or a value does not exist, or a computed length
            does not fit its field.  Layers from `parse_packet` can only fail by their length.
    """
    check_order(layers)
    shape = [spec for spec in layers if spec.name in FRAME_LAYER_NAMES]
    headers = [spec for spec in layers if spec.name not in FRAME_LAYER_NAMES]
    steps = list(_steps(headers or [LayerSpec("Ether")]))
    places = _places(steps)
    frame = b""
    for step, place in zip(reversed(steps), reversed(places), strict=True):
        frame = step.build(frame, place)
    for spec in shape:
        frame = _step(spec).build(frame, Place(None))
    return frame


def read_packet(text: str) -> bytes:
    """The frame that `text` says, in hexadecimal or in the notation.

    Raises:
        PacketNotationError: it is neither.
    """
    return parse_hex(text) if is_hex(text) else build_packet(parse_packet(text))


@dataclass(frozen=True, slots=True)
class _Step:
    """A layer with its converted arguments, ready to be built."""

    layer: Layer
    given: Given
    offset: int

    def build(self, payload: bytes, place: Place) -> bytes:
        end = self.offset + len(self.layer.name)
        try:
            octets = self.layer.build(self.given, payload, place)
        except MisfitError as fault:
            message = f"{self.layer.name}: {fault}"
            raise PacketNotationError(message, offset=self.offset, end=end, hint=fault.hint) from None
        if len(octets) > MAX_FRAME:
            raise PacketNotationError(f"a packet has at most {MAX_FRAME} bytes", offset=self.offset, end=end)
        return octets


def _step(spec: LayerSpec) -> _Step:
    layer = named_layer(spec.name, spec.offset)
    end = spec.offset + len(spec.name)
    values: dict[str, int | bytes] = {}
    for name, value in spec.arguments:
        values[layer.aliases.get(name, name)] = convert_argument(layer, name, value, spec.offset, end)
    return _Step(layer, Given(values), spec.offset)


def _steps(layers: Sequence[LayerSpec]) -> Iterator[_Step]:
    """The layers and those that they imply, from the outside in."""
    before: Layer | None = None
    for spec in layers:
        step = _step(spec)
        for name in _implied(before, step.layer):
            yield _Step(LAYERS[name], Given({}), spec.offset)
        yield step
        before = step.layer


def _implied(before: Layer | None, layer: Layer) -> Iterator[str]:
    """The names of the layers that belong between these two; the wire, None, carries Ethernet."""
    carried = "Ether" if before is None else before.carries
    is_bytes = before is not None and layer.name in {"Raw", "Payload"}
    if carried not in {None, layer.name} and not is_bytes:
        yield str(carried)
    if layer.inside is not None and (before is None or before.name != layer.inside):
        yield layer.inside


def _places(steps: Sequence[_Step]) -> list[Place]:
    """For each step what follows it, and the addresses of the nearest IP header outside it."""
    addresses = (b"", b"")
    places: list[Place] = []
    inner_layers = [step.layer for step in steps[1:]]
    for step, inner in zip(steps, (*inner_layers, None), strict=True):
        places.append(Place(inner, *addresses))
        addresses = _addresses(step) or addresses
    return places


def _addresses(step: _Step) -> tuple[bytes, bytes] | None:
    if step.layer.addresses is None:
        return None
    source, destination = step.layer.addresses
    return step.given.octets("src", source), step.given.octets("dst", destination)
