"""The invariants of a rule set, checked after lowering and in tests.

A breach is a bug of penstock, never of a policy:

* a `Within` tests values of its field's domain, some but never none, merged and sorted;
* only `vlan.*` fields have an index, and only fields of at most 32 bits are terms;
* a `Read` is of 1, 2 or 4 bytes; a literal lies in 32 bits; a walked header is one that can be walked;
* `All` and `Any` are flat, have at least two operands and no `Always` among them;
* a classic program ends, jumps forwards and inside itself, and reads what it has written of its sixteen words;
* rule names are unique and not those of other counters; every condition has an entry;
* no rule looks deeper than `depth` says;
* an action has the argument that it needs and no other, one that changes a set its target;
* what keeps count or draws by chance stands once in a rule set, under a name of its own.
"""

from __future__ import annotations

from typing import assert_never

from penstock.compiler.ir.depth import countings, depth_of, members
from penstock.compiler.ir.ops import (
    All,
    Always,
    Any,
    Binary,
    Classic,
    Compare,
    Effect,
    FieldRef,
    FieldTerm,
    HeaderWalked,
    Literal32,
    Member,
    Negation,
    Over,
    Predicate,
    Read,
    RuleSet,
    Sample,
    Term,
    Within,
)
from penstock.errors import InternalError
from penstock.model.action import Change, Device, Dscp, Mark
from penstock.model.classic import MAX_INSTRUCTIONS, MEMORY_WORDS, RET, Program, loops, reads_unwritten
from penstock.model.field import EXTENSION_HEADERS, FIELDS, is_metadata
from penstock.model.limiter import MOST_SHARE
from penstock.model.net import merge_intervals
from penstock.model.verdict import Condition, Verdict

_ARGUMENTS: dict[Verdict | Effect, type] = {
    Verdict.REDIRECT: Device,
    Effect.MIRROR: Device,
    Effect.MARK: Mark,
    Effect.DSCP: Dscp,
    Effect.ADD: Change,
    Effect.REMOVE: Change,
}


def verify(rule_set: RuleSet) -> RuleSet:
    """The rule set itself, if every invariant holds.

    Raises:
        InternalError: one does not; the message names it and the rule.
    """
    names = [rule.name for rule in rule_set.rules]
    _must(len(set(names)) == len(names), "rule names are not unique", rule_set.name)
    _must(
        [condition for condition, _ in rule_set.conditions] == list(Condition),
        "not every odd-packet condition has one entry, in order",
        rule_set.name,
    )
    unknown = members(asked for rule in rule_set.rules for asked in rule.asked) - {
        spec.name for spec in rule_set.sets
    }
    _must(not unknown, f"asks sets that it does not have: {unknown}", rule_set.name)
    for rule in rule_set.rules:
        for asked in rule.asked:
            verify_predicate(asked, where=rule.name)
        wanted = _ARGUMENTS.get(rule.action, type(None))
        _must(isinstance(rule.argument, wanted), f"{rule.action.value} of {rule.argument}", rule.name)
        _must((rule.target is not None) == (wanted is Change), "a target without a change", rule.name)
    counting = [_name_of(test) for rule in rule_set.rules for test in countings([rule.condition])]
    _must(len(set(counting)) == len(counting), "two limiters or samples share a name", rule_set.name)
    deepest = depth_of(asked for rule in rule_set.rules for asked in rule.asked)
    for rule in rule_set.rules if deepest > rule_set.depth else ():
        deep_enough = depth_of(rule.asked) <= rule_set.depth
        _must(deep_enough, "looks deeper than the filter's depth", rule.name)
    return rule_set


def _name_of(test: Over | Sample) -> str:
    return test.limiter.name if isinstance(test, Over) else test.name


def _must(holds: bool, what: str, where: str) -> None:
    if not holds:
        raise InternalError(f"{where}: {what}")


def verify_predicate(predicate: Predicate, *, where: str = "expression") -> Predicate:
    """The predicate itself, if it is well formed; see `verify`."""
    pending: list[Predicate] = [predicate]
    while pending:
        node = pending.pop()
        match node:
            case All(operands) | Any(operands):
                _verify_operands(node, operands, where)
                pending.extend(operands)
            case Negation(operand):
                _must(not isinstance(operand, Always | Negation), "a negation that says nothing", where)
                pending.append(operand)
            case Within():
                _verify_within(node, where)
            case Compare(_, left, right):
                _verify_term(left, where)
                _verify_term(right, where)
            case HeaderWalked(number, _, ipv4):
                known = number == 51 if ipv4 else number in EXTENSION_HEADERS
                _must(known, f"{number} is no header that is walked over", where)
            case Classic(program):
                _verify_program(program, where)
            case Member() | Over() | Sample():
                _verify_kept(node, where)
            case Always():
                pass
            case _:
                assert_never(node)
    return predicate


def _verify_kept(node: Member | Over | Sample, where: str) -> None:
    match node:
        case Member(_, keys):
            _must(bool(keys), "a set is asked for nothing", where)
            for ref in keys:
                _verify_ref(ref, where)
        case Over(limiter, refs):
            _must(0 < limiter.share <= MOST_SHARE, "a rate beyond what is counted", where)
            for ref in refs:
                _verify_ref(ref, where)
        case Sample(_, one_in):
            _must(one_in > 1, "a sample of every packet", where)


def _verify_operands(node: All | Any, operands: tuple[Predicate, ...], where: str) -> None:
    _must(len(operands) >= 2, f"{type(node).__name__} of fewer than two operands", where)
    flat = not any(isinstance(operand, Always | type(node)) for operand in operands)
    _must(flat, f"{type(node).__name__} is not flat", where)


def _verify_program(program: Program, where: str) -> None:
    _must(0 < len(program) <= MAX_INSTRUCTIONS, "a classic program of no size that can be", where)
    targets = [target for at, one in enumerate(program) for target in one.jump_targets(at)]
    _must(not loops(program), "a classic program jumps backwards", where)
    _must(all(target < len(program) for target in targets), "a classic program jumps out of itself", where)
    _must(program[-1].kind == RET, "a classic program does not end", where)
    _must(not reads_unwritten(program), "a classic program reads memory before it writes it", where)
    _must(
        all((one.word or 0) < MEMORY_WORDS for one in program), "a classic program has a word too many", where
    )


def _verify_within(node: Within, where: str) -> None:
    _verify_ref(node.ref, where)
    intervals = node.values.intervals
    top = (1 << node.ref.field.bits) - 1
    if len(intervals) == 1 and 0 <= intervals[0][0] <= intervals[0][1] <= top:
        return  # As nearly all are.
    _must(bool(intervals), f"no value of {node.ref.name} is asked for", where)
    _must(merge_intervals(intervals) == intervals, f"intervals of {node.ref.name} are not merged", where)
    _must(all(low <= high for low, high in intervals), f"an interval of {node.ref.name} is empty", where)
    _must(
        intervals[0][0] >= 0 and intervals[-1][1] <= top, f"a value of {node.ref.name} beyond its bits", where
    )


def _verify_ref(ref: FieldRef, where: str) -> None:
    _must(ref.name in FIELDS or is_metadata(ref.name), f"no field {ref.name}", where)
    _must(not (ref.scope and is_metadata(ref.name)), f"{ref.name} of what a packet carries", where)
    if ref.index:
        _must(ref.name.startswith("vlan."), f"{ref.name} has an index", where)


def _verify_term(term: Term, where: str) -> None:

    match term:
        case Literal32(value):
            _must(0 <= value < 1 << 32, f"{value} has more than 32 bits", where)
        case FieldTerm(ref):
            _verify_ref(ref, where)
            _must(ref.field.bits <= 32, f"{ref.name} is wider than a term", where)
        case Read(_, offset, size, _):
            _must(size in (1, 2, 4), f"a read of {size} bytes", where)
            _verify_term(offset, where)
        case Binary(_, left, right):
            _verify_term(left, where)
            _verify_term(right, where)
        case _:
            assert_never(term)
