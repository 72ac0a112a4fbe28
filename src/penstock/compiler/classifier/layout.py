"""Lay a rule set out as tables: what to load, in which order, and every array's contents.

In: boxes.  Out: a `Classifier`, ready for `codegen/tables.py` and for the
loader, which copies the arrays into the program's global data.  The result is
exact whatever the boxes are, or there is none; `Family.notes` says what was chosen and why.

If a policy has rules for IPv4 and for IPv6 addresses, each family gets tables of
its own, with the rules that can match such packets: a packet pays for one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from penstock.compiler.classifier.bits import BitRows, bit_group, bit_rows
from penstock.compiler.classifier.cells import cells
from penstock.compiler.classifier.cells import numbers as numbers_of
from penstock.compiler.classifier.grids import Grid
from penstock.compiler.classifier.groups import Group, Note, grouped, ungrown, widest
from penstock.compiler.classifier.leaves import (
    MAX_MATRIX_BYTES,
    FoldedClasses,
    RecordWriter,
    empty_lists_as_zero,
    folded,
    matrix,
    rules_of_single_boxes,
    wants_matrix,
)
from penstock.compiler.classifier.lookups import lookup, narrow
from penstock.compiler.classifier.tables import (
    LANES,
    MAX_SCAN,
    AnyGroup,
    Classifier,
    Column,
    Family,
    GridGroup,
    Leaf,
    ListLeaf,
    Local,
    Lookup,
    MatrixLeaf,
    RuleLeaf,
    Table,
    TableGroup,
    View,
)
from penstock.compiler.diagram.boxes import Boxes, Indices
from penstock.compiler.diagram.build import Budget, OverBudgetError
from penstock.compiler.diagram.order import (
    IPV4_ADDRESSES,
    IPV6_ADDRESSES,
    MAX_LANE,
    AxisOrder,
    axis_order,
    fits_a_lane,
)
from penstock.compiler.ir.ops import FieldRef


@dataclass(slots=True, eq=False)
class _Tables:
    """The arrays so far; lookups of fields that do not lead are shared by both families."""

    made: list[Table] = field(default_factory=list)
    shared: dict[FieldRef, Lookup] = field(default_factory=dict)

    def new(self, name: str, data: Column) -> Table:
        table = Table(name, np.ascontiguousarray(data if len(data) else np.zeros(1, dtype=data.dtype)))
        self.made.append(table)
        return table


def layout(boxes: Boxes, budget: Budget | None = None) -> Classifier:
    """The boxes as tables.

    Raises:
        OverBudgetError: more than two fields have too many ranges.
    """
    bounds, tables = budget or Budget(), _Tables()
    names = {axis.ref.name for axis in boxes.axes}
    mixed = bool(names & IPV4_ADDRESSES) and bool(names & IPV6_ADDRESSES)
    if not mixed:
        main = _family(boxes, "f", bounds, tables)
        return Classifier(main, None, (), tuple(tables.made))
    main = _family(without(boxes, IPV6_ADDRESSES), "v4", bounds, tables)
    other = _family(without(boxes, IPV4_ADDRESSES), "v6", bounds, tables)
    refs = tuple(axis.ref for axis in boxes.axes if axis.ref.name in IPV6_ADDRESSES)
    return Classifier(main, other, refs, tuple(tables.made))


def without(boxes: Boxes, names: frozenset[str]) -> Boxes:
    """The boxes that hold packets without any of these fields, over the other axes."""
    gone = [at for at, axis in enumerate(boxes.axes) if axis.ref.name in names]
    absent = np.array([boxes.axes[at].width for at in gone], dtype=np.int32)
    possible = np.flatnonzero((boxes.high[:, gone] == absent).all(axis=1))
    return boxes.take(possible).over([at for at in range(len(boxes.axes)) if at not in gone])


def _family(boxes: Boxes, prefix: str, budget: Budget, tables: _Tables) -> Family:
    order = axis_order(boxes)
    _check_lanes(boxes, order)
    choice = grouped(boxes, order, budget)
    writer = _FamilyWriter(boxes, prefix, order.leading, order.rest, tables)
    return writer.family(choice.groups, choice.notes)


def _check_lanes(boxes: Boxes, order: AxisOrder) -> None:
    for axis in (boxes.axes[at] for at in order.rest):
        if not fits_a_lane(axis):
            what = f"{axis.width:,} ranges of {axis.ref.name}; a record counts to {MAX_LANE:,}"
            raise OverBudgetError(f"{what}, and two other fields lead already")


@dataclass(slots=True, eq=False)
class _FamilyWriter:
    boxes: Boxes
    prefix: str
    leading: tuple[int, ...]
    rest: tuple[int, ...]
    tables: _Tables

    def family(self, groups: tuple[Group, ...], notes: tuple[Note, ...]) -> Family:
        if not groups:
            return Family(self.prefix, self.boxes, (), (), None, (), None, None, None, notes)
        fold = self._fold([group for group in groups if self.rest and wants_matrix(group)])
        every = [self._planned(group, fold) for group in groups]
        planned = [(group, answers) for group, answers in every if group.is_table]
        bits = self._bit_rows([group for group, _ in every if not group.is_table])
        lanes = tuple(self._lane(at) for at in self.rest)
        views = tuple(self._view(at, [group for group, _ in planned], bits) for at in self.leading)
        records = RecordWriter(self.boxes, self.rest)
        ranges = RecordWriter(self.boxes, self.rest, self.leading)
        made = tuple(
            self._grid(group, group.grid, slot, ranges)
            if group.grid
            else self._group(group, slot, records, answers)
            for slot, (group, answers) in enumerate(planned)
        )
        if bits is not None:
            made += (bit_group(bits, self.leading, self.rest, len(planned), self.prefix, self.tables.new),)
        in_grids = ranges.tables(self.prefix, self.tables.new)[0] if ranges.longest else None
        stored, predicates = records.tables(self.prefix, self.tables.new) if records.longest else (None, None)
        has_matrix = any(
            isinstance(group, TableGroup) and isinstance(group.leaf, MatrixLeaf) for group in made
        )
        used = fold.fold if fold and has_matrix else None
        notes += tuple(group.note for group, _ in every if group.note)
        return Family(self.prefix, self.boxes, views, lanes, used, made, stored, predicates, in_grids, notes)

    def _bit_rows(self, groups: list[Group]) -> BitRows | None:
        """Of all boxes that no table holds, in the rules' order."""
        if not groups:
            return None
        return bit_rows(self.boxes.take(np.unique(np.concatenate([group.origin for group in groups]))))

    def _planned(self, group: Group, fold: FoldedClasses | None) -> tuple[Group, FoldedClasses | None]:
        """The group, without its levels if its lists are too long to be compared, and the fold if it gets a matrix."""
        if fold and wants_matrix(group) and (group.lists.nodes + 1) * fold.width * 4 <= MAX_MATRIX_BYTES:
            return group, fold
        if group.grid or group.longest <= MAX_SCAN or group.is_opaque:
            return group, None
        text = f"{len(group.boxes)} boxes as bit vectors: {group.longest} of them differ in ports and protocol only"
        return ungrown(self.boxes, group.origin, Note(text, widest(group.boxes))), None

    def _lane(self, at: int) -> Lookup:
        axis = self.boxes.axes[at]
        if axis.ref not in self.tables.shared:
            name = f"{axis.ref.name.replace('.', '_')}{axis.ref.index or ''}"
            self.tables.shared[axis.ref] = lookup(axis, np.arange(axis.width), name, self.tables.new)
        return self.tables.shared[axis.ref]

    def _view(self, at: int, groups: list[Group], bits: BitRows | None) -> View:
        axis = self.boxes.axes[at]
        number = np.stack(
            [*(numbers_of(group, at) for group in groups), *(bits.classes[at] if bits else ())], axis=1
        )
        name = f"{self.prefix}_{axis.ref.name.replace('.', '_')}"
        if number.shape[1] == 1:
            return View(lookup(axis, number[:, 0], name, self.tables.new), None, 0)
        kept, classes = np.unique(number, axis=0, return_inverse=True)
        stride = -(-number.shape[1] // LANES)
        padded = np.zeros((len(kept), stride * LANES), dtype=np.uint16)
        padded[:, : number.shape[1]] = kept
        table = self.tables.new(f"{name}_view", np.ascontiguousarray(padded).view(np.uint64).reshape(-1))
        return View(lookup(axis, classes.reshape(-1).astype(np.int64), name, self.tables.new), table, stride)

    def _fold(self, groups: list[Group]) -> FoldedClasses | None:
        if not groups:
            return None
        used = np.unique(np.concatenate([group.origin[group.lists.box] for group in groups]))
        return folded(self.boxes, used, self.rest, self.prefix, self.tables.new)

    def _group(self, group: Group, slot: int, records: RecordWriter, fold: FoldedClasses | None) -> AnyGroup:
        prefix = f"{self.prefix}_g{slot}"
        assert group.rows is not None
        leaf, values = self._leaf(group, records, fold, prefix)
        made = cells(group, values, prefix, self.tables.new)
        of = {self.boxes.axes[at].ref: Local(place, slot) for place, at in enumerate(self.leading)}
        column = of[group.columns.axis.ref] if group.columns else None
        return TableGroup(of[group.rows.axis.ref], column, made, leaf, group.first_rule, group.is_opaque)

    def _grid(self, group: Group, grid: Grid, slot: int, ranges: RecordWriter) -> GridGroup:
        first = ranges.add(grid.lists, group.origin)
        table = self.tables.new(f"{self.prefix}_g{slot}_grid", narrow(first[grid.cell]))
        row, column = (Local(self.leading.index(at), slot) for at in grid.axes)
        longest = int(grid.lists.lengths.max(initial=0))
        return GridGroup(row, column, table, len(grid.cuts[1]), longest, group.first_rule)

    def _leaf(
        self, group: Group, records: RecordWriter, fold: FoldedClasses | None, prefix: str
    ) -> tuple[Leaf, Indices]:
        """How cells lead to rules, and what the cell of each list holds."""
        if not self.rest and not group.is_opaque:
            return RuleLeaf(), rules_of_single_boxes(group)
        if fold is not None:
            place = np.full(len(self.boxes), -1, dtype=np.int64)
            place[fold.boxes] = np.arange(len(fold.boxes))
            answers = matrix(group, place[group.origin], fold.holds)
            table = self.tables.new(f"{prefix}_answers", narrow(answers.reshape(-1)))
            return MatrixLeaf(table, fold.width), empty_lists_as_zero(group.lists)
        return ListLeaf(group.longest), records.add(group.lists, group.origin)
