"""Types as the kernel keeps them: BTF, parsed.

In: the bytes of a .BTF section, or of what /sys/kernel/btf and the kernel give.
Out: a `Btf`, types by their number.  Whatever the bytes are, asking for a type
gives it or raises BtfError, in bounded time; types and names are made when they
are asked for, so that opening the 100,000 types of a kernel takes a moment.

    btf.type(btf.find("ethhdr"))   ->  Composite("ethhdr", is_union=False, size=14, members=(…))
    btf.size(7)                    ->  bytes of a value of type 7

Split BTF, a kernel module's, continues the numbers and strings of its base.
Layout: Documentation/bpf/btf.rst; <linux/btf.h>.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Literal

from penstock.errors import BtfError
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
    Void,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC = 0xEB9F
_HEADER = "HBBIIIII"
_HEADER_SIZE = 24
#: What the kernel itself takes (BTF_MAX_TYPE, BTF_MAX_NAME_OFFSET, and MAX_RESOLVE_DEPTH with room).
MAX_TYPES = 1 << 20
MAX_STRINGS = 1 << 26
MAX_DEPTH = 64
#: So many names are looked for one by one before all are sorted.
_SEARCHES = 8

_QUALIFIERS = {Kind.CONST: "const", Kind.VOLATILE: "volatile", Kind.RESTRICT: "restrict"}
_NUMBER_SIZES = frozenset((1, 2, 4, 8, 10, 12, 16))  # 10 and 12 are long doubles
# Bytes behind the 12 of every type: a fixed number, and for each of `vlen`.
_FIXED = {Kind.INT: 4, Kind.ARRAY: 12, Kind.VAR: 4, Kind.DECL_TAG: 4}
_EACH = {
    Kind.STRUCT: 12,
    Kind.UNION: 12,
    Kind.ENUM: 8,
    Kind.FUNC_PROTO: 8,
    Kind.DATASEC: 12,
    Kind.ENUM64: 12,
}
_SIZES = tuple((_FIXED.get(kind, 0), _EACH.get(kind, 0)) for kind in Kind)


class Btf:
    """Types by number: 0 is void, then as the bytes have them, behind those of `base`.

    Raises:
        BtfError: this is no BTF.
    """

    def __init__(self, data: bytes, base: Btf | None = None, *, source: str = "BTF") -> None:
        self.base = base
        self.source = source
        self._order, self._types, self._strings = _parts(data, source)
        self._first = len(base) if base else 1
        self._strings_from = base.strings_end if base else 0
        self.strings_end: int = self._strings_from + len(self._strings)
        self._at = _places(self._types, self._order, source)
        self._made: dict[int, Type] = {}
        self._named: dict[str, list[int]] | None = None
        self._searches = 0
        self._sizes: dict[int, int] = {}

    def __len__(self) -> int:
        """One more than the highest number of a type."""
        return self._first + len(self._at)

    @property
    def order(self) -> Literal["little", "big"]:
        """The byte order that it is written in, and that its values have."""
        return "little" if self._order == "<" else "big"

    @property
    def own(self) -> range:
        """The numbers of the types that are this BTF's own, not its base's."""
        return range(self._first, len(self))

    @property
    def bytes(self) -> int:
        """How many bytes it has, base included: what work on all of it may be measured by."""
        return len(self._types) + len(self._strings) + (self.base.bytes if self.base else 0)

    def type(self, number: int) -> Type:
        """The type with a number.  Raises BtfError: there is none, or it is damaged."""
        made = self._made.get(number)
        if made is None:
            made = self._made[number] = self._make(number)
        return made

    def kind(self, number: int) -> Kind:
        """The kind of a type, without making it."""
        if number < self._first:
            return self.base.kind(number) if self.base and number > 0 else Kind.VOID
        return Kind(struct.unpack_from(self._order + "I", self._types, self._place(number) + 4)[0] >> 24 & 31)

    def name(self, number: int) -> str:
        """The name of a type, or an empty text, without making the type."""
        if number < self._first:
            return self.base.name(number) if self.base and number > 0 else ""
        return self.string(struct.unpack_from(self._order + "I", self._types, self._place(number))[0])

    def find(self, name: str, *kinds: Kind) -> int | None:
        """The first type with a name that is of one of `kinds` (any, without them), or None."""
        return next(iter(self.find_all(name, *kinds)), None)

    def find_all(self, name: str, *kinds: Kind) -> list[int]:
        """Every type with a name, the base's first."""
        found = self.base.find_all(name, *kinds) if self.base else []
        own = self._numbers(name)
        return found + [number for number in own if not kinds or self.kind(number) in kinds]

    def has_string(self, text: str) -> bool:
        """Whether something of its own has this name: a type, a member, an enumerator; without a look at types."""
        word = text.encode("utf-8", "replace") + b"\0"
        return self._strings.startswith(word) or b"\0" + word in self._strings

    def names(self) -> Iterator[str]:
        """Every name of its own types, for suggestions."""
        yield from self._names()

    def strip(self, number: int) -> int:
        """The type behind typedefs, qualifiers and tags.  Raises BtfError: they lead in a circle."""
        for _ in range(MAX_DEPTH):
            match self.type(number):
                case Typedef(target=target) | Qualifier(target=target) | TypeTag(target=target):
                    number = target
                case _:
                    return number
        raise self._damage(number, f"more than {MAX_DEPTH} typedefs and qualifiers in a row")

    def size(self, number: int) -> int:
        """The bytes of a value of a type.  Raises BtfError: a function or void has none."""
        known = self._sizes.get(number)
        if known is None:
            known = self._sizes[number] = self._size(number)
        return known

    def _size(self, number: int) -> int:
        count = 1
        for _ in range(MAX_DEPTH):
            number = self.strip(number)
            match self.type(number):
                case Int(size=size) | Float(size=size) | Composite(size=size) | Enum(size=size):
                    return count * size
                case DataSection(size=size):
                    return count * size
                case Variable(type=target):
                    number = target
                case Pointer():
                    return count * 8
                case Array(element=element, count=times):
                    number, count = element, count * times
                case _:
                    raise self._damage(number, "it has no size")
        raise self._damage(number, f"more than {MAX_DEPTH} arrays in one another")

    def string(self, offset: int) -> str:
        """The string at an offset.  Raises BtfError."""
        if offset < self._strings_from and self.base:
            return self.base.string(offset)
        at = offset - self._strings_from
        end = self._strings.find(b"\0", at)
        if not 0 <= at < len(self._strings) or end < 0:
            raise BtfError(f"{self.source}: a name at {offset}, and the strings end at {self.strings_end}")
        return self._strings[at:end].decode("utf-8", "replace")

    def _numbers(self, name: str) -> list[int]:
        """Its own types with a name.  Whoever asks for many has all names sorted."""
        self._searches += 1
        if self._named is not None or self._searches > _SEARCHES:
            return self._names().get(name, [])
        wanted = set(self._offsets(name)) if name else set()
        unpack = struct.Struct(self._order + "I").unpack_from
        return [
            self._first + at for at, place in enumerate(self._at) if unpack(self._types, place)[0] in wanted
        ]

    def _offsets(self, name: str) -> Iterator[int]:
        """Where a name may be said to begin: one is another's end, too, and a module's may be the kernel's."""
        if self.base:
            yield from self.base._offsets(name)
        word = name.encode("utf-8", "replace") + b"\0"
        at = self._strings.find(word)
        while at >= 0:
            yield self._strings_from + at
            at = self._strings.find(word, at + 1)

    def _names(self) -> dict[str, list[int]]:
        if self._named is None:
            self._named = {}
            for number in self.own:
                if name := self.name(number):
                    self._named.setdefault(name, []).append(number)
        return self._named

    def _place(self, number: int) -> int:
        at = number - self._first
        if not 0 <= at < len(self._at):
            raise BtfError(f"{self.source}: there is no type {number}; the last is {len(self) - 1}")
        return self._at[at]

    def _damage(self, number: int, why: str) -> BtfError:
        return BtfError(f"{self.source}: type {number}: {why}")

    def _make(self, number: int) -> Type:
        if number < self._first:
            if number == 0:
                return Void()
            if self.base:
                return self.base.type(number)
        at = self._place(number)
        name_at, info, word = struct.unpack_from(self._order + "III", self._types, at)
        kind, flag, count = Kind(info >> 24 & 31), bool(info >> 31), info & 0xFFFF
        if word not in _NUMBER_SIZES and kind in {Kind.INT, Kind.FLOAT, Kind.ENUM, Kind.ENUM64}:
            raise self._damage(number, f"a number of {word} bytes")
        return self._of_kind(kind, self.string(name_at), flag, word, at + 12, count)

    def _of_kind(self, kind: Kind, name: str, flag: bool, word: int, at: int, count: int) -> Type:
        match kind:
            case Kind.PTR:
                return Pointer(word)
            case Kind.TYPEDEF:
                return Typedef(name, word)
            case Kind.CONST | Kind.VOLATILE | Kind.RESTRICT:
                return Qualifier(_QUALIFIERS[kind], word)
            case Kind.TYPE_TAG:
                return TypeTag(name, word, flag)
            case Kind.FWD:
                return Forward(name, flag)
            case Kind.FUNC:
                return Function(name, word, count)
            case Kind.FLOAT:
                return Float(name, word)
            case Kind.VOID:
                return Void()
            case _:
                return self._with_more(kind, name, flag, word, at, count)

    def _with_more(self, kind: Kind, name: str, flag: bool, word: int, at: int, count: int) -> Type:
        match kind:
            case Kind.INT:
                return self._int(name, word, at)
            case Kind.ARRAY:
                element, _, times = struct.unpack_from(self._order + "III", self._types, at)
                return Array(element, times)
            case Kind.STRUCT | Kind.UNION:
                return Composite(name, kind == Kind.UNION, word, self._members(at, count, flag))
            case Kind.ENUM:
                found = self._each("Ii" if flag else "II", at, count)
                return Enum(name, word, flag, tuple((self.string(label), value) for label, value in found))
            case Kind.ENUM64:
                return Enum(name, word, flag, tuple(self._wide_values(at, count, flag)))
            case Kind.FUNC_PROTO:
                taken = tuple((self.string(label), target) for label, target in self._each("II", at, count))
                return FunctionType(word, taken)
            case Kind.VAR:
                return Variable(name, word, struct.unpack_from(self._order + "I", self._types, at)[0])
            case Kind.DATASEC:
                held = tuple((target, offset, size) for target, offset, size in self._each("III", at, count))
                return DataSection(name, word, held)
            case _:
                (component,) = struct.unpack_from(self._order + "i", self._types, at)
                return DeclTag(name, word, component, flag)

    def _int(self, name: str, size: int, at: int) -> Int:
        (word,) = struct.unpack_from(self._order + "I", self._types, at)
        signed, char, truth = (bool(word >> bit & 1) for bit in (24, 25, 26))
        return Int(name, size, word & 0xFF, word >> 16 & 0xFF, signed, char, truth)

    def _members(self, at: int, count: int, flag: bool) -> tuple[Member, ...]:
        string = self.string
        if not flag:
            found = (
                self._member(string(name), to, offset) for name, to, offset in self._each("III", at, count)
            )
            return tuple(found)
        return tuple(
            Member(string(name), to, place & 0xFFFFFF, place >> 24)
            for name, to, place in self._each("III", at, count)
        )

    def _member(self, name: str, target: int, offset: int) -> Member:
        """A member of a struct without the flag; an old compiler says a bit field by the integer's own bits."""
        if self.kind(target) == Kind.INT:
            found = self.type(target)
            if isinstance(found, Int) and (found.bits != found.size * 8 or found.offset):
                return Member(name, target, offset + found.offset, found.bits)
        return Member(name, target, offset, 0)

    def _wide_values(self, at: int, count: int, is_signed: bool) -> Iterator[tuple[str, int]]:
        for label, low, high in self._each("III", at, count):
            value = high << 32 | low
            yield self.string(label), value - (1 << 64) if is_signed and high >> 31 else value

    def _each(self, form: str, at: int, count: int) -> Iterator[tuple[int, ...]]:
        end = at + struct.calcsize("=" + form) * count
        return struct.iter_unpack(self._order + form, self._types[at:end])


def _parts(data: bytes, source: str) -> tuple[str, bytes, bytes]:
    """Byte order, types and strings."""
    if len(data) < _HEADER_SIZE:
        raise BtfError(f"{source}: {len(data)} bytes are no BTF, whose header alone has {_HEADER_SIZE}")
    order = "<" if data[0] == _MAGIC & 0xFF else ">"
    magic, version, _, header, types, types_size, strings, strings_size = struct.unpack_from(
        order + _HEADER, data
    )
    if magic != _MAGIC or version != 1:
        raise BtfError(f"{source}: this is no BTF: it begins with {data[:3].hex()}, not with 9feb01")
    if header < _HEADER_SIZE or header + max(types + types_size, strings + strings_size) > len(data):
        raise BtfError(f"{source}: the BTF is cut: its header speaks of more than its {len(data)} bytes")
    if strings_size > MAX_STRINGS:
        raise BtfError(f"{source}: the BTF has {strings_size} bytes of names, the most is {MAX_STRINGS}")
    at, names = header + types, header + strings
    return order, data[at : at + types_size], data[names : names + strings_size]


def _places(types: bytes, order: str, source: str) -> list[int]:
    """Where each type begins."""
    found, at, end = list[int](), 0, len(types)
    unpack, kinds = struct.Struct(order + "I").unpack_from, len(_SIZES)
    while at + 12 <= end:
        (info,) = unpack(types, at + 4)
        kind = info >> 24 & 31
        if not 0 < kind < kinds:
            hint = "a newer penstock may know it" if kind else None
            raise BtfError(f"{source}: type {len(found) + 1} is of the unknown kind {kind}", hint=hint)
        found.append(at)
        fixed, each = _SIZES[kind]
        at += 12 + fixed + each * (info & 0xFFFF)
    if at != end:
        raise BtfError(f"{source}: the BTF is cut in type {len(found)}")
    if len(found) > MAX_TYPES:
        raise BtfError(f"{source}: the BTF has {len(found)} types, the most is {MAX_TYPES}")
    return found
