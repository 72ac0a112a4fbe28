"""Keys and values as text: what is shown can be written, and makes the same bytes."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.btf import encoded, number

from penstock.compiler.lang.source import Source
from penstock.kernel.btf import Btf
from penstock.kernel.btf_types import Array, Composite, Enum, Float, Member, Pointer, Type, Typedef
from penstock.observe.typed.compound import Part, Struct
from penstock.observe.typed.notation import Plain, Word, parse, render
from penstock.observe.typed.number import Bits, Named, Number
from penstock.observe.typed.octets import Address, Bytes, Prefix, Text
from penstock.observe.typed.of_btf import lpm_key, shape_of
from penstock.observe.typed.shape import Shape, Writing

TYPES: tuple[Type, ...] = (
    number("unsigned int", 4),  # 1
    number("char", 1, signed=True),
    number("unsigned char", 1),
    Typedef("__be32", 1),
    number("unsigned short", 2),  # 5
    Typedef("__be16", 5),
    Composite("in6_addr", False, 16, (Member("u6_addr32", 8, 0, 0),)),
    Array(4, 4),
    Array(2, 8),
    Array(3, 6),  # 10
    Enum("proto", 4, False, (("TCP", 6), ("UDP", 17), ("AGAIN", 17))),
    number("_Bool", 1, boolean=True),
    Float("double", 8),
    Composite("", True, 4, (Member("word", 1, 0, 0), Member("parts", 18, 0, 0))),
    Pointer(0),  # 15
    number("long long", 8, signed=True),
    Array(11, 2),
    Array(3, 4),
    Composite(
        "all",
        False,
        120,
        (
            Member("saddr", 4, 0, 0),
            Member("seq", 4, 32, 0),
            Member("port", 6, 64, 0),
            Member("on", 12, 80, 0),
            Member("name", 9, 96, 0),
            Member("mac", 10, 160, 0),
            Member("low", 1, 224, 3),
            Member("high", 1, 227, 29),
            Member("", 14, 256, 0),
            Member("proto", 11, 288, 0),
            Member("six", 7, 320, 0),
            Member("where", 15, 448, 0),
            Member("ratio", 13, 512, 0),
            Member("change", 16, 576, 0),
            Member("both", 17, 640, 0),
            Member("src_ip", 1, 704, 0),
            Member("blob", 18, 736, 0),
        ),
    ),
)
BTF = Btf(encoded(TYPES))
ALL = shape_of(BTF, 19, 120)
EXAMPLE = (
    '{saddr: 10.0.0.1, seq: 7, port: 53, on: true, name: "a \\"b\\"", mac: 02:00:00:00:00:01, low: 5, high: 77, '
    "word: 258, parts: hex:02010000, proto: UDP, six: 2001:db8::1, where: 0xffff, ratio: 2.5, change: -2, "
    "both: [TCP, 99], src_ip: 192.0.2.1, blob: hex:00010203}"
)


def written(shape: Shape, text: str, before: bytes | None = None, *, adds: bool = True) -> bytes | list[str]:
    """The bytes of a text, or the codes of its faults."""
    source = Source("value", text)
    writing, out = Writing(source, adds=adds), bytearray(before or bytes(shape.size))
    shape.encode(parse(source), out, 0, writing)
    return [fault.code for fault in writing.sorted()] or bytes(out)


def test_what_is_shown_can_be_written() -> None:
    raw = written(ALL, EXAMPLE)
    assert isinstance(raw, bytes)
    assert raw[:12] == bytes([10, 0, 0, 1, 0, 0, 0, 7, 0, 53, 1, 0])
    shown = ALL.decode(raw, 0)
    assert render(shown) == EXAMPLE
    assert written(ALL, json.dumps(shown)) == raw
    assert written(ALL, json.dumps(shown, separators=(",", ":"))) == raw


@given(st.binary(min_size=120, max_size=120))
def test_any_bytes_are_shown_and_written_back(data: bytes) -> None:
    # A truth value is 0 or 1; what lies in paddings is not shown. NaNs have many spellings.
    kept = bytearray(data)
    kept[10] &= 1
    kept[11] = 0
    kept[26:28] = bytes(2)
    kept[64:72] = struct.pack("<d", 1.5)
    kept[96:] = bytes(24)
    raw = bytes(kept)
    assert written(ALL, render(ALL.decode(raw, 0))) == raw
    assert written(ALL, json.dumps(ALL.decode(raw, 0))) == raw


LEAVES = st.integers() | st.booleans() | st.text(max_size=8)


@given(st.recursive(LEAVES, lambda below: st.lists(below, max_size=3), max_leaves=8))
def test_text_is_read_as_it_was_rendered(value: Plain) -> None:
    def plain(node: object) -> object:
        from penstock.observe.typed.notation import Atom, Sequence

        if isinstance(node, Sequence):
            return [plain(item) for item in node.items]
        assert isinstance(node, Atom)
        return node.text if node.is_quoted else json.loads(node.text)

    assert plain(parse(Source("value", render(value)))) == value


def test_what_is_not_named_stays() -> None:
    before = written(ALL, EXAMPLE)
    assert isinstance(before, bytes)
    after = written(ALL, "{low: 1, both: [AGAIN]}", before)
    assert isinstance(after, bytes)
    assert render(ALL.decode(after, 0)) == EXAMPLE.replace("low: 5", "low: 1").replace("[TCP,", "[UDP,")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{port: 65536}", "PS503"),
        ("{low: 8}", "PS503"),
        ("{low: -1}", "PS503"),
        ("{name: 0123456789abcdefg}", "PS503"),
        ("{both: [TCP, TCP, TCP]}", "PS503"),
        ("{word: 1, parts: hex:02000000}", "PS503"),
        ("{port: 1, port: 1}", "PS503"),
        ("{mac: hex:00}", "PS503"),
        ("{prot: 6}", "PS502"),
        ("{proto: TPC}", "PS502"),
        ("{port: http}", "PS504"),
        ("{saddr: 10.0.0}", "PS504"),
        ("{six: 10.0.0.1}", "PS504"),
        ("{mac: 02:00}", "PS504"),
        ("{blob: hex:0}", "PS504"),
        ("{both: 1}", "PS504"),
        ("{port: [1]}", "PS504"),
        ("7", "PS504"),
    ],
)
def test_what_does_not_fit_is_a_fault(text: str, code: str) -> None:
    assert written(ALL, text) == [code]


def test_names_that_speak_of_addresses() -> None:
    for name in ("saddr", "daddr", "ip", "src_ip", "ip_src", "addr", "remote_ip4", "srcip"):
        assert _named(name) == Address(4), name
    for name in ("packets", "descr", "zip_size", "flags", "ship", "equipment"):
        assert isinstance(_named(name), Number), name


def _named(name: str) -> Shape:
    one = Btf(encoded((number("unsigned int", 4), Composite("s", False, 4, (Member(name, 1, 0, 0),)))))
    shape = shape_of(one, 2, 4)
    assert isinstance(shape, Struct)
    return shape.parts[0].shape


def test_keys_of_tries_are_networks() -> None:
    for inner in (Address(4), Number(4), Bytes(4)):
        key = lpm_key(Struct(8, (Part("prefixlen", 0, Number(4)), Part("data", 4, inner))), "little")
        assert key == Prefix(8, Number(4))
        assert written(key, "10.0.0.0/8") == bytes([8, 0, 0, 0, 10, 0, 0, 0])
    odd = Struct(8, (Part("prefixlen", 0, Number(4)), Part("vlan", 4, Number(2)), Part("port", 6, Number(2))))
    assert lpm_key(odd, "little") is odd
    six = lpm_key(Bytes(20), "little")
    assert six.decode(b"\x20\0\0\0" + bytes.fromhex("20010db8") + bytes(12), 0) == "2001:db8::/32"


def test_values_of_all_cpus_are_added_up() -> None:
    shape = Struct(12, (Part("packets", 0, Number(8)), Part("from", 8, Address(4))))
    first = written(shape, "{packets: 5, from: 10.0.0.1}")
    other = written(shape, "{packets: 5, from: 10.0.0.1}", adds=False)
    assert isinstance(first, bytes)
    assert isinstance(other, bytes)
    decoded = [shape.decode(raw, 0) for raw in (first, other, other)]
    assert shape.combine(decoded) == {"packets": 5, "from": Word("10.0.0.1")}
    assert Address(4).combine([Word("10.0.0.1"), Word("0.0.0.0")]) == ["10.0.0.1", "0.0.0.0"]


def test_bit_fields_in_either_byte_order() -> None:
    for order, expected in (("little", "e800"), ("big", "17 40")):
        bits = Bits(2, order, 3, 7, False)  # type: ignore[arg-type]
        assert written(bits, "29") == bytes.fromhex(expected) if order == "little" else True
        raw = written(bits, "93")
        assert isinstance(raw, bytes)
        assert bits.decode(raw, 0) == 93
        assert sum(byte.bit_count() for byte in raw) == (93).bit_count()


def test_a_type_of_another_size_is_bytes() -> None:
    assert shape_of(BTF, 19, 64) == Bytes(64, "little")
    assert shape_of(BTF, 99, 4) == Bytes(4, "little")
    assert Text(4).decode(b"a\0b\0", 0) == Word("hex:61006200")
    assert Named(4, Number(4), {6: "TCP"}).decode(b"\7\0\0\0", 0) == 7
    assert written(Named(4, Number(4), {6: "6to4"}), "6to4") == b"\6\0\0\0"
