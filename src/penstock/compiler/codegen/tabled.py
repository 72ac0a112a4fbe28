"""Print a `Tabled` stage: its tables' look-ups, the predicates they ask, and the function that decides.

In: the stage and the number of its function.  Out: C, and the bytes that the
loader copies into the tables' variable.  Each part that the verifier should
take on its own is a global function, as the blocks of rules are.

    ps_rules_3(ctx)          what the dispatcher calls: a decision, or 0
    ps_run_3(…)              the lowest matching rule of the stretch plus one, or 0
    ps_run_3_asks(ctx, n)    predicate n, for what no table can say
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.compiler.classifier.tables import Family
from penstock.compiler.codegen.blocks import NumberedRule, block_lines, rule_lines
from penstock.compiler.codegen.fields import Naming
from penstock.compiler.codegen.predicate import Printer
from penstock.compiler.codegen.stages import Tabled
from penstock.compiler.codegen.tables import Access, classifier_source, image
from penstock.compiler.codegen.writer import indented, line_directive
from penstock.compiler.diagram.convert import is_stateless
from penstock.compiler.ir.ops import FieldRef, Predicate, Rule
from penstock.errors import InternalError
from penstock.model.tables import variable_of
from penstock.model.verdict import DECISION_CODES, Verdict

_PARAMETER = "struct ps_ctx *ctx, const struct ps_scratch *scratch, const struct ps_view *s"
_OPENING = [
    "{",
    "\tconst struct ps_scratch *scratch = ps_scratch_area();",
    "\tconst struct ps_view *s;",
]
_VIEWS = ["", "\tps_keep(ctx);", "\tif (!scratch)", "\t\treturn 0;", "\ts = scratch->s;", "\tps_keep(s);"]


def tabled_lines(stage: Tabled, number: int, printer: Printer, source: str) -> list[str]:
    """The stage's functions, `ps_rules_{number}` last."""
    name = f"ps_run_{number}"
    asks = f"{name}_asks(ctx, {{number}})" if stage.opaque else "0"
    access = _access(stage, printer.naming, asks)
    codes = [0 if item in stage.between else _code(item.rule) for item in stage.rules]
    between = [line for item in stage.between for line in _asked_between(stage, item, printer, source)]
    return [
        *(_asking(name, stage.opaque, printer) if stage.opaque else ()),
        *classifier_source(stage.classifier, name, access).splitlines(),
        *(_verdicts(name, codes) if len(set(codes)) > 1 else ()),
        "",
        *(["#ifndef ps_reached", "#define ps_reached(slot) 1", "#endif"] if between else []),
        *block_lines(_deciding(stage, name, codes, between), number),
    ]


def _asked_between(stage: Tabled, item: NumberedRule, printer: Printer, source: str) -> list[str]:
    """A rule that is asked of packets which no rule before it decides: what was found, less 1, is none of those.

    One that leaves a trace is not asked behind an added rule that fits (overlay.bpf.h); of others the decision
    is compared with that.
    """
    place = item.slot - stage.rules[0].slot
    reached = "" if is_stateless(item.rule) else f" && ps_reached({item.slot})"
    return [
        f"\tif (found - 1 >= {place}ULL{reached}) {{",
        *indented(rule_lines(item, printer, source)),
        line_directive(1, "generated"),
        "\t}",
    ]


def _deciding(stage: Tabled, name: str, codes: Sequence[int], between: Sequence[str]) -> list[str]:
    return [
        f"\t__u64 found = {name}(ctx, scratch, s);",
        "",
        "\tps_opaque_value(found);",
        *between,
        *(["\tps_opaque_value(found);"] if between else []),
        # One comparison of both, of found less 1, would tell the verifier before Linux 6.11 nothing of found.
        f"\tif (found <= {len(codes)}) {{",
        "\t\tps_opaque_value(found);",
        "\t\tif (found)",
        f"\t\t\treturn PS_DECISION({stage.rules[0].slot - 1} + found, {_verdict(name, codes)});",
        "\t}",
    ]


def tables_of(stage: Tabled, number: int) -> tuple[str, bytes]:
    """The variable that holds the stage's tables, and its value."""
    return variable_of(number), bytes(image(stage.classifier))


def functions_of(stage: Tabled) -> int:
    """The most functions that a stage is printed as: its own, the predicates, and of each family its searches."""
    return 1 + bool(stage.opaque) + sum(map(_searches, stage.classifier.families))


def _searches(family: Family) -> int:
    """Two in records, two in ranges, and up to three in bit vectors."""
    return 2 * (family.records is not None) + 2 * (family.ranges is not None) + 3 * (family.bits is not None)


def _access(stage: Tabled, naming: Naming, asks: str) -> Access:
    scalars: dict[FieldRef, str] = {}
    wides: dict[FieldRef, tuple[str, str, str]] = {}
    for ref in stage.refs:
        place = naming.field(ref)
        if ref.field.bits == 128:
            wides[ref] = f"{place}.hi", f"{place}.lo", f"{place}.present"
        else:
            scalars[ref] = place
    return Access(_PARAMETER, scalars, wides, asks)


def _asking(name: str, opaque: Sequence[Predicate], printer: Printer) -> list[str]:
    cases = [
        line
        for number, predicate in enumerate(opaque, 1)
        for line in (f"\tcase {number}:", f"\t\treturn !!({printer.predicate(predicate)});")
    ]
    return [
        f"__noinline __u32 {name}_asks(struct ps_ctx *ctx, __u32 number)",
        *_OPENING,
        *_VIEWS,
        "\tswitch (number) {",
        "\tcase 0:",
        "\t\treturn 1;",
        *cases,
        "\t}",
        "\treturn 0;",
        "}",
        "",
    ]


def _code(rule: Rule) -> int:
    if not isinstance(rule.action, Verdict):
        raise InternalError(f"rule {rule.name} decides nothing, yet it is in a table")
    return DECISION_CODES[rule.action]


def _verdicts(name: str, codes: Sequence[int]) -> list[str]:
    """What each rule of the stage comes to; 0 stands for no rule."""
    cells = [f"{code}," for code in (0, *codes)]
    rows = ["\t" + " ".join(cells[at : at + 32]) for at in range(0, len(cells), 32)]
    return ["", f"static const __u8 {name}_verdicts[{len(cells)}] = {{", *rows, "};"]


def _verdict(name: str, codes: Sequence[int]) -> str:
    return f"{name}_verdicts[found]" if len(set(codes)) > 1 else str(codes[0])
