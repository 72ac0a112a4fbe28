"""The kinds of BTF types, as values.

    Composite("ethhdr", is_union=False, size=14, members=(Member("h_dest", 2878, 0, 0), …))

A type names others by their numbers in its `Btf`.  Structs of msgspec, because a
kernel has a hundred thousand.  Names are those of Documentation/bpf/btf.rst.
"""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct


class Kind(IntEnum):
    """BTF_KIND_*."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


class Void(Struct, frozen=True, gc=False):
    """Type 0."""


class Int(Struct, frozen=True, gc=False):
    """An integer of `size` bytes; `bits` differ from these only in bit fields of old compilers."""

    name: str
    size: int
    bits: int
    offset: int
    is_signed: bool
    is_char: bool
    is_bool: bool


class Float(Struct, frozen=True, gc=False):
    """A floating-point number of `size` bytes."""

    name: str
    size: int


class Pointer(Struct, frozen=True, gc=False):
    """A pointer to `target`."""

    target: int


class Array(Struct, frozen=True, gc=False):
    """`count` times `element`."""

    element: int
    count: int


class Member(Struct, frozen=True, gc=False):
    """A member at `offset` bits; `bits` is 0 unless it is a bit field."""

    name: str
    type: int
    offset: int
    bits: int


class Composite(Struct, frozen=True, gc=False):
    """A struct or union; `name` is empty where the source gave none."""

    name: str
    is_union: bool
    size: int
    members: tuple[Member, ...]

    @property
    def keyword(self) -> str:
        """`struct` or `union`."""
        return "union" if self.is_union else "struct"


class Enum(Struct, frozen=True, gc=False):
    """An enumeration; without `values` it was declared and not defined."""

    name: str
    size: int
    is_signed: bool
    values: tuple[tuple[str, int], ...]


class Forward(Struct, frozen=True, gc=False):
    """A struct or union of which only the name is known."""

    name: str
    is_union: bool


class Typedef(Struct, frozen=True, gc=False):
    """Another name for `target`."""

    name: str
    target: int


class Qualifier(Struct, frozen=True, gc=False):
    """`const`, `volatile` or `restrict` before `target`."""

    word: str
    target: int


class TypeTag(Struct, frozen=True, gc=False):
    """`target` with a btf_type_tag, `user` for instance; `is_attribute`: `name` is an attribute's text instead."""

    name: str
    target: int
    is_attribute: bool


class Function(Struct, frozen=True, gc=False):
    """A function; `prototype` is the number of its FunctionType."""

    name: str
    prototype: int
    linkage: int


class FunctionType(Struct, frozen=True, gc=False):
    """What a function takes, names and types, and gives; a last parameter of type 0 stands for `...`."""

    result: int
    parameters: tuple[tuple[str, int], ...]


class Variable(Struct, frozen=True, gc=False):
    """A global variable."""

    name: str
    type: int
    linkage: int


class DataSection(Struct, frozen=True, gc=False):
    """A data section: its variables as (type, offset, size)."""

    name: str
    size: int
    variables: tuple[tuple[int, int, int], ...]


class DeclTag(Struct, frozen=True, gc=False):
    """A tag on `target`, or on its member or parameter number `component` (-1: on itself)."""

    name: str
    target: int
    component: int
    is_attribute: bool


Type = (
    Void
    | Int
    | Float
    | Pointer
    | Array
    | Composite
    | Enum
    | Forward
    | Typedef
    | Qualifier
    | TypeTag
    | Function
    | FunctionType
    | Variable
    | DataSection
    | DeclTag
)
