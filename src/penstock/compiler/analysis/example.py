"""A real packet for a class of packets: its bytes, and its text as `penstock explain` takes it.

In goes what a diagram says of a class, for some fields the values that they may
have (``2**bits`` is absent); out come packets for which the reference evaluator
finds exactly such values, the plainest first.  Nothing is taken on trust: every
packet is built, parsed and compared with the class before it is given out.

    proto 6, dport 22, addr.src 10.0.0.0/8   ->  IPv4(src="10.0.0.1")/TCP(dport=22)

A class of which no packet is found is not thereby proven empty: the shapes that
are tried (shapes.py) are many, not all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from penstock.compiler.analysis.shapes import Fields, Wish, shapes
from penstock.compiler.ir.headers import Packet
from penstock.compiler.ir.ops import FieldRef
from penstock.errors import PacketNotationError
from penstock.model.field import is_metadata
from penstock.model.net import IntervalSet
from penstock.model.packet import LayerSpec, build_packet, format_packet

#: Lengths that a packet can be given by its payload, by a false statement, or by padding.
_LENGTHS = ("len", "ip.len", "udp.len")
_ETHERNET = 14
#: So many cut packets are looked at for a class: counted, so that the same is found on every machine.
_CUTS = 20_000


@dataclass(frozen=True, slots=True)
class Example:
    """A frame, and the notation that builds it."""

    text: str
    frame: bytes


def example(fields: Fields, accept: Callable[[bytes], bool] | None = None) -> Example | None:
    """A packet of the class that `accept` takes, None if none was found.

    `accept` is for what no field says, such as opaque predicates.
    """
    return next((found for found in examples(fields) if accept is None or accept(found.frame)), None)


def is_in(packet: Packet, fields: Fields) -> bool:
    """Whether the evaluator's values of the packet are the class's."""
    for ref, held in fields.items():
        value = packet.value(ref)
        if (1 << ref.field.bits if value is None else value) not in held:
            return False
    return True


def examples(fields: Fields) -> Iterator[Example]:
    """Packets of the class, the plainest first; finitely many, and none if none is known.

    They are frames alone: a class that asks for more beside them has none here.
    """
    beside = {ref: held for ref, held in fields.items() if is_metadata(ref.name)}
    if not is_in(Packet(b""), beside):
        return
    built = []
    for layers in shapes(Wish(fields)):
        for stretched in _stretched(layers, fields):
            frame = _frame(stretched)
            if frame is None:
                continue
            built.append((stretched, frame))
            if is_in(Packet(frame), fields):
                yield Example(format_packet(stretched), frame)
    yield from _cut(built, fields)


def _frame(layers: list[LayerSpec]) -> bytes | None:
    try:
        return build_packet(layers)
    except PacketNotationError:
        return None


# ── lengths ──────────────────────────────────────────────────────────────────


def _stretched(layers: list[LayerSpec], fields: Fields) -> Iterator[list[LayerSpec]]:
    """The layers, with payload or padding so that lengths come out as wanted."""
    yield layers
    wanted = {name: fields[FieldRef(name)] for name in _LENGTHS if FieldRef(name) in fields}
    frame = _frame(layers) if wanted else None
    if frame is None:
        return
    packet = Packet(frame)
    for name, held in wanted.items():
        value = packet.value(FieldRef(name))
        longer = None if value is None else _at_least(held, value)
        if value is not None and longer is not None and longer > value:
            yield [*layers, LayerSpec("Raw", (("len", longer - value),))]
    stated = [_stating(spec, wanted) for spec in layers]
    if stated != layers:
        yield stated
    padded = _at_least(wanted.get("len", IntervalSet()), len(frame))
    if padded is not None and padded > len(frame):
        yield [*stated, LayerSpec("PadTo", (("len", padded),))]


def _at_least(held: IntervalSet, value: int) -> int | None:
    return next((max(low, value) for low, high in held if high >= value), None)


def _stating(spec: LayerSpec, wanted: Mapping[str, IntervalSet]) -> LayerSpec:
    """The layer with the length that is wanted, true or not."""
    held = wanted.get({"IPv4": "ip.len", "UDP": "udp.len"}.get(spec.name, ""))
    if not held or held.intervals[0][0] > 0xFFFF:
        return spec
    return LayerSpec(spec.name, (*spec.arguments, ("len", held.intervals[-1][0] & 0xFFFF)))


def _cut(built: list[tuple[list[LayerSpec], bytes]], fields: Fields) -> Iterator[Example]:
    """Packets that end too early: the only ones that lack a field that their headers promise."""
    lacking = any(held.intervals[-1][1] >> ref.field.bits for ref, held in fields.items())
    lengths = fields.get(FieldRef("len"), IntervalSet.full(FieldRef("len").field.bits))
    if not lacking and FieldRef("len") not in fields:
        return
    tried: set[bytes] = set()
    for layers, frame in built:
        if layers[-1].name == "PadTo":
            continue
        for size in _sizes(layers, frame, lengths):
            cut = frame[:size]
            if cut in tried:
                continue
            if len(tried) == _CUTS:
                return
            tried.add(cut)
            if is_in(Packet(cut), fields):
                yield Example(format_packet([*layers, LayerSpec("Truncate", (("len", size),))]), cut)


def _sizes(layers: list[LayerSpec], frame: bytes, lengths: IntervalSet) -> Iterator[int]:
    """Where to cut: once in the payload for each stretch of lengths, and at every byte of the headers.

    No field but the length can tell one place in the payload from another.
    """
    headers = len(frame) - (_payload(layers[-1]) if layers else 0)
    for low, high in reversed(lengths.intervals):
        size = min(high, len(frame) - 1)
        if size >= max(low, headers):
            yield size
    yield from (size for size in range(min(headers, len(frame)) - 1, -1, -1) if size in lengths)


def _payload(spec: LayerSpec) -> int:
    length = dict(spec.arguments).get("len", 0) if spec.name == "Raw" else 0
    return length if isinstance(length, int) else 0


# ── any bytes ────────────────────────────────────────────────────────────────


def text_of(frame: bytes) -> str:
    """The notation of any frame, in which everything behind the Ethernet header is hexadecimal."""
    head = frame[:_ETHERNET].ljust(_ETHERNET, b"\0")
    target, source = (head[at : at + 6].hex(":") for at in (0, 6))
    ether = LayerSpec("Ether", (("dst", target), ("src", source), ("type", int.from_bytes(head[12:], "big"))))
    layers = [ether]
    if len(frame) > _ETHERNET:
        layers.append(LayerSpec("Raw", (("hex", frame[_ETHERNET:]),)))
    elif len(frame) < _ETHERNET:
        layers.append(LayerSpec("Truncate", (("len", len(frame)),)))
    return format_packet(layers)
