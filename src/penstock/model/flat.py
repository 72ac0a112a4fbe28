"""How the entries of a flat set lie in memory, which packets are looked up in without a helper's search.

A packet asks the *front* first, an array with a part for each bank of the set's control, in
64-bit words:

    0        a bit for each /24 of IPv4, whether anything of it is in the set
    262144   256 marks for each /16: of each /24 that is in the set as a whole, and a hashed one
             of each /27 in which there is anything narrower

Most packets are in no set, and one bit of the first 2 MiB says so, which a processor's
caches keep; of the others the marks tell most.

Behind it a map of maps has two slots, one for each bank.  The map in the active slot
holds the whole content, in lines of 32 bytes, and grows by being replaced:

    0       a header: 64-bit words, numbered by `Field`
    4       ALL: a block of either family in which everything is
    8       root of IPv4: for each value of the first 18 bits the line of a block, as 32-bit words
    32776   root of IPv6: the same of the first 16 bits; a word with LEAF is the line of a leaf
    40968   blocks and leaves, up to the sorted entries, and a log of changes behind those

A block of IPv4 is {full, has} of 64 /24s: whether all addresses of one are in the set,
and whether there is something narrower.  For each of those a 32-bit word follows, in
order: 0, with LEAF one network alone (its mask and its value among the last 8 bits), or a
line with a bit for each address.  Mostly all of it is in one line.

A block of IPv6 is two lines, {full, has} for each 64 values of the next 8 bits.  32-bit
words follow, in order, each the line of the next block or leaf, or 0; a leaf is one network
alone, {first 64 bits, last 64 bits, their masks}.  Blocks begin at even lines, so that the
first two are in one line of a cache.

Before the tree of IPv6 a filter is asked, behind all else in the map: a bit for each hash of the
first 40 bits of an address (or 32, if the networks are wide), and one of the first 24
for networks wider than another 8.  While both are not set an address is in no network.

What was written is never changed, but the words that name blocks and leaves: a change
writes new ones behind the others and moves words, to 0 where a leaf has gone.  Meanwhile
such a word is MOVING, with a line of the log that has both what it named and what it is
to name; which of them counts says the line up to which changes have happened, `LOGGED`.  Bits
of the front are set before, and cleared behind that; marks and bits of the filter are not cleared.
"""

from __future__ import annotations

from enum import IntEnum

#: What lies in the lines, counted up when it becomes something else: another version would misread it.
LAYOUT = 3
#: The pins of what is in the slots.
LINES = ("lines0", "lines1")
LINE_BYTES = 32
#: The bits of an address that choose a word of the root.
ROOT_BITS = {"v4": 18, "v6": 16}
#: The header's line, and where the roots and the blocks begin.
HEADER, ALL, BLOCK_LINES = 0, 4, 2
ROOTS = {"v4": 8, "v6": 8 + (4 << ROOT_BITS["v4"]) // LINE_BYTES}
FIRST = ROOTS["v6"] + (4 << ROOT_BITS["v6"]) // LINE_BYTES
#: Marks the line of a leaf.
LEAF = 1 << 31
#: Marks the line of a log.
MOVING = LEAF | 1 << 30

#: The front: the bytes of a line, the lines of a bank's part, the words before the marks, those of a /16's marks.
FRONT_BYTES = 64
FRONT_LINES = 1 << 16
MARKS = 1 << ROOT_BITS["v4"]
MARK_WORDS = 4
MARK = 0x9E3779B1


class Field(IntEnum):
    """Words of the header; lines count from the map's first, entries are sorted, `NEXT` moves with each change."""

    NEXT = 0
    END = 1
    COUNT_V4 = 2
    COUNT_V6 = 3
    AT_V4 = 4
    AT_V6 = 5
    LOG = 6
    LOG_END = 7
    #: Read by programs: the line of the log before which everything has happened.
    LOGGED = 8
    #: Read by programs, too: the filter's first line, its bits less one, and by how much 64 bits are
    #: shifted, with HAS_WIDE if wider networks are in it.
    FILTER = 9
    FILTER_MASK = 10
    FILTER_SHIFT = 11
    #: The line behind the last that is written, and that before which no word names one.
    BEGUN = 12
    SETTLED = 13


#: The shifts that a filter may have, the shift for wider networks, and the most bits of a filter.
FILTER_SHIFTS, WIDE_SHIFT = (24, 32), 40
MOST_FILTER_BITS = 1 << 24
HAS_WIDE = 1 << 8
HASH = 0x9E3779B97F4A7C15


def mark_v4(address: int) -> tuple[int, int]:
    """The word of the front with the mark of an address's /27, and the mark's bit in it."""
    mark = (address >> 5 & 2047) * MARK % (1 << 32) >> 24
    return MARKS + (address >> 16) * MARK_WORDS + (mark >> 6), 1 << (mark & 63)


def filter_bit(number: int, shift: int, mask: int) -> int:
    """The bit of a filter for the first 64 - shift bits of an address."""
    return (number << 6 | shift) * HASH % (1 << 64) >> 32 & mask


def marks(shift: int, hi: int, length: int) -> tuple[int, int, int]:
    """The shift, the first number and how many of them a network has in a filter of that shift."""
    shift = shift if length >= 56 - shift else WIDE_SHIFT
    return shift, hi >> shift, 1 << max(0, 64 - shift - length)
