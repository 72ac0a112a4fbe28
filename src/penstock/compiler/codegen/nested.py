"""Print a small decision diagram as C: nested comparisons, each field looked at once on any way through.

In: a stretch of rules as a flow (flow.py).  Out: statements that return the
decision of the rule that matches, and go on behind themselves if none does.
Fields that the packet lacks are numbers behind their domain (fields.py), which
the diagram's axes have as their last rank, so a comparison needs no second look.

A node to which several ways lead is printed once, behind a label.  Each leaf
stands behind a #line of its rule's, so that the verifier and bpftool name it.
Predicates that no axis can express are asked at the leaves, in the rules' order.

    if ((s[0].dport == 0x35U)) {
    #line 4 "edge.policy"
            return PS_DECISION(6, 1);

The verifier forgets nothing that a comparison has taught it.  That costs it
nothing here: no way through asks a field again, so nothing it has learnt
decides another branch, and it checks what stands behind a label once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from penstock.compiler.codegen.blocks import NumberedRule
from penstock.compiler.codegen.branching import Branch, Place, Tree
from penstock.compiler.codegen.fields import is_wide
from penstock.compiler.codegen.flow import Flow
from penstock.compiler.codegen.predicate import Printer, interval, interval128
from penstock.compiler.codegen.stages import Nested
from penstock.compiler.codegen.writer import comment, line_directive
from penstock.compiler.diagram.node import Terminal
from penstock.compiler.ir.ops import FieldRef
from penstock.errors import InternalError
from penstock.model.verdict import DECISION_CODES, Verdict

_GENERATED = line_directive(1, "generated")


# ── statements ───────────────────────────────────────────────────────────────


def nested_lines(stage: Nested, name: str, printer: Printer, source: str) -> list[str]:
    """The statements; labels begin with `name`, which no other stretch of the function has."""
    printing = _Printing(stage, name, printer, source, stage.flow.shared)
    found, end = list(printing.lines()), f"{name}_none"
    return [*found, f"{end}:;"] if any(line.endswith(f"goto {end};") for line in found) else found


@dataclass(frozen=True, slots=True, eq=False)
class _Printing:
    """Every way through the printed statements ends in a `return` or a `goto`."""

    stage: Nested
    name: str
    printer: Printer
    source: str
    shared: frozenset[Place]

    @property
    def flow(self) -> Flow:
        return self.stage.flow

    def lines(self) -> Iterator[str]:
        """The root, then what several ways lead to."""
        yield _GENERATED
        yield from self._place(self.flow.root, "\t")
        for place in sorted(self.shared):
            yield f"{self._label(place)}:"
            yield from self._place(place, "\t")

    def _label(self, place: Place) -> str:
        return f"{self.name}_{place[0]}_{place[1]}"

    def _way(self, place: Place, tabs: str) -> Iterator[str]:
        if place in self.shared:
            yield f"{tabs}goto {self._label(place)};"
        else:
            yield from self._place(place, tabs)

    def _place(self, place: Place, tabs: str) -> Iterator[str]:
        if place in self.flow.trees:
            yield from self._tree(self.flow.ref(place), self.flow.trees[place], tabs)
        else:
            yield from self._terminal(self.flow.diagram.terminals[place[1]], tabs)

    def _tree(self, ref: FieldRef, tree: Tree, tabs: str) -> Iterator[str]:
        if not isinstance(tree, Branch):
            yield from self._way(tree, tabs)
            return
        yield f"{tabs}if ({self._condition(ref, tree)}) {{"
        yield from self._tree(ref, tree.inside, tabs + "\t")
        yield f"{tabs}}}"
        yield from self._tree(ref, tree.outside, tabs)

    def _condition(self, ref: FieldRef, branch: Branch) -> str:
        place, absent = self.printer.naming.field(ref), 1 << ref.field.bits
        if ref.field.bits == 128:
            return (
                f"!{place}.present" if branch.low == absent else interval128(place, (branch.low, branch.high))
            )
        if branch.high >= absent:
            return f"{place} >= {branch.low:#x}{'ULL' if is_wide(ref) else 'U'}"
        return interval(place, (branch.low, branch.high), ref)

    def _terminal(self, terminal: Terminal, tabs: str) -> Iterator[str]:
        for number, opaque in without_vain(terminal):
            item = self.stage.rules[number]
            directive = line_directive(item.rule.line, self.source)
            yield directive
            decision = f"return {decided(item)}; {comment(item.rule.name)}"
            if opaque:
                yield f"{tabs}if ({self.printer.predicate(self.stage.opaque[opaque - 1])})"
                yield directive
                yield f"{tabs}\t{decision}"
            else:
                yield f"{tabs}{decision}"
        yield from [_GENERATED] if terminal else []
        if not terminal or terminal[-1][1]:
            yield f"{tabs}goto {self.name}_none;"


def without_vain(terminal: Terminal) -> Terminal:
    """The terminal without predicates whose rule decides next whatever they say."""
    found: list[tuple[int, int]] = []
    for rule, opaque in terminal:
        while opaque == 0 and found and found[-1][0] == rule:
            found.pop()
        found.append((rule, opaque))
    return tuple(found)


def decided(item: NumberedRule) -> str:
    """The decision of a rule that decides, in C."""
    if not isinstance(item.rule.action, Verdict):
        raise InternalError(f"rule {item.rule.name} decides nothing, yet it is in a diagram")
    return f"PS_DECISION({item.slot}, {DECISION_CODES[item.rule.action]})"
