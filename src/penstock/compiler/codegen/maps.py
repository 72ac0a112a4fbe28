"""How many maps a program has: the kernel lets it have 64 (MAX_USED_MAPS, include/linux/bpf_verifier.h).

In go a rule set and its limiters; out comes nothing, or an error that says what
takes how many: a set one for each family of its keys and one for its banks, one that
rules add to five more, each rate one, and some are the program's own.

    ensure_maps(rule_set, limiters, effects=True, overlay=False)
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.compiler.codegen.devices import action_lines, devices_of
from penstock.compiler.ir.ops import RuleSet
from penstock.errors import LimitError
from penstock.model.hook import Hook
from penstock.model.limiter import Limiter
from penstock.model.sets import maps_of

MAX_MAPS = 64
#: More than a program ever has besides those of its sets and limiters.
MOST_OWN = 12
#: Counters, scratch and constants; of a program that takes rules their banks, and which of them counts.
_ALWAYS, _OVERLAY = 3, 2
_SHOWN = 4


def ensure_maps(rule_set: RuleSet, limiters: Sequence[Limiter], *, effects: bool, overlay: bool) -> None:
    """Return if the program has no more maps than the kernel lets it have.

    Raises:
        LimitError: with what takes how many, the most first.
    """
    own = own_maps(rule_set, effects=effects, overlay=overlay)
    of_sets = sorted(((len(maps_of((spec,))), spec.name) for spec in rule_set.sets), key=lambda one: -one[0])
    count = own + len(limiters) + sum(maps for maps, _ in of_sets)
    if count <= MAX_MAPS:
        return
    parts = [f"set {name} {maps}" for maps, name in of_sets[:_SHOWN]]
    if rest := of_sets[_SHOWN:]:
        parts.append(f"{len(rest)} more set{'s' * (len(rest) > 1)} {sum(maps for maps, _ in rest)}")
    parts += [f"{len(limiters)} rate{'s' * (len(limiters) > 1)} {len(limiters)}"] if limiters else []
    raise LimitError(
        f"filter {rule_set.name} needs {count} maps of the kernel's, and a program can have {MAX_MAPS}: "
        f"{', '.join(parts)}, the program itself {own}",
        limit="maps per filter",
        hint="a set to which rules add takes five more than another, and one of addresses two where one of "
        "ports takes one: let rules add to fewer sets, or divide the filter between hooks",
    )


def own_maps(rule_set: RuleSet, *, effects: bool, overlay: bool) -> int:
    """How many maps a program has besides those of its sets and limiters."""
    defined = {line.split()[1] for line in action_lines(rule_set, devices_of(rule_set)) if "#define" in line}
    actions = (
        2 * ("PS_REJECTS" in defined)
        + ("PS_REJECTS" in defined and rule_set.hook is not Hook.XDP)
        + ("PS_MANGLES" in defined)
        + ("PS_REDIRECTS" in defined and rule_set.hook is Hook.XDP)
    )
    return _ALWAYS + (effects or overlay) + _OVERLAY * overlay + actions
