"""The text form of packets: its grammar, and back again.

    packet   = layer { "/" layer }
    layer    = NAME [ "(" [ argument { "," argument } ] ")" ]
    argument = [ NAME "=" ] value
    value    = NUMBER | STRING | WORD

A number is decimal or 0x…, a string stands in double or single quotes, and a
word is a run of letters, digits and `_ . : + | -`: `src=10.0.0.1` needs no
quotes.

>>> [layer.name for layer in parse_packet("Ether/IPv4(ttl=3)/UDP")]
['Ether', 'IPv4', 'UDP']
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from penstock.errors import PacketNotationError
from penstock.model.layers.arguments import MisfitError, Value, name_hint, shown
from penstock.model.layers.layer import Layer
from penstock.model.layers.table import FRAME_LAYER_NAMES, LAYERS

MAX_LAYERS = 64

_SPACE = re.compile(r"[ \t\r\n]*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORD = re.compile(r"[A-Za-z0-9_.:+|-]+")
_NUMBER = re.compile(r"0[xX][0-9A-Fa-f]{1,32}|[0-9]{1,39}")
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'')
_ESCAPE = re.compile(r"\\(.)")
_HEX = re.compile(r"[0-9A-Fa-f\s:]*")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}
_SHOWN_IN_HEX = frozenset({"type", "ptype", "code", "chksum", "oui", "dsap", "ssap"})


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One layer as it was written.  `offset` is where; two layers are equal wherever they stand."""

    name: str
    arguments: tuple[tuple[str, Value], ...] = ()
    offset: int = field(default=0, compare=False)


def parse_packet(text: str) -> tuple[LayerSpec, ...]:
    """The layers of a packet in the notation above, all names and values checked.

    Raises:
        PacketNotationError: the text is no packet; the error has the place and a hint.
    """
    layers, end = parse_packet_at(text, 0)
    rest = _SPACE.match(text, end)
    if rest is not None and rest.end() < len(text):
        raise PacketNotationError("a packet goes on with `/` and another layer, or ends", offset=rest.end())
    return layers


def parse_packet_at(text: str, start: int) -> tuple[tuple[LayerSpec, ...], int]:
    """The packet that begins at `start` of a longer text, and the offset of what follows it.

    Offsets, those of errors too, count from the beginning of `text`.

    Raises:
        PacketNotationError: as `parse_packet`.
    """
    cursor = _Cursor(text, start)
    layers = [_layer(cursor)]
    while cursor.take("/"):
        if len(layers) == MAX_LAYERS:
            raise PacketNotationError(f"a packet has at most {MAX_LAYERS} layers", offset=cursor.at)
        layers.append(_layer(cursor))
    check_order(layers)
    return tuple(layers), cursor.at


def format_packet(layers: Sequence[LayerSpec]) -> str:
    """The layers in their canonical notation; `parse_packet` of it gives equal layers."""
    return "/".join(_format_layer(spec) for spec in layers)


def parse_hex(text: str) -> bytes:
    """The bytes of a frame written in hexadecimal, spaces and colons between the digits allowed.

    Raises:
        PacketNotationError: another character, or half a byte at the end.
    """
    plain = _HEX.match(text)
    end = plain.end() if plain is not None else 0
    if end < len(text):
        raise PacketNotationError(f"{shown(text[end])} is not a hexadecimal digit", offset=end)
    digits = re.sub(r"[\s:]+", "", text)
    if len(digits) % 2:
        last = len(text.rstrip(": \t\r\n")) - 1
        raise PacketNotationError("the last byte has only one hexadecimal digit", offset=last)
    return bytes.fromhex(digits)


def is_hex(text: str) -> bool:
    """Whether `text` is hexadecimal and not the notation: no layer's name has only such digits."""
    return bool(text.strip()) and _HEX.fullmatch(text) is not None


@dataclass(slots=True)
class _Cursor:
    """A place in the text that moves on as tokens are taken."""

    text: str
    at: int

    def skip_space(self) -> int:
        space = _SPACE.match(self.text, self.at)
        return space.end() if space is not None else self.at

    def take(self, mark: str) -> bool:
        """Move past `mark` when it comes next; otherwise stay, before any space."""
        start = self.skip_space()
        if not self.text.startswith(mark, start):
            return False
        self.at = start + len(mark)
        return True

    def match(self, pattern: re.Pattern[str]) -> str | None:
        """Move past what matches `pattern` and give it; otherwise only past the space."""
        self.at = self.skip_space()
        found = pattern.match(self.text, self.at)
        if found is None:
            return None
        self.at = found.end()
        return found.group()


def _layer(cursor: _Cursor) -> LayerSpec:
    name = cursor.match(_NAME)
    if name is None:
        raise PacketNotationError(
            "the name of a layer is missing here", offset=cursor.at, hint="as in IPv4/UDP"
        )
    offset = cursor.at - len(name)
    layer = named_layer(name, offset)
    arguments = _arguments(cursor, layer) if cursor.take("(") else ()
    return LayerSpec(name, arguments, offset)


def named_layer(name: str, offset: int) -> Layer:
    """The layer of that name.

    Raises:
        PacketNotationError: there is none; the hint names the nearest.
    """
    if name not in LAYERS:
        message, end = f"there is no layer {shown(name)}", offset + len(name)
        raise PacketNotationError(message, offset=offset, end=end, hint=name_hint(name, LAYERS))
    return LAYERS[name]


def _arguments(cursor: _Cursor, layer: Layer) -> tuple[tuple[str, Value], ...]:
    opened = cursor.at - 1
    found: dict[str, tuple[str, Value]] = {}
    while not cursor.take(")"):
        if cursor.skip_space() == len(cursor.text):
            raise PacketNotationError("this parenthesis is never closed", offset=opened)
        if found and not cursor.take(","):
            message = f"the arguments of {layer.name} go on with `,` or end with `)`"
            raise PacketNotationError(message, offset=cursor.skip_space())
        start = cursor.skip_space()
        name, value = _argument(cursor, layer)
        canonical = layer.aliases.get(name, name)
        if canonical in found:
            raise PacketNotationError(f"{layer.name} is given `{name}` twice", offset=start, end=cursor.at)
        found[canonical] = (name, value)
    return tuple(found.values())


def _argument(cursor: _Cursor, layer: Layer) -> tuple[str, Value]:
    start = cursor.skip_space()
    name = _argument_name(cursor)
    if name is None:
        if layer.positional is None:
            message = f"an argument of {layer.name} needs its name, as in `name=value`"
            raise PacketNotationError(message, offset=start, hint=_argument_hint(layer))
        name = layer.positional
    elif layer.argument(name) is None:
        message = f"{layer.name} has no argument {shown(name)}"
        end = start + len(name)
        raise PacketNotationError(message, offset=start, end=end, hint=_argument_hint(layer, name))
    start = cursor.skip_space()
    value = _value(cursor)
    convert_argument(layer, name, value, start, cursor.at)
    return name, value


def _argument_name(cursor: _Cursor) -> str | None:
    start = cursor.at
    name = cursor.match(_NAME)
    if name is not None and cursor.take("="):
        return name
    cursor.at = start
    return None


def _argument_hint(layer: Layer, name: str = "") -> str:
    return name_hint(name, (*layer.arguments, *layer.aliases))


def _value(cursor: _Cursor) -> Value:
    quoted = cursor.match(_STRING)
    if quoted is not None:
        return _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[1]), quoted[1:-1])
    word = cursor.match(_WORD)
    if word is not None:
        return _word_value(word)
    if cursor.text[cursor.at : cursor.at + 1] in {'"', "'"}:
        raise PacketNotationError("this string has no closing quote on its line", offset=cursor.at)
    raise PacketNotationError(
        "a value is missing here", offset=cursor.at, hint="a number, word or quoted string"
    )


def _word_value(word: str) -> Value:
    if _NUMBER.fullmatch(word) is None:
        return word
    return int(word, 16) if word[:2] in {"0x", "0X"} else int(word)


def convert_argument(layer: Layer, name: str, value: Value, start: int, end: int) -> int | bytes:
    """The value of `layer`'s argument as its builder takes it.

    Raises:
        PacketNotationError: the layer has no such argument, or the argument no such value.
    """
    canonical = layer.argument(name)
    if canonical is None:
        message = f"{layer.name} has no argument {shown(name)}"
        raise PacketNotationError(message, offset=start, end=end, hint=_argument_hint(layer, name))
    try:
        return layer.arguments[canonical](value)
    except MisfitError as fault:
        message = f"{name} of {layer.name}: {fault}"
        raise PacketNotationError(message, offset=start, end=end, hint=fault.hint) from None


def check_order(layers: Sequence[LayerSpec]) -> None:
    """The pseudo-layers shape the finished frame, so nothing can follow them."""
    for spec, following in pairwise(layers):
        if spec.name in FRAME_LAYER_NAMES and following.name not in FRAME_LAYER_NAMES:
            end = spec.offset + len(spec.name)
            raise PacketNotationError(f"{spec.name} must be the last layer", offset=spec.offset, end=end)


def _format_layer(spec: LayerSpec) -> str:
    layer = LAYERS.get(spec.name)
    positional = layer.positional if layer is not None else None
    parts = [_format_argument(name, value, positional) for name, value in spec.arguments]
    return f"{spec.name}({', '.join(parts)})" if parts else spec.name


def _format_argument(name: str, value: Value, positional: str | None) -> str:
    if isinstance(value, bytes):
        return f'{"hex" if name == positional else name}="{value.hex()}"'
    if isinstance(value, int):
        written = f"{value:#06x}" if name in _SHOWN_IN_HEX and value > 0xFF else str(value)
    else:
        written = f'"{_escaped(value)}"'
    return written if name == positional else f"{name}={written}"


def _escaped(text: str) -> str:
    marks = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}
    return "".join(marks.get(char, char) for char in text)
