"""Print a plan: `penstock build FILE --emit plan`.

In: a `Plan` and its rule set.  Out: text, for each stretch of rules its lines,
the form that was taken and why, what each form would cost, and what is known of
its diagram or its tables.  Names are printed as the policy's author could have
typed them; whatever could steer a terminal is escaped.

    filter edge: part of the program's one function; 85 comparisons …
    lines 2-21, 20 rules: nested
        form     ns  warm  comparisons  functions  verified    tables
      * nested   14     3           85          1       340         -
        linear   17     4           80          1       960         -
"""

from __future__ import annotations

from collections.abc import Iterator

from penstock.compiler.codegen.plan import Choice, Plan
from penstock.compiler.codegen.stages import Tabled
from penstock.compiler.codegen.weigh import Estimate
from penstock.compiler.ir.ops import RuleSet
from penstock.model.sets import count_text

_TITLES = ("form", "ns", "warm", "comparisons", "functions", "verified", "tables")
_WIDTHS = (8, 6, 6, 13, 11, 10, 14)


def plan_lines(plan: Plan, rule_set: RuleSet) -> Iterator[str]:
    """The plan's lines."""
    yield f"filter {plain(rule_set.name)}: {plan.why}"
    for spec in rule_set.sets:
        yield f"set {plain(spec.name)}: {spec.search}, {count_text(spec.size)} entries of {' . '.join(spec.kind)}"
    for choice in plan.choices:
        yield ""
        yield f"{_where(choice)}: {choice.form}"
        yield from [f"    {choice.why}"] if choice.why != plan.why else []
        yield from _between(choice)
        if choice.taken:
            yield f"    {_row(_TITLES)}"
            for estimate in choice.estimates:
                mark = "*" if estimate.form == choice.form else " "
                yield f"  {mark} {_row(_cells(estimate))}".rstrip()
            yield from (f"    {note}" for note in choice.taken.notes)
    yield ""
    yield "ns: estimated for packets in random order; warm: for one packet again and again; both without parsing"


def _between(choice: Choice) -> Iterator[str]:
    """The rules that are asked one after the other between those of a table."""
    if isinstance(choice.stage, Tabled) and choice.stage.between:
        lines = ", ".join(str(item.rule.line) for item in choice.stage.between)
        yield f"    asked between, where no rule before has decided: line {lines}"


def plain(text: str) -> str:
    """Text of a policy without anything that is not printable."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _where(choice: Choice) -> str:
    rules = choice.stage.rules
    first, last = (rules[at].rule.line for at in (0, -1))
    lines = f"line {first}" if first == last else f"lines {first}-{last}"
    return f"{lines}, {len(rules)} {'rule' if len(rules) == 1 else 'rules'}"


def _cells(estimate: Estimate) -> tuple[str, ...]:
    if estimate.refused:
        return estimate.form, estimate.refused
    return (
        estimate.form,
        f"{estimate.ns:.0f}",
        f"{estimate.warm_ns:.0f}",
        f"{estimate.size:,}" if estimate.size else "-",
        f"{estimate.functions:,}",
        f"{estimate.verified:,}",
        f"{estimate.table_bytes:,} B" if estimate.table_bytes else "-",
    )


def _row(cells: tuple[str, ...]) -> str:
    first, *rest = cells
    if len(rest) == 1:
        return f"{first:<{_WIDTHS[0]}}     {rest[0]}"
    return f"{first:<{_WIDTHS[0]}}" + "".join(
        f"{cell:>{width}}" for cell, width in zip(rest, _WIDTHS[1:], strict=True)
    )
