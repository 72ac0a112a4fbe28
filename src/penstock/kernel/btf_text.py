"""BTF types as text for people, and as plain values for JSON.

type_name(btf, 2878)        ->  "unsigned char[6]"
lines(btf, 2400)            ->  ["[2400] struct ethhdr, 14 bytes", "     0  unsigned char[6] h_dest", …]
record(btf, 2400)           ->  {"id": 2400, "kind": "struct", "name": "ethhdr", "size": 14, "members": […]}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import to_builtins

from penstock.kernel.btf import MAX_DEPTH
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
    Pointer,
    Qualifier,
    Typedef,
    TypeTag,
    Variable,
    Void,
)

if TYPE_CHECKING:
    from penstock.kernel.btf import Btf
    from penstock.kernel.btf_types import Type

_LINKAGES = ("static ", "", "extern ")


def type_name(btf: Btf, number: int) -> str:
    """A type in a few words, nearly as C has it."""
    after = ""
    for _ in range(MAX_DEPTH):
        match btf.type(number):
            case Pointer(target=number):
                after = f" *{after}" if not after.startswith(" *") else f" *{after[1:]}"
            case Array(element=number, count=count):
                after = f"{after}[{count}]" if "*" not in after else f" ({after.strip()})[{count}]"
            case Qualifier(word=word, target=number):
                after = f" {word}{after}"
            case TypeTag(target=number):
                pass
            case found:
                return f"{_word(found)}{after}"
    return f"…{after}"


def _word(found: Type) -> str:
    match found:
        case Composite(name=name):
            return f"{found.keyword} {name or '{…}'}"
        case Forward(name=name, is_union=is_union):
            return f"{'union' if is_union else 'struct'} {name}"
        case Enum(name=name):
            return f"enum {name or '{…}'}"
        case Void():
            return "void"
        case FunctionType():
            return "(function)"
        case Int(name=name) | Float(name=name) | Typedef(name=name) | Function(name=name):
            return name
        case Variable(name=name) | DataSection(name=name) | DeclTag(name=name):
            return name
        case _:
            return "…"


def lines(btf: Btf, number: int) -> list[str]:
    """A type and what it is made of, a line each."""
    found = btf.type(number)
    return [f"[{number}] {_head(btf, found)}", *_body(btf, found)]


def _head(btf: Btf, found: Type) -> str:
    match found:
        case Composite(size=size):
            return f"{_word(found)}, {size} bytes"
        case Enum(size=size, is_signed=is_signed):
            return f"{_word(found)}, {size} bytes, {'signed' if is_signed else 'unsigned'}"
        case Int(name=name, size=size, bits=bits):
            width = "" if bits == size * 8 else f", {bits} bits from {found.offset}"
            sign = "bool" if found.is_bool else "signed" if found.is_signed else "unsigned"
            return f"int {name}, {size} bytes, {sign}{width}"
        case Float(name=name, size=size):
            return f"float {name}, {size} bytes"
        case Typedef(name=name, target=target):
            return f"typedef {name} = {type_name(btf, target)} [{target}]"
        case Pointer(target=target):
            return f"pointer to {type_name(btf, target)} [{target}]"
        case Array(element=element, count=count):
            return f"array of {count} {type_name(btf, element)} [{element}]"
        case Qualifier(word=word, target=target):
            return f"{word} {type_name(btf, target)} [{target}]"
        case Forward():
            return f"declared {_word(found)}"
        case _:
            return _head_of_rest(btf, found)


def _head_of_rest(btf: Btf, found: Type) -> str:
    match found:
        case TypeTag(name=name, target=target, is_attribute=is_attribute):
            return (
                f"type {'attribute' if is_attribute else 'tag'} {name} on {type_name(btf, target)} [{target}]"
            )
        case Function(name=name, prototype=prototype, linkage=linkage):
            return f"{_linkage(linkage)}function {name} [{prototype}]"
        case FunctionType(result=result):
            return f"function type giving {type_name(btf, result)} [{result}]"
        case Variable(name=name, type=target, linkage=linkage):
            return f"{_linkage(linkage)}variable {name}: {type_name(btf, target)} [{target}]"
        case DataSection(name=name, size=size):
            return f"section {name}, {size} bytes"
        case DeclTag(name=name, target=target, component=component):
            part = "" if component < 0 else f" part {component} of"
            return f"tag {name} on{part} {_word(btf.type(target))} [{target}]"
        case _:
            return "void"


def _body(btf: Btf, found: Type) -> list[str]:
    match found:
        case Composite(members=members):
            return [
                f"{_place(member.offset, member.bits):>8}  {type_name(btf, member.type)} {member.name}".rstrip()
                + f" [{member.type}]"
                for member in members
            ]
        case Enum(values=values):
            return [f"{value:>8}  {name}" for name, value in values]
        case FunctionType(parameters=parameters):
            return [
                f"          {type_name(btf, target) if target else '…'} {name}".rstrip() + f" [{target}]"
                for name, target in parameters
            ]
        case DataSection(variables=variables):
            return [
                f"{offset:>8}  {_word(btf.type(target))}, {size} bytes [{target}]"
                for target, offset, size in variables
            ]
        case _:
            return []


def _place(offset: int, bits: int) -> str:
    return f"{offset // 8}.{offset % 8}:{bits}" if bits else str(offset // 8)


def _linkage(linkage: int) -> str:
    return _LINKAGES[linkage] if linkage < len(_LINKAGES) else ""


def record(btf: Btf, number: int) -> dict[str, object]:
    """A type as plain values: what its kind has, by name."""
    found = btf.type(number)
    content: dict[str, object] = to_builtins(found)
    if isinstance(found, DataSection):
        content["variables"] = [
            {"type": target, "offset": at, "size": size} for target, at, size in found.variables
        ]
    if isinstance(found, Enum):
        content["values"] = [{"name": name, "value": value} for name, value in found.values]
    if isinstance(found, FunctionType):
        content["parameters"] = [{"name": name, "type": target} for name, target in found.parameters]
    return {"id": number, "kind": btf.kind(number).name.lower(), **content}
