"""BTF as a C header: vmlinux.h, or the types of one object.

In: a `Btf`.  Out: C that clang compiles, for BPF, to the same sizes and offsets:
each type behind what it needs, structs declared before a pointer to them is used.

    header(kernel_btf())                               ->  "#ifndef __VMLINUX_H__ …"
    header(btf, [btf.find("sk_buff")])                 ->  that struct and what it needs

Names that two types share are told apart as `name___2`: CO-RE ignores what
follows three underscores.  A type that C cannot lay out becomes bytes of its
size.  All structs have preserve_access_index, so that a program compiled with
the header runs on other kernels; without it, define BPF_NO_PRESERVE_ACCESS_INDEX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.errors import BtfError
from penstock.kernel.btf import MAX_DEPTH
from penstock.kernel.btf_layout import Gap, Layouts, paddings
from penstock.kernel.btf_names import INT_OF_SIZE, c_number, identifier, unique
from penstock.kernel.btf_types import (
    Array,
    Composite,
    Enum,
    Float,
    Forward,
    FunctionType,
    Int,
    Kind,
    Pointer,
    Qualifier,
    Typedef,
    TypeTag,
    Void,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from penstock.kernel.btf import Btf
    from penstock.kernel.btf_names import INT_OF_SIZE, c_number, identifier, unique
from penstock.kernel.btf_types import Type

_DEEPEST = 2 * MAX_DEPTH
_OPENING = """\
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute push (__attribute__((preserve_access_index)), apply_to = record)
#endif

"""
_CLOSING = """\
#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute pop
#endif

#endif /* __VMLINUX_H__ */
"""
_MODE = {1: "QI", 2: "HI", 8: "DI"}
#: Names that no header can define.  What stands behind them is the kernel's, which may differ from BPF's.
_BUILTIN = frozenset(("__builtin_va_list",))


def header(btf: Btf, wanted: Iterable[int] | None = None) -> str:
    """The types of `btf`, or those of `wanted` with all that these need, as C.

    Raises:
        BtfError: the BTF is damaged, or says what no C can say.
    """
    return "".join(chunks(btf, wanted))


def chunks(btf: Btf, wanted: Iterable[int] | None = None) -> Iterator[str]:
    """What `header` gives, in pieces."""
    yield _OPENING
    written = _Header(btf)
    for number in btf.own if wanted is None else wanted:
        written.want(number)
        yield from written.taken()
    yield _CLOSING


class _Header:
    """What has been written so far, by type number."""

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._out: list[str] = []
        self._layouts = Layouts(btf)
        self._names: dict[int, str] = {}
        self._tags: dict[str, int] = {}
        self._words: dict[str, int] = dict.fromkeys(_BUILTIN, 1)
        self._used: set[int] | None = None
        self._written: set[int] = set()
        self._declared: set[str] = set()
        self._complete: set[int] = set()
        self._known: set[int] = set()
        #: How many more members may be written: nested structs without names could double at each level.
        self._room = 10_000 + btf.bytes
        self._give_names()

    def taken(self) -> list[str]:
        """What was written since the last call."""
        out, self._out = self._out, []
        return out

    def want(self, number: int) -> None:
        """Write a type that has a name, or an enumeration whose constants are of use without one."""
        found = self._btf.type(number)
        match found:
            case Composite(name="") | Forward():
                return
            case Enum(name="", values=values):
                if values and not self._is_used(number):
                    self._put(self._enum(number, found, "") + ";\n\n")
            case Composite() | Enum() | Typedef():
                self._need(number, 0)

    # Names.

    def _give_names(self) -> None:
        """Name all types by their numbers, so that a type has one name whatever part of the BTF is written."""
        forwards = []
        for number in range(1, len(self._btf)):
            match self._btf.kind(number):
                case Kind.STRUCT | Kind.UNION | Kind.ENUM | Kind.ENUM64:
                    if name := self._btf.name(number):
                        self._names[number] = unique(identifier(name), self._tags)
                case Kind.TYPEDEF:
                    name = self._btf.name(number)
                    self._names[number] = name if name in _BUILTIN else unique(identifier(name), self._words)
                case Kind.FWD:
                    forwards.append(number)
        self._name_forwards(forwards)

    def _name_forwards(self, forwards: list[int]) -> None:
        """A declared struct is the defined one of its name, unless that is a union or an enumeration."""
        for number in forwards:
            name = self._btf.name(number)
            is_union = isinstance(found := self._btf.type(number), Forward) and found.is_union
            kind = Kind.UNION if is_union else Kind.STRUCT
            same = self._btf.find(name, kind)
            if same is not None:
                self._names[number] = self._names[same]
                continue
            earlier = next((one for one in self._btf.find_all(name, Kind.FWD) if one < number), None)
            if earlier is not None and self._btf.type(earlier) == found:
                self._names[number] = self._names[earlier]
            else:
                self._names[number] = unique(identifier(name), self._tags)

    def _is_used(self, number: int) -> bool:
        """Whether another type mentions an enumeration, and so writes it."""
        if self._used is None:
            self._used = {to for one in range(1, len(self._btf)) for to in _mentioned(self._btf.type(one))}
        return number in self._used

    # Order: what a type needs is written before it.

    def _need(self, number: int, depth: int) -> None:
        """Write all that a value of the type needs, the type included."""
        if number in self._complete:
            return
        match self._look(number, depth):
            case Composite() as found:
                self._need_composite(number, found, depth)
            case Enum(name=name):
                if name:
                    self._write_enum(number)
            case Array(element=element):
                self._need(element, depth + 1)
            case Typedef(target=target):
                self._declare(number, depth)
                self._need(target, depth + 1)
            case Qualifier(target=target) | TypeTag(target=target):
                self._need(target, depth + 1)
            case _:
                self._declare(number, depth)
        self._complete.add(number)

    def _need_composite(self, number: int, found: Composite, depth: int) -> None:
        if found.name and number in self._written:
            raise BtfError(f"{self._btf.source}: type {number}: {found.keyword} {found.name} contains itself")
        if found.name:
            self._written.add(number)
        for member in found.members:
            self._need(member.type, depth + 1)
        if found.name:
            self._declared.add(self._tag(number, found))
            self._put(self._composite(number, found, "") + ";\n\n")

    def _declare(self, number: int, depth: int) -> None:
        """Write all that a pointer to the type needs."""
        if number in self._known or number in self._complete:
            return
        match self._look(number, depth):
            case Composite(name="") | Array():
                self._need(number, depth + 1)
            case Composite() | Forward() as found:
                self._declare_tag(self._tag(number, found))
            case Enum(name=name):
                if name:
                    self._write_enum(number)
            case Typedef(target=target):
                self._declare_typedef(number, target, depth)
            case Pointer(target=target) | Qualifier(target=target) | TypeTag(target=target):
                self._declare(target, depth + 1)
            case FunctionType(result=result, parameters=parameters):
                for target in (result, *(target for _, target in parameters)):
                    self._declare(target, depth + 1)
            case Int() | Float() as found:
                self._write_number(number, found)
        self._known.add(number)

    def _look(self, number: int, depth: int) -> Type:
        if depth > _DEEPEST:
            raise BtfError(
                f"{self._btf.source}: type {number}: types more than {_DEEPEST} deep, or in a circle"
            )
        return self._btf.type(number)

    def _declare_tag(self, tag: str) -> None:
        if tag not in self._declared:
            self._declared.add(tag)
            self._put(f"{tag};\n\n")

    def _declare_typedef(self, number: int, target: int, depth: int) -> None:
        self._declare(target, depth + 1)
        if self._btf.name(number) not in _BUILTIN and number not in self._written:
            self._written.add(number)
            self._put(f"typedef {self._declaration(target, self._names[number], '')};\n\n")

    def _write_enum(self, number: int) -> None:
        found = self._btf.type(number)
        if number not in self._written and isinstance(found, Enum):
            self._written.add(number)
            self._put(self._enum(number, found, "") + ";\n\n")

    def _write_number(self, number: int, found: Int | Float) -> None:
        """A number whose name is not one of C's, `u8` of another language, gets that name by a typedef."""
        if c_number(found) or number in self._names:
            return
        self._names[number] = unique(identifier(found.name), self._words)
        if isinstance(found, Int) and found.size in INT_OF_SIZE:
            word = f"{'' if found.is_signed else 'unsigned '}{INT_OF_SIZE[found.size]}"
            self._put(f"typedef {word} {self._names[number]};\n\n")
        else:
            self._put(f"typedef unsigned char {self._names[number]}[{found.size}];\n\n")

    # Text.

    def _put(self, text: str) -> None:
        self._out.append(text)

    def _tag(self, number: int, found: Composite | Forward) -> str:
        return f"{'union' if found.is_union else 'struct'} {self._names[number]}"

    def _composite(self, number: int, found: Composite, indent: str) -> str:
        layout, tag = self._layouts.layout(number), f"{found.keyword} {self._names.get(number, '')}".rstrip()
        if layout is None:
            return f"{tag} {{\n{indent}\tunsigned char __bytes[{found.size}];\n{indent}}}"
        lines = []
        for at, (member, gap) in enumerate(zip((*found.members, None), layout.gaps, strict=True)):
            if gap:
                lines += self._filling(found, gap.start, gap.end, at)
            if member:
                width = f": {member.bits}" if member.bits else ""
                name = identifier(member.name) if member.name else ""
                lines.append(self._declaration(member.type, name, indent + "\t") + width)
        self._spend(len(lines) + 1)
        body = "".join(f"{indent}\t{line};\n" for line in lines)
        return f"{tag} {{\n{body}{indent}}}{' __attribute__((packed))' if layout.is_packed else ''}"

    def _filling(self, found: Composite, start: int, end: int, number: int) -> list[str]:
        if found.is_union:
            return [f"unsigned char __pad{number}[{found.size}]"]
        return paddings(Gap(start, end), number)

    def _enum(self, number: int, found: Enum, indent: str) -> str:
        tag = f"enum {self._names.get(number, '')}".rstrip()
        if not found.values:
            return tag
        self._spend(len(found.values))
        suffix = "" if found.is_signed else "U" if found.size < 8 else "ULL"
        lines = []
        for name, value in found.values:
            written = f"{value}{'LL' if found.size == 8 and found.is_signed else ''}"
            shown = f"{value}{suffix}" if value > 0x7FFFFFFF and suffix else written
            lines.append(f"{indent}\t{unique(identifier(name), self._words)} = {shown},\n")
        return f"{tag} {{\n{''.join(lines)}{indent}}}{_mode(found)}"

    def _declaration(self, number: int, inner: str, indent: str) -> str:
        """`inner`, a name or a larger declarator, declared to be of a type; read inside out as C is."""
        words: list[str] = []
        is_pointer = False
        for _ in range(_DEEPEST):
            match self._btf.type(number):
                case Qualifier(word=word, target=target):
                    # An array of const that is const itself is const once.
                    words += [] if word in words else [word]
                case TypeTag(name=name, target=target, is_attribute=is_attribute):
                    words.append(_tag_attribute(name, is_attribute=is_attribute))
                case Pointer(target=target):
                    inner = f"*{' '.join([*words, inner])}".rstrip() if words else f"*{inner}"
                    words, is_pointer = [], True
                case Array(element=target, count=count):
                    inner, is_pointer = f"{f'({inner})' if is_pointer else inner}[{count}]", False
                case Typedef(name=name, target=target) if name in _BUILTIN:
                    pass
                case FunctionType(result=target, parameters=parameters):
                    taken = self._parameters(parameters, indent)
                    inner, is_pointer, words = f"{f'({inner})' if is_pointer else inner}({taken})", False, []
                case found:
                    base = " ".join([*filter(None, words), self._base(number, found, indent)])
                    return f"{base} {inner}".rstrip()
            number = target
        raise BtfError(f"{self._btf.source}: type {number}: a declaration of more than {_DEEPEST} parts")

    def _parameters(self, parameters: tuple[tuple[str, int], ...], indent: str) -> str:
        if not parameters:
            return "void"
        self._spend(len(parameters))
        variadic = parameters[-1] == ("", 0)
        # Without their names: in C these are no part of the type, and a macro could be called like one.
        taken = [
            self._declaration(target, "", indent)
            for _, target in (parameters[:-1] if variadic else parameters)
        ]
        return ", ".join([*taken, "..."] if variadic else taken)

    def _base(self, number: int, found: Type, indent: str) -> str:
        match found:
            case Composite(name=""):
                return self._composite(number, found, indent)
            case Composite() | Forward():
                return self._tag(number, found)
            case Enum(name="", values=values):
                return self._enum(number, found, indent) if values else "int"
            case Enum():
                return f"enum {self._names[number]}"
            case Typedef():
                return self._names[number]
            case Int() | Float():
                return c_number(found) or self._names[number]
            case Void():
                return "void"
            case _:
                raise BtfError(f"{self._btf.source}: type {number}: it cannot be part of another type")

    def _spend(self, count: int) -> None:
        self._room -= count
        if self._room < 0:
            raise BtfError(f"{self._btf.source}: written as C it would be many times as long as the BTF is")


def _mentioned(found: Type) -> Iterator[int]:
    match found:
        case Composite(members=members):
            yield from (member.type for member in members)
        case Pointer(target=target) | Typedef(target=target) | Qualifier(target=target):
            yield target
        case TypeTag(target=target) | Array(element=target):
            yield target
        case FunctionType(result=result, parameters=parameters):
            yield from (result, *(target for _, target in parameters))


def _mode(found: Enum) -> str:
    """What makes an enumeration of a size that its values do not ask for."""
    is_wide = any(not -(1 << 31) <= value < 1 << 32 for _, value in found.values)
    # With the attribute clang makes it signed, so that it stays away where the values do the same.
    if found.size not in _MODE or (found.size == 8 and is_wide):
        return ""
    return f" __attribute__((mode({_MODE[found.size]})))"


def _tag_attribute(name: str, *, is_attribute: bool) -> str:
    if is_attribute or not name.isidentifier():
        return ""
    return f'__attribute__((btf_type_tag("{name}")))'
