"""What each form of a stretch of rules costs: nanoseconds a packet, code, verifier work, bytes of tables.

In: a stretch's rules and, for those that share a diagram, its run.  Out:
`Option`s: the stages that can be had and an `Estimate` of each, or why not.
Which one is taken is plan.py's to say, and its docstring tells where the
figures come from.  The same rules are weighed alike on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import log2
from typing import TYPE_CHECKING

from penstock.compiler.codegen.blocks import BLOCK_COST, NumberedRule, rule_cost
from penstock.compiler.codegen.stages import Linear, Nested, Stage, Tabled

if TYPE_CHECKING:
    from penstock.compiler.classifier.groups import Note
    from penstock.compiler.classifier.tables import Family
    from penstock.compiler.codegen.estimate import Met
    from penstock.compiler.diagram.convert import Run

#: Nanoseconds of a comparison, and of a branch that goes another way than expected.
COMPARISON_NS, SURPRISE_NS = 0.3, 5.0
#: Of views in memory instead of registers and the first function; of each further one.
STAGED_NS, FUNCTION_NS = 4.0, 2.0
#: Of tables: at least, for each field looked up, for each group after the first, and for lists of several rules,
#: whose length no processor foresees.
TABLES_NS, LOOKUP_NS, GROUP_NS, LISTS_NS = 0.0, 4.0, 9.0, 20.0
#: Of tables larger than a second-level cache, in random order, for each doubling: fitted to docs/performance.md.
NEAR_BYTES, FAR_NS = 512 << 10, 25.0
#: Of every chunk of bit vectors, as far as packets come.
CHUNK_NS = 30.0
#: Instructions that the verifier follows for each comparison of a diagram, and of rules in a row.
NESTED_VERIFIED, LINEAR_VERIFIED = 4, 12
#: And for tables: at least, and for each group.
TABLES_VERIFIED, GROUP_VERIFIED = 400, 500

#: Boxes that packets are walked through one after the other for an estimate.
MAX_WALKED = 512


class Form(StrEnum):
    """How a stretch of rules is decided."""

    LINEAR = "linear"
    NESTED = "nested"
    TABLES = "tables"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a form would cost; `refused` says why it cannot be had.

    `ns` is for packets in random order, `warm_ns` for one again and again, both
    without what a program costs anyway.  `size` is in comparisons of C.  `dear` are
    the notes that name rules which cost far more than others.
    """

    form: Form
    ns: float = 0.0
    warm_ns: float = 0.0
    size: int = 0
    functions: int = 0
    verified: int = 0
    table_bytes: int = 0
    refused: str = ""
    notes: tuple[str, ...] = ()
    dear: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Option:
    """A form of a stretch, built, if it could be."""

    stage: Stage | None
    estimate: Estimate


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Rules in a row that share a form; `run` is None for a rule that counts or lapses."""

    rules: tuple[NumberedRule, ...]
    run: Run | None

    @property
    def size(self) -> int:
        """How many comparisons its rules make."""
        return sum(rule_cost(item.rule) for item in self.rules)

    @property
    def can_nest(self) -> bool:
        """Whether a diagram may say it shorter."""
        return self.run is not None and len(self.rules) > 1


def linear(stretch: Stretch) -> Option:
    """Rules one after the other, which can always be had."""
    size = stretch.size
    ns, warm = _linear_times(stretch, size)
    functions = -(-size // BLOCK_COST)
    estimate = Estimate(Form.LINEAR, ns, warm, size, functions, LINEAR_VERIFIED * size)
    return Option(Linear(stretch.rules), estimate)


def _linear_times(stretch: Stretch, size: int) -> tuple[float, float]:
    """By packets where there are not too many rules, else as if a packet met a fifth of the comparisons."""
    boxes = len(stretch.run.boxes) if stretch.run else 0
    if stretch.run is None or not boxes:
        return (size * COMPARISON_NS,) * 2
    if boxes > MAX_WALKED:
        return (size / 5 * COMPARISON_NS,) * 2
    from penstock.compiler.codegen.estimate import met_in_order, traffic

    return _times(met_in_order(stretch.run.boxes, traffic(stretch.run.boxes)))


def nested(stretch: Stretch) -> Option:
    """One small diagram."""
    from penstock.compiler.codegen.candidates import nested as build
    from penstock.compiler.codegen.candidates import size_of
    from penstock.compiler.codegen.estimate import met_nested, traffic

    assert stretch.run is not None
    stage = build(stretch.run, stretch.rules)
    if isinstance(stage, str):
        return Option(None, Estimate(Form.NESTED, refused=stage))
    size = size_of(stage)
    ns, warm = _times(met_nested(stage.flow, traffic(stretch.run.boxes)))
    notes = tuple(_notes(stage))
    return Option(stage, Estimate(Form.NESTED, ns, warm, size, 1, NESTED_VERIFIED * size, notes=notes))


def tables(stretch: Stretch) -> Option:
    """Tables in global data."""
    from penstock.compiler.codegen.candidates import tabled as build
    from penstock.compiler.codegen.tabled import functions_of

    assert stretch.run is not None
    stage = build(stretch.run, stretch.rules)
    if isinstance(stage, str):
        return Option(None, Estimate(Form.TABLES, refused=stage))
    families = tuple(stage.classifier.families)
    lookups = max(len(family.views) + len(family.lanes) for family in families)
    groups = max(len(family.groups) for family in families)
    chunks = max(_chunks(family) for family in families)
    warm = TABLES_NS + LOOKUP_NS * lookups + GROUP_NS * max(0, groups - 1) + CHUNK_NS * chunks
    far = max(0.0, log2(stage.classifier.bytes / NEAR_BYTES))
    ns = warm + LISTS_NS * any(map(_has_lists, families)) + FAR_NS * far
    estimate = Estimate(
        Form.TABLES,
        ns,
        warm,
        functions=functions_of(stage),
        verified=TABLES_VERIFIED + GROUP_VERIFIED * groups,
        table_bytes=stage.classifier.bytes,
        notes=tuple(_note(note, stretch.rules) for family in families for note in family.notes),
        dear=tuple(_note(note, stretch.rules) for family in families for note in family.notes if note.rules),
    )
    return Option(stage, estimate)


def _note(note: Note, rules: Sequence[NumberedRule]) -> str:
    lines = ", ".join(str(rules[at].rule.line) for at in note.rules)
    return f"{note.text}; the widest rules are those on lines {lines}" if lines else note.text


def _chunks(family: Family) -> int:
    return family.bits.chunks if family.bits else 0


def _has_lists(family: Family) -> bool:
    from penstock.compiler.classifier.tables import ListLeaf, TableGroup

    leaves = [group.leaf for group in family.groups if isinstance(group, TableGroup)]
    return any(isinstance(leaf, ListLeaf) and leaf.longest > 1 for leaf in leaves)


def _times(met: Met) -> tuple[float, float]:
    """(ns in random order, ns of one packet again and again)."""
    warm = COMPARISON_NS * met.comparisons
    return warm + SURPRISE_NS * met.surprises, warm


def _notes(stage: Nested) -> Iterator[str]:
    diagram = stage.flow.diagram
    order = ", ".join(axis.ref.name for axis in diagram.axes)
    yield f"asked in the order {order}"
    yield f"{len(stage.flow.trees)} nodes that ask something, {len(diagram.terminals)} terminals"


def total_ns(options: Sequence[Option], *, inline: bool) -> float:
    """What all stretches cost together, in random order."""
    if inline:
        return sum(option.estimate.ns for option in options)
    functions = sum(option.estimate.functions for option in options)
    return STAGED_NS + sum(one.estimate.ns for one in options) + FUNCTION_NS * max(0, functions - 1)


def form_of(stage: Stage) -> Form:
    """The form that a stage is."""
    match stage:
        case Linear():
            return Form.LINEAR
        case Nested():
            return Form.NESTED
        case Tabled():
            return Form.TABLES
