"""What each rule adds to the price: the program with it beside the program without it.

In: a rule set.  Out: a `RulePrice` a rule, differences of instructions, of the
verifier's work and of nanoseconds in one class of traffic.

    rule_prices(rules, [frame])[13]  ->  rule 14 (line 20) added 90 instructions, 120 verified, 0.8 ns

Differences may be negative: without a rule clang may choose another shape.
Every difference takes a compilation, so of a large policy only the MOST_RULES
dearest by the compiler's own plan are looked at, fewer where one takes long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from penstock.compiler.codegen.blocks import rule_cost
from penstock.compiler.driver import compile_rule_set
from penstock.compiler.ir.depth import depth_of
from penstock.compiler.ir.ops import Rule, RuleSet
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.model.field import Layer
from penstock.price.feed import times
from penstock.price.figures import Figures, loaded_figures, only_program
from penstock.price.stopwatch import ROUNDS

MOST_RULES = 48
#: All compilations together are to take no longer than this, if that leaves FEWEST_RULES.
PATIENCE_S, FEWEST_RULES = 120.0, 4
_WHOLE = "policy"


@dataclass(frozen=True, slots=True)
class RulePrice:
    """What rule `number` (from 1) adds; nanoseconds are those of one class of traffic."""

    number: int
    name: str
    line: int
    instructions: int
    verified: int
    states: int | None
    ns: float


@dataclass(frozen=True, slots=True)
class RulePrices:
    """`prices` in the rules' order; `of` is how many rules there are."""

    prices: tuple[RulePrice, ...]
    of: int

    @property
    def is_whole(self) -> bool:
        """Whether every rule was looked at."""
        return len(self.prices) == self.of


def rule_prices(
    rules: RuleSet,
    frames: Sequence[bytes],
    *,
    most: int = MOST_RULES,
    rounds: int = ROUNDS,
    told: Callable[[str], None] | None = None,
) -> RulePrices:
    """What each rule adds, measured with these frames; of many rules the `most` dearest by plan.

    Raises:
        PenstockError: as compiling and loading do.
    """
    chosen = dearest(rules, most)
    with ExitStack() as held:
        loaded = {_WHOLE: _loaded(rules, held)}
        for done, number in enumerate(chosen, 1):
            if told:
                told(f"compiling without rule {number + 1} ({done} of {len(chosen)})")
            loaded[str(number)] = _loaded(without(rules, number), held)
        figures = {name: loaded_figures(found, 0.0) for name, found in loaded.items()}
        if told:
            told(f"measuring {len(loaded)} programs")
        programs = {name: only_program(found) for name, found in loaded.items()}
        costs = times(programs, frames, rounds)
    prices = tuple(
        _difference(
            number,
            rules.rules[number],
            figures[_WHOLE],
            figures[str(number)],
            costs[_WHOLE] - costs[str(number)],
        )
        for number in chosen
    )
    return RulePrices(prices, len(rules.rules))


def dearest(rules: RuleSet, most: int) -> list[int]:
    """Indices of the `most` rules that the compiler expects to make most comparisons; ascending.

    Of rules that are expected to cost the same, as in tables, some from all over the policy.
    """
    costs = [rule_cost(rule) for rule in rules.rules]
    if len(costs) <= most:
        return list(range(len(costs)))
    border = sorted(costs, reverse=True)[most - 1]
    above = [number for number, cost in enumerate(costs) if cost > border]
    alike = [number for number, cost in enumerate(costs) if cost == border]
    wanted = most - len(above)
    return sorted([*above, *(alike[at * len(alike) // wanted] for at in range(wanted))])


def affordable_rules(compile_s: float) -> int:
    """How many rules can be looked at where one compilation takes so long."""
    return max(FEWEST_RULES, min(MOST_RULES, int(PATIENCE_S / compile_s)))


def without(rules: RuleSet, number: int) -> RuleSet:
    """The rule set less one rule, and less deep where only that rule looked so deep."""
    kept = (*rules.rules[:number], *rules.rules[number + 1 :])
    return _with(rules, kept)


def first(rules: RuleSet, count: int) -> RuleSet:
    """The rule set's first `count` rules."""
    return _with(rules, rules.rules[:count])


def _with(rules: RuleSet, kept: tuple[Rule, ...]) -> RuleSet:
    # `on malformed` in the policy makes the depth greater than any rule does; then it stays.
    wanted = max(depth_of(rule.condition for rule in rules.rules), Layer.LINK)
    depth = max(depth_of(rule.condition for rule in kept), Layer.LINK)
    return replace(rules, rules=kept, depth=depth if rules.depth == wanted else rules.depth)


def _loaded(rules: RuleSet, held: ExitStack) -> BpfObject:
    return held.enter_context(load_object(compile_rule_set(rules).elf, rules.name, statistics=True))


def _difference(number: int, rule: Rule, whole: Figures, rest: Figures, ns: float) -> RulePrice:
    states = None if whole.states is None or rest.states is None else whole.states - rest.states
    return RulePrice(
        number + 1,
        rule.name,
        rule.line,
        whole.instructions - rest.instructions,
        whole.verified - rest.verified,
        states,
        ns,
    )
