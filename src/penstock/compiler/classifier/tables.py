"""The shape of a classifier made of tables: what is loaded from where, in which order.

These values are a small program.  `interpret.py` runs it on numpy arrays,
`codegen/tables.py` prints it as C; neither decides anything.  For one packet:

    value of a leading field ── Lookup ──▶ class ── View ──▶ row or column of each group
    row, column              ── Cells  ──▶ cell of the group
    cell, the other fields   ── Leaf   ──▶ rule, and the lowest rule of all groups wins

Cells hold 0 where a group has nothing to say.  Rules are stored plus one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from penstock.compiler.classifier.groups import Note
from penstock.compiler.diagram.boxes import Boxes
from penstock.compiler.ir.ops import FieldRef

Column = npt.NDArray[Any]

#: Lanes of 16 bits in a word; the top bit of each is kept free (`order.MAX_LANE`).
LANES = 4
#: The longest list that is compared record by record; a group with a longer one becomes bit vectors.
MAX_SCAN = 64
LAST_RECORD = 1 << 63
#: Boxes to a word of bit vectors.
BITS = 64
#: How many fields a grid's records have in front, one word each.
RANGED = 2


def place(lane: int) -> tuple[int, int]:
    """(word, lane of the word) of a field's lane: the first word has one lane less, the rule's."""
    return (0, lane) if lane < LANES - 1 else ((lane + 1) // LANES, (lane + 1) % LANES)


def words_of(lanes: int) -> int:
    """How many words hold so many lanes and the rule."""
    return 1 + lanes // LANES


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One array of the classifier: a C identifier, and its elements (uint8 … uint64, one dimension)."""

    name: str
    data: Column

    @property
    def bytes(self) -> int:
        return int(self.data.nbytes)


# ── a field's value → its class (leading fields) or rank (the others) ─────────


@dataclass(frozen=True, slots=True, eq=False)
class DirectLookup:
    """``table[value]``, for fields of at most 16 bits; absent is the last element."""

    ref: FieldRef
    table: Table


@dataclass(frozen=True, slots=True, eq=False)
class StrideLookup:
    """32 bits as 16, 8 and 8: ``third[second[first[value >> 16] * 256 + byte] * 256 + byte]``.

    Absent is the last element of `first`.
    """

    ref: FieldRef
    first: Table
    second: Table
    third: Table


@dataclass(frozen=True, slots=True, eq=False)
class PrefixLookup:
    """32 bits by blocks.py: `first` by the upper 16 bits, crowded blocks by `second`'s 256 entries each.

    Absent is the last element of `first`.
    """

    ref: FieldRef
    first: Table
    second: Table
    buckets: Table
    pages: Table
    wide: bool


@dataclass(frozen=True, slots=True, eq=False)
class SearchLookup:
    """Binary search in ``2**steps`` ascending keys, the first 0; absent is a key like any other."""

    ref: FieldRef
    keys: Table
    values: Table
    steps: int


@dataclass(frozen=True, slots=True, eq=False)
class WideLookup:
    """128 bits: search the upper half without its last bit in `keys`, then ``entries[2 * found + last bit]``.

    (Comparing 63 bits takes one subtraction, 64 take five operations.)  An
    entry with the top bit set goes on in list ``entry & NUMBER``: `lists` has
    its begin (upper 32 bits) and its length minus one, a power of two minus one.
    """

    ref: FieldRef
    keys: Table
    entries: Table
    steps: int
    lists: Table
    low_keys: Table
    low_values: Table
    low_steps: int
    absent: int


Lookup = DirectLookup | StrideLookup | PrefixLookup | SearchLookup | WideLookup


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Class of a leading field → its number in each group, 16 bits each, four to a word, `stride` words a class.

    Without `table` there is one group, and its number is the class.
    """

    lookup: Lookup
    table: Table | None
    stride: int


@dataclass(frozen=True, slots=True)
class Local:
    """The number that view `view` gives for the group in slot `slot`."""

    view: int
    slot: int


# ── (row, column) → cell ─────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, eq=False)
class DenseCells:
    """``table[row * stride + column]``."""

    table: Table
    stride: int


@dataclass(frozen=True, slots=True, eq=False)
class BlockCells:
    """Rows as step functions of the column, by blocks.py: entry ``index[row * stride + (column >> shift)]``.

    With `outer`, rows share stretches of SPAN entries: stretch
    ``outer[row * stride + (column >> shift) // SPAN]`` of the index.
    """

    outer: Table | None
    index: Table
    stride: int
    shift: int
    buckets: Table
    pages: Table
    wide: bool


Cells = DenseCells | BlockCells

#: Entries in a stretch of an index that rows share: one cache line.
SPAN = 16

# ── cell → rule ──────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class RuleLeaf:
    """The cell is the rule plus one."""


@dataclass(frozen=True, slots=True)
class ListLeaf:
    """The cell is the first record of a list in the family's `records`, compared until one fits or has the last-bit."""

    longest: int


@dataclass(frozen=True, slots=True, eq=False)
class MatrixLeaf:
    """The cell is a row of ``table[cell * width + x]``, where x is the family's class of all other fields."""

    table: Table
    width: int


Leaf = RuleLeaf | ListLeaf | MatrixLeaf


@dataclass(frozen=True, slots=True, eq=False)
class TableGroup:
    """A group whose answer takes a cell and a leaf.

    Nothing before `first_rule` comes out of it, so it is not asked once a lower
    rule is found.  In an `opaque` group a record that fits asks its predicate,
    and the list goes on when that is false.
    """

    row: Local
    column: Local | None
    cells: Cells
    leaf: Leaf
    first_rule: int
    opaque: bool


@dataclass(frozen=True, slots=True, eq=False)
class BitGroup:
    """Boxes as bit vectors, in chunks of ``words * BITS``; the lowest bit that a packet's rows have in common decides.

    For chunk c and the axes, the leading ones and then the lanes, in order:
    row ``first[c * axes + axis] + class`` of `rows` has `words` words.  A leading
    axis has its class from its view, slot ``slot + c``; a lane has
    ``classes[begin[c * lanes + lane] + rank]``.  `rules` are the boxes' rules plus
    one, `lowest` each chunk's first: chunks are asked in order, while that is
    below what has been found.
    """

    slot: int
    leading: int
    lanes: int
    words: int
    rows: Table
    first: Table
    classes: Table
    begin: Table
    rules: Table
    lowest: Table
    first_rule: int

    @property
    def axes(self) -> int:
        return self.leading + self.lanes

    @property
    def chunks(self) -> int:
        return len(self.lowest.data)


@dataclass(frozen=True, slots=True, eq=False)
class GridGroup:
    """A group asked by intervals of two 32-bit fields: ``cells[row * stride + column]`` begins a list of ranges.

    A range is a record with the two fields' own values in front: for each the
    first in the low half of a word, and the last minus the first in the high half.
    An absent field counts as 2**32 - 1: its interval holds nothing else.
    """

    row: Local
    column: Local
    cells: Table
    stride: int
    longest: int
    first_rule: int


AnyGroup = TableGroup | GridGroup | BitGroup


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """The class of the axes that do not lead: ``x = steps[i].table[x * width + classes[lane]]``, starting from 0."""

    steps: tuple[FoldStep, ...]


@dataclass(frozen=True, slots=True, eq=False)
class FoldStep:
    lane: int
    classes: Table
    table: Table
    width: int


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """The tables for packets of one address family, or for all packets.

    `lanes` gives the ranks of the axes that do not lead; `place` says which lane
    of which word is whose.  A record is, for every word, the low ranks, then the
    high ranks with every lane's top bit set.  The last lane of the first word is
    no field's: there are LAST_RECORD, the rule plus one (bits 16-30 in the low
    word, 0-15 in the high word).  `predicates` are the records' opaque ones;
    `ranges` are the records of grids.
    """

    prefix: str
    boxes: Boxes
    views: tuple[View, ...]
    lanes: tuple[Lookup, ...]
    fold: Fold | None
    groups: tuple[AnyGroup, ...]
    records: Table | None
    predicates: Table | None
    ranges: Table | None
    notes: tuple[Note, ...]

    @property
    def words(self) -> int:
        """How many words the lanes fill."""
        return words_of(len(self.lanes))

    @property
    def last_record(self) -> int:
        """The highest number a list may begin at, so that the longest list from there is in the table."""
        assert self.records is not None
        return len(self.records.data) // (2 * self.words) - self.longest

    @property
    def range_words(self) -> int:
        """The words of a record of `ranges`."""
        return RANGED + 2 * self.words

    @property
    def last_range(self) -> int:
        """As `last_record`, of `ranges`."""
        assert self.ranges is not None
        return len(self.ranges.data) // self.range_words - self.longest_range

    @property
    def longest_range(self) -> int:
        """The length of the longest list of a grid."""
        return max((group.longest for group in self.groups if isinstance(group, GridGroup)), default=0)

    @property
    def bits(self) -> BitGroup | None:
        """The bit vectors; there is one group of them at most, the last."""
        return next((group for group in self.groups if isinstance(group, BitGroup)), None)

    @property
    def longest(self) -> int:
        """The length of the longest list."""
        leaves = (group.leaf for group in self.groups if isinstance(group, TableGroup))
        return max((leaf.longest for leaf in leaves if isinstance(leaf, ListLeaf)), default=0)


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """`other` serves packets that have one of the `distinguishing` fields, `main` all packets or the rest."""

    main: Family
    other: Family | None
    distinguishing: tuple[FieldRef, ...]
    tables: tuple[Table, ...]

    @property
    def families(self) -> Iterator[Family]:
        yield self.main
        if self.other is not None:
            yield self.other

    @property
    def bytes(self) -> int:
        """Of all tables, each aligned to 64 bytes as the emitted struct has them."""
        return sum(-(-table.bytes // 64) * 64 for table in self.tables)
