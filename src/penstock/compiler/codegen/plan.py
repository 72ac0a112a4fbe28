"""Which form each stretch of a policy's rules takes in C, and why: the cost model.

In: a rule set's rules.  Out: a `Plan`: stages in the rules' order, each with the
estimates that it was chosen by; plan_text.py prints it.

    20 rules                  ->  inline, one nested diagram
    1000 rules, one counts    ->  tables of 999, in which the one that counts is asked between

The forms, and what they cost in nanoseconds a packet above one that decides
nothing: packets in random order | one packet again and again.  ClassBench-like
rules and five-tuples, `python -m bench.forms` on Linux 6.18 (AMD EPYC), medians:

    rules   linear, inline   linear, functions   nested, inline   nested, function   tables
    10       8-13 | 0-2        5-12 |  0-1        9-13 |  0-3      7-12 |  0-1      14-18 |  6-13
    30      14-19 |  1        11-17 |  0-1       13-17 |  1-3     11-15 |  0-2       9-18 |  6-8
    64      16-27 | 1-5       21-26 |  2-10      16-18 |  0-2     14-17 |  0-2       9-20 |  6-7
    100     mostly refused    34-56 |  4-10       19   |  1-2     16-21 |   1       10-42 |  6-15

What a packet pays is, within the noise, 0.3 ns a comparison it meets and 5 ns
each time a branch goes another way than the processor expected (estimate.py
counts both on packets drawn from the rules), and some ns more where views are
in memory.  Small tables came out cheaper than estimated.  So:

* Up to PLAIN_SIZE comparisons nothing is gained, and numpy is not even imported.
* A diagram is the cheapest form wherever it is small: NESTED_SIZE is where its
  verification (4 instructions a comparison) reaches 2,000.  Up to there it is
  inlined too, if it is all that the policy has.
* Rules one after the other are inlined up to INLINE_SIZE: 186 comparisons took
  the verifier 141,000 instructions, 245 took 586,000, 380 over a million.
* Of several stretches, what is compared in a row counts together: what one has
  taught the verifier it still knows in the next.  A diagram teaches it nothing:
  three with 276 comparisons and rules that count between them took it 18,000
  instructions, the same 241 in a row 350,000.
* As functions, up to PLAIN_SIZE comparisons stay with their neighbours, and a policy cut into more than MAX_DIAGRAMS
  stretches by rules that count gets no diagrams.
* Tables cost 10 to 45 ns for some hundred rules, and little more for thousands,
  so what costs more as functions gets them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from penstock.compiler.codegen.added import words_of
from penstock.compiler.codegen.blocks import MAX_BLOCKS, NumberedRule, rule_cost
from penstock.compiler.codegen.fields import reads_of
from penstock.compiler.codegen.stages import Linear, Stage, Tabled, conditions
from penstock.compiler.codegen.weigh import (
    STAGED_NS,
    Estimate,
    Form,
    Option,
    Stretch,
    form_of,
    linear,
    nested,
    tables,
    total_ns,
)
from penstock.compiler.ir.depth import leaves
from penstock.compiler.ir.ops import FIRST_RULE_SLOT, Member, RuleSet
from penstock.errors import InternalError

#: Rules of so few comparisons together are inlined as they are: nothing could be saved.
PLAIN_SIZE = 48
#: What is inlined of rules one after the other, in comparisons of all stretches together.
INLINE_SIZE = 128
#: Over so few 64-bit words that views fit in registers and a stack of 512 bytes.
INLINE_WORDS = 24
#: The largest diagram that is printed, and all that is inlined together: about 2,000 instructions to verify.
NESTED_SIZE = 480
#: A policy of more stretches gets no diagrams: each takes tens of milliseconds to build, and a function of its own.
MAX_DIAGRAMS = 40
#: So many rules may be asked between those of one table.
MAX_BETWEEN = 16
#: What tables cost at least; a stretch that is decided in less gets none.
LEAST_TABLES_NS = 20.0


@dataclass(frozen=True, slots=True)
class Wish:
    """A form to be taken wherever it can be had, whatever it costs; for measuring and for tests."""

    form: Form
    inline: bool


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """Rules in a row, how they are decided and why, and what each form would have cost."""

    stage: Stage
    why: str
    estimates: tuple[Estimate, ...] = ()

    @property
    def form(self) -> Form:
        return form_of(self.stage)

    @property
    def taken(self) -> Estimate | None:
        """What the form that was taken costs, where forms were weighed."""
        return next((one for one in self.estimates if one.form == self.form), None)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """All of a program's rules; `inline` if they are part of the program's one function."""

    inline: bool
    why: str
    choices: tuple[Choice, ...]

    @property
    def dear(self) -> tuple[str, ...]:
        """What makes it dearer than its size, with the lines of the rules to blame."""
        return tuple(note for choice in self.choices if choice.taken for note in choice.taken.dear)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in order, neighbouring linear ones as one."""
        found: list[Stage] = []
        for alike, choices in groupby(self.choices, lambda choice: choice.form == Form.LINEAR):
            stages = [choice.stage for choice in choices]
            found += [Linear(tuple(item for stage in stages for item in stage.rules))] if alike else stages
        return tuple(found)


def plan_of(rule_set: RuleSet, rules: Sequence[NumberedRule], wish: Wish | None = None) -> Plan:
    """The plan for rules of a rule set; `rules` are the first of the rule set's, maybe all.

    Raises:
        InternalError: a form does not say what its rules say.
    """
    if not rules:
        return Plan(True, "there are no rules", ())
    size = sum(rule_cost(item.rule) for item in rules)
    everything = Linear(tuple(rules))
    if wish is None and size <= PLAIN_SIZE and _fits([everything], rule_set):
        why = f"{size} comparisons in all; up to {PLAIN_SIZE} there is nothing to save"
        return Plan(True, why, (Choice(everything, why),))
    stretches = list(_stretches(rule_set, rules))
    if wish is not None:
        return _wished(stretches, wish)
    weighed = _all_weighed(stretches)
    if plan := _inline(weighed, rule_set):
        return plan
    plan = _staged(weighed, rule_set)
    return (
        plan
        if any(choice.form == Form.TABLES for choice in plan.choices)
        else _sets_apart(plan, rule_set, rules)
    )


def _sets_apart(plan: Plan, rule_set: RuleSet, rules: Sequence[NumberedRule]) -> Plan:
    """The plan, or one that asks the rules that ask sets alone between diagrams, if that is inline or cheaper.

    A diagram with such a rule in its midst has all that stands behind it twice.
    """
    from penstock.compiler.diagram.convert import asks_sets_alone

    if not 0 < sum(asks_sets_alone(item.rule) for item in rules) <= MAX_BETWEEN:
        return plan
    weighed = _all_weighed(list(_stretches(rule_set, rules, sets_apart=True)))
    return _inline(weighed, rule_set) or min(plan, _staged(weighed, rule_set), key=_plan_ns)


def _plan_ns(plan: Plan) -> float:
    taken = [Option(choice.stage, choice.taken) for choice in plan.choices if choice.taken]
    return total_ns(taken, inline=plan.inline)


def _stretches(
    rule_set: RuleSet, rules: Sequence[NumberedRule], *, sets_apart: bool = False
) -> Iterator[Stretch]:
    from penstock.compiler.diagram.convert import Run, blocks

    alone: list[NumberedRule] = []
    some = replace(rule_set, rules=tuple(item.rule for item in rules))
    for block in blocks(some, sets_apart=sets_apart):
        if isinstance(block, Run):
            if alone:
                yield Stretch(tuple(alone), None)
                alone = []
            yield Stretch(tuple(rules[block.first : block.last + 1]), block)
        else:
            alone.append(rules[block.rule])
    if alone:
        yield Stretch(tuple(alone), None)


def _fits(stages: Sequence[Stage], rule_set: RuleSet) -> bool:
    """Whether what the stages keep at hand is little; the keys that sets are asked for lie on the stack, too."""
    words = reads_of(conditions(stages), rule_set.depth).words()
    asked = {
        (leaf.set, leaf.bits): sum(1 + ref.field.bits // 65 for ref in leaf.keys) + 1
        for condition in conditions(stages)
        for leaf, _ in leaves(condition)
        if isinstance(leaf, Member)
    }
    changed = sum(
        words_of(item.rule) for stage in stages if isinstance(stage, Linear) for item in stage.rules
    )
    return words + sum(asked.values()) + changed <= INLINE_WORDS


# ── inline ───────────────────────────────────────────────────────────────────

_Weighed = tuple[Stretch, list[Option]]
Weighed = Sequence[_Weighed]
"""Each stretch with its forms; the linear one first."""


def _all_weighed(stretches: Sequence[Stretch]) -> list[_Weighed]:
    drawn = sum(stretch.can_nest for stretch in stretches) <= MAX_DIAGRAMS
    return [(stretch, _weighed(stretch) if drawn else [linear(stretch)]) for stretch in stretches]


def _weighed(stretch: Stretch) -> list[Option]:
    return [linear(stretch), nested(stretch)] if stretch.can_nest else [linear(stretch)]


def _inline(weighed: Weighed, rule_set: RuleSet) -> Plan | None:
    """Everything in the program's one function, if it is small enough: the least time of what is."""
    ways = [chosen for chosen in _ways(weighed) if _is_small(chosen)]
    fitting = [chosen for chosen in ways if _fits([one.stage for one in chosen if one.stage], rule_set)]
    if not fitting:
        return None
    chosen = min(fitting, key=lambda options: total_ns(options, inline=True))
    size = sum(option.estimate.size for option in chosen)
    why = f"{size} comparisons, few enough to be part of the program's one function"
    return Plan(True, why, _choices(weighed, chosen))


def _ways(weighed: Weighed) -> Iterator[list[Option]]:
    """Forms for all stretches together: the cheapest of each, the smallest, diagrams wherever there is one."""
    able = [[one for one in options if one.stage] for _, options in weighed]
    for best in (_by_time, _by_size, _nested_first):
        yield [min(options, key=best) for options in able]


def _by_time(option: Option) -> tuple[float, int]:
    return option.estimate.ns, option.estimate.size


def _by_size(option: Option) -> tuple[float, int]:
    return option.estimate.size, 0


def _nested_first(option: Option) -> tuple[float, int]:
    return option.estimate.form != Form.NESTED, option.estimate.size


def _is_small(chosen: Sequence[Option]) -> bool:
    sizes = [(one.estimate.form, one.estimate.size) for one in chosen]
    in_a_row = sum(size for form, size in sizes if form == Form.LINEAR)
    return in_a_row <= INLINE_SIZE and sum(size for _, size in sizes) <= NESTED_SIZE


# ── functions ────────────────────────────────────────────────────────────────


def _staged(weighed: Weighed, rule_set: RuleSet) -> Plan:
    """Each stretch as functions of its own, but for tables that can be looked up together."""
    weighed = [(stretch, _all(stretch, options)) for stretch, options in weighed]
    chosen = [_cheapest(options) for _, options in weighed]
    weighed = list(_together(weighed, chosen, rule_set))
    chosen = [_cheapest(options) for _, options in weighed]
    if sum(option.estimate.functions for option in chosen) > MAX_BLOCKS:
        chosen = [
            option if option.estimate.form == Form.TABLES else options[0]
            for option, (_, options) in zip(chosen, weighed, strict=True)
        ]
    functions = sum(option.estimate.functions for option in chosen)
    why = f"too much for one function: {functions} functions over views in memory, {STAGED_NS:g} ns more"
    return Plan(False, why, _choices(weighed, chosen))


def _cheapest(options: Sequence[Option]) -> Option:
    return min((one for one in options if one.stage), key=_staged_ns)


def _together(weighed: Weighed, chosen: Sequence[Option], rule_set: RuleSet) -> Iterator[_Weighed]:
    """The stretches, tables with few rules between them as one: a packet is looked up once for them all."""
    at = 0
    while at < len(weighed):
        if chosen[at].estimate.form != Form.TABLES:
            yield weighed[at]
            at += 1
            continue
        end = _last_table(weighed, chosen, at)
        one = _as_one([stretch for stretch, _ in weighed[at : end + 1]], rule_set)
        yield from one or weighed[at : end + 1]
        at = end + 1


def _last_table(weighed: Weighed, chosen: Sequence[Option], at: int) -> int:
    """The last stretch in tables that is reached from one with no more than MAX_BETWEEN rules asked between."""
    last, between = at, 0
    for number in range(at + 1, len(weighed)):
        stretch = weighed[number][0]
        if chosen[number].estimate.form == Form.TABLES:
            last = number
            continue
        between += len(stretch.rules)
        if between > MAX_BETWEEN or stretch.run is not None:
            break
    return last


def _as_one(stretches: Sequence[Stretch], rule_set: RuleSet) -> list[_Weighed]:
    """Stretches as one look-up with rules before it and between; [] if it cannot be or there is nothing to join."""
    from penstock.compiler.diagram.convert import joined

    rules = tuple(item for stretch in stretches for item in stretch.rules)
    first = rules[0].slot - FIRST_RULE_SLOT
    found = joined(rule_set.rules, first, first + len(rules) - 1, MAX_BETWEEN)
    if found is None or not found.between:
        return []
    before = found.run.first - first
    whole = Stretch(rules[before:], found.run)
    option = tables(whole)
    if not isinstance(option.stage, Tabled):
        return []
    between = tuple(rules[number - first] for number in found.between if number >= found.run.first)
    joint = (whole, [replace(option, stage=replace(option.stage, between=between))])
    lead = Stretch(rules[:before], None)
    return [(lead, [linear(lead)]), joint] if before else [joint]


def _staged_ns(option: Option) -> float:
    return total_ns([option], inline=False)


def _all(stretch: Stretch, options: Sequence[Option]) -> list[Option]:
    """Every form that could be worth it; a diagram that is too large is refused."""
    if not stretch.can_nest or stretch.size <= PLAIN_SIZE:
        return list(options[:1])
    found = [_refused_if_large(option) for option in options]
    least = min(_staged_ns(one) for one in found if one.stage)
    if least <= LEAST_TABLES_NS:
        refused = f"would cost {LEAST_TABLES_NS:g} ns or more"
        return [*found, Option(None, Estimate(Form.TABLES, refused=refused))]
    return [*found, tables(stretch)]


def _refused_if_large(option: Option) -> Option:
    size = option.estimate.size
    if option.estimate.form != Form.NESTED or option.stage is None or size <= NESTED_SIZE:
        return option
    refused = f"{size:,} comparisons, more than {NESTED_SIZE}, which the verifier follows quickly"
    return Option(None, replace(option.estimate, refused=refused))


# ── choices ──────────────────────────────────────────────────────────────────


def _wished(stretches: Sequence[Stretch], wish: Wish) -> Plan:
    weighed = [(one, _wished_forms(one, wish)) for one in stretches]
    chosen = []
    for _, options in weighed:
        able = [one for one in options if one.stage and one.estimate.form == wish.form]
        chosen.append((able or options)[0])
    return Plan(wish.inline, "wished for", _choices(weighed, chosen))


def _wished_forms(stretch: Stretch, wish: Wish) -> list[Option]:
    if stretch.run is None or wish.form == Form.LINEAR:
        return [linear(stretch)]
    return [linear(stretch), nested(stretch) if wish.form == Form.NESTED else tables(stretch)]


def _choices(weighed: Weighed, chosen: Sequence[Option]) -> tuple[Choice, ...]:
    found: list[Choice] = []
    for (stretch, options), option in zip(weighed, chosen, strict=True):
        if option.stage is None:
            raise InternalError(f"no form for the rules from line {stretch.rules[0].rule.line} on")
        estimates = tuple(one.estimate for one in options)
        found.append(Choice(option.stage, _why(stretch, option, options), estimates))
    return tuple(found)


def _why(stretch: Stretch, option: Option, options: Sequence[Option]) -> str:
    if stretch.run is None:
        return "rules that count or lapse are asked one after the other"
    if len(options) == 1:
        return "a rule alone" if len(stretch.rules) == 1 else "too few rules for a function of their own"
    others = [one.estimate for one in options if one is not option]
    refused = [f"{one.form}: {one.refused}" for one in others if one.refused]
    dearer = [f"{one.form} costs about {one.ns:.0f} ns" for one in others if not one.refused]
    return "; ".join([f"about {option.estimate.ns:.0f} ns", *dearer, *refused])
