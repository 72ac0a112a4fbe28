"""A rule set in, a classic BPF program out, with the same verdict for every packet.

    compile_classic(rules).instructions[-1]     ->  ret #0

First everything that rules ask for is parsed, once; then odd packets are
decided; then the rules come in their order, each going on at the next where it
does not match.

Promised: the kernel's checks of classic programs accept it; no load can lie
beyond the packet, but for the headers in front of a socket's packet; the same
rules give the same program.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from penstock.compiler.classic.assemble import RET, K, Label
from penstock.compiler.classic.conditions import Judge, judged, parts_of
from penstock.compiler.classic.headers import parse
from penstock.compiler.classic.limits import refuse
from penstock.compiler.classic.needs import needs_of
from penstock.compiler.classic.packet import NONE, Code
from penstock.compiler.classic.start import Start
from penstock.compiler.classic.test import Tests
from penstock.compiler.classic.values import Values
from penstock.compiler.ir.depth import leaves
from penstock.compiler.ir.ops import (
    Binary,
    Compare,
    FieldRef,
    FieldTerm,
    Predicate,
    Read,
    Rule,
    RuleSet,
    Term,
    Within,
)
from penstock.errors import LimitError
from penstock.model.classic import MAX_INSTRUCTIONS, Instruction
from penstock.model.verdict import Condition, Verdict

#: How many bytes of a packet are kept, at most.
WHOLE, NOTHING = 0xFFFFFFFF, 0
#: Words of memory that the rules' arithmetic is left, and the fewest tests for which a field is kept in one.
_LEFT, _OFTEN = 3, 3


@dataclass(frozen=True, slots=True)
class ClassicProgram:
    """A program for packets that begin at `start`."""

    instructions: tuple[Instruction, ...]
    start: Start


def compile_classic(rules: RuleSet, start: Start = Start.FRAME) -> ClassicProgram:
    """The rules as classic BPF.

    Raises:
        PolicyError: with everything of them that classic BPF cannot say.
        LimitError: they need more instructions or memory than a program can have.
    """
    refuse(rules, start)
    code = Code(start)
    verdicts = {Verdict.PASS: code.label(), Verdict.DROP: code.label()}
    _write(code, rules, verdicts)
    for verdict, kept in ((Verdict.PASS, WHOLE), (Verdict.DROP, NOTHING)):
        code.place(verdicts[verdict])
        code.emit(RET | K, kept)
    instructions = code.finish()
    if len(instructions) > MAX_INSTRUCTIONS:
        raise _too_long(code, len(instructions))
    return ClassicProgram(instructions, start)


def _write(code: Code, rules: RuleSet, verdicts: dict[Verdict, Label]) -> None:
    code.owner = f"filter {rules.name}"
    conditions = [rule.condition for rule in rules.rules]
    malformed = judged(rules, code.start).get(Condition.MALFORMED)
    bad = verdicts[malformed] if malformed is not None else None
    headers = parse(code, needs_of(conditions, parts_of(rules, code.start)), bad)
    Judge(code, headers, rules, verdicts).write()
    values = Values(code, headers)
    _keep_often_asked(code, values, conditions)
    for rule in rules.rules:
        _write_rule(code, rule, values, verdicts)
    code.go(verdicts[rules.default])


def _write_rule(code: Code, rule: Rule, values: Values, verdicts: dict[Verdict, Label]) -> None:
    code.owner = f"rule {rule.name} (line {rule.line})"
    following = code.label()
    assert isinstance(rule.action, Verdict)
    Tests(values).test(rule.condition, verdicts[rule.action], following)
    code.place(following)


def _keep_often_asked(code: Code, values: Values, conditions: list[Predicate]) -> None:
    """Load fields that are asked for often once, as far as there is memory."""
    asked = Counter(ref for condition in conditions for ref in _refs(condition))
    for ref, times in asked.most_common():
        if times < _OFTEN or code.free_words <= _LEFT:
            return
        if ref.field.bits > 16 or ref.name in ("eth.type", "proto", "len"):
            continue
        absent, kept, word = code.label(), code.label(), code.word()
        values.field(ref, absent)
        code.go(kept)
        code.place(absent)
        code.constant(NONE)
        code.place(kept)
        code.keep(word)
        values.cached[ref] = word


def _refs(predicate: Predicate) -> Iterator[FieldRef]:
    for leaf, _ in leaves(predicate):
        match leaf:
            case Within(ref, _):
                yield ref
            case Compare(_, left, right):
                yield from _term_refs(left)
                yield from _term_refs(right)
            case _:
                pass


def _term_refs(term: Term) -> Iterator[FieldRef]:
    match term:
        case FieldTerm(ref):
            yield ref
        case Binary(_, left, right):
            yield from _term_refs(left)
            yield from _term_refs(right)
        case Read(_, offset, _, _):
            yield from _term_refs(offset)
        case _:
            pass


def _too_long(code: Code, length: int) -> LimitError:
    return LimitError(
        f"classic BPF takes {MAX_INSTRUCTIONS} instructions and these rules need {length}; "
        f"{code.owner_of(MAX_INSTRUCTIONS)} crosses the limit",
        limit="classic BPF instructions",
        hint="an eBPF filter has room for them: leave --classic out",
    )
