"""A predicate as one C expression, without side effects.

Interval tests lean on absent fields being out of their domain: each is a few
unsigned compares and asks for presence as well.

    Within(dport, {53})                ->  s[0].dport == 53
    Within(dport, {8000-8100})         ->  s[0].dport - 8000 <= 100
    Within(ip.src, {10.0.0.0/8})       ->  (s[0].ip_src & 0xffffffffff000000ULL) == 0xa000000
    a dozen intervals                  ->  a binary search in ?:
    more                               ->  ps_within32(...), a table (boundaries.py)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never

from penstock.compiler.codegen.added import change_call
from penstock.compiler.codegen.boundaries import Boundaries
from penstock.compiler.codegen.classic import Programs
from penstock.compiler.codegen.fields import Naming, is_wide
from penstock.compiler.codegen.limiters import Countings
from penstock.compiler.codegen.sets import function_of
from penstock.compiler.ir.buckets import CHANCES
from penstock.compiler.ir.evaluate import target_of
from penstock.compiler.ir.ops import (
    All,
    Always,
    Any,
    Base,
    Binary,
    Classic,
    Compare,
    FieldRef,
    FieldTerm,
    HeaderWalked,
    Literal32,
    Member,
    Negation,
    Over,
    Predicate,
    Read,
    Rule,
    Sample,
    Term,
    Within,
)
from penstock.model.action import Change
from penstock.model.field import EXTENSION_HEADERS
from penstock.model.net import Interval, IntervalSet
from penstock.model.sets import SetSpec

#: Lists up to this long are compared one by one, up to the next searched in ?:, beyond that in a table.
CHAIN, TREE = 4, 24

_OPERATORS = {
    "+": "add",
    "-": "sub",
    "*": "mul",
    "/": "div",
    "%": "mod",
    "&": "and",
    "|": "or",
    "^": "xor",
    "<<": "lsh",
    ">>": "rsh",
}
_HALF = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Printer:
    """Prints predicates for one place in the C, collecting the long lists and classic programs they need."""

    naming: Naming
    lists: Boundaries = field(default_factory=Boundaries)
    devices: tuple[str, ...] = ()
    programs: Programs = field(default_factory=Programs)
    sets: tuple[SetSpec, ...] = ()
    countings: Countings = field(default_factory=Countings)

    def predicate(self, predicate: Predicate) -> str:
        """A C expression that is true iff the predicate holds; it needs no parentheses around it."""
        match predicate:
            case Always(value):
                return "1" if value else "0"
            case Within(ref, values):
                return self._within(ref, values)
            case Compare(operator, left, right):
                return f"PS_COMPARE({self.term(left)}, {operator}, {self.term(right)})"
            case HeaderWalked():
                return self._walked(predicate)
            case Member():
                return self._member(predicate)
            case Classic():
                return self.programs.call(predicate, self.naming.length)
            case Over():
                return self.countings.over(predicate, self.naming)
            case Sample(_, one_in):
                return f"ps_sampled({CHANCES // one_in}U)"
            case Negation(operand):
                return f"!{self.predicate(operand)}"
            case All(operands):
                return self._joined(operands, " && ") or "1"
            case Any(operands):
                return self._joined(operands, " || ") or "0"
            case _:
                assert_never(predicate)

    def change(self, rule: Rule) -> str:
        """The statements by which a rule changes a set; empty for other rules."""
        if rule.target is None or not isinstance(rule.argument, Change):
            return ""
        guards, keys = target_of(rule.target)
        calls = [change_call(self.sets, one, rule.argument, self._key(one)) for one in keys]
        only = f"if ({self._joined(guards, ' && ')}) " if guards else ""
        return f"{only}{{ {' '.join(calls)} }}"

    def _member(self, member: Member) -> str:
        return f"{function_of(self.sets, member.set, member.bits)}({self._key(member)}, {self.naming.length})"

    def _key(self, member: Member) -> str:
        """The parts of a key, of IPv6 addresses their places."""
        fields = ((ref, self.naming.field(ref)) for ref in member.keys)
        return ", ".join(f"&{field}" if ref.field.bits == 128 else field for ref, field in fields)

    def _joined(self, operands: Sequence[Predicate], operator: str) -> str:
        return _either([self.predicate(operand) for operand in operands], operator)

    def _walked(self, walked: HeaderWalked) -> str:
        if walked.ipv4:
            return self._within(FieldRef("ip.proto", walked.scope), IntervalSet.single(51))
        headers = self.naming.field(FieldRef("ip6.headers", walked.scope))
        return f"ps_walked({headers}, {1 << EXTENSION_HEADERS[walked.number]})"

    def _within(self, ref: FieldRef, values: IntervalSet) -> str:
        values = values & IntervalSet.full(ref.field.bits)
        if not values:
            return "0"
        if ref.name == "len" and ref.scope:
            inside = self._within(FieldRef("len"), values)
            return f"({self.naming.view(ref.scope)}.exists && {inside})"
        if ref.field.bits == 128:
            return self._within128(ref, values)
        place = self.naming.field(ref)
        if len(values.intervals) == 1:
            return interval(place, values.intervals[0], ref)
        if len(values.intervals) > TREE:
            return self._searched(place, ref, values)
        kind = "__u64" if is_wide(ref) else "__u32"
        return f"({{ {kind} ps_x = {place}; {_search(values.intervals, ref)}; }})"

    def _searched(self, place: str, ref: FieldRef, values: IntervalSet) -> str:
        bits = ref.field.bits
        first, count = self.lists.add(values, bits)
        kind, width = ("__u64", 48) if bits > 32 else ("__u64" if is_wide(ref) else "__u32", 32)
        inside = f"ps_x <= {(1 << bits) - 1:#x}{'ULL' if is_wide(ref) else 'U'}"
        return f"({{ {kind} ps_x = {place}; {inside} && ps_within{width}(ps_x, {first}, {count}); }})"

    def _within128(self, ref: FieldRef, values: IntervalSet) -> str:
        place = self.naming.field(ref)
        if len(values.intervals) > CHAIN:
            first, count = self.lists.add(values, 128)
            inside = f"ps_within128({place}.hi, {place}.lo, {first}, {count})"
        else:
            inside = _either([interval128(place, one) for one in values], " || ")
        return f"({place}.present && {inside})"

    # ── terms ──

    def term(self, term: Term) -> str:
        """A C expression of type __u64: the number, or PS_ABSENT64."""
        match term:
            case Literal32(value):
                return f"{value}ULL"
            case FieldTerm(ref):
                return self._field_term(ref)
            case Read():
                return self._read(term)
            case Binary(operator, left, right):
                return f"ps_{_OPERATORS[operator]}({self.term(left)}, {self.term(right)})"
            case _:
                assert_never(term)

    def _field_term(self, ref: FieldRef) -> str:
        place = self.naming.field(ref)
        if ref.name == "len":
            length = f"(__u64){place}"
            return f"({self.naming.view(ref.scope)}.exists ? {length} : PS_ABSENT64)" if ref.scope else length
        return place if is_wide(ref) else f"ps_term({place})"

    def _read(self, read: Read) -> str:
        view, offset = self.naming.view(read.scope), self.term(read.offset)
        match read.base:
            case Base.FRAME:
                return f"ps_load(ctx, {view}.frame, {offset}, {read.size})"
            case Base.NETWORK:
                return f"ps_load(ctx, {view}.net, {offset}, {read.size})"
            case Base.TRANSPORT:
                return f"ps_load_transport(ctx, {view}.net, {view}.trans, {offset}, {read.size})"
            case _:
                assert_never(read.base)


def _either(parts: list[str], operator: str) -> str:
    return parts[0] if len(parts) == 1 else f"({operator.join(parts)})" if parts else ""


# ── intervals ────────────────────────────────────────────────────────────────


def interval(place: str, ends: Interval, ref: FieldRef) -> str:
    """One interval of a number, without asking for presence apart."""
    (low, high), suffix = ends, "ULL" if is_wide(ref) else "U"
    span = high - low
    if span == 0:
        return f"({place} == {low:#x}{suffix})"
    if low == 0:
        return f"({place} <= {high:#x}{suffix})"
    if is_wide(ref) and span & (span + 1) == 0 and low & span == 0:
        return f"(({place} & {_HALF ^ span:#x}ULL) == {low:#x}ULL)"
    return f"({place} - {low:#x}{suffix} <= {span:#x}{suffix})"


def _search(intervals: Sequence[Interval], ref: FieldRef) -> str:
    """Whether ps_x is in one of the intervals: compares in a row, or halving."""
    if len(intervals) <= CHAIN:
        return _either([interval("ps_x", one, ref) for one in intervals], " || ")
    middle = len(intervals) // 2
    suffix = "ULL" if is_wide(ref) else "U"
    left, right = _search(intervals[:middle], ref), _search(intervals[middle:], ref)
    return f"(ps_x < {intervals[middle][0]:#x}{suffix} ? {left} : {right})"


def interval128(place: str, ends: Interval) -> str:
    """One interval of an IPv6 address in two halves; whole prefixes need few compares."""
    low, high = ends
    low_high, low_low, high_high, high_low = low >> 64, low & _HALF, high >> 64, high & _HALF
    if low_low == 0 and high_low == _HALF:
        return _half(f"{place}.hi", low_high, high_high)
    if low_high == high_high:
        return f"({place}.hi == {low_high:#x}ULL && {_half(f'{place}.lo', low_low, high_low)})"
    above = f"({place}.hi > {low_high:#x}ULL || ({place}.hi == {low_high:#x}ULL && {place}.lo >= {low_low:#x}ULL))"
    below = f"({place}.hi < {high_high:#x}ULL || ({place}.hi == {high_high:#x}ULL && {place}.lo <= {high_low:#x}ULL))"
    return f"({above} && {below})"


def _half(place: str, low: int, high: int) -> str:
    if low == high:
        return f"({place} == {low:#x}ULL)"
    if low == 0 and high == _HALF:
        return "1"
    return f"({place} - {low:#x}ULL <= {high - low:#x}ULL)"
