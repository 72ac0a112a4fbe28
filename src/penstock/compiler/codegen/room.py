"""Whether a program has room for a rule set: asked by `check`, before anything is compiled.

In goes a rule set, out comes nothing, or the error that `emit` would raise: the rule that is one too
many, or too long, or too many maps.  Promised: what passes here is not refused for its size by `emit`,
and what is far from the limits costs a sum.  Rules that decide become tables, of which more fit than a policy has.

    ensure_room(lower_filter(policy, policy.filters[0]))
"""

from __future__ import annotations

from penstock.compiler.codegen.blocks import BLOCK_COST, MAX_BLOCKS, MAX_RULE_COST, rule_cost
from penstock.compiler.codegen.limiters import MAX_LIMITERS
from penstock.compiler.codegen.maps import MAX_MAPS, MOST_OWN
from penstock.compiler.ir.depth import countings
from penstock.compiler.ir.ops import Over, RuleSet
from penstock.model.sets import maps_of

#: Functions are filled by half at least, unless a rule is longer than one.
_SURELY_ENOUGH = MAX_BLOCKS * BLOCK_COST // 2


def ensure_room(rule_set: RuleSet) -> None:
    """Return if there is room.

    Raises:
        LimitError: naming the rule that does not fit.
    """
    asked = countings([rule.condition for rule in rule_set.rules])
    rates = sum(isinstance(test, Over) for test in asked)
    counted = len(maps_of(rule_set.sets)) + len(asked)
    costs = [(rule_cost(rule), rule.decides) for rule in rule_set.rules]
    longest = max((cost for cost, _ in costs), default=0)
    length = sum(cost for cost, decides in costs if not decides)
    fits = longest <= MAX_RULE_COST and length <= _SURELY_ENOUGH
    if fits and counted <= MAX_MAPS - MOST_OWN and rates <= MAX_LIMITERS:
        return
    from penstock.compiler.codegen.emit import emit

    emit(rule_set)
