"""Lay out the last step: from a cell of a group to the rule.

A group's lists are stored as records of ranks, to be compared one after the
other, unless there are so few distinct lists that all answers can be written
out (a matrix over the classes of the other fields).  Equal lists of different
groups share their records.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from penstock.compiler.classifier.groups import Group
from penstock.compiler.classifier.lookups import NewTable, narrow
from penstock.compiler.classifier.tables import (
    LANES,
    LAST_RECORD,
    Fold,
    FoldStep,
    Table,
    place,
    words_of,
)
from penstock.compiler.diagram.axis import U64
from penstock.compiler.diagram.boxes import Boxes, Indices, Truth
from penstock.compiler.diagram.build import Frontier
from penstock.compiler.diagram.fingerprint import Lanes, distinct, tokens

MAX_MATRIX_BYTES = 256 << 10
MAX_FOLD_CELLS = 1 << 18
MATRIX_FROM = 5
MOST_VALUE = (1 << 32) - 1


@dataclass(slots=True, eq=False)
class RecordWriter:
    """Collects the lists of a family's groups; record 0 is the empty list: whether it fits or not, its rule is none.

    With `ranged`, two axes of 32 bits, every record begins with the values of these.
    """

    boxes: Boxes
    rest: tuple[int, ...]
    ranged: tuple[int, ...] = ()
    box: list[Indices] = field(default_factory=list)
    last: list[Truth] = field(default_factory=list)
    size: int = 1
    longest: int = 0

    def add(self, lists: Frontier, at: Indices) -> Indices:
        """The first record of each list, 0 of an empty one; `at` are the boxes' positions in the family's."""
        counts = lists.lengths
        self.longest = max(self.longest, int(counts.max(initial=0)))
        first = self.size + lists.ptr[:-1]
        last = np.zeros(len(lists.box), dtype=bool)
        last[lists.ptr[1:][counts > 0] - 1] = True
        self.box.append(at[lists.box])
        self.last.append(last)
        self.size += len(lists.box)
        return np.where(counts > 0, first, 0)

    def tables(self, prefix: str, new: NewTable) -> tuple[Table, Table | None]:
        """The records, and their opaque predicates when there are any."""
        box = np.concatenate(self.box) if self.box else np.zeros(0, dtype=np.int64)
        last = np.concatenate(self.last) if self.last else np.zeros(0, dtype=bool)
        low, high = _lane_words(self.boxes, self.rest, box, words_of(len(self.rest)))
        low[last, 0] |= np.uint64(LAST_RECORD)
        stored = np.concatenate([_values(self.boxes, self.ranged, box), low, high], axis=1)
        records = np.zeros((len(box) + 1 + self.longest, stored.shape[1]), dtype=np.uint64)
        records[0, len(self.ranged)] = LAST_RECORD
        records[1 : len(box) + 1] = stored
        opaque = np.zeros(len(records), dtype=np.uint16)
        opaque[1 : len(box) + 1] = self.boxes.opaque[box]
        kind = "ranges" if self.ranged else "records"
        return (
            new(f"{prefix}_{kind}", records.reshape(-1)),
            new(f"{prefix}_predicates", opaque) if opaque.any() else None,
        )


def _values(boxes: Boxes, ranged: tuple[int, ...], box: Indices) -> U64:
    found = np.zeros((len(box), len(ranged)), dtype=np.uint64)
    most = np.uint64(MOST_VALUE)
    for column, at in enumerate(ranged):
        cuts = boxes.axes[at].cuts
        after = np.append(cuts, cuts[-1:] + np.uint64(1))[boxes.high[box, at]]
        first, last = np.minimum(cuts[boxes.low[box, at]], most), np.minimum(after - np.uint64(1), most)
        found[:, column] = first | (last - first) << np.uint64(32)
    return found


def _lane_words(boxes: Boxes, rest: tuple[int, ...], box: Indices, words: int) -> tuple[U64, U64]:
    low = np.zeros((len(box), words * LANES), dtype=np.uint16)
    high = np.full((len(box), words * LANES), 0xFFFF, dtype=np.uint16)
    for lane, at in enumerate(rest):
        word, within = place(lane)
        low[:, word * LANES + within] = boxes.low[box, at]
        high[:, word * LANES + within] = (boxes.high[box, at] - 1) | 0x8000
    rule = boxes.rule[box] + 1
    low[:, LANES - 1], high[:, LANES - 1] = rule >> 16, rule & 0xFFFF
    return low.view(np.uint64), high.view(np.uint64)


# ── matrices ─────────────────────────────────────────────────────────────────


def wants_matrix(group: Group) -> bool:
    """Whether comparing this group's lists would cost more than a table of all answers is likely to."""
    return (
        group.rows is not None
        and not group.is_opaque
        and group.lists.nodes <= 512
        and group.longest >= MATRIX_FROM
    )


@dataclass(frozen=True, slots=True, eq=False)
class FoldedClasses:
    """A fold, how many classes it yields, and for each of `boxes` (a row of `holds`) the classes it holds in."""

    fold: Fold
    boxes: Indices
    width: int
    holds: Truth


def folded(
    family: Boxes, used: Indices, rest: tuple[int, ...], prefix: str, new: NewTable
) -> FoldedClasses | None:
    """Tables that number the sets of boxes (of `used`) that hold on the axes of `rest`; None if too many."""
    boxes = family.take(used)
    holds = np.ones((1, len(boxes)), dtype=bool)
    steps: list[tuple[int, Indices, Indices, int]] = []
    for lane, at in enumerate(rest):
        inside, classes = _classes_of(boxes, at)
        if len(holds) * len(inside) > MAX_FOLD_CELLS:
            return None
        product = (holds[:, None, :] & inside[None, :, :]).reshape(-1, len(boxes))
        first, number = _distinct_rows(product)
        holds = product[first]
        steps.append((lane, classes, number, len(inside)))
    made = tuple(
        FoldStep(
            lane,
            new(f"{prefix}_class{lane}", narrow(classes)),
            new(f"{prefix}_fold{lane}", narrow(number)),
            width,
        )
        for lane, classes, number, width in steps
        if width > 1
    )
    return FoldedClasses(Fold(made), used, len(holds), holds.T)


def _classes_of(boxes: Boxes, at: int) -> tuple[Truth, Indices]:
    rank = np.arange(boxes.axes[at].width)[:, None]
    inside = (boxes.low[:, at] <= rank) & (rank < boxes.high[:, at])
    first, number = _distinct_rows(inside)
    return inside[first], number


def _distinct_rows(rows: Truth) -> tuple[Indices, Indices]:
    weights = tokens(np.arange(rows.shape[1]))
    numbers = rows.astype(np.uint64)
    return distinct(Lanes(numbers @ weights.a, numbers @ weights.b))


def matrix(group: Group, projection: Indices, holds: Truth) -> Indices:
    """For each list (behind an empty one) and each class the rule plus one.

    `projection` is the row of `holds` of each of the group's boxes.
    """
    lists = group.lists
    answers = np.zeros((lists.nodes + 1, holds.shape[1]), dtype=np.int64)
    for turn in range(group.longest - 1, -1, -1):
        has = np.flatnonzero(lists.lengths > turn)
        box = lists.box[lists.ptr[has] + turn]
        answers[has + 1] = np.where(
            holds[projection[box]], (group.boxes.rule[box] + 1)[:, None], answers[has + 1]
        )
    return answers


def empty_lists_as_zero(lists: Frontier) -> Indices:
    """The row of each list in a `matrix`; 0, the empty one, for empty lists."""
    return np.where(lists.lengths > 0, np.arange(lists.nodes) + 1, 0)


def rules_of_single_boxes(group: Group) -> Indices:
    """The rule plus one of every list, of a group whose lists have at most one box and no axes left; 0 if empty."""
    found = np.zeros(group.lists.nodes, dtype=np.int64)
    has = np.flatnonzero(group.lists.lengths > 0)
    found[has] = group.boxes.rule[group.lists.box[group.lists.ptr[has]]] + 1
    return found
