"""Which fields of a run get an axis; tests of the others become predicates.

Records of ranks have room for MOST_FIELDS fields.  A long run that asks for more
asks for most of them in a few odd rules, so the most tested fields are kept, and
a rule that tests another one gets that test as an opaque predicate: asked
last, and only when everything else fits.

    9,990 rules of addresses and ports, 10 with fields of their own    ->    10 rules with predicates
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from penstock.compiler.ir.ops import FieldRef, Negation, Predicate, Within
from penstock.model.net import IntervalSet

#: Two that lead, and what a program's stack of 512 bytes holds: 13 others were seen to need 528.
MOST_FIELDS = 13


def rare_fields(terms: Iterable[Mapping[FieldRef, IntervalSet]]) -> frozenset[FieldRef]:
    """The fields that get no axis: the least tested ones, the later of two that are tested as often."""
    tested = Counter(ref for fields in terms for ref in fields)
    ranked = sorted(tested, key=lambda ref: -tested[ref])
    return frozenset(ranked[MOST_FIELDS:])


def test_of(ref: FieldRef, values: IntervalSet) -> Predicate:
    """The test of a field's values, ``2**bits`` among them if a packet without the field passes."""
    absent = 1 << ref.field.bits
    if absent not in values:
        return Within(ref, values)
    return Negation(Within(ref, values.complement(ref.field.bits)))
