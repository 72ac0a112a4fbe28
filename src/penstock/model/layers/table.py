"""Every layer by its name, and the two pseudo-layers that shape the finished frame."""

from __future__ import annotations

from penstock.model.layers.arguments import length
from penstock.model.layers.layer import Given, Layer, Place
from penstock.model.layers.link import LINK_LAYERS
from penstock.model.layers.network import NETWORK_LAYERS
from penstock.model.layers.transport import TRANSPORT_LAYERS
from penstock.model.layers.tunnel import TUNNEL_LAYERS


def _truncate(given: Given, frame: bytes, _place: Place) -> bytes:
    return frame[: given.number("len", 0)]


def _pad_to(given: Given, frame: bytes, _place: Place) -> bytes:
    # IEEE 802.3: 60 bytes and the checksum are the shortest frame.
    return frame.ljust(given.number("len", 60), b"\0")


FRAME_LAYERS = (
    Layer("Truncate", _truncate, {"len": length}, positional="len"),
    Layer("PadTo", _pad_to, {"len": length}, positional="len"),
)
FRAME_LAYER_NAMES = frozenset(layer.name for layer in FRAME_LAYERS)
LAYERS = {
    layer.name: layer
    for layer in (*LINK_LAYERS, *NETWORK_LAYERS, *TRANSPORT_LAYERS, *TUNNEL_LAYERS, *FRAME_LAYERS)
}
