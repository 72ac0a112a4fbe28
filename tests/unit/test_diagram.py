"""Diagrams and tables against linear search, over generated rule sets."""

from __future__ import annotations

import numpy as np
import pytest
from bench.classifier import batch_of, boxes_of
from bench.rulesets import Flavour, generate, packets

from penstock.compiler.analysis.reality import key_ranges
from penstock.compiler.classifier import groups
from penstock.compiler.classifier.grids import gridded
from penstock.compiler.classifier.groups import ungrown
from penstock.compiler.classifier.interpret import classify
from penstock.compiler.classifier.layout import layout
from penstock.compiler.classifier.tables import BitGroup
from penstock.compiler.classifier.trial import disagreements
from penstock.compiler.diagram.axis import Axis, Keys, halves, integers, keys_of, successors, wide_keys
from penstock.compiler.diagram.boxes import Boxes, Indices, from_ranges
from penstock.compiler.diagram.build import Budget, OverBudgetError, build
from penstock.compiler.diagram.dump import graphviz, text
from penstock.compiler.diagram.evaluate import first_rule, terminal_of, walk
from penstock.compiler.diagram.node import Diagram, Level
from penstock.compiler.diagram.order import AxisOrder, axis_order, divide
from penstock.compiler.diagram.reduce import reduce
from penstock.compiler.diagram.verify import check
from penstock.compiler.ir.ops import FieldRef
from penstock.errors import InternalError

PACKETS = 65_536
DPORT, PROTO, SOURCE6 = FieldRef("dport"), FieldRef("proto"), FieldRef("ip6.src")
ABSENT_PORT = 1 << 16


def rules_of(diagram: Diagram) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([terminal[0][0] if terminal else -1 for terminal in diagram.terminals])


@pytest.mark.parametrize("flavour", ["acl", "fw", "ipc"])
@pytest.mark.parametrize("count", [1, 30, 300])
def test_a_reduced_diagram_is_linear_search(flavour: Flavour, count: int) -> None:
    rules = generate(flavour, count)
    boxes, batch = boxes_of(rules), batch_of(False, packets(rules, PACKETS))
    diagram = reduce(build(boxes, axis_order(boxes).all))
    check(diagram)
    assert (rules_of(diagram)[walk(diagram, batch)] == first_rule(boxes, batch)).all()


@pytest.mark.parametrize("flavour", ["acl", "fw", "ipc"])
@pytest.mark.parametrize(("count", "ipv6"), [(50, False), (1000, False), (50, True), (700, True)])
def test_tables_are_linear_search(flavour: Flavour, count: int, ipv6: bool) -> None:
    rules = generate(flavour, count, ipv6=ipv6)
    boxes, batch = boxes_of(rules), batch_of(ipv6, packets(rules, PACKETS))
    assert (classify(layout(boxes), batch) == first_rule(boxes, batch)).all()


def test_ten_thousand_rules() -> None:
    rules = generate("acl", 10_000)
    boxes, batch = boxes_of(rules), batch_of(False, packets(rules, PACKETS))
    classifier = layout(boxes)
    assert classifier.bytes < 5 << 20
    assert (classify(classifier, batch) == first_rule(boxes, batch)).all()


def test_both_families() -> None:
    four, six = boxes_of(generate("acl", 200)), boxes_of(generate("fw", 200, ipv6=True))
    boxes = stacked(four, six)
    assert {axis.ref.name for axis in boxes.axes} == {
        "addr.src", "addr.dst", "ip6.src", "ip6.dst", "proto", "sport", "dport",
    }  # fmt: skip
    classifier = layout(boxes)
    assert classifier.other is not None
    assert not len(disagreements(classifier, boxes).wrong)


def aligned(old: Boxes, new: Boxes) -> tuple[Boxes, Boxes]:
    """Both over all axes of either, cut wherever one of them is."""
    refs = list(dict.fromkeys(axis.ref for boxes in (old, new) for axis in boxes.axes))
    both: dict[FieldRef, tuple[Keys, Keys]] = {}
    for ref in refs:
        ends = [_ranges(boxes, ref) for boxes in (old, new)]
        both[ref] = np.concatenate([low for low, _ in ends]), np.concatenate([high for _, high in ends])
    # from_ranges asks for nothing but one row a box; the halves are cut apart again.
    joined = from_ranges(both, np.concatenate([old.rule, new.rule]), np.concatenate([old.opaque, new.opaque]))
    return joined.take(np.arange(len(old))), joined.take(np.arange(len(old), len(joined)))


def _ranges(boxes: Boxes, ref: FieldRef) -> tuple[Keys, Keys]:
    for at, axis in enumerate(boxes.axes):
        if axis.ref == ref:
            return key_ranges(boxes, at)
    bits = ref.field.bits
    return keys_of(bits, [0]).repeat(len(boxes)), keys_of(bits, [1 << bits]).repeat(len(boxes))


def stacked(first: Boxes, second: Boxes) -> Boxes:
    """The rules of one behind those of the other."""
    left, right = aligned(first, second)
    rule = np.concatenate([left.rule, right.rule + left.rule.max() + 1])
    return Boxes(
        left.axes,
        np.concatenate([left.low, right.low]),
        np.concatenate([left.high, right.high]),
        rule.astype(np.int32),
        np.zeros(len(rule), dtype=np.int32),
    )


def test_bit_vectors_where_nothing_else_fits() -> None:
    """Ranges that overlap arbitrarily in every field, and a budget that refuses them."""
    rng = np.random.default_rng(5)
    ranges = {}
    for name in ("addr.src", "addr.dst", "dport"):
        bits = FieldRef(name).field.bits
        ends = np.sort(rng.integers(0, 1 << bits, (400, 2), dtype=np.uint64), axis=1)
        ranges[FieldRef(name)] = ends[:, 0], ends[:, 1]
    boxes = from_ranges(ranges, np.arange(400))
    classifier = layout(boxes, Budget(members=3000))
    assert any(isinstance(group, BitGroup) for group in classifier.main.groups)
    assert any("bit vectors" in note.text and note.rules for note in classifier.main.notes)
    assert not len(disagreements(classifier, boxes).wrong)


def overlapping(count: int, names: tuple[str, ...] = ("addr.src", "addr.dst", "sport", "dport")) -> Boxes:
    """Ranges that begin and end anywhere: about half of all pairs cross in every field."""
    rng = np.random.default_rng(count)
    ranges = {}
    for name in names:
        ref = FieldRef(name)
        ends = np.sort(rng.integers(0, 1 << ref.field.bits, (count, 2), dtype=np.uint64), axis=1)
        ranges[ref] = ends[:, 0], ends[:, 1]
    return from_ranges(ranges, np.arange(count))


def test_what_explodes_is_given_up_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """No set of boxes is tried twice, and all that is tried takes so many list entries at most."""
    tried: list[bytes] = []
    made = groups.grown

    def grown(every: Boxes, origin: Indices, order: AxisOrder, budget: Budget) -> groups.Group:
        tried.append(origin.tobytes())
        assert budget.members <= groups.ENTRIES + groups.ENTRIES_OF_A_BOX * len(every)
        return made(every, origin, order, budget)

    monkeypatch.setattr(groups, "grown", grown)
    boxes = overlapping(1500)
    classifier = layout(boxes)
    assert len(tried) == len(set(tried)) <= 12
    assert not len(disagreements(classifier, boxes).wrong)


@pytest.mark.parametrize(("count", "chunks"), [(300, 1), (1500, 2), (5000, 5)])
def test_bit_vectors_of_any_size(count: int, chunks: int) -> None:
    """In chunks, and in memory that grows with the boxes, not with their square."""
    boxes = overlapping(count)
    classifier = layout(boxes)
    assert classifier.main.bits is not None
    assert classifier.main.bits.chunks <= chunks
    assert classifier.bytes < (1 << 20) + 2048 * count
    assert any(note.rules for note in classifier.main.notes)
    assert not len(disagreements(classifier, boxes).wrong)


def test_wrong_bits_are_found() -> None:
    boxes = overlapping(300)
    classifier = layout(boxes)
    assert classifier.main.bits is not None
    classifier.main.bits.rows.data[:] = ~np.uint64(0)
    assert len(disagreements(classifier, boxes).wrong)


def test_too_many_boxes_with_predicates_are_no_tables() -> None:
    """Bit vectors know nothing of predicates."""
    boxes = overlapping(1500)
    opaque = Boxes(boxes.axes, boxes.low, boxes.high, boxes.rule, np.ones(1500, dtype=np.int32))
    with pytest.raises(OverBudgetError, match="list entries"):
        layout(opaque)


def test_a_list_too_long_to_compare() -> None:
    """Hundreds of port ranges for one pair of hosts cannot be one list, nor one matrix with so many classes."""
    rng = np.random.default_rng(9)
    ends = np.sort(rng.integers(0, 65536, (900, 2), dtype=np.uint64), axis=1)
    more = np.sort(rng.integers(0, 65536, (900, 2), dtype=np.uint64), axis=1)
    host = np.full(900, 0x0A000001, dtype=np.uint64)
    ranges = {
        FieldRef("addr.src"): (host, host),
        FieldRef("addr.dst"): (host, host),
        FieldRef("sport"): (ends[:, 0], ends[:, 1]),
        DPORT: (more[:, 0], more[:, 1]),
    }
    boxes = from_ranges(ranges, np.arange(900))
    assert not len(disagreements(layout(boxes), boxes).wrong)


def test_more_ranges_of_a_port_than_a_record_has_numbers_for() -> None:
    """Ranks of 15 bits are compared in a list: a field of more leads in an address's place."""
    count = 17_000
    source = np.random.default_rng(4).permutation(np.arange(count, dtype=np.uint64)) << np.uint64(16)
    port = np.arange(count, dtype=np.uint64) * np.uint64(3)
    net = source, source + np.uint64(0xFFFF)
    boxes = from_ranges(
        {FieldRef("addr.src"): net, FieldRef("addr.dst"): net, DPORT: (port, port)}, range(count)
    )
    last = slice(-300, None)
    inside = {FieldRef("addr.src"): source[last], FieldRef("addr.dst"): source[last], DPORT: port[last]}
    beside = {**inside, DPORT: port[last] + np.uint64(1)}
    classifier = layout(boxes)
    assert classify(classifier, inside).tolist() == list(range(count - 300, count))
    assert set(classify(classifier, beside).tolist()) == {-1}


def test_three_fields_of_so_many_ranges_are_no_tables() -> None:
    values = np.arange(17_000, dtype=np.uint64) * np.uint64(3)
    pairs = {FieldRef(name): (values, values) for name in ("eth.src", "addr.src", "dport")}
    with pytest.raises(OverBudgetError, match="two other fields lead already"):
        layout(from_ranges(pairs, range(17_000)))


def test_over_budget_says_what_was_too_much() -> None:
    boxes = boxes_of(generate("fw", 2000))
    with pytest.raises(OverBudgetError, match="list entries"):
        build(boxes, axis_order(boxes).all, Budget(members=10_000))


def test_an_ungrown_group_is_told_from_a_grown_one() -> None:
    boxes = boxes_of(generate("fw", 20))
    assert ungrown(boxes, np.arange(20)).rows is None


# ── absence, order, canonical form ───────────────────────────────────────────


def small(*rows: tuple[tuple[int, int], tuple[int, int]]) -> Boxes:
    """Boxes over dport and proto."""
    ranges = {}
    for at, (ref, bits) in enumerate(((DPORT, 16), (PROTO, 8))):
        ranges[ref] = keys_of(bits, [row[at][0] for row in rows]), keys_of(bits, [row[at][1] for row in rows])
    return from_ranges(ranges, np.arange(len(rows)))


ANY_PORT, ANY_PROTO = (0, 1 << 16), (0, 1 << 8)


def test_absent_is_a_value_of_its_own() -> None:
    boxes = small(((0, 65535), ANY_PROTO), ((ABSENT_PORT, ABSENT_PORT), (6, 6)))
    diagram = reduce(build(boxes, (0, 1)))
    assert terminal_of(diagram, {DPORT: 53, PROTO: 17}) == ((0, 0),)
    assert terminal_of(diagram, {DPORT: None, PROTO: 6}) == ((1, 0),)
    assert terminal_of(diagram, {PROTO: 17}) == ()


def test_equivalent_rules_have_equal_diagrams() -> None:
    whole = small(((10, 20), (6, 6)), (ANY_PORT, (6, 6)))
    parts = from_ranges(
        {
            DPORT: (keys_of(16, [10, 14, 0]), keys_of(16, [15, 20, 1 << 16])),
            PROTO: (keys_of(8, [6, 6, 6]), keys_of(8, [6, 6, 6])),
        },
        [0, 0, 1],
    )
    assert list(text(reduce(build(whole, (0, 1))))) == list(text(reduce(build(parts, (0, 1)))))


def test_an_opaque_predicate_hides_nothing() -> None:
    boxes = small((ANY_PORT, ANY_PROTO), ((80, 80), (6, 6)))
    asked = Boxes(boxes.axes, boxes.low, boxes.high, boxes.rule, np.array([1, 0], dtype=np.int32))
    diagram = reduce(build(asked, (0, 1)))
    assert terminal_of(diagram, {DPORT: 80, PROTO: 6}) == ((0, 1), (1, 0))
    assert terminal_of(diagram, {DPORT: 81, PROTO: 6}) == ((0, 1),)


def test_opaque_groups_are_asked_in_order() -> None:
    boxes = small(((80, 90), (6, 6)), ((80, 80), (6, 6)), ((85, 85), ANY_PROTO), (ANY_PORT, ANY_PROTO))
    asked = Boxes(boxes.axes, boxes.low, boxes.high, boxes.rule, np.array([1, 2, 0, 0], dtype=np.int32))
    batch = {DPORT: np.array([80, 80, 80, 85, 85], dtype=np.uint64), PROTO: np.full(5, 6, dtype=np.uint64)}
    truths = np.array([[1, 1], [0, 1], [0, 0], [1, 0], [0, 0]], dtype=bool)
    assert classify(layout(asked), batch, truths).tolist() == [0, 1, 3, 0, 2]


def test_broken_diagrams_are_found() -> None:
    axis = Axis(PROTO, keys_of(8, [0, 6, 7, 256]))
    ends = (((), ((0, 0),)),)
    sound = Level(axis, np.array([0, 2]), np.array([0, 1], dtype=np.int32), np.array([0, 1]))
    check(Diagram((sound,), *ends))
    gap = Level(axis, np.array([0, 2]), np.array([1, 2], dtype=np.int32), np.array([0, 1]))
    overlap = Level(axis, np.array([0, 2]), np.array([0, 0], dtype=np.int32), np.array([0, 1]))
    nowhere = Level(axis, np.array([0, 2]), np.array([0, 1], dtype=np.int32), np.array([0, 7]))
    for broken in (gap, overlap, nowhere):
        with pytest.raises(InternalError):
            check(Diagram((broken,), *ends))


@pytest.mark.parametrize(
    ("ptr", "start", "child", "complaint"),
    [
        ([0, 2, 2], [0, 1], [0, 1], "has no edge"),
        ([0, 1], [0, 1], [0, 1], "belong to no node"),
        ([0, 2], [1, 2], [0, 1], "leaves a gap"),
        ([0, 3], [0, 2, 1], [0, 1, 0], "overlap"),
        ([0, 2], [0, 4], [0, 1], "outside its axis"),
        ([0, 2], [0, 1], [0, -1], "leads nowhere"),
    ],
)
def test_each_invariant_of_a_level(
    ptr: list[int], start: list[int], child: list[int], complaint: str
) -> None:
    axis = Axis(PROTO, keys_of(8, [0, 6, 7, 256]))
    level = Level(axis, np.array(ptr), np.array(start, dtype=np.int32), np.array(child))
    with pytest.raises(InternalError, match=complaint):
        check(Diagram((level,), ((), ((0, 0),))))


def test_an_axis_is_asked_once_and_a_terminal_ends_where_it_decides() -> None:
    axis = Axis(PROTO, keys_of(8, [0, 256]))
    level = Level(axis, np.array([0, 1]), np.array([0], dtype=np.int32), np.array([0]))
    with pytest.raises(InternalError, match="occurs twice"):
        check(Diagram((level, level), ((),)))
    with pytest.raises(InternalError, match="goes on behind"):
        check(Diagram((level,), (((0, 0), (1, 0)),)))


def test_a_wrong_table_is_found() -> None:
    boxes = boxes_of(generate("acl", 100))
    classifier = layout(boxes)
    for table in classifier.tables:
        if table.name.endswith("_answers") or table.name.endswith("_records"):
            table.data[:] ^= 1
    assert len(disagreements(classifier, boxes).wrong)


def test_wide_keys() -> None:
    values = [0, 1, (1 << 64) - 1, 1 << 64, (1 << 128) - 1]
    keys = keys_of(128, values)
    assert integers(keys) == values
    assert integers(successors(keys)) == [value + 1 for value in values]
    assert integers(wide_keys(*halves(keys))) == values
    assert (np.sort(keys[::-1]) == keys).all()


def test_pictures_name_fields_and_rules() -> None:
    diagram = reduce(build(small(((53, 53), (17, 17))), (0, 1)))
    assert "\n".join(text(diagram)) == (
        "dport.0\n"
        "    0-52, 54 and up, absent                  -> default\n"
        "    53                                       -> proto.1\n"
        "proto.1\n"
        "    0-16, 18 and up, absent                  -> default\n"
        "    17                                       -> rule 0"
    )
    picture = "\n".join(graphviz(diagram))
    assert picture.startswith("digraph")
    assert '[shape=box, label="rule 0"]' in picture


def test_linear_search_finds_the_first_box_that_holds_a_packet() -> None:
    rng = np.random.default_rng(3)
    low = rng.integers(0, 12, (40, 2)).astype(np.uint64)
    high = low + rng.integers(0, 4, (40, 2)).astype(np.uint64)
    refs = (DPORT, PROTO)
    boxes = from_ranges({ref: (low[:, at], high[:, at]) for at, ref in enumerate(refs)}, np.arange(40))
    packet = rng.integers(0, 16, (500, 2)).astype(np.uint64)
    inside = (low <= packet[:, None]) & (packet[:, None] <= high)
    expected = [next((box for box in range(40) if row[box].all()), -1) for row in inside]
    found = first_rule(boxes, {ref: packet[:, at] for at, ref in enumerate(refs)})
    assert found.tolist() == expected
    assert len(set(expected)) > 20


def test_every_box_is_listed_in_the_cells_it_touches() -> None:
    rules = generate("acl", 1500)
    boxes = boxes_of(rules)
    specific = boxes.take(divide(boxes, (0, 1), 2)[0])
    grid = gridded(specific, (0, 1))
    assert grid is not None
    interval = [grid.interval_of(place, specific.axes[place].width) for place in (0, 1)]
    assert all((numbers[-1] != numbers[:-1]).all() for numbers in interval)  # Absent is by itself.
    for box in range(len(specific)):
        rows, columns = (
            np.unique(interval[at][specific.low[box, at] : specific.high[box, at]]) for at in (0, 1)
        )
        cells = (rows[:, None] * len(grid.cuts[1]) + columns).reshape(-1)
        for number in np.unique(grid.cell[cells]):
            assert box in grid.lists.box[grid.lists.ptr[number] : grid.lists.ptr[number + 1]]


def test_boxes_that_overlap_everywhere_have_no_grid() -> None:
    rng = np.random.default_rng(1)
    ends = {name: np.sort(rng.integers(0, 1 << 32, (2000, 2), dtype=np.uint64), axis=1) for name in "ab"}
    ranges = {
        FieldRef(f"addr.{side}"): (pair[:, 0], pair[:, 1])
        for side, pair in zip(("src", "dst"), ends.values(), strict=True)
    }
    assert gridded(from_ranges(ranges, np.arange(2000)), (0, 1)) is None
