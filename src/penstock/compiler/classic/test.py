"""Predicates as jumps: to one label where they hold, to another where they do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import assert_never

from penstock.compiler.classic.assemble import JEQ, JGE, JGT, JSET, Label, X
from penstock.compiler.classic.carried import carry
from penstock.compiler.classic.values import Values
from penstock.compiler.ir.chain import AUTHENTICATION
from penstock.compiler.ir.headers import IPV4
from penstock.compiler.ir.ops import (
    All,
    Always,
    Any,
    Classic,
    Compare,
    HeaderWalked,
    Literal32,
    Member,
    Negation,
    Over,
    Predicate,
    Sample,
    Within,
)
from penstock.errors import InternalError
from penstock.model.field import EXTENSION_HEADERS
from penstock.model.net import Interval

_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
#: Operator -> the jump that decides it, and whether it decides the opposite.
_JUMPS = {
    "<": (JGE, True), "<=": (JGT, True), ">": (JGT, False), ">=": (JGE, False), "==": (JEQ, False), "!=": (JEQ, True),
}  # fmt: skip

#: What a first value leads to: a label, or further words that have to lie in one of these intervals.
_Outcome = Label | tuple[Interval, ...]
_Load = Callable[[], object]


@dataclass(slots=True)
class Tests:
    """Writes tests."""

    __test__ = False

    values: Values

    def test(self, predicate: Predicate, yes: Label, no: Label) -> None:
        """Go to `yes` if it holds, else to `no`; nothing comes behind."""
        code = self.values.code
        match predicate:
            case Always(value):
                code.go(yes if value else no)
            case Within():
                self._within(predicate, yes, no)
            case Compare():
                self._compare(predicate, yes, no)
            case HeaderWalked():
                self._walked(predicate, yes, no)
            case Member() | Over() | Sample():
                raise InternalError("what is kept beside the packet is asked, which `limits` refuses")
            case Classic(program):
                carry(code, program, yes, no)
            case Negation(operand):
                self.test(operand, no, yes)
            case All(operands):
                for operand in operands[:-1]:
                    following = code.label()
                    self.test(operand, following, no)
                    code.place(following)
                self.test(operands[-1], yes, no)
            case Any(operands):
                for operand in operands[:-1]:
                    following = code.label()
                    self.test(operand, yes, following)
                    code.place(following)
                self.test(operands[-1], yes, no)
            case _:
                assert_never(predicate)

    def _compare(self, compare: Compare, yes: Label, no: Label) -> None:
        code, operator, left, right = self.values.code, compare.operator, compare.left, compare.right
        if isinstance(left, Literal32):
            left, right, operator = right, left, _FLIPPED[operator]  # type: ignore[assignment]
        jump, opposite = _JUMPS[operator]
        targets = (no, yes) if opposite else (yes, no)
        self.values.term(left, no)
        if isinstance(right, Literal32):
            code.jump(jump, right.value, *targets)
            return
        with code.spare() as kept:
            code.keep(kept)
            self.values.term(right, no)
            code.to_x()
            code.recall(kept)
        code.jump(jump | X, 0, *targets)

    def _walked(self, walked: HeaderWalked, yes: Label, no: Label) -> None:
        code, headers = self.values.code, self.values.headers
        if walked.ipv4:
            code.recall(headers.word("type", walked.scope))
            code.unless(JEQ, IPV4, no)
            code.recall(headers.word("proto", walked.scope))
            code.jump(JEQ, AUTHENTICATION, yes, no)
            return
        # An absent mask has all bits, so it is asked for by itself.
        code.recall(headers.word("headers", walked.scope))
        code.when(JGE, 0x100, no)
        code.jump(JSET, 1 << EXTENSION_HEADERS[walked.number], yes, no)

    # ── intervals ────────────────────────────────────────────────────────────

    def _within(self, within: Within, yes: Label, no: Label) -> None:
        values, ref = self.values, within.ref
        if ref.field.bits <= 32:
            values.field(ref, no)
            self._search([], ref.field.bits, within.values.intervals, yes, no)
            return
        where, offset, size = values.locate(ref, no)
        ends = range(offset + size, offset, -4)
        places = [(max(end - 4, offset), min(4, end - offset)) for end in ends][::-1]
        loads: list[_Load] = [partial(values.code.read, where, at, size) for at, size in places]
        loads[0]()
        self._search(loads[1:], 8 * size, within.values.intervals, yes, no)

    def _search(
        self, more: list[_Load], bits: int, intervals: tuple[Interval, ...], yes: Label, no: Label
    ) -> None:
        """Whether the number of `bits` bits that begins with A lies in one of them; `more` loads its rest."""
        code, rest = self.values.code, 32 * len(more)
        pending: list[tuple[Label, tuple[Interval, ...]]] = []
        segments: list[tuple[int, Label]] = []
        for start, outcome in _segments(intervals, bits - rest, rest, yes, no):
            label = outcome
            if isinstance(label, tuple):
                pending.append((code.label(), label))
                label = pending[-1][0]
            if not segments or segments[-1][1] != label:
                segments.append((start, label))
        self._choose(segments, 1 << bits - rest)
        for label, inner in pending:
            code.place(label)
            more[0]()
            self._search(more[1:], rest, inner, yes, no)

    def _choose(self, segments: list[tuple[int, Label]], end: int) -> None:
        """A binary search: each segment reaches to the start of the next, the last to `end`."""
        code = self.values.code
        if len(segments) == 1:
            code.go(segments[0][1])
            return
        single = _single(segments, end)
        if single is not None:
            value, there, elsewhere = single
            code.jump(JEQ, value, there, elsewhere)
            return
        if len(segments) == 2:
            code.jump(JGE, segments[1][0], segments[1][1], segments[0][1])
            return
        half = len(segments) // 2
        above, below = code.label(), code.label()
        code.jump(JGE, segments[half][0], above, below)
        code.place(below)
        self._choose(segments[:half], segments[half][0])
        code.place(above)
        self._choose(segments[half:], end)


def _single(segments: list[tuple[int, Label]], end: int) -> tuple[int, Label, Label] | None:
    """The one value that leads elsewhere than all others, if that is so."""
    if len(segments) == 3 and segments[0][1] == segments[2][1] and segments[2][0] == segments[1][0] + 1:
        return segments[1][0], segments[1][1], segments[0][1]
    if len(segments) == 2 and segments[1][0] == segments[0][0] + 1:
        return segments[0][0], segments[0][1], segments[1][1]
    if len(segments) == 2 and segments[1][0] == end - 1:
        return segments[1][0], segments[1][1], segments[0][1]
    return None


def _segments(
    intervals: tuple[Interval, ...], bits: int, rest: int, yes: Label, no: Label
) -> list[tuple[int, _Outcome]]:
    """What each value of the first `bits` bits leads to, by where such values begin, from 0 on."""
    outcomes: dict[int, tuple[int, _Outcome]] = {}
    split: dict[int, list[Interval]] = {}
    mask = (1 << rest) - 1
    for low, high in intervals:
        first, last = low >> rest, high >> rest
        if first == last and (low & mask, high & mask) != (0, mask):
            split.setdefault(first, []).append((low & mask, high & mask))
            continue
        if low & mask:
            split.setdefault(first, []).append((low & mask, mask))
            first += 1
        if high & mask != mask:
            split.setdefault(last, []).append((0, high & mask))
            last -= 1
        if first <= last:
            outcomes[first] = (last, yes)
    outcomes |= {value: (value, tuple(inner)) for value, inner in split.items()}
    return _covering(outcomes, bits, no)


def _covering(outcomes: dict[int, tuple[int, _Outcome]], bits: int, no: Label) -> list[tuple[int, _Outcome]]:
    """The same without gaps."""
    found: list[tuple[int, _Outcome]] = []
    at = 0
    for start in sorted(outcomes):
        if start > at:
            found.append((at, no))
        last, outcome = outcomes[start]
        found.append((start, outcome))
        at = last + 1
    if at < 1 << bits:
        found.append((at, no))
    return found
