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

Networks of IPv6 from /48 on are found by a hash of their first 48 bits, in a table with a line for
each that there are: {first 64 bits, last 64 bits, word, 0}.  The word is 0 for none, with LEAF the
length of a network that is alone, or the line of a leaf; GONE; or else the line of a block.  A line that
is taken is looked for in those behind it, up to one without a word, PROBES at most.  Wider
networks are found from their root.

A block of IPv6 is two lines, {full, has} for each 64 values of the next 8 bits.  32-bit
words follow, in order, each the line of the next block or leaf, or 0; a leaf has up to 8
networks, a line each, {first 64 bits, last 64 bits, their masks}: a word has with LEAF the
first of them, and before it how many follow.  Blocks begin at even lines, so that the
first two are in one line of a cache.

For IPv6 the front has, behind what is of IPv4,

    524288   a page of its own: which lengths are marked, a bit for each of MARKED_V6; of the table that the
             content has its first line and its slots; and a number that is drawn for each content, by which
             its networks are hashed, so that nobody can choose ones that crowd one place
    524800   marks: three bits of one word for a hash of the first bits of a network, which are 48, or of
             networks shorter than that 40, 32, 24 or 16, so that most have one mark and none many

An address of which no beginning is marked is in no network.

What was written is never changed, but the words that name blocks and leaves: a change
writes new ones behind the others and moves words, to 0 where a leaf has gone.  Meanwhile
such a word is MOVING, with a line of the log that has both what it named and what it is
to name; which of them counts says the line up to which changes have happened, `LOGGED`.  Bits
of the front are set before, and cleared behind that; marks are not cleared.
"""

from __future__ import annotations

from enum import IntEnum

#: What lies in the lines, counted up when it becomes something else: another version would misread it.
LAYOUT = 6
#: The pins of what is in the slots.
LINES = ("lines0", "lines1")
LINE_BYTES = 32
#: The bits of an address that choose a word of the root.
ROOT_BITS = {"v4": 18, "v6": 16}
#: The header's line, and where the roots and the blocks begin.
HEADER, ALL, BLOCK_LINES = 0, 4, 2
ROOTS = {"v4": 8, "v6": 8 + (4 << ROOT_BITS["v4"]) // LINE_BYTES}
FIRST = ROOTS["v6"] + (4 << ROOT_BITS["v6"]) // LINE_BYTES
#: Marks the line of a leaf; of IPv6 how many networks it may have, where how many follow the first, and the line.
LEAF = 1 << 31
MOST_IN_LEAF, LEAF_COUNT = 8, 27
LEAF_LINE = (1 << LEAF_COUNT) - 1
#: The bits of networks of IPv6 that the table is for, how far one is looked for, and the word of one that went.
PIVOT, PROBES = 48, 128
GONE = LEAF | 255
#: Where a word is in the line of a slot, in 32 bits.
SLOT_WORD = 4
#: Marks the line of a log.
MOVING = LEAF | 1 << 30

#: The front: the bytes of a line; the words where marks of IPv4 begin, those of a /16, and what is hashed by.
FRONT_BYTES = 64
MARKS = 1 << ROOT_BITS["v4"]
MARK_WORDS = 4
MARK = 0x9E3779B1
#: Its words of IPv6, how many first bits are marked, and what is hashed by.
MARKED, MARKS_V6 = 2 * MARKS, 2 * MARKS + 512
TABLE, SLOTS, SEED = MARKED + 1, MARKED + 2, MARKED + 3
MARKED_V6 = (16, 24, 32, 40, PIVOT)
HASHES = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93
_MARK_BITS, _LEAST_WORDS, _MOST_WORDS = 16, 512, 1 << 20


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
    #: The line behind the last that is written, and that before which no word names one.
    BEGUN = 9
    SETTLED = 10


def front_lines(size: int) -> int:
    """The lines of the front of a bank, in whole pages: a set's size says how many marks there is room for."""
    wanted = 1 << (size * _MARK_BITS // 64 - 1).bit_length()
    return (MARKS_V6 + min(max(wanted, _LEAST_WORDS), _MOST_WORDS)) * 8 // FRONT_BYTES


def mark_v4(address: int) -> tuple[int, int]:
    """The word of the front with the mark of an address's /27, and the mark's bit in it."""
    mark = (address >> 5 & 2047) * MARK % (1 << 32) >> 24
    return MARKS + (address >> 16) * MARK_WORDS + (mark >> 6), 1 << (mark & 63)


def mark_v6(number: int, count: int, words: int, seed: int) -> tuple[int, int]:
    """The word of the front, of so many of marks, with the mark of `count` first bits, and the mark's bits in it."""
    found = _hash(number, count, seed)
    bits = 1 << (found >> 38 & 63) | 1 << (found >> 32 & 63) | 1 << (found >> 26 & 63)
    return MARKS_V6 + (found >> 44 & words - 1), bits


def marked_v6(length: int) -> int:
    """How many first bits of a network of that length are marked."""
    return PIVOT if length >= PIVOT else min(max((length + 4) // 8 * 8, 16), 40)


def home_v6(number: int, slots: int, seed: int) -> int:
    """Where in the table the first 48 bits of an address are looked for."""
    return (_hash(number, PIVOT, seed) & 0xFFFFFFFF) * slots >> 32


def _hash(number: int, count: int, seed: int) -> int:
    first, second = HASHES
    found = (number ^ count << 56 ^ seed) * first % (1 << 64)
    return (found ^ found >> 32) * second % (1 << 64)
