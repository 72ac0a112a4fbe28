"""Rules in order, as C statements, cut into functions that the verifier can take.

The verifier remembers what a failed compare says about a register, so in one
long function that keeps a field in a register every rule adds states to all
rules behind it: a plain chain of 100 rules is refused.  A few rules are printed
as one inline function all the same, being the fastest; more than that as
*blocks*: global functions of bounded size, which the verifier checks one by one
and whose result it takes for unknown.  Verifying is then linear in the rules.
Long stretches of rules that only decide become tables instead (stages.py).
(Reading the field from memory for each test verifies in linear time as well, but
costs a packet half as much again: clang cannot join tests of one field.)

A statement per rule, behind a #line that names the policy's line:

    #line 7 "edge.policy"
        if (s[0].udp_dport == 0x35U)
                return PS_DECISION(6, 1);
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from penstock.compiler.codegen.devices import wants
from penstock.compiler.codegen.predicate import CHAIN, TREE, Printer
from penstock.compiler.codegen.writer import comment, indented, line_directive
from penstock.compiler.ir.ops import (
    FIRST_RULE_SLOT,
    All,
    Always,
    Any,
    Binary,
    Classic,
    Compare,
    FieldTerm,
    HeaderWalked,
    Literal32,
    Member,
    Negation,
    Over,
    Predicate,
    Read,
    Rule,
    RuleSet,
    Sample,
    Term,
    Within,
)
from penstock.errors import LimitError
from penstock.model.verdict import DECISION_CODES, Verdict

#: A block holds rules of so many comparisons.
BLOCK_COST = 128
#: The kernel takes 256 functions in a program; the parser's and the searches' are among them.
MAX_BLOCKS = 236
#: One rule's cost beyond which its function has more jumps than the verifier follows (8192), or a jump is too far.
MAX_RULE_COST = 2048


#: What follows the rules is no line of the policy.
_GENERATED = line_directive(1, "generated")


@dataclass(frozen=True, slots=True)
class NumberedRule:
    """A rule and its counter's slot."""

    slot: int
    rule: Rule


def numbered(rule_set: RuleSet) -> list[NumberedRule]:
    """The rules with their slots, without those behind a rule that matches every packet."""
    found: list[NumberedRule] = []
    for slot, rule in enumerate(rule_set.rules, FIRST_RULE_SLOT):
        found.append(NumberedRule(slot, rule))
        if rule.decides and rule.condition == Always(True) and rule.until_ns is None:
            break
    return found


def cost(node: Predicate | Term) -> int:
    """About how many compares a predicate is in C."""
    match node:
        case Within(ref, values):
            return _list_cost(len(values.intervals), wide=ref.field.bits == 128)
        case All(operands) | Any(operands):
            return sum([cost(operand) for operand in operands])
        case Always() | Literal32() | FieldTerm():
            return 0
        case HeaderWalked() | Sample():
            return 1
        case Classic() | Member() | Over():
            return 4
        case Read(_, offset):
            return 4 + cost(offset)
        case Compare(_, left, right) | Binary(_, left, right):
            return 1 + cost(left) + cost(right)
        case Negation(operand):
            return cost(operand)


def _list_cost(intervals: int, *, wide: bool) -> int:
    if intervals > (CHAIN if wide else TREE):
        return 4
    return intervals * (4 if wide else 1)


def rule_cost(rule: Rule) -> int:
    return 1 + cost(rule.condition)


def blocks_of(rules: Sequence[NumberedRule], room: int = MAX_BLOCKS) -> list[list[NumberedRule]]:
    """The rules in order, cut where a block is full; `room` is for how many blocks there is any.

    Raises:
        LimitError: naming the rule that does not fit any more.
    """
    blocks: list[list[NumberedRule]] = []
    used = BLOCK_COST
    for item in rules:
        price = rule_cost(item.rule)
        if price > MAX_RULE_COST:
            raise _too_long(item.rule, price)
        if used + price > BLOCK_COST:
            if len(blocks) >= room:
                raise too_many(item)
            blocks.append([])
            used = 0
        blocks[-1].append(item)
        used += price
    return blocks


def _too_long(rule: Rule, price: int) -> LimitError:
    return LimitError(
        f"line {rule.line}: rule {rule.name} makes about {price} comparisons; a rule can make {MAX_RULE_COST}",
        limit="comparisons per rule",
        hint="split it into several rules, or put addresses and ports into one `let` list",
    )


def too_many(item: NumberedRule) -> LimitError:
    """What is said of the first rule that does not fit."""
    fit = item.slot - FIRST_RULE_SLOT
    return LimitError(
        f"line {item.rule.line}: rule {item.rule.name} is one too many: the first {fit} fill the "
        f"{MAX_BLOCKS} functions of about {BLOCK_COST} comparisons that one program can have",
        limit="rules per filter",
        hint="put addresses and ports of rules with the same action into one `let` list",
    )


# ── statements ───────────────────────────────────────────────────────────────


def rule_lines(item: NumberedRule, printer: Printer, source: str) -> Iterator[str]:
    """The statement of one rule."""
    rule = item.rule
    condition = printer.predicate(rule.condition)
    if rule.until_ns is not None:
        condition = f"{condition} && bpf_ktime_get_boot_ns() < {rule.until_ns}ULL"
    yield line_directive(rule.line, source)
    yield f"\tif ({condition}) {comment(rule.name)}"
    yield line_directive(rule.line, source)
    if isinstance(rule.action, Verdict):
        yield f"\t\treturn PS_DECISION({item.slot}, {DECISION_CODES[rule.action]});"
        return
    hit = f"ps_hit(ctx, {item.slot}, {printer.naming.length});"
    asked = printer.change(rule) or wants(rule.argument, printer.devices)
    yield f"\t{{ {hit} if (ps_reached({item.slot})) {asked} }}" if asked else f"\t\t{hit}"


def inline_lines(statements: Iterable[str], rule_set: RuleSet) -> list[str]:
    """Statements of rules as one function over views wherever they are, and the two ways into it."""
    return [
        "static __always_inline __u32 ps_decide(struct ps_ctx *ctx, const struct ps_view *s, __u32 len)",
        "{",
        *statements,
        _GENERATED,
        f"\treturn {default_of(rule_set)};",
        "}",
        "",
        "static __always_inline __u32 ps_decide_scratch(struct ps_ctx *ctx)",
        "{",
        "\tconst struct ps_scratch *scratch = ps_scratch_area();",
        "",
        f"\treturn scratch ? ps_decide(ctx, scratch->s, scratch->len) : {default_of(rule_set)};",
        "}",
    ]


def block_lines(statements: Iterable[str], number: int) -> list[str]:
    """The function of a block of statements over views in memory, which go on behind themselves or return.

    The first is printed for the usual packet as well, to be part of the program's
    one function: its call and looking up the views took 9 ns of 45.
    """
    body = [*statements, _GENERATED, "\treturn 0;", "}", ""]
    if number:
        return [*_global_lines(number), *_VIEWS, *body]
    return [
        "static __always_inline __u32 ps_first(struct ps_ctx *ctx, const struct ps_scratch *scratch,",
        "\t\t\t\t      const struct ps_view *s)",
        "{",
        *body,
        *_global_lines(number),
        "\treturn scratch ? ps_first(ctx, scratch, scratch->s) : 0;",
        "}",
        "",
    ]


def _global_lines(number: int) -> list[str]:
    return [
        f"__noinline __u32 ps_rules_{number}(struct ps_ctx *ctx)",
        "{",
        "\tconst struct ps_scratch *scratch = ps_scratch_area();",
        "",
        "\tps_keep(ctx);",
    ]


_VIEWS = [
    "\tconst struct ps_view *s;",
    "",
    "\tif (!scratch)",
    "\t\treturn 0;",
    "\ts = scratch->s;",
    "\tps_keep(s);",
]


def dispatch_lines(count: int, rule_set: RuleSet, before: Sequence[str] = ()) -> list[str]:
    """What calls `count` functions of rules in order, behind some lines; the first is inlined for the usual packet."""
    rest = [f"ps_rules_{number}(ctx)" for number in range(1, count)]
    return [
        "static __always_inline __u32 ps_decide_scratch(struct ps_ctx *ctx)",
        "{",
        "\t__u32 decision;",
        *(before or ("",)),
        *_in_order(["ps_rules_0(ctx)", *rest]),
        f"\treturn {default_of(rule_set)};",
        "}",
        "",
        "static __always_inline __u32 ps_decide(struct ps_ctx *ctx, const struct ps_view *s, __u32 len)",
        "{",
        "\tconst struct ps_scratch *scratch = (const void *)s - __builtin_offsetof(struct ps_scratch, s);",
        "\t__u32 decision;",
        *(before or ("",)),
        *_in_order(["ps_first(ctx, scratch, s)", *rest]),
        f"\treturn {default_of(rule_set)};",
        "}",
    ]


def _in_order(calls: Sequence[str]) -> Iterator[str]:
    lines = (
        line for call in calls for line in (f"decision = {call};", "if (decision)", "\treturn decision;")
    )
    return indented(lines)


def default_of(rule_set: RuleSet) -> str:
    """The decision on a packet that no rule decides."""
    return f"PS_DECISION(0, {DECISION_CODES[rule_set.default]})"
