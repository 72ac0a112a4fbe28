"""BTF: what is encoded is parsed, in both byte orders, whole and split; C of it; damage is told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.btf import SAMPLE, encoded, number

from penstock.errors import BtfError
from penstock.kernel.btf import Btf
from penstock.kernel.btf_c import header
from penstock.kernel.btf_layout import Gap, paddings
from penstock.kernel.btf_text import lines, record, type_name
from penstock.kernel.btf_types import (
    Array,
    Composite,
    Enum,
    Forward,
    FunctionType,
    Int,
    Kind,
    Member,
    Pointer,
    Qualifier,
    Type,
    Typedef,
)

NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,6}", fullmatch=True)
IDS = st.integers(0, 40)
MEMBERS = st.lists(
    st.builds(Member, NAMES | st.just(""), IDS, st.integers(0, 600), st.integers(0, 63)), max_size=4
).map(tuple)


def named(values: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[tuple[str, int], ...]]:
    """Up to three names with values."""
    return st.lists(st.tuples(NAMES, values), max_size=3).map(tuple)


TYPES: st.SearchStrategy[Type] = st.one_of(
    st.builds(number, NAMES, st.sampled_from([1, 2, 4, 8, 16]), signed=st.booleans()),
    st.builds(Pointer, IDS),
    st.builds(Array, IDS, st.integers(0, 9)),
    st.builds(Typedef, NAMES, IDS),
    st.builds(Qualifier, st.sampled_from(["const", "volatile", "restrict"]), IDS),
    st.builds(Forward, NAMES, st.booleans()),
    st.builds(Enum, NAMES, st.just(4), st.just(True), named(st.integers(-9, 9))),
    st.builds(Enum, NAMES, st.just(8), st.just(False), named(st.integers(0, 1 << 63))),
    st.builds(Composite, NAMES | st.just(""), st.booleans(), st.integers(0, 64), MEMBERS),
    st.builds(FunctionType, IDS, st.lists(st.tuples(NAMES, IDS), max_size=3).map(tuple)),
)


@pytest.mark.parametrize("order", ["<", ">"])
def test_every_kind_is_read(order: str) -> None:
    btf = Btf(encoded(SAMPLE, order))
    assert [btf.type(at) for at in btf.own] == list(SAMPLE)
    assert {btf.kind(at) for at in btf.own} | {Kind.VOID, Kind.VOLATILE, Kind.RESTRICT} == set(Kind)
    assert btf.order == ("little" if order == "<" else "big")


@given(st.lists(TYPES, max_size=12), st.sampled_from("<>"))
def test_what_is_encoded_is_parsed(types: list[Type], order: str) -> None:
    btf = Btf(encoded(types, order))
    assert [btf.type(at) for at in range(1, len(btf))] == types
    assert [btf.name(at) for at in btf.own] == [getattr(one, "name", "") for one in types]


@settings(max_examples=40)
@given(st.lists(TYPES, max_size=8), st.lists(TYPES, max_size=3), st.sampled_from("<>"))
def test_a_name_is_found_as_soon_as_all_are_sorted(types: list[Type], more: list[Type], order: str) -> None:
    """One by one, in a base or beyond it, and where one name is the end of another."""
    base = Btf(encoded(types, order))
    data = encoded(more, order, strings_from=base.strings_end)
    for name in {getattr(one, "name", "") for one in (*types, *more)} | {"a"}:
        split = Btf(data, Btf(encoded(types, order)))
        wanted = [at for at in range(1, len(split)) if name and split.name(at) == name]
        assert split.find_all(name) == wanted
        for _ in range(9):
            again = split.find_all(name)
        assert again == wanted
        assert split.has_string(name) or base.has_string(name) or not wanted


def test_split_btf_continues_its_base() -> None:
    base = Btf(encoded(SAMPLE))
    more = (Typedef("again", 8), Composite("mine", False, 40, (Member("flow", len(base), 0, 0),)))
    split = Btf(encoded(more, strings_from=base.strings_end), base)
    assert split.type(8) == SAMPLE[7]
    assert [split.type(at) for at in split.own] == list(more)
    assert split.find("flow") == 8
    assert split.find("mine") == len(base) + 1
    assert split.size(len(base) + 1) == 40


def test_names_and_sizes() -> None:
    btf = Btf(encoded(SAMPLE))
    assert btf.find("flow", Kind.STRUCT) == 8
    assert btf.find("flow", Kind.UNION) is None
    assert [btf.size(at) for at in (1, 3, 4, 8, 9, 10, 15, 16)] == [4, 16, 4, 40, 8, 40, 40, 40]
    with pytest.raises(BtfError, match="has no size"):
        btf.size(13)


def test_old_bit_fields_are_in_the_integer() -> None:
    """Compilers before the members' flag said `unsigned int x:3` by an integer of 3 bits."""
    old = (
        Int("unsigned int", 4, 3, 5, False, False, False),
        Composite("s", False, 4, (Member("x", 1, 0, 0),)),
    )
    data = bytearray(encoded(old))
    data[24 + 16 + 7] &= 0x7F  # the struct's flag
    assert Btf(bytes(data)).type(2) == Composite("s", False, 4, (Member("x", 1, 5, 3),))


def test_as_text() -> None:
    btf = Btf(encoded(SAMPLE))
    assert type_name(btf, 20) == "struct unknown *"
    assert type_name(btf, 3) == "char[16]"
    assert lines(btf, 8)[:3] == [
        "[8] struct flow, 40 bytes",
        "       0  __be32 saddr [4]",
        "       4  char[16] name [3]",
    ]
    assert " 20.3:29  unsigned int high [1]" in lines(btf, 8)
    assert all(lines(btf, at)[0].startswith(f"[{at}] ") for at in btf.own)
    assert record(btf, 5) == {
        "id": 5,
        "kind": "enum",
        "name": "proto",
        "size": 4,
        "is_signed": False,
        "values": [{"name": "TCP", "value": 6}, {"name": "UDP", "value": 17}],
    }


def test_as_c() -> None:
    text = header(Btf(encoded(SAMPLE)))
    body = text.partition("#endif\n\n")[2].partition("#ifndef")[0]
    assert body == (
        "typedef unsigned int __be32;\n\n"
        "enum proto {\n\tTCP = 6,\n\tUDP = 17,\n};\n\n"
        "enum wide {\n\tLOW = -1LL,\n\tHIGH = 1099511627776LL,\n};\n\n"
        "struct flow;\n\n"
        "struct flow {\n\t__be32 saddr;\n\tchar name[16];\n\tunsigned int low: 3;\n\tunsigned int high: 29;\n"
        "\tunion {\n\t\tunsigned int word;\n\t\t__be32 half;\n\t};\n\tenum proto proto;\n\tstruct flow *next;\n};\n\n"
        "typedef unsigned int (*handler_t)(struct flow *, ...);\n\n"
    )


def test_names_that_two_types_share_are_told_apart() -> None:
    types = (
        number("int", 4, signed=True),
        Composite("s", False, 4, (Member("a", 1, 0, 0),)),
        Composite("s", False, 8, (Member("b", 1, 0, 0), Member("double", 1, 32, 0))),
        Typedef("core::Option<u8>", 3),
        Enum("e", 4, True, (("SAME", 1),)),
        Enum("f", 4, True, (("SAME", 2),)),
        Forward("s", True),
        Pointer(7),
        Typedef("p", 8),
    )
    text = header(Btf(encoded(types)))
    for expected in (
        "struct s {",
        "struct s___2 {",
        "int double_;",
        "typedef struct s___2 core__Option_u8_;",
        "SAME = 1,",
        "SAME___2 = 2,",
        "typedef union s___3 *p;",
    ):
        assert expected in text


def test_what_c_cannot_lay_out_is_bytes() -> None:
    overlapping = Composite("s", False, 4, (Member("a", 1, 0, 0), Member("b", 1, 16, 0)))
    assert "unsigned char __bytes[4];" in header(Btf(encoded((number("int", 4), overlapping))))


@given(st.integers(0, 2000), st.integers(1, 2000))
def test_paddings_fill_a_gap_exactly(start: int, bits: int) -> None:
    at = start
    for written in paddings(Gap(start, start + bits), 0):
        word, _, width = written.partition(": ")
        if width:
            unit = {"char": 8, "short": 16, "int": 32, "long": 64}[word]
            assert at % unit + int(width) <= unit  # else C would go to the next unit
            at += int(width)
        else:
            assert at % 8 == 0
            at += int(written.rpartition("[")[2].rstrip("]")) * 8
    assert at == start + bits


#: Each has the one before it twice, and no name.
DOUBLING = [Composite("", False, 0, (Member("a", at, 0, 0), Member("b", at, 0, 0))) for at in range(1, 40)]


@pytest.mark.parametrize(
    ("types", "said"),
    [
        ((Typedef("t", 1),), "circle|in a row|deep"),
        ((Typedef("t", 99),), "there is no type 99"),
        ((Composite("s", False, 0, (Member("s", 1, 0, 0),)),), "contains itself|deep"),
        ((Pointer(1), Typedef("t", 1)), "deep, or in a circle|parts"),
        (tuple(Typedef("t", at + 2) for at in range(200)), "deep|in a row|no type"),
        (
            (number("int", 4), *DOUBLING, Composite("s", False, 0, (Member("s", 40, 0, 0),))),
            "many times as long",
        ),
    ],
)
def test_what_no_header_can_say_is_told(types: tuple[Type, ...], said: str) -> None:
    with pytest.raises(BtfError, match=said):
        header(Btf(encoded(types)))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "0 bytes are no BTF"),
        (b"\x7fELF" + bytes(40), "this is no BTF"),
        (encoded(SAMPLE)[:-1], "the BTF is cut"),
        (
            encoded(SAMPLE)[:24].replace(b"\x9f\xeb\x01", b"\x9f\xeb\x02") + encoded(SAMPLE)[24:],
            "this is no BTF",
        ),
    ],
)
def test_damage_is_told(data: bytes, said: str) -> None:
    with pytest.raises(BtfError, match=said):
        Btf(data, source="x.o")


@settings(max_examples=50)
@given(st.lists(TYPES, max_size=12))
def test_whatever_the_types_are_there_is_c_or_an_error(types: list[Type]) -> None:
    btf = Btf(encoded(types))
    try:
        text = header(btf)
    except BtfError:
        return
    assert text.count("{") == text.count("}")
