"""The forms that a run of rules could take, built; or the reason why one could not.

In: a run (diagram/convert.py) and its rules.  Out: stages for emit.py, or a
sentence for `--emit plan`.  What is handed out is right: tables were compared
with the rules themselves, a diagram's invariants were checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from penstock.compiler.classifier.layout import layout
from penstock.compiler.classifier.tables import Classifier, Family, ListLeaf, TableGroup
from penstock.compiler.classifier.trial import disagreements
from penstock.compiler.codegen.blocks import MAX_RULE_COST, NumberedRule, cost
from penstock.compiler.codegen.flow import flow_of
from penstock.compiler.codegen.stages import Nested, Tabled
from penstock.compiler.diagram.boxes import Boxes, Packets
from penstock.compiler.diagram.build import Budget, OverBudgetError, build
from penstock.compiler.diagram.convert import Run
from penstock.compiler.diagram.evaluate import decide, first_rule, walk
from penstock.compiler.diagram.node import Diagram
from penstock.compiler.diagram.order import IPV4_ADDRESSES, IPV6_ADDRESSES, axis_order
from penstock.compiler.diagram.reduce import reduce
from penstock.compiler.diagram.verify import absent, check, probes
from penstock.errors import InternalError

#: List entries while a small diagram and while tables are built.  There is no limit of time: what is built must not
#: depend on the machine.
MAX_SMALL_MEMBERS, MAX_MEMBERS = 60_000, 8_000_000
#: More boxes than this are not tried as one small diagram.
MAX_SMALL_BOXES = 512
#: How many orders of the axes are tried beyond the first ones.
MAX_SWAPS = 16
#: A diagram of fewer comparisons is not worth looking for a better order; one of more is not printed.
SMALL_ENOUGH, MAX_COMPARISONS = 128, 1024
#: The lanes lie on the stack of the first function, beside the overlay's; clang takes up to 528 bytes of 512 for 13.
#: Loops over lists with predicates multiply the verifier's work.
MAX_LANES, MAX_ASKED = 11, 40
#: Packets that a small diagram is compared with its rules on.
TRIED = 1024


# ── comparisons ──────────────────────────────────────────────────────────────


def nested(run: Run, rules: tuple[NumberedRule, ...]) -> Nested | str:
    """The run as a small diagram."""
    diagram = small_diagram(run)
    if isinstance(diagram, str):
        return diagram
    if diagram.comparisons > MAX_COMPARISONS:
        return f"{diagram.comparisons:,} comparisons as one diagram"
    return Nested(rules, flow_of(diagram), tuple(axis.ref for axis in run.boxes.axes), run.opaque)


def small_diagram(run: Run) -> Diagram | str:
    """One diagram of all of a run, over the axes in the best order that was found; or why there is none."""
    if not len(run.boxes):
        return "its rules match nothing"
    if len(run.boxes) > MAX_SMALL_BOXES:
        return f"{len(run.boxes):,} boxes; up to {MAX_SMALL_BOXES} are tried as one diagram"
    diagram = _smallest(run.boxes)
    if diagram is None:
        return f"more than {MAX_SMALL_MEMBERS:,} list entries while one diagram is built"
    check(diagram)
    _compare_diagram(diagram, run)
    return diagram


def size_of(stage: Nested) -> int:
    """About how many comparisons are printed, those of opaque predicates included."""
    asked = [opaque for terminal in stage.flow.diagram.terminals for _, opaque in terminal if opaque]
    return stage.flow.comparisons + sum(cost(stage.opaque[opaque - 1]) for opaque in asked)


#: A packet with one of these has none of those, and has the third; of an address the headers' order tells.
_FAMILIES = {
    "addr.src": (IPV6_ADDRESSES, ()),
    "addr.dst": (IPV6_ADDRESSES, ("addr.src",)),
    "ip6.src": (IPV4_ADDRESSES, ()),
    "ip6.dst": (IPV4_ADDRESSES, ("ip6.src",)),
}


def of_one_family(boxes: Boxes, *, with_source: bool) -> Boxes:
    """The boxes without packets that cannot be: addresses of both families, and a target without a source.

    A diagram of rules for both families would else ask each family's rules in
    every combination with the other's.  Asking for a source may be worth more
    than it costs, or less.
    """
    at = {axis.ref.name: number for number, axis in enumerate(boxes.axes)}
    if not (at.keys() & IPV4_ADDRESSES and at.keys() & IPV6_ADDRESSES):
        return boxes
    low, high = boxes.low.copy(), boxes.high.copy()
    for name in at.keys() & _FAMILIES.keys():
        others, implied = _FAMILIES[name]
        has = boxes.high[:, at[name]] < boxes.axes[at[name]].width
        for other in at.keys() & others:
            low[has, at[other]] = np.maximum(low[has, at[other]], boxes.axes[at[other]].width - 1)
        for other in at.keys() & set(implied if with_source else ()):
            high[has, at[other]] = np.minimum(high[has, at[other]], boxes.axes[at[other]].width - 1)
    possible = np.flatnonzero((low < high).all(axis=1))
    return replace(boxes, low=low, high=high).take(possible)


@dataclass(frozen=True, slots=True)
class _Found:
    boxes: Boxes
    diagram: Diagram
    order: tuple[int, ...]

    @property
    def comparisons(self) -> int:
        return self.diagram.comparisons


def _smallest(boxes: Boxes) -> Diagram | None:
    """The diagram of the best order that is found."""
    variants = [boxes, *(of_one_family(boxes, with_source=asked) for asked in (False, True))]
    different = [one for at, one in enumerate(variants) if at == 0 or one is not boxes]
    built = (_built(one, order) for one in different for order in _orders(one))
    found = [one for one in built if one]
    if not found:
        return None
    return _improved(min(found, key=lambda one: one.comparisons)).diagram


def _improved(best: _Found) -> _Found:
    """Neighbouring axes are swapped, again and again from the root on, as long as that helps."""
    tries, at, since = 0, 0, 0
    last = len(best.order) - 1
    while tries < MAX_SWAPS and since < last and SMALL_ENOUGH < best.comparisons < 4 * MAX_COMPARISONS:
        order = (*best.order[:at], best.order[at + 1], best.order[at], *best.order[at + 2 :])
        swapped = _built(best.boxes, order)
        tries, at, since = tries + 1, (at + 1) % last, since + 1
        if swapped and swapped.comparisons < best.comparisons:
            best, since = swapped, 0
    return best


def _built(boxes: Boxes, order: tuple[int, ...]) -> _Found | None:
    try:
        grown = build(boxes, order, Budget(members=MAX_SMALL_MEMBERS, seconds=float("inf")))
    except OverBudgetError:
        return None
    return _Found(boxes, reduce(grown), order)


def _orders(boxes: Boxes) -> Iterator[tuple[int, ...]]:
    """Orders worth trying: as the rules name them, addresses last, fewest ranges first, addresses first, IPv6's first.

    What comes first in a rule is often what tells most, and its author put it
    there: then no packet is asked for what only a few rules ask.
    """
    usual = axis_order(boxes)
    wide = [at for at in usual.all if boxes.axes[at].bits == 128]
    count = {at: len(boxes.projections([at])[0]) for at in range(len(boxes.axes))}
    orders = (
        tuple(range(len(boxes.axes))),
        usual.rest + usual.leading,
        tuple(sorted(count, key=lambda at: (count[at], at))),
        usual.all,
        (*wide, *(at for at in usual.all if at not in wide)),
    )
    yield from dict.fromkeys(orders)


# ── tables ───────────────────────────────────────────────────────────────────


def tabled(run: Run, rules: tuple[NumberedRule, ...]) -> Tabled | str:
    """The run as tables.

    Raises:
        InternalError: tables do not say what their rules say.
    """
    if not len(run.boxes):
        return "its rules match nothing"
    asked = sum(map(cost, run.opaque))
    if asked > MAX_RULE_COST:
        return f"{asked} comparisons that no table can hold; one function takes {MAX_RULE_COST}"
    try:
        classifier = layout(run.boxes, Budget(members=MAX_MEMBERS, seconds=float("inf")))
    except OverBudgetError as error:
        return error.what
    for family in classifier.families:
        if refused := _unverifiable(family):
            return refused
    _compare(classifier, run)
    return Tabled(rules, classifier, tuple(axis.ref for axis in run.boxes.axes), run.opaque)


def _unverifiable(family: Family) -> str:
    """Why the verifier might give up on a family's look-ups; empty if it will not."""
    others = [group for group in family.groups if isinstance(group, TableGroup)]
    asked = [group.leaf.longest for group in others if group.opaque and isinstance(group.leaf, ListLeaf)]
    if len(family.lanes) > MAX_LANES:
        return f"{len(family.lanes)} fields beyond the first two; a record has room for {MAX_LANES}"
    if sum(asked) > MAX_ASKED:
        return f"lists of {sum(asked)} rules with predicates to ask; the verifier follows {MAX_ASKED}"
    return ""


def _compare(classifier: Classifier, run: Run) -> None:
    wrong = disagreements(classifier, run.boxes).wrong
    if len(wrong):
        raise InternalError(f"the tables of rules {run.first} to {run.last} err about {len(wrong)} packets")


def _compare_diagram(diagram: Diagram, run: Run) -> None:
    certain = run.boxes.take(np.flatnonzero(run.boxes.opaque == 0))
    packets = _real(probes(run.boxes, TRIED, seed=1))
    decided = [decide(terminal, lambda _: False) for terminal in diagram.terminals]
    wrong = np.array(decided)[walk(diagram, packets)] != first_rule(certain, packets)
    if wrong.any():
        raise InternalError(
            f"the diagram of rules {run.first} to {run.last} errs about {wrong.sum()} packets"
        )


def _real(packets: Packets) -> Packets:
    """The packets without those that have a target address and no source; of families `probes` draws one."""
    has = {ref.name: keys != absent(ref) for ref, keys in packets.items()}
    kept = np.ones(len(next(iter(has.values()))), dtype=bool)
    for target, source in (("addr.dst", "addr.src"), ("ip6.dst", "ip6.src")):
        if target in has and source in has:
            kept &= has[source] | ~has[target]
    return {ref: keys[kept] for ref, keys in packets.items()}
