"""A policy's decision diagrams to look at: `penstock build FILE --emit diagram`.

In: a rule set.  Out: text, or one picture in Graphviz's language, with a diagram
for each stretch of rules that can share one; terminals name rules as the policy
does.  What is too large to be looked at is said to be, in a sentence.

    lines 7-8: one diagram of 2 rules
    udp.dport.0
        53                                       -> drop by dns (line 7)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from penstock.compiler.codegen.blocks import NumberedRule, numbered
from penstock.compiler.codegen.candidates import small_diagram
from penstock.compiler.diagram.convert import Run, Single, blocks
from penstock.compiler.diagram.dump import Label, digraph, text
from penstock.compiler.diagram.node import Diagram, Terminal
from penstock.compiler.ir.dump import dump_predicate
from penstock.compiler.ir.ops import Predicate, RuleSet
from penstock.errors import LimitError

#: More lines of one diagram are not printed, more nodes are not drawn.
MAX_LINES, MAX_NODES = 2000, 500
MAX_PREDICATE = 80


def diagram_lines(rule_set: RuleSet) -> Iterator[str]:
    """Every stretch's diagram as text."""
    for number, (title, found, label) in enumerate(_parts(rule_set)):
        yield from ("",) if number else ()
        yield title
        if isinstance(found, str):
            yield f"    {found}"
            continue
        lines = text(found, label)
        yield from islice(lines, MAX_LINES)
        if more := sum(1 for _ in lines):
            yield f"    … {more:,} more lines; `--emit plan` tells the diagram's size"


def diagram_picture(rule_set: RuleSet) -> str:
    """Every diagram in one picture, in Graphviz's language.

    Raises:
        LimitError: it would be too large to be looked at, or there is none.
    """
    drawn = [(title, found, label) for title, found, label in _parts(rule_set) if isinstance(found, Diagram)]
    nodes = sum(found.nodes for _, found, _ in drawn)
    if not drawn or nodes > MAX_NODES:
        what = (
            f"its diagrams have {nodes:,} nodes, and up to {MAX_NODES} are drawn"
            if drawn
            else "it has no diagram"
        )
        raise LimitError(
            f"filter {rule_set.name} cannot be drawn: {what}",
            limit="nodes of a picture",
            hint="`--emit diagram` without -o prints text; `--emit plan` tells how each stretch is decided",
        )
    return "\n".join(digraph(drawn)) + "\n"


def _parts(rule_set: RuleSet) -> Iterator[tuple[str, Diagram | str, Label]]:
    rules = numbered(rule_set)
    for block in blocks(replace(rule_set, rules=tuple(item.rule for item in rules))):
        match block:
            case Run():
                inside = rules[block.first : block.last + 1]
                yield _title(inside), small_diagram(block), _label(inside, block.opaque)
            case Single(number):
                rule = rules[number].rule
                yield (
                    f"line {rule.line}: {rule.name} is asked on its own",
                    "it counts or lapses",
                    lambda _: "",
                )


def _title(rules: Sequence[NumberedRule]) -> str:
    first, last = rules[0].rule.line, rules[-1].rule.line
    return f"lines {first}-{last}: {len(rules)} rules" if first != last else f"line {first}: one rule"


def _label(rules: Sequence[NumberedRule], opaque: Sequence[Predicate]) -> Label:
    def label(terminal: Terminal) -> str:
        parts = [_decision(rules[rule], opaque[number - 1] if number else None) for rule, number in terminal]
        if not terminal or terminal[-1][1]:
            parts.append("none of them")
        return ", else ".join(parts)

    return label


def _decision(item: NumberedRule, asked: Predicate | None) -> str:
    rule = item.rule
    found = f"{rule.doing} by {rule.name} (line {rule.line})"
    if asked is None:
        return found
    words = dump_predicate(asked)
    return f"{found} if {words if len(words) <= MAX_PREDICATE else words[: MAX_PREDICATE - 1] + '…'}"
