"""BTF made by hand: values of `btf_types` to bytes, so that what is parsed can be compared."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from penstock.kernel.btf_types import (
    Array,
    Composite,
    DataSection,
    DeclTag,
    Enum,
    Float,
    Forward,
    Function,
    FunctionType,
    Int,
    Kind,
    Member,
    Pointer,
    Qualifier,
    Type,
    Typedef,
    TypeTag,
    Variable,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_QUALIFIERS = {"const": Kind.CONST, "volatile": Kind.VOLATILE, "restrict": Kind.RESTRICT}


class Encoder:
    """Types to the bytes of a .BTF section; `strings_from` and so on continue a base's."""

    def __init__(self, order: str = "<", strings_from: int = 0) -> None:
        self.order = order
        self.strings = b"" if strings_from else b"\0"
        self._from = strings_from
        self.types = b""

    def string(self, text: str) -> int:
        if not text:
            return 0
        at = self._from + len(self.strings)
        self.strings += text.encode() + b"\0"
        return at

    def words(self, *values: int) -> bytes:
        return b"".join(struct.pack(self.order + "I", value & 0xFFFFFFFF) for value in values)

    def add(self, one: Type) -> None:
        kind, count, flag, word, rest = self._parts(one)
        name = self.string(getattr(one, "name", ""))
        self.types += self.words(name, int(flag) << 31 | kind << 24 | count, word) + rest

    def _parts(self, one: Type) -> tuple[Kind, int, bool, int, bytes]:
        """Kind, vlen, the flag, size or target, and what follows."""
        match one:
            case Int(size=size):
                bits = (
                    one.is_signed << 24 | one.is_char << 25 | one.is_bool << 26 | one.offset << 16 | one.bits
                )
                return Kind.INT, 0, False, size, self.words(bits)
            case Array(element=element, count=count):
                return Kind.ARRAY, 0, False, 0, self.words(element, 1, count)
            case Function(prototype=prototype, linkage=linkage):
                return Kind.FUNC, linkage, False, prototype, b""
            case Variable(type=target, linkage=linkage):
                return Kind.VAR, 0, False, target, self.words(linkage)
            case Float(size=size):
                return Kind.FLOAT, 0, False, size, b""
            case Pointer() | Typedef() | Qualifier() | TypeTag() | Forward() | DeclTag():
                return self._reference(one)
            case _:
                return self._with_many(one)

    def _reference(
        self, one: Pointer | Typedef | Qualifier | TypeTag | Forward | DeclTag
    ) -> tuple[Kind, int, bool, int, bytes]:
        match one:
            case Pointer(target=target):
                return Kind.PTR, 0, False, target, b""
            case Forward(is_union=is_union):
                return Kind.FWD, 0, is_union, 0, b""
            case Typedef(target=target):
                return Kind.TYPEDEF, 0, False, target, b""
            case Qualifier(word=word, target=target):
                return _QUALIFIERS[word], 0, False, target, b""
            case TypeTag(target=target, is_attribute=flag):
                return Kind.TYPE_TAG, 0, flag, target, b""
            case DeclTag(target=target, component=component, is_attribute=flag):
                return Kind.DECL_TAG, 0, flag, target, self.words(component)

    def _with_many(self, one: Type) -> tuple[Kind, int, bool, int, bytes]:
        match one:
            case Composite(size=size, members=members):
                kind = Kind.UNION if one.is_union else Kind.STRUCT
                each = (
                    self.words(self.string(it.name), it.type, it.bits << 24 | it.offset) for it in members
                )
                return kind, len(members), True, size, b"".join(each)
            case Enum(size=8, is_signed=is_signed, values=values):
                each = (self.words(self.string(name), value, value >> 32) for name, value in values)
                return Kind.ENUM64, len(values), is_signed, 8, b"".join(each)
            case Enum(size=size, is_signed=is_signed, values=values):
                each = (self.words(self.string(name), value) for name, value in values)
                return Kind.ENUM, len(values), is_signed, size, b"".join(each)
            case FunctionType(result=result, parameters=parameters):
                each = (self.words(self.string(name), target) for name, target in parameters)
                return Kind.FUNC_PROTO, len(parameters), False, result, b"".join(each)
            case DataSection(size=size, variables=variables):
                each = (self.words(*it) for it in variables)
                return Kind.DATASEC, len(variables), False, size, b"".join(each)
            case _:
                raise AssertionError(f"{one} is not written")

    def bytes(self) -> bytes:
        head = struct.pack(self.order + "HBBI", 0xEB9F, 1, 0, 24)
        sizes = self.words(0, len(self.types), len(self.types), len(self.strings))
        return head + sizes + self.types + self.strings


def encoded(types: Sequence[Type], order: str = "<", strings_from: int = 0) -> bytes:
    """The types as the bytes of a .BTF section."""
    encoder = Encoder(order, strings_from)
    for one in types:
        encoder.add(one)
    return encoder.bytes()


def number(name: str, size: int, *, signed: bool = False, boolean: bool = False) -> Int:
    """An ordinary integer."""
    return Int(name, size, size * 8, 0, signed, False, boolean)


#: A type of every kind, each naming those before it.
SAMPLE: tuple[Type, ...] = (
    number("unsigned int", 4),  # 1
    number("char", 1, signed=True),
    Array(2, 16),
    Typedef("__be32", 1),
    Enum("proto", 4, False, (("TCP", 6), ("UDP", 17))),  # 5
    Enum("wide", 8, True, (("LOW", -1), ("HIGH", 1 << 40))),
    Composite("", True, 4, (Member("word", 1, 0, 0), Member("half", 4, 0, 0))),
    Composite(
        "flow",
        False,
        40,
        (
            Member("saddr", 4, 0, 0),
            Member("name", 3, 32, 0),
            Member("low", 1, 160, 3),
            Member("high", 1, 163, 29),
            Member("", 7, 192, 0),
            Member("proto", 5, 224, 0),
            Member("next", 9, 256, 0),
        ),
    ),
    Pointer(8),
    Qualifier("const", 8),  # 10
    TypeTag("user", 8, False),
    Pointer(11),
    FunctionType(1, (("flow", 9), ("", 0))),
    Function("run", 13, 1),
    Variable("table", 8, 1),  # 15
    DataSection(".data", 40, ((15, 0, 40),)),
    Float("double", 8),
    DeclTag("kfunc", 14, -1, False),
    Forward("unknown", False),
    Pointer(19),  # 20
    Typedef("handler_t", 22),
    Pointer(13),
    number("_Bool", 1, boolean=True),
)
