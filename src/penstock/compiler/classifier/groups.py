"""Divide boxes into a few diagrams that are small, and grow each as far as its leading axes.

A `Group` is a two-level diagram: source → row, destination → column (or the
other way round), and at their crossing a *list*: the boxes that still differ on
the axes that remain, in order.  Most lists have one to four entries, so they
are compared one by one instead of growing more levels.

    row \\ column   10/8     192.0.2.1    else
    office          [4]      [2, 4]       [4]
    else            []       [2]          []

Every way to divide is exact; they differ in size.  `grouped` takes the first
that is small enough, else the smallest it found.  Boxes of a group that stays
too big, however divided, are returned as `Group`s with no levels: the layout
gives those bit vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from penstock.compiler.classifier.grids import Grid, gridded
from penstock.compiler.diagram.boxes import Boxes, Indices
from penstock.compiler.diagram.build import Budget, Frontier, OverBudgetError, grow, prune, root
from penstock.compiler.diagram.fingerprint import distinct, pair_tokens, segment_sums
from penstock.compiler.diagram.node import Level
from penstock.compiler.diagram.order import ONE_GROUP, THRESHOLDS, AxisOrder, divide, fewest_first
from penstock.compiler.diagram.reduce import classes, merge_nodes

MAX_LOCAL = 65_535
SMALL_SET = 1500
#: How many of the rules that cost bit vectors are named.
NAMED = 5
#: List entries of a group beyond which bit vectors are cheaper: rules of prefixes take 2 to 25 each, ranges that
#: overlap arbitrarily thousands.  And of all groups tried beyond which no further way to divide is tried.
ENTRIES, ENTRIES_OF_A_BOX = 200_000, 200
TRIED_ENTRIES = 3
LEAST_FOR_GRID = 1000
#: With both addresses in one word and three words of lanes, a search has its five arguments.
MOST_LANES = 11
SOFT_WEIGHT = 300_000
BYTES_OF_BITS = 1_000
#: Boxes that are bit vectors as soon as tables would be large.  Measured, arbitrary ranges: 300 as bits 49 ns,
#: as tables 144; 1,000 70 and 227, 2,000 109 and 199.
FEW_FOR_BITS = 2_048
SOFT_WEIGHT_OF_A_BOX = 300


@dataclass(frozen=True, slots=True)
class Note:
    """Why tables are as they are; `rules` are those that make them dear, if any do."""

    text: str
    rules: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Boxes with a table of their own; `origin` are their positions in the family's boxes.

    `rows` has one node, whose children are the nodes of `columns` (or, without
    columns, the lists).  `lists` holds positions within `boxes`.  `column_class`
    is the class of every rank of the column axis.  With `grid` it has no levels
    and the grid has the lists.  With neither the group was too big for a table;
    `note` says so.
    """

    boxes: Boxes
    origin: Indices
    rows: Level | None
    columns: Level | None
    column_class: Indices
    lists: Frontier
    note: Note | None = None
    grid: Grid | None = None

    @property
    def first_rule(self) -> int:
        return int(self.boxes.rule[0])

    @property
    def is_opaque(self) -> bool:
        return bool(self.boxes.opaque[0])

    @property
    def is_table(self) -> bool:
        """Whether it has levels or a grid."""
        return self.rows is not None or self.grid is not None

    @property
    def row_count(self) -> int:
        return self.columns.nodes if self.columns else self.lists.nodes

    @property
    def column_count(self) -> int:
        return int(self.column_class.max()) + 1

    @property
    def longest(self) -> int:
        return int(self.lists.lengths.max(initial=0))

    @property
    def weight(self) -> int:
        """Roughly the bytes of its tables."""
        if self.grid:
            return self.grid.bytes
        if not self.rows:
            return len(self.boxes) * BYTES_OF_BITS
        cells = self.row_count * self.column_count * 2
        runs = len(self.columns.start) * 4 if self.columns else cells
        return min(cells, runs) + len(self.lists.box) * 20


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """What was chosen: the groups, the threshold of `order.divide`, and what spoke against the alternatives."""

    order: AxisOrder
    threshold: int
    groups: tuple[Group, ...]
    notes: tuple[Note, ...]

    @property
    def weight(self) -> int:
        return sum(group.weight for group in self.groups)


def grouped(boxes: Boxes, order: AxisOrder, budget: Budget) -> Grouping:
    """The boxes in groups whose tables are small; never fails, see the module's docstring.

    Raises:
        OverBudgetError: boxes with opaque predicates, of which bit vectors know nothing, are too many.
    """
    possible = prune(root(boxes), boxes, order.all).box
    most = ENTRIES + ENTRIES_OF_A_BOX * len(possible)
    maker = _Maker(boxes, order, replace(budget, members=min(budget.members, most)))
    notes: list[Note] = []
    best: Grouping | None = None
    light = False
    for threshold in _thresholds(boxes, order):
        try:
            found = _divided(maker, possible, threshold)
        except OverBudgetError as error:
            notes.append(Note(f"{_words(threshold)}: {error.what}"))
        else:
            notes.append(Note(f"{_words(threshold)}: about {found.weight:,} bytes"))
            best = found if best is None or found.weight < best.weight else best
        light = best is not None and best.weight <= SOFT_WEIGHT + SOFT_WEIGHT_OF_A_BOX * len(possible)
        if light or maker.entries > TRIED_ENTRIES * most:
            break
    chosen = best
    if chosen is None or (not light and len(possible) <= FEW_FOR_BITS):
        chosen = _with_bit_vectors(maker, possible, "tables of them would be large")
    return Grouping(order, chosen.threshold, chosen.groups, (*notes, *chosen.notes))


@dataclass(slots=True, eq=False)
class _Maker:
    """Makes groups, each set of boxes once, however often ways to divide meet in it.  `entries` counts the work."""

    boxes: Boxes
    order: AxisOrder
    budget: Budget
    entries: int = 0
    made: dict[bytes, Group | OverBudgetError] = field(default_factory=dict)

    def group(self, origin: Indices) -> Group:
        """The boxes as a grid where that is possible and worthwhile, else by rows and columns.

        Raises:
            OverBudgetError: it has too many list entries, rows or columns.
        """
        key = origin.tobytes()
        if key not in self.made:
            try:
                self.made[key] = _best_of(self.boxes, origin, self.order, self.budget)
            except OverBudgetError as error:
                self.made[key] = error
            self.entries += self._work(self.made[key])
        found = self.made[key]
        if isinstance(found, OverBudgetError):
            raise found
        return found

    def _work(self, made: Group | OverBudgetError) -> int:
        return self.budget.members if isinstance(made, OverBudgetError) else len(made.lists.box)


def _thresholds(boxes: Boxes, order: AxisOrder) -> Sequence[int]:
    if len(order.leading) < 2:
        return (ONE_GROUP,)
    return (ONE_GROUP, *THRESHOLDS) if len(boxes) <= SMALL_SET else THRESHOLDS


def _words(threshold: int) -> str:
    return "one group" if threshold == ONE_GROUP else f"groups by shape, wide is /{threshold}"


def _divided(maker: _Maker, possible: Indices, threshold: int) -> Grouping:
    parts = divide(maker.boxes.take(possible), maker.order.leading, threshold)
    groups = [maker.group(possible[part]) for part in parts]
    return Grouping(maker.order, threshold, tuple(sorted(groups, key=_by_first_rule)), ())


def _by_first_rule(group: Group) -> tuple[bool, int]:
    """Groups with opaque predicates come last: they are asked only up to what the others found."""
    return group.is_opaque, group.first_rule


def _with_bit_vectors(maker: _Maker, possible: Indices, why: str) -> Grouping:
    """Few boxes all as bit vectors, which cost less than several tables; of many those of the shapes that explode."""
    few = len(possible) <= FEW_FOR_BITS
    threshold = ONE_GROUP if few else THRESHOLDS[0]
    groups, notes = [], []
    for part in divide(maker.boxes.take(possible), maker.order.leading, threshold):
        found = ungrown(maker.boxes, possible[part])
        if found.is_opaque or not few:
            try:
                table = maker.group(possible[part])
            except OverBudgetError as error:
                if found.is_opaque:
                    raise
                why = error.what
            else:
                why = f"about {table.weight:,} bytes of tables"
                found = table if table.is_opaque or table.weight <= SOFT_WEIGHT + found.weight else found
        if not found.is_table:
            notes.append(Note(f"{len(part):,} boxes as bit vectors: {why}", widest(found.boxes)))
        groups.append(found)
    return Grouping(maker.order, threshold, tuple(sorted(groups, key=_by_first_rule)), tuple(notes))


def _best_of(boxes: Boxes, origin: Indices, order: AxisOrder, budget: Budget) -> Group:
    """The boxes as a grid where that is possible and worthwhile, else by rows and columns."""
    grid = _grid_of(boxes.take(origin), order) if len(origin) >= LEAST_FOR_GRID else None
    return replace(ungrown(boxes, origin), grid=grid) if grid else grown(boxes, origin, order, budget)


def _grid_of(boxes: Boxes, order: AxisOrder) -> Grid | None:
    two = order.leading
    if len(two) < 2 or len(order.rest) > MOST_LANES or boxes.opaque.any():
        return None
    if any(boxes.axes[at].bits != 32 for at in two):
        return None
    return gridded(boxes, (two[0], two[1]))


def widest(boxes: Boxes) -> tuple[int, ...]:
    """The rules which cross most others: those with the largest boxes."""
    widths = np.array([axis.width for axis in boxes.axes])
    share = ((boxes.high - boxes.low) / widths).prod(axis=1)
    rules = list(dict.fromkeys(boxes.rule[np.argsort(-share, kind="stable")].tolist()))[:NAMED]
    return tuple(sorted(rules))


def ungrown(boxes: Boxes, origin: Indices, note: Note | None = None) -> Group:
    """A group without levels: whoever lays it out uses bit vectors."""
    empty = Frontier(np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64))
    return Group(boxes.take(origin), origin, None, None, np.zeros(1, dtype=np.int64), empty, note)


def grown(every: Boxes, origin: Indices, order: AxisOrder, budget: Budget) -> Group:
    """The table of the boxes at `origin`.

    Raises:
        OverBudgetError: it has too many list entries, rows or columns.
    """
    boxes = every.take(origin)
    leading = fewest_first(boxes, order.leading)
    frontier, levels = root(boxes), []
    for depth, at in enumerate(leading):
        level, frontier = grow(frontier, boxes, at, (*leading[depth + 1 :], *order.rest), budget)
        levels.append(level)
    frontier, rename = _distinct_lists(frontier, boxes, order.rest)
    if len(levels) == 1:
        rows, _ = merge_nodes(levels[0], rename)
        return _checked(Group(boxes, origin, rows, None, np.zeros(1, dtype=np.int64), frontier))
    columns, rename = merge_nodes(levels[1], rename)
    rows, _ = merge_nodes(levels[0], rename)
    return _checked(Group(boxes, origin, rows, columns, classes(columns)[1], frontier))


def _distinct_lists(frontier: Frontier, boxes: Boxes, rest: Sequence[int]) -> tuple[Frontier, Indices]:
    _, projection = boxes.projections(rest)
    meaning = boxes.rule.astype(np.int64) << 24 | boxes.opaque
    lanes = pair_tokens(meaning[frontier.box], projection[frontier.box])
    kept, number = distinct(segment_sums(lanes, frontier.ptr))
    return frontier.pick(kept), number


def _checked(group: Group) -> Group:
    for what, count in (("rows", group.row_count), ("columns", group.column_count)):
        if count > MAX_LOCAL:
            raise OverBudgetError(f"{count:,} {what}, more than {MAX_LOCAL:,}")
    return group
