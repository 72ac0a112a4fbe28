"""One network more or less in the blocks of a flat set: new lines, and the one word that is to name them.

    slot, place = moved_v4(content, address, 24, is_added=True)

Nothing that packets read is written here but lines that no word names yet.  The one
block or row of a tree is copied that changes, and its place moved in the block above it,
so what is written does not grow with the tree's depth.  A leaf that goes leaves 0 in its place.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Protocol

from penstock.model.flat import (
    ALL,
    GONE,
    LEAF,
    LEAF_COUNT,
    LEAF_LINE,
    MOST_IN_LEAF,
    PIVOT,
    PROBES,
    ROOT_BITS,
    SLOT_WORD,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORD = (1 << 64) - 1
_BITS = {"v4": 32, "v6": 128}


class NoRoomError(Exception):
    """There is no room for new lines."""


class Lines(Protocol):
    """What is needed of a content."""

    words: memoryview

    def place(self, slot: int) -> int:
        """What a word of a root or a block names."""

    def children(self, begin: int, count: int) -> list[int]:
        """So many of them."""

    def has(self, family: str, address: int, length: int) -> bool:
        """Whether this very network is there."""

    def beside(self, address: int) -> Iterator[int]:
        """The networks of IPv4 that are longer than /24 and in this address's /24."""

    def slot_of(self, family: str, address: int) -> int:
        """The word of a root for an address."""

    def home(self, address: int) -> int:
        """The line from which on an address of IPv6 is looked for in the table."""

    def put(self, lines: bytes) -> int:
        """Write new lines, and tell the first.  Raises NoRoomError."""


# ── IPv4 ─────────────────────────────────────────────────────────────────────


def moved_v4(content: Lines, address: int, length: int, *, is_added: bool) -> tuple[int, int]:
    """The word of the root or of a block that moves, and what it is to name.  Raises NoRoomError."""
    slot = content.slot_of("v4", address)
    at = content.place(slot)
    if at == ALL:
        return slot, at
    full, has = content.words[4 * at : 4 * at + 2].tolist() if at else (0, 0)
    if length <= 24:
        full = _filled(content, "v4", full, address, length, 18, 6, is_added=is_added)
        return slot, _put_v4(content, full, has, _children_v4(content, at, has))
    value = address >> 8 & 63
    rank = (has & (1 << value) - 1).bit_count()
    if has >> value & 1:
        child = 8 * at + 4 + rank
        return child, _narrow(content, content.place(child), address, length, is_added=is_added)
    children = _children_v4(content, at, has)
    children.insert(rank, _narrow(content, 0, address, length, is_added=is_added))
    return slot, _put_v4(content, full, has | 1 << value, children)


def _children_v4(content: Lines, at: int, has: int) -> list[int]:
    return content.children(8 * at + 4, has.bit_count())


def _put_v4(content: Lines, full: int, has: int, children: list[int]) -> int:
    if not full and not has:
        return 0
    places = array("I", children)
    places.extend([0] * (-(len(places) + 4) % 8))
    return content.put(array("Q", (full, has)).tobytes() + places.tobytes())


def _narrow(content: Lines, old: int, address: int, length: int, *, is_added: bool) -> int:
    """The word of a /24 with a network more or less: 0, a leaf, or a line of its 256 bits."""
    if is_added and old:
        known = (
            _mask(old & 255, (256 - (old >> 8 & 255)).bit_length() - 1) if old & LEAF else _row(content, old)
        )
        return _put_row(content, known | _mask(address & 255, 32 - length))
    nets = [(address & 255, 32 - length)] if is_added else _others(content, address, length)
    if len(nets) < 2:
        return sum(LEAF | 256 - (1 << width) << 8 | first for first, width in nets)
    bits = 0
    for first, width in nets:
        bits |= _mask(first, width)
    return _put_row(content, bits)


def _others(content: Lines, address: int, length: int) -> list[tuple[int, int]]:
    """The other networks of a /24, by their first values and widths."""
    gone = address << 8 | length
    return [(key >> 8 & 255, 32 - (key & 255)) for key in content.beside(address) if key != gone]


def _row(content: Lines, at: int) -> int:
    return _number(content.words[4 * at : 4 * at + 4].tolist())


def _put_row(content: Lines, bits: int) -> int:
    return content.put(array("Q", _words(bits, 4)).tobytes())


# ── IPv6 ─────────────────────────────────────────────────────────────────────


def moved_v6(content: Lines, address: int, length: int, *, is_added: bool) -> tuple[int, int]:
    """The word of the root, the table or a block that moves, and what it is to name.  Raises NoRoomError."""
    if length < PIVOT:
        slot = content.slot_of("v6", address)
        return _moved_below(content, slot, address, length, ROOT_BITS["v6"], is_added=is_added)
    slot = _slot(content, address)
    at = content.place(slot)
    if not at & LEAF and at:
        return _moved_below(content, slot, address, length, PIVOT, is_added=is_added)
    if not at and is_added:
        line = slot >> 3
        content.words[4 * line], content.words[4 * line + 1] = address >> 64, address & _WORD
        return slot, LEAF | length
    nets = [net for net in _nets_of(content, slot, at) if net != (address, length)]
    if is_added:
        nets.append((address, length))
    return slot, _put_nets(content, nets, PIVOT) or GONE


def _slot(content: Lines, address: int) -> int:
    """The word of the table for an address.  Raises NoRoomError."""
    first, number = content.home(address), address >> 128 - PIVOT
    for line in range(first, first + PROBES):
        slot = 8 * line + SLOT_WORD
        if not content.place(slot) or content.words[4 * line] >> 64 - PIVOT == number:
            return slot
    raise NoRoomError


def _nets_of(content: Lines, slot: int, at: int) -> list[tuple[int, int]]:
    """The networks that a slot with this word has, which names no block."""
    if at & ~LEAF > 128:
        return [] if at == GONE else _leaf(content, at)
    hi, lo = content.words[slot >> 3 << 2 : (slot >> 3 << 2) + 2].tolist()
    return [(hi << 64 | lo, at & ~LEAF)]


def _moved_below(
    content: Lines, slot: int, address: int, length: int, depth: int, *, is_added: bool
) -> tuple[int, int]:
    """The same from a word on that names a block, or of the root, behind so many bits."""
    while True:
        at = content.place(slot)
        if at == ALL:
            return slot, at
        if not at or at & LEAF:
            nets = [net for net in _leaf(content, at) if net != (address, length)]
            return slot, _put_nets(content, [*nets, (address, length)] if is_added else nets, depth)
        full, has = _block_v6(content, at)
        if length <= depth + 8:
            full = _filled(content, "v6", full, address, length, depth, 8, is_added=is_added)
            return slot, _put_v6(content, full, has, _children(content, at, has))
        value = address >> 120 - depth & 255
        rank = (has & (1 << value) - 1).bit_count()
        if not has >> value & 1:
            children = _children(content, at, has)
            children.insert(rank, _put_nets(content, [(address, length)], depth + 8))
            return slot, _put_v6(content, full, has | 1 << value, children)
        slot, depth = 8 * (at + 2) + rank, depth + 8


def _leaf(content: Lines, at: int) -> list[tuple[int, int]]:
    """The networks of a leaf; none of what is no place."""
    if not at:
        return []
    first, count = at & LEAF_LINE, (at >> LEAF_COUNT & MOST_IN_LEAF - 1) + 1
    words = content.words[4 * first : 4 * (first + count)].tolist()
    lines = zip(*(words[part::4] for part in range(4)), strict=True)
    return [(hi << 64 | lo, (mask_hi << 64 | mask_lo).bit_count()) for hi, lo, mask_hi, mask_lo in lines]


def _put_nets(content: Lines, nets: list[tuple[int, int]], depth: int) -> int:
    """The place of what has these networks: a leaf, or a block if they are many; 0 for none."""
    if not nets:
        return 0
    if len(nets) <= MOST_IN_LEAF:
        words = array("Q")
        for address, length in nets:
            mask = (1 << length) - 1 << 128 - length
            words.extend((address >> 64, address & _WORD, mask >> 64, mask & _WORD))
        return content.put(words.tobytes()) | LEAF | len(nets) - 1 << LEAF_COUNT
    full, groups = 0, dict[int, list[tuple[int, int]]]()
    for address, length in sorted(nets):
        value = address >> 120 - depth & 255
        if length <= depth + 8:
            full |= _mask(value, depth + 8 - length)
        else:
            groups.setdefault(value, []).append((address, length))
    has = sum(1 << value for value in groups)
    return _put_v6(content, full, has, [_put_nets(content, group, depth + 8) for group in groups.values()])


def _block_v6(content: Lines, at: int) -> tuple[int, int]:
    """What a block says: 256 bits of what is in the set as a whole, and of what has something narrower."""
    words = content.words[4 * at : 4 * at + 8].tolist()
    return _number(words[::2]), _number(words[1::2])


def _children(content: Lines, at: int, has: int) -> list[int]:
    return content.children(8 * (at + 2), has.bit_count())


def _put_v6(content: Lines, full: int, has: int, children: list[int]) -> int:
    lines = array("Q", (word for pair in zip(_words(full, 4), _words(has, 4), strict=True) for word in pair))
    places = array("I", children)
    places.extend([0] * (-len(places) % 8))
    return content.put(lines.tobytes() + places.tobytes())


# ── both ─────────────────────────────────────────────────────────────────────


def _filled(
    content: Lines,
    family: str,
    full: int,
    address: int,
    length: int,
    depth: int,
    count: int,
    *,
    is_added: bool,
) -> int:
    """The bits of a block's `count` bits that are in the set as a whole, with a network more or less."""
    end, bits = depth + count, _BITS[family]
    width = end - length
    own = _mask(address >> bits - end & (1 << count) - 1, width)
    if is_added:
        return full | own
    # As long as what a block is behind are networks of the table alone.
    for wider in range(depth if depth == PIVOT else depth + 1, length):
        if content.has(family, address >> bits - wider << bits - wider, wider):
            return full
    stay = 0
    for longer in range(length + 1, end + 1):
        for number in range(1 << longer - length):
            inner = address | number << bits - longer
            if content.has(family, inner, longer):
                stay |= _mask(inner >> bits - end & (1 << count) - 1, end - longer)
    return full & ~own | stay


def _mask(first: int, width_log: int) -> int:
    """Bits from one on, as many as a power of two."""
    return (1 << (1 << width_log)) - 1 << first


def _number(words: list[int]) -> int:
    return sum(word << 64 * at for at, word in enumerate(words))


def _words(number: int, count: int) -> list[int]:
    return [number >> 64 * at & _WORD for at in range(count)]
