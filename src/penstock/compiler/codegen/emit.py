"""Print a rule set as the C of one program.

In go a verified `RuleSet`, out comes a `CSource`: the text, the file that its
#line directives name, and the `ObjectSpec` of the object that clang will make
of it.  The same rule set gives the same text, byte for byte.

The text is constants (what the parser must find, what odd packets come to), the
rules, and an include of the hook's frame; everything that is not the policy's
own is hand-written in src/penstock/bpf.

    drop if udp dst port 53    ->    #line 4 "dns.policy"
                                     if (s[0].udp_dport == 0x35U)
                                         return PS_DECISION(6, 1);
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import assert_never

from penstock.compiler.codegen.added import change_functions
from penstock.compiler.codegen.blocks import (
    MAX_BLOCKS,
    NumberedRule,
    block_lines,
    blocks_of,
    default_of,
    dispatch_lines,
    inline_lines,
    numbered,
    rule_lines,
    too_many,
)
from penstock.compiler.codegen.classic import check_programs
from penstock.compiler.codegen.devices import action_lines, device_lines, devices_of, verdicts_of
from penstock.compiler.codegen.fields import Naming, Reads, reads_of
from penstock.compiler.codegen.limiters import countings_of
from penstock.compiler.codegen.maps import ensure_maps
from penstock.compiler.codegen.overlay import (
    OVERLAID_CALL,
    offered,
    offset_lines,
    overlaid_lines,
    with_offered,
)
from penstock.compiler.codegen.plan import Wish, plan_of
from penstock.compiler.codegen.predicate import Printer
from penstock.compiler.codegen.sets import set_lines
from penstock.compiler.codegen.stages import Linear, Nested, Stage, Tabled, conditions
from penstock.compiler.codegen.writer import comment, enumeration, line_directive, string
from penstock.compiler.ir.depth import classics, countings, leaves
from penstock.compiler.ir.ops import (
    FIRST_CONDITION_SLOT,
    FIRST_RULE_SLOT,
    Effect,
    Member,
    Predicate,
    Rule,
    RuleSet,
    Scope,
    counter_names,
)
from penstock.compiler.lang.source import Source, Span
from penstock.errors import InternalError
from penstock.model.field import Layer
from penstock.model.hook import TRAITS, Hook
from penstock.model.limiter import Limiter, limiter_map
from penstock.model.overlay import BANK_BYTES, BANKS_MAP, RULES, TEXT
from penstock.model.sets import maps_of
from penstock.model.spec import COUNTERS_MAP, PROBE_MAP, SCRATCH_MAP, ObjectSpec, RuleSpec
from penstock.model.verdict import DECISION_CODES, Condition, Verdict


@dataclass(frozen=True, slots=True)
class CSource:
    """C for one program.

    `files` are (name, text) of what its #line directives name, `tables` the
    initial values of some of its variables, `dear` what makes it slow (`Plan.dear`).
    """

    text: str
    spec: ObjectSpec
    files: tuple[tuple[str, str], ...] = ()
    tables: tuple[tuple[str, bytes], ...] = ()
    dear: tuple[str, ...] = ()


def emit(
    rule_set: RuleSet,
    *,
    probe: bool = False,
    overlay: bool = True,
    wish: Wish | None = None,
    kernel_locks: bool = False,
) -> CSource:
    """The C of a rule set's program; with `probe`, one that leaves each packet's outcome in the `ps_probe` map.

    A program with tables takes rules while it runs, unless `overlay` is false.
    `wish` overrides the plan's choice of forms.  With `kernel_locks` rates need no
    atomic exchange (Linux 5.12), and cost more; filters at sockets cannot have it so.

    Raises:
        LimitError: the rule set is larger than a program can be.
    """
    check_programs(rule_set.rules)
    plan = plan_of(rule_set, numbered(rule_set), wish)
    name = file_name(rule_set.source.name)
    reads = reads_of(conditions(plan.stages), rule_set.depth)
    overlay = overlay and any(isinstance(stage, Tabled) for stage in plan.stages)
    if overlay:
        reads = with_offered(reads, rule_set.depth)
    devices = devices_of(rule_set)
    naming = Naming("len" if plan.inline else "scratch->len", reads.scopes, devices)
    counting = countings_of([item.rule for item in numbered(rule_set)])
    ensure_maps(rule_set, counting.limiters, effects=has_effects(rule_set), overlay=overlay)
    printer = Printer(naming, devices=devices, sets=rule_set.sets, countings=counting)
    body, tables = (
        (_inline(plan.stages, rule_set, printer, name), [])
        if plan.inline
        else _staged(plan.stages, rule_set, printer, name, overlay=overlay)
    )
    constants = _constants(rule_set, reads, inline=plan.inline, probe=probe, overlay=overlay)
    if kernel_locks and rule_set.hook is not Hook.SOCKET:
        constants.append("#define PS_SPIN_LOCKS 1")
    text = "".join(f"{line}\n" for line in _lines(rule_set, reads, printer, constants, body, overlay=overlay))
    spec = _spec(rule_set, offered(reads) if overlay else (), counting.limiters, probe=probe)
    return CSource(text, spec, ((name, rule_set.source.text),), tuple(tables), plan.dear)


def _lines(
    rule_set: RuleSet, reads: Reads, printer: Printer, constants: list[str], body: list[str], *, overlay: bool
) -> Iterator[str]:
    """The whole text, in the order that C needs."""
    yield comment(f"Generated by penstock from {rule_set.source.name}, filter {rule_set.name}. Do not edit.")
    yield from (*constants, "")
    yield from _headers(rule_set.hook, reads)
    if overlay:
        yield from ("#include <penstock/overlay.bpf.h>", *offset_lines(offered(reads)))
    yield from (*_declared(rule_set, printer), "")
    yield from (*_on(rule_set), "")
    yield from _enter(reads.scopes)
    yield from (*device_lines(rule_set, printer.devices), "")
    yield from (*body, "")
    yield f"#include <hooks/{TRAITS[rule_set.hook].frame}.bpf.c>"


def _headers(hook: Hook, reads: Reads) -> Iterator[str]:
    """What every program includes, and what is needed for packets within packets."""
    yield f"#include <penstock/{TRAITS[hook].frame}.bpf.h>"
    yield "#include <penstock/fast.bpf.h>"
    yield f"#include <penstock/{'scope' if len(reads.scopes) > 1 else 'parse'}.bpf.h>"
    if any("inner" in scope for scope in reads.scopes):
        yield "#include <penstock/tunnel.bpf.h>"
    yield "#include <penstock/term.bpf.h>"
    yield "#include <penstock/verdict.bpf.h>"


def _declared(rule_set: RuleSet, printer: Printer) -> Iterator[str]:
    """What the rules ask besides the packet; behind them, as only printing them tells which lists there are."""
    yield from action_lines(rule_set, printer.devices)
    yield from set_lines(rule_set.sets)
    yield from change_functions(rule_set)
    yield from printer.lists.lines()
    yield from printer.programs.lines()
    yield from printer.countings.lines()


def _inline(stages: Sequence[Stage], rule_set: RuleSet, printer: Printer, source: str) -> list[str]:
    """The one function of all stages."""
    statements: list[str] = []
    for number, stage in enumerate(stages):
        match stage:
            case Linear(rules):
                statements += [line for item in rules for line in rule_lines(item, printer, source)]
            case Nested():
                from penstock.compiler.codegen.nested import nested_lines  # imports numpy

                statements += nested_lines(stage, f"ps_nested_{number}", printer, source)
            case Tabled():
                raise InternalError("tables are functions of their own, yet they are to be inlined")
            case _:
                assert_never(stage)
    return inline_lines(statements, rule_set)


def _staged(
    stages: Sequence[Stage], rule_set: RuleSet, printer: Printer, source: str, *, overlay: bool
) -> tuple[list[str], list[tuple[str, bytes]]]:
    """The functions of the stages and what calls them in order; the tables' variables."""
    found: list[str] = []
    tables: list[tuple[str, bytes]] = []
    firsts: list[int] = []
    count, used = 0, len(classics(conditions(stages)))
    for stage in stages:
        room = MAX_BLOCKS - used
        if isinstance(stage, Linear):
            for block in blocks_of(stage.rules, room):
                lines = (line for item in block for line in rule_lines(item, printer, source))
                found += block_lines(lines, count)
                firsts.append(block[0].slot)
                count, used = count + 1, used + 1
            continue
        functions = _functions_of(stage)
        if functions > room:
            raise too_many(stage.rules[0])
        if isinstance(stage, Nested):
            from penstock.compiler.codegen.nested import nested_lines

            found += block_lines(nested_lines(stage, "ps_nested", printer, source), count)
        else:
            from penstock.compiler.codegen.tabled import tabled_lines, tables_of

            found += [line_directive(1, "generated"), *tabled_lines(stage, count, printer, source)]
            tables.append(tables_of(stage, count))
        firsts.append(stage.rules[0].slot)
        count, used = count + 1, used + functions
    if overlay:
        found += overlaid_lines(firsts, default_of(rule_set))
    return found + dispatch_lines(count, rule_set, OVERLAID_CALL if overlay else ()), tables


def _functions_of(stage: Nested | Tabled) -> int:
    if isinstance(stage, Nested):
        return 1
    from penstock.compiler.codegen.tabled import functions_of

    return functions_of(stage)


def emit_matcher(predicates: Sequence[Predicate]) -> CSource:
    """A probe program that tries all the predicates on each packet.

    Predicate n holds iff bit `FIRST_RULE_SLOT + n` of the probe's `hits` is
    set.  It passes every packet and judges no condition beyond the link layer.

    Raises:
        LimitError: more predicates than a program can hold; some thousand small ones fit.
    """
    source = Source("<expressions>", "")
    rules = tuple(
        Rule(f"expression:{number}", Effect.COUNT, predicate, Span(0, 0), 1)
        for number, predicate in enumerate(predicates)
    )
    conditions = tuple((condition, None) for condition in Condition)
    rule_set = RuleSet("expressions", Hook.XDP, Verdict.PASS, conditions, rules, Layer.LINK, source)
    return emit(rule_set, probe=True)


def file_name(source: str) -> str:
    """What #line calls the policy: its last path component, so that the same policy compiles alike anywhere."""
    return PurePath(source).name or "policy"


def _constants(rule_set: RuleSet, reads: Reads, *, inline: bool, probe: bool, overlay: bool) -> list[str]:
    traits, slots = TRAITS[rule_set.hook], FIRST_RULE_SLOT + len(rule_set.rules)
    return [
        f"#define PS_PROBE {int(probe)}",
        *(["#define PS_EFFECTS 1"] if has_effects(rule_set) else []),
        *(["#define PS_OVERLAY 1"] if overlay else []),
        *(["#define PS_LIMITED 1"] if overlay and not all(map(_only_decides, rule_set.rules)) else []),
        f"#define PS_SECTION {string(traits.section)}",
        *enumeration(
            [
                ("PS_DEPTH", rule_set.depth.value),
                ("PS_LEVEL", reads.level.value),
                ("PS_INLINE", int(inline)),
                ("PS_DEFAULT", DECISION_CODES[rule_set.default]),
                ("PS_BOUNCES", int(rule_set.hook is Hook.XDP and (overlay or _bounces(rule_set)))),
                ("PS_SLOTS", slots + (RULES if overlay else 0)),
                ("PS_CONDITIONS", len(Condition)),
                ("PS_SCOPES", len(reads.scopes)),
                ("PS_SHIMS", int(any(scope[:1] in (("mpls",), ("pppoes",)) for scope in reads.scopes))),
                ("PS_TUNNELS", int(any("inner" in scope for scope in reads.scopes))),
                ("PS_GENEVE", int(any("geneve" in scope for scope in reads.scopes))),
                ("PS_TAGS", reads.tags),
                *reads.wants(),
                *(
                    [("PS_ADDED", slots), ("PS_OVERLAY_TEXT", TEXT), ("PS_OVERLAY_BANK", BANK_BYTES)]
                    if overlay
                    else []
                ),
            ]
        ),
    ]


def _only_decides(rule: Rule) -> bool:
    """Whether to ask a rule in vain leaves no trace."""
    counted = any(isinstance(leaf, Member) and leaf.counted for leaf, _ in leaves(rule.condition))
    return rule.decides and rule.until_ns is None and not counted and not countings([rule.condition])


def has_effects(rule_set: RuleSet) -> bool:
    """Whether a packet leaves anything but its count of the program's own: in sets, or buckets."""
    counts = any(spec.counters for spec in rule_set.sets)
    return counts or any(rule.target or countings([rule.condition]) for rule in rule_set.rules)


def _bounces(rule_set: RuleSet) -> bool:
    return Verdict.BOUNCE in verdicts_of(rule_set)


def _on(rule_set: RuleSet) -> list[str]:
    """The decision on odd packets: the first condition, in their order, that has a verdict."""
    found = ["static __always_inline __u32 ps_on(__u32 conditions)", "{"]
    for condition in Condition:
        verdict = rule_set.verdict_on(condition)
        if verdict is not None:
            found += [
                f"\tif (conditions & PS_{condition.name})",
                f"\t\treturn PS_DECISION({FIRST_CONDITION_SLOT + condition}, {DECISION_CODES[verdict]});",
            ]
    return [*found, "\treturn 0;", "}"]


def _enter(scopes: Sequence[Scope]) -> list[str]:
    """Fill the views of what the frame carries, outer before inner."""
    calls = {
        "mpls": "ps_behind_mpls",
        "pppoes": "ps_behind_pppoe",
        "geneve": "ps_behind_geneve",
        "inner": "ps_behind_tunnel",
    }
    found = ["static __always_inline void ps_enter(struct ps_ctx *ctx)", "{"]
    for number, scope in enumerate(scopes):
        if not scope:
            continue
        nested = f", {int(scope[-2:-1] == ('mpls',))}" if scope[-1] == "mpls" else ""
        found.append(f"\t{calls[scope[-1]]}(ctx, {scopes.index(scope[:-1])}, {number}{nested});")
    return [*found, "}"]


def _spec(
    rule_set: RuleSet, overlay: tuple[str, ...], limiters: tuple[Limiter, ...], *, probe: bool
) -> ObjectSpec:
    maps = (
        COUNTERS_MAP,
        SCRATCH_MAP,
        *((PROBE_MAP,) if probe else ()),
        *((BANKS_MAP,) if overlay else ()),
        *maps_of(rule_set.sets),
        *(limiter_map(number) for number in range(len(limiters))),
    )
    return ObjectSpec(
        policy=rule_set.name,
        hook=rule_set.hook.value,
        source=rule_set.source.name,
        default=rule_set.default.value,
        slots=counter_names(rule_set),
        rules=tuple(
            _rule_spec(NumberedRule(slot, rule), rule_set.source)
            for slot, rule in enumerate(rule_set.rules, FIRST_RULE_SLOT)
        ),
        section=TRAITS[rule_set.hook].section,
        maps=maps,
        overlay=overlay,
        probe=probe,
        devices=devices_of(rule_set),
        sets=rule_set.sets,
        limiters=limiters,
    )


def _rule_spec(item: NumberedRule, source: Source) -> RuleSpec:
    rule = item.rule
    text = " ".join(source.text[rule.span.start : rule.span.end].split())
    return RuleSpec(rule.name, rule.doing, rule.line, text, item.slot, rule.labelled, rule.until_ns)
