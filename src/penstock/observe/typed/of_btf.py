"""From a BTF type to the shape of its values.

    shape_of(btf, number, 16)              ->  Struct(16, (Part("packets", 0, Number(8)), …))
    lpm_key(shape, "little")               ->  Prefix(8, …): `10.0.0.0/8`

An address is what says so: `struct in_addr` and `in6_addr`, `__be32` unless the
member's name speaks of something else (a sequence number, a mark), and integers
and arrays of an address's size in a member that is called `saddr`, `ip`, `mac`
or the like.  Other integers are numbers; `__be16` and `__be64` as people count.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from penstock.errors import BtfError
from penstock.kernel.btf import MAX_DEPTH
from penstock.kernel.btf_types import (
    Array,
    Composite,
    DataSection,
    Enum,
    Float,
    Int,
    Member,
    Qualifier,
    Typedef,
    TypeTag,
    Variable,
)
from penstock.kernel.btf_types import (
    Pointer as PointerType,
)
from penstock.observe.typed.compound import List, Part, Struct
from penstock.observe.typed.number import Bits, Named, Number, Pointer, Real
from penstock.observe.typed.octets import Address, Bytes, Prefix, Text

if TYPE_CHECKING:
    from penstock.kernel.btf import Btf
    from penstock.observe.typed.shape import Order, Shape

#: The most single values that a key or value may have; nested arrays of unions could have any number.
MAX_LEAVES = 1 << 20
_IP = re.compile(
    r"(.*_)?([sd]?addrs?|ip|ips|ipv?[46]|v[46])(_?[46])?(_(src|dst|addr|be|n))?|(src|dst)_?ipv?[46]?"
)
_MAC = re.compile(
    r"(.*_)?(e?mac|lladdr|ether|eth|hw|hwaddr|h_source|h_dest)(_?addr)?(_(src|dst))?|(src|dst)_?mac"
)
_NO_ADDRESS = re.compile(
    r"(.*_)?(seq|ack|ack_seq|mark|spi|vni|teid|label|id|key|flow|flowinfo|magic|cookie)(_.*)?"
)


class _Shapes:
    def __init__(self, btf: Btf, *, addresses: bool) -> None:
        self._btf = btf
        self._addresses = addresses
        self._order: Order = btf.order
        self._made: dict[tuple[int, str], tuple[Shape, int]] = {}

    def shape(self, number: int, name: str, depth: int = 0) -> tuple[Shape, int]:
        """The shape of a type in a member called `name`, and how many single values it has."""
        made = self._made.get((number, name))
        if made is None:
            if depth > MAX_DEPTH:
                raise self._damage(number, f"types more than {MAX_DEPTH} deep")
            made = self._made[number, name] = self._make(number, name, depth)
            if made[1] > MAX_LEAVES:
                raise self._damage(number, f"it has {made[1]} single values, the most is {MAX_LEAVES}")
        return made

    def _damage(self, number: int, why: str) -> BtfError:
        return BtfError(f"{self._btf.source}: type {number}: {why}")

    def _make(self, number: int, name: str, depth: int) -> tuple[Shape, int]:
        words, bare = self._words(number)
        match self._btf.type(bare):
            case Int() as found:
                return self._int(found, words, name), 1
            case Enum(size=size, is_signed=is_signed, values=values):
                return self._enum(size, values, is_signed=is_signed), 1
            case PointerType():
                return Pointer(8, self._order), 1
            case Float(size=size):
                return (Real(size, self._order) if size in {2, 4, 8} else Bytes(size, self._order)), 1
            case Composite() as found:
                return self._struct(found, depth)
            case Array(element=element, count=count):
                return self._array(element, count, name, depth)
            case DataSection(size=size, variables=variables):
                return self._section(size, variables, depth)
            case _:
                raise self._damage(number, "a key or value cannot be of this type")

    def _words(self, number: int) -> tuple[set[str], int]:
        """The names that a type has on its way, and the type behind them."""
        names = set()
        for _ in range(MAX_DEPTH):
            match self._btf.type(number):
                case Typedef(name=name, target=target):
                    names.add(name)
                    number = target
                case Qualifier(target=target) | TypeTag(target=target):
                    number = target
                case _:
                    return names, number
        raise self._damage(number, f"more than {MAX_DEPTH} typedefs in a row")

    def _int(self, found: Int, words: set[str], name: str) -> Shape:
        if words & {"__be16", "__be32", "__be64", "be16", "be32", "be64"}:
            is_address = found.size == 4 and not _NO_ADDRESS.fullmatch(name)
            return Address(4) if is_address else Number(found.size, "big")
        order: Order = "little" if words & {"__le16", "__le32", "__le64"} else self._order
        number = Number(found.size, order, found.is_signed)
        if found.is_bool:
            return Named(found.size, number, {0: "false", 1: "true"})
        if found.size == 4 and not found.is_signed and (self._addresses or _IP.fullmatch(name)):
            return Address(4)
        return number

    def _enum(self, size: int, values: tuple[tuple[str, int], ...], *, is_signed: bool) -> Named:
        least, most = Number(size, self._order, is_signed).bounds
        # clang 14 says nothing of the sign, so that -1 may stand beside an unsigned number.
        fitting = [(name, value if least <= value <= most else value & most) for name, value in values]
        names = {value: name for name, value in reversed(fitting)}
        return Named(size, Number(size, self._order, is_signed), names, dict(fitting))

    def _array(self, element: int, count: int, name: str, depth: int) -> tuple[Shape, int]:
        words, bare = self._words(element)
        held = self._btf.type(bare)
        size = self._btf.size(element) * count
        if isinstance(held, Int) and size:
            if (address := self._address(held, words, size, name)) is not None:
                return address, 1
            if held.size == 1:
                return (Text(size) if held.name == "char" else Bytes(size, self._order)), 1
        shape, leaves = self.shape(element, name, depth + 1)
        if shape.size * count != size:
            raise self._damage(element, "an array of elements of no certain size")
        count = count if size else 0  # nothing, however often, is nothing
        return List(size, shape, count), leaves * count + 1

    def _address(self, held: Int, words: set[str], size: int, name: str) -> Address | None:
        if size == 16 and ("__be32" in words or (held.size in {1, 2, 4} and _IP.fullmatch(name))):
            return Address(16)
        if held.size == 1 and held.name != "char":
            if size == 6 and _MAC.fullmatch(name):
                return Address(6)
            if size == 4 and _IP.fullmatch(name):
                return Address(4)
        return None

    def _struct(self, found: Composite, depth: int) -> tuple[Shape, int]:
        if (found.name, found.size) in {("in_addr", 4), ("in6_addr", 16)}:
            return Address(found.size), 1
        parts, leaves = list[Part](), 1
        for member in found.members:
            made, count = self._member(member, depth)
            parts += made
            leaves += count
            if leaves > MAX_LEAVES:
                break
        for part in parts:
            if part.at + part.shape.size > found.size:
                raise BtfError(f"{self._btf.source}: member {part.name} lies outside its struct {found.name}")
        return Struct(found.size, tuple(parts)), leaves

    def _section(
        self, size: int, variables: tuple[tuple[int, int, int], ...], depth: int
    ) -> tuple[Shape, int]:
        """The global variables of a data section, as if they were members of a struct."""
        parts, leaves = list[Part](), 1
        for number, at, room in variables:
            found = self._btf.type(number)
            if isinstance(found, Variable) and at + room <= size and self._btf.size(found.type) == room:
                shape, count = self.shape(found.type, found.name, depth + 1)
                parts.append(Part(found.name, at, shape))
                leaves += count
        return Struct(size, tuple(parts)), leaves

    def _member(self, member: Member, depth: int) -> tuple[list[Part], int]:
        if member.bits:
            return [self._bits(member)], 1
        shape, leaves = self.shape(member.type, member.name, depth + 1)
        at = member.offset // 8
        if member.offset % 8:
            raise self._damage(member.type, f"member {member.name} begins within a byte")
        if member.name or not isinstance(shape, Struct):
            return [Part(member.name, at, shape)], leaves
        # The members of a struct without a name are members of the one around it.
        return [Part(part.name, at + part.at, part.shape) for part in shape.parts], leaves

    def _bits(self, member: Member) -> Part:
        _, bare = self._words(member.type)
        found = self._btf.type(bare)
        if not isinstance(found, Int | Enum) or member.bits > found.size * 8:
            raise self._damage(member.type, f"it cannot be a bit field of {member.bits} bits")
        at, shift = divmod(member.offset, 8)
        size = (shift + member.bits + 7) // 8
        bits = Bits(size, self._order, shift, member.bits, found.is_signed)
        if isinstance(found, Enum):
            names = self._enum(found.size, found.values, is_signed=found.is_signed)
            return Part(member.name, at, Named(size, bits, names.names, names.aliases))
        return Part(member.name, at, bits)


def shape_of(btf: Btf, number: int, size: int, *, addresses: bool = False) -> Shape:
    """The shape of a type's values; bytes of a known size without a meaning if the type is damaged or another size.

    With `addresses`, every unsigned integer of four bytes is an IPv4 address as on the wire.
    """
    try:
        shape, _ = _Shapes(btf, addresses=addresses).shape(number, "")
    except BtfError:
        return Bytes(size, btf.order)
    return shape if shape.size == size else Bytes(size, btf.order)


def lpm_key(shape: Shape, order: Order) -> Shape:
    """The shape of an LPM trie's key: a network where it is a length and one address, however that is typed."""
    length = Number(4, order)
    if shape.size not in {8, 20}:
        return shape
    if isinstance(shape, Bytes):
        return Prefix(shape.size, length)
    if not isinstance(shape, Struct) or len(shape.parts) != 2:
        return shape
    first, second = sorted(shape.parts, key=lambda part: part.at)
    is_address = second.at == 4 and second.shape.size == shape.size - 4 and _is_plain(second.shape)
    return Prefix(shape.size, length) if first.at == 0 and first.shape.size == 4 and is_address else shape


def _is_plain(shape: Shape) -> bool:
    """Whether this is an address, or an integer or bytes that may be one."""
    match shape:
        case Address() | Bytes() | Number():
            return True
        case List(element=element):
            return isinstance(element, Number)
        case Struct(parts=(Part(shape=inner),)):
            return _is_plain(inner)
        case _:
            return False
